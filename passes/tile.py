"""Place every op on the target: macro, vector unit or, where asked for, host.

before   %a : i32[1,16,8,8] = conv %x, %w, _ {...}
         %b : i8[1,16,8,8]<0.5,0> = requant %a, %m, _ {..., layer="a"}
after    layer %a macro [%a, %b] { dims g=1 n=1 k=16 c=3 p=8 q=8 r=3 s=3 }

Ops that name the heavy op they run with (`fuse-layers`) join its layer; layers come in an order in
which each follows those it reads. Ops that the target cannot do are reported together, by the names
of their ONNX nodes.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Mapping

from cimc.errors import Fault, InternalError, UnsupportedError, raise_if
from cimc.ir.graph import Graph, Op, operands
from cimc.ir.tiles import Layer, Nest, Tiles
from cimc.kind import load_kind
from cimc.lowering import conv_shape
from cimc.pipeline.passes import compiler_pass
from cimc.target import Target

UNSUPPORTED = "CIM1203"


@compiler_pass("tile")
def tile(graph: Graph, *, target: Target, host_fallback: bool = False) -> Tiles:
    """Place each op and give each heavy one its loop nest."""
    places = _places(graph, target, host_fallback)
    members: dict[str, list[Op]] = {}
    for op in graph.ops:
        if op.out.name in places:
            leader = op.layer if places.get(op.layer) == "macro" else op.out.name
            if places[op.out.name] in ("macro", "host"):
                leader = op.out.name
            members.setdefault(leader, []).append(op)
    layers = [_layer(leader, ops, places[leader]) for leader, ops in members.items()]
    return Tiles(target.name, graph, _ordered(graph, layers))


def _places(graph: Graph, target: Target, host_fallback: bool) -> dict[str, str]:
    kind = load_kind(target.kind)
    places: dict[str, str] = {}
    faults: list[Fault] = []
    for op in graph.ops:
        if op.mnemonic in ("input", "constant"):
            continue
        place = kind.place(op, graph, target)
        if not isinstance(place, Fault):
            places[op.out.name] = place
        elif host_fallback:
            places[op.out.name] = "host"
        else:
            faults.append(named_fault(place, op))
    raise_if(faults, UnsupportedError)
    return places


def named_fault(fault: Fault, op: Op) -> Fault:
    """`fault` with the ONNX nodes that `op` stands for, its types, and the way around it."""
    types = ", ".join(str(value.type) for value in operands(op))
    shown = f"{', '.join(op.nodes) or op.out}   ({op.mnemonic}, input {types})"
    ways = [way for way in (fault.help, "--host-fallback") if way]
    return dataclasses.replace(
        fault,
        code=fault.code or UNSUPPORTED,
        node=fault.node or shown,
        help=" | ".join(ways),
    )


def _layer(name: str, ops: list[Op], place: str) -> Layer:
    nest = Nest(conv_shape(ops[0]).dims) if place == "macro" else None
    return Layer(name, place, tuple(op.out.name for op in ops), nest)


def _ordered(graph: Graph, layers: list[Layer]) -> tuple[Layer, ...]:
    """Layers such that each follows those it reads; otherwise in the graph's order."""
    owner = {name: place for place, layer in enumerate(layers) for name in layer.ops}
    before: list[set[int]] = [set() for _ in layers]
    for op in graph.ops:
        if op.out.name in owner:
            reads = {owner[value.name] for value in operands(op) if value.name in owner}
            before[owner[op.out.name]] |= reads - {owner[op.out.name]}
    return tuple(layers[place] for place in _topological(before, layers))


def _topological(before: list[set[int]], layers: list[Layer]) -> list[int]:
    missing = {place: len(reads) for place, reads in enumerate(before)}
    readers: Mapping[int, list[int]] = {place: [] for place in missing}
    for place, reads in enumerate(before):
        for read in reads:
            readers[read].append(place)
    ready = [place for place, count in missing.items() if not count]
    order: list[int] = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in readers[place]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(layers):
        stuck = sorted(set(missing) - set(order))
        raise InternalError(
            Fault(
                "layers read each other in a circle",
                have=", ".join(f"%{layers[place].name}" for place in stuck),
                code="CIM9012",
            )
        )
    return order
