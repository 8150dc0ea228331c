"""Work a factor and a shift per output channel into a convolution or matrix product."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np

from cimc.ir import ops
from cimc.ir.graph import Graph, Value
from cimc.ir.rewrite import Rewrite, with_nodes
from cimc.passes._weights import Floats, Weights, put, put_float, weights_of

Heavy: TypeAlias = ops.Conv | ops.ConvTranspose | ops.Matmul


def channels(op: Heavy) -> int:
    """Number of output channels."""
    return op.out.shape[-1 if isinstance(op, ops.Matmul) else 1]


def weight_value(op: Heavy) -> Value:
    """The operand that holds the weights."""
    return op.b if isinstance(op, ops.Matmul) else op.w


def weight_axis(op: Heavy) -> int:
    """The axis of the weights along which output channels lie."""
    if isinstance(op, ops.Matmul):
        return len(op.b.shape) - 1
    return 1 if isinstance(op, ops.ConvTranspose) else 0


def used_once(graph: Graph) -> set[str]:
    """Names of the values that exactly one op reads and that are no outputs."""
    outputs = {value.name for value in graph.outputs}
    users = graph.users().items()
    return {name for name, ops_ in users if len(ops_) == 1 and name not in outputs}


def absorbed(
    new: Rewrite, op: Heavy, factor: Floats, shift: Floats, out: Value, nodes: tuple[str, ...]
) -> Heavy | None:
    """The op that computes factor * op + shift per output channel; None if the weights forbid it.

    The op must compute on real numbers. Weights that are integers with scales stay integers.
    """
    if op.out.type.is_integer:
        return None
    count = channels(op)
    factor, shift = np.broadcast_to(factor, count), np.broadcast_to(shift, count)
    value, name = weight_value(op), f"{out.name}.weight"
    if (factor != 1).any():
        weights = weights_of(new, value)
        scaled = weights and weights.scaled(_spread(op, factor))
        put_back = scaled and put(new, scaled, name, weight_axis(op))
        if not put_back:
            return None
        value = put_back
    bias = _bias(new, op, factor, shift, f"{out.name}.bias")
    if op.bias is not None and bias is None:
        return None
    moved: Heavy
    if isinstance(op, ops.Matmul):
        moved = replace(op, out=out, b=value, bias=bias)
    else:
        moved = replace(op, out=out, w=value, bias=bias)
    return with_nodes(moved, nodes)


def _spread(op: Heavy, factor: Floats) -> Floats:
    """One factor per output channel, shaped to multiply the weights."""
    if isinstance(op, ops.Matmul):
        return factor
    if isinstance(op, ops.Conv):
        return factor.reshape(-1, *(1,) * (len(op.w.shape) - 1))
    rows = np.repeat(factor.reshape(op.group, -1), op.w.shape[0] // op.group, axis=0)
    return rows.reshape(*rows.shape, *(1,) * (len(op.w.shape) - 2))


def _bias(new: Rewrite, op: Heavy, factor: Floats, shift: Floats, name: str) -> Value | None:
    """The bias times factor plus shift; None where it is none, or computed at run time."""
    if op.bias is None:
        return put_float(new, shift, name) if shift.any() else None
    held = weights_of(new, op.bias)
    if held is None or (held.elements.size != factor.size and (factor != 1).any()):
        return None
    if not shift.any():
        scaled: Weights | None = held.scaled(factor.reshape(held.elements.shape))
        if (factor == 1).all():
            return op.bias
        kept = scaled and put(new, scaled, name, held.elements.ndim - 1)
        if kept:
            return kept
    total = held.real.astype(np.float64) * factor + shift
    return put_float(new, total.astype(np.float32), name)
