"""Make weights ternary: {-a, 0, +a}, by the rule of ternary weight networks. Lossy.

before   %w : f32[16,3,3,3] = dequantize %wi, ...       (or a constant of floats)
         %y : f32[1,16,8,8] = conv %x, %w, %b ...
after    %w.ternary.integers : i2[16,3,3,3] = constant ...
         %w.ternary : f32[16,3,3,3] = dequantize %w.ternary.integers, %w.ternary.scale, _ {axis=0}
         %y : f32[1,16,8,8] = conv %x, %w.ternary, %b ...

Weights that are ternary already keep their values. `layers` "inner" leaves the first and the last
layer with weights as they are; `scale` says whether each output channel has its own magnitude.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cimc.errors import Fault, UsageError
from cimc.frontend.ternary import TernaryRule, spread, ternary
from cimc.ir import ops
from cimc.ir.graph import Graph
from cimc.ir.rewrite import Rewrite
from cimc.passes._absorb import Heavy, weight_axis, weight_value
from cimc.passes._weights import Weights, put, weights_of
from cimc.pipeline.passes import graph_pass


@graph_pass("ternarize")
def ternarize(graph: Graph, *, layers: str = "all", scale: str = "channel") -> Graph:
    """Replace the weights of float convolutions and matrix products by ternary ones."""
    if layers not in ("all", "inner") or scale not in ("channel", "tensor"):
        raise UsageError(
            Fault(
                "pass ternarize: unknown option",
                need="layers all or inner, scale channel or tensor",
                have=f"layers {layers}, scale {scale}",
                code="CIM2075",
            )
        )
    names = _weighted(graph)
    rule = TernaryRule("inner" if layers == "inner" else "all")
    chosen = {names[place] for place in rule.chosen(len(names))}
    new = Rewrite(graph)
    for old in graph.ops:
        op = new.current(old)
        if isinstance(op, ops.Conv | ops.ConvTranspose | ops.Matmul) and op.out.name in chosen:
            op = _ternary(new, op, scale)
        new.add(op)
    return new.finish()


def _weighted(graph: Graph) -> list[str]:
    """Results of the float convolutions and products with constant weights, in order."""
    known, names = Rewrite(graph), []
    for op in graph.ops:
        if isinstance(op, ops.Conv | ops.ConvTranspose | ops.Matmul):
            is_real = not op.out.type.is_integer
            if is_real and weights_of(known, weight_value(op)) is not None:
                names.append(op.out.name)
        known.add(op)
    return names


def _ternary(new: Rewrite, op: Heavy, scale: str) -> Heavy:
    """The op with ternary weights."""
    value, axis = weight_value(op), weight_axis(op)
    held = weights_of(new, value)
    assert held is not None
    real = held.real
    others = tuple(i for i in range(real.ndim) if i != axis)
    most = np.abs(real).max(axis=others, initial=0)
    if np.isin(np.abs(real) / spread(np.where(most > 0, most, 1), axis, real.ndim), (0, 1)).all():
        signs, magnitude = np.sign(real).astype(np.int8), np.where(most > 0, most, 1)
    else:
        signs, magnitude = ternary(real, axis, scale)
    scales = np.broadcast_to(spread(magnitude.astype(np.float32), axis, real.ndim), real.shape)
    zeros = np.broadcast_to(np.zeros((), np.int32), real.shape)
    weights = Weights(signs, "i2", scales, zeros, held.nodes)
    made = put(new, weights, f"{value.name}.ternary", axis)
    assert made is not None
    return replace(op, b=made) if isinstance(op, ops.Matmul) else replace(op, w=made)
