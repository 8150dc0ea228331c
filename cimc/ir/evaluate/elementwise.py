"""Changes of representation, and functions of single elements."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, InternalError
from cimc.ir import ops
from cimc.ir.evaluate.functions import BINARY, UNARY
from cimc.ir.evaluate.numbers import converted, dequantized, quantized, real, typed, zero_of
from cimc.ir.evaluate.registry import Held, meaning
from cimc.ir.graph import Value
from cimc.ir.types import Array, int_range, numpy_dtype

Number = TypeVar("Number", bound=np.number)


def along(array: NDArray[Number], axis: int | None, rank: int) -> NDArray[Number]:
    """A vector shaped to broadcast along `axis`; a single element for any axis."""
    if array.size == 1 or axis is None:
        return array.reshape(())
    return array.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _zero(op: ops.Quantize | ops.Dequantize, held: Held) -> NDArray[np.int64] | np.int64:
    if op.zero is None:
        return np.int64(0)
    return along(held[op.zero.name].astype(np.int64), op.axis, len(op.x.shape))


@meaning(ops.Quantize)
def quantize(op: ops.Quantize, held: Held) -> Array:
    """Round half to even."""
    x, rank = held[op.x.name], len(op.x.shape)
    scale = along(held[op.scale.name], op.axis, rank)
    return quantized(x, scale, _zero(op, held), op.out.type.dtype)


@meaning(ops.Dequantize)
def dequantize(op: ops.Dequantize, held: Held) -> Array:
    """One float32 product."""
    x, rank = held[op.x.name], len(op.x.shape)
    scale = along(held[op.scale.name], op.axis, rank)
    return typed(dequantized(x, scale, _zero(op, held)), op.out.type)


@meaning(ops.Requant)
def requant(op: ops.Requant, held: Held) -> Array:
    """Float32 product and rint, or 64-bit product and shift."""
    x, rank = held[op.x.name], len(op.x.shape)
    multiplier, zero = along(held[op.multiplier.name], op.axis, rank), zero_of(op.out.type)
    if op.shift is None:
        steps = np.rint(x.astype(np.float32) * multiplier).astype(np.float64)
    else:
        shift = along(held[op.shift.name].astype(np.int64), op.axis, rank)
        half = np.where(shift > 0, np.left_shift(1, np.maximum(shift - 1, 0)), 0)
        steps = np.right_shift(x.astype(np.int64) * multiplier.astype(np.int64) + half, shift)
    return np.asarray(np.clip(steps + zero, op.low, op.high)).astype(numpy_dtype(op.out.type.dtype))


@meaning(ops.Cast)
def cast(op: ops.Cast, held: Held) -> Array:
    """NumPy's astype; quantized operands give the real numbers they stand for."""
    return typed(real(held[op.x.name], op.x.type), op.out.type)


@meaning(ops.Unary)
def unary(op: ops.Unary, held: Held) -> Array:
    """One function of every element."""
    x = real(held[op.x.name], op.x.type)
    return typed(np.asarray(UNARY[op.fn](x, op.alpha, op.beta)), op.out.type)


@meaning(ops.Lut)
def lut(op: ops.Lut, held: Held) -> Array:
    """Look every element up."""
    low, _ = int_range(op.x.type.dtype)
    return np.asarray(held[op.table.name][held[op.x.name].astype(np.int64) - low])


@meaning(ops.Binary)
def binary(op: ops.Binary, held: Held) -> Array:
    """One function of two broadcast operands, clamped where an activation was fused."""
    a, b = (real(held[value.name], value.type) for value in (op.a, op.b))
    out = typed(np.asarray(BINARY[op.fn](a, b)), op.out.type)
    if op.low is None and op.high is None:
        return out
    low, high = int_range(op.out.type.dtype)
    low = low if op.low is None else op.low
    high = high if op.high is None else op.high
    return np.asarray(np.clip(out, low, high)).astype(out.dtype)


@meaning(ops.Where)
def where(op: ops.Where, held: Held) -> Array:
    """Choose element by element; quantized operands are brought to out's type."""

    def chosen(value: Value) -> Array:
        return converted(held[value.name], value.type, op.out.type)

    condition = held[op.condition.name]
    if condition.dtype != np.bool_:
        raise InternalError(Fault(f"{op.out}: where", need="a bool condition"))
    return np.where(condition, chosen(op.a), chosen(op.b))
