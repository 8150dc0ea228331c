"""Let ops that only touch each element of a heavy op's result run with it.

before   %a : i32[1,16,8,8] = conv ...
         %b : i8[1,16,8,8]<0.1,0> = requant %a, ...
         %c : i8[1,16,8,8]<0.2,0> = binary %b, %x {fn="add"}
after    %b : ... = requant %a, ... {layer="a"}
         %c : ... = binary %b, %x {layer="a", fn="add"}

Values do not change. An op joins if nobody else reads what it continues, and if all else that it
reads is there before: of two heavy ops that meet in an add, the later one takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, operands
from cimc.lowering import can_fuse
from cimc.passes._absorb import used_once
from cimc.pipeline.passes import graph_pass


@dataclass(slots=True)
class _Layer:
    """A heavy op and the names of what its layer made so far, the last one at the end."""

    heavy: Op
    place: int
    made: list[str] = field(default_factory=list)


@graph_pass("fuse-layers")
def fuse_layers(graph: Graph) -> Graph:
    """Note on each op that can ride on a heavy op in which layer it runs."""
    once = used_once(graph)
    layers: dict[str, _Layer] = {}  # by the name of the last value made
    fused: list[Op] = []
    for place, old in enumerate(graph.ops):
        op = replace(old, layer="")
        if isinstance(op, ops.Conv | ops.Matmul):
            layers[op.out.name] = _Layer(op, place, [op.out.name])
        else:
            layer = _joined(op, layers, once)
            if layer is not None:
                op = replace(op, layer=layer.heavy.out.name)
                layers[op.out.name] = layers.pop(layer.made[-1])
                layer.made.append(op.out.name)
        fused.append(op)
    return replace(graph, ops=tuple(fused))


def _joined(op: Op, layers: dict[str, _Layer], once: set[str]) -> _Layer | None:
    """The latest layer whose last value the op continues and that can take it."""
    read = {value.name for value in operands(op)}
    near = [layers[name] for name in read if name in layers and name in once]
    fitting = [layer for layer in near if can_fuse(op, layer.heavy, layer.made)]
    return max(fitting, key=lambda layer: layer.place, default=None)
