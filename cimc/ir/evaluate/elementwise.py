"""Changes of representation, and functions of single elements."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, InternalError
from cimc.ir import ops
from cimc.ir.evaluate.functions import BINARY, UNARY
from cimc.ir.evaluate.numbers import (
    Numbers,
    converted,
    dequantized,
    fused_multiply_add,
    quantized,
    real,
    requantized,
    typed,
    zero_of,
)
from cimc.ir.evaluate.registry import Held, meaning
from cimc.ir.graph import Value
from cimc.ir.types import Array, Type, int_range, numpy_dtype

Number = TypeVar("Number", bound=np.number)


def scale_and_zero(kind: Type) -> tuple[np.float32, np.float32]:
    """Scale and zero point of a quantized type as float32."""
    assert kind.quant is not None
    return np.float32(kind.quant.scale), np.float32(kind.quant.zero)


def same_byte(types: tuple[Type, ...]) -> bool:
    """True where all are quantized to the same 8-bit type: onnxruntime then fuses the op."""
    same = all(kind.dtype == types[0].dtype and kind.quant is not None for kind in types)
    return same and types[0].dtype in ("i8", "u8")


def saturated(steps: NDArray[np.float32], kind: Type) -> Array:
    """Rounded half to even, clamped to the type's range; the zero point is already in."""
    low, high = int_range(kind.dtype)
    return np.asarray(np.clip(np.rint(steps), low, high)).astype(numpy_dtype(kind.dtype))


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
    """Exact gain and bias, then float32 product and rint, or 64-bit product and shift."""
    x, rank = held[op.x.name], len(op.x.shape)
    total: NDArray[np.int64] = x.astype(np.int64)
    if op.gain is not None:
        gain: NDArray[np.int64] = held[op.gain.name].astype(np.int64)
        total = total * along(gain, op.axis, rank)
    if op.bias is not None:
        bias: NDArray[np.int64] = held[op.bias.name].astype(np.int64)
        total = total + along(bias, op.axis, rank)
    multiplier = along(held[op.multiplier.name], op.axis, rank)
    shift = None
    if op.shift is not None:
        shift = along(held[op.shift.name].astype(np.int64), op.axis, rank)
    sums = total.astype(np.int32)  # an accumulator wraps
    out = requantized(sums, multiplier, shift, zero_of(op.out.type), op.low, op.high)
    return out.astype(numpy_dtype(op.out.type.dtype))


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


def quantized_add(a: Numbers, b: Numbers, types: tuple[Type, Type, Type]) -> Array:
    """round(ra*a + (rb*b + rest)) with ra, rb = scale of the operand / scale of the result.

    This order, with a fused multiply-add in each step, is what onnxruntime's QLinearAdd computes on
    x86; `rest` gathers the three zero points.
    """
    (sa, za), (sb, zb), (so, zo) = (scale_and_zero(kind) for kind in types)
    ra, rb = sa / so, sb / so
    rest = zo - fused_multiply_add(np.asarray(za), ra, rb * zb)
    steps = fused_multiply_add(a, ra, fused_multiply_add(b, rb, np.float32(rest)))
    return saturated(steps, types[2])


def quantized_mul(a: Numbers, b: Numbers, types: tuple[Type, Type, Type]) -> Array:
    """round((a - za)*(b - zb) * (sa*sb/so) + zo), as onnxruntime's QLinearMul on x86."""
    (sa, za), (sb, zb), (so, zo) = (scale_and_zero(kind) for kind in types)
    product = (a.astype(np.int32) - np.int32(za)) * (b.astype(np.int32) - np.int32(zb))
    return saturated(product.astype(np.float32) * (sa * sb / so) + zo, types[2])


def combined(
    fn: str,
    a: Numbers,
    b: Numbers,
    types: tuple[Type, Type, Type],
    low: int | None,
    high: int | None,
) -> Array:
    """fn(a, b) with `types` of a, b and the result, clamped where an activation was fused."""
    if fn in ("add", "mul") and same_byte(types):
        fused = quantized_add if fn == "add" else quantized_mul
        out = fused(a, b, types)
    else:
        out = typed(np.asarray(BINARY[fn](real(a, types[0]), real(b, types[1]))), types[2])
    if low is None and high is None:
        return out
    lowest, highest = int_range(types[2].dtype)
    low = lowest if low is None else low
    high = highest if high is None else high
    return np.asarray(np.clip(out, low, high)).astype(out.dtype)


@meaning(ops.Binary)
def binary(op: ops.Binary, held: Held) -> Array:
    """One function of two broadcast operands."""
    types = (op.a.type, op.b.type, op.out.type)
    return combined(op.fn, held[op.a.name], held[op.b.name], types, op.low, op.high)


@meaning(ops.Where)
def where(op: ops.Where, held: Held) -> Array:
    """Choose element by element; quantized operands are brought to out's type."""

    def chosen(value: Value) -> Array:
        return converted(held[value.name], value.type, op.out.type)

    condition = held[op.condition.name]
    if condition.dtype != np.bool_:
        raise InternalError(Fault(f"{op.out}: where", need="a bool condition"))
    return np.where(condition, chosen(op.a), chosen(op.b))
