"""Between integers and the real numbers they stand for, in float32 as onnxruntime does it."""

from __future__ import annotations

from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from cimc.ir.types import Array, Type, int_range, numpy_dtype

Float32: TypeAlias = NDArray[np.float32]
# Any type with arithmetic; the maths of an op works on float32, float64 or integers alike.
Numbers: TypeAlias = NDArray[np.number]


def real(array: Array, kind: Type) -> Numbers:
    """What `array` stands for: float32 where it is quantized or float16, itself otherwise."""
    if kind.quant is not None:
        return dequantized(array, np.float32(kind.quant.scale), np.int64(kind.quant.zero))
    return cast(Numbers, array.astype(np.float32) if kind.dtype == "f16" else array)


def typed(array: Array, kind: Type) -> Array:
    """Real numbers as elements of `kind`: rounded half to even and saturated where quantized."""
    if kind.quant is not None:
        scale, zero = np.float32(kind.quant.scale), np.int64(kind.quant.zero)
        return quantized(array, scale, zero, kind.dtype)
    return array.astype(numpy_dtype(kind.dtype), copy=False)


def less_zero(array: Numbers, kind: Type) -> Numbers:
    """Integers with their zero point taken off, 64 bits wide; floats as they are."""
    return array.astype(np.int64) - zero_of(kind) if kind.is_integer else array


def converted(array: Array, before: Type, after: Type) -> Array:
    """The same real numbers in another type; nothing happens where both types are equal."""
    if before.quant == after.quant and before.dtype == after.dtype:
        return array
    return typed(real(array, before), after)


def dequantized(
    array: Array, scale: Numbers | np.float32, zero: NDArray[np.int64] | np.int64
) -> Float32:
    """(q - zero) * scale; `scale` and `zero` broadcast against `array`."""
    return (array.astype(np.int64) - zero).astype(np.float32) * np.asarray(scale, np.float32)


def quantized(
    array: Array, scale: Numbers | np.float32, zero: NDArray[np.int64] | np.int64, dtype: str
) -> Array:
    """saturate(round_half_even(x / scale) + zero); the division is one float32 division."""
    low, high = int_range(dtype)
    steps = np.rint(array.astype(np.float32) / np.asarray(scale, np.float32)).astype(np.float64)
    return np.asarray(np.clip(steps + zero, low, high)).astype(numpy_dtype(dtype))


def requantized(
    sums: Numbers,
    multiplier: Numbers,
    shift: NDArray[np.int64] | None,
    zero: int,
    low: int,
    high: int,
) -> Numbers:
    """Exact sums brought to few bits: float32 product and rint, or 64-bit product and shift."""
    if shift is None:
        steps: Numbers = np.rint(sums.astype(np.float32) * multiplier).astype(np.float64)
    else:
        half = np.where(shift > 0, np.left_shift(1, np.maximum(shift - 1, 0)), 0)
        steps = np.right_shift(sums.astype(np.int64) * multiplier.astype(np.int64) + half, shift)
    return np.asarray(np.clip(steps + zero, low, high))


def zero_of(kind: Type) -> int:
    """Zero point of a type; 0 where it is not quantized."""
    return kind.quant.zero if kind.quant is not None else 0


def rescaled(total: Numbers, scale: Numbers | np.float32, kind: Type) -> Array:
    """Exact integer sums as elements of `kind`: saturate(rint(f32(total) * scale) + zero)."""
    low, high = int_range(kind.dtype)
    steps = np.rint(total.astype(np.float32) * scale).astype(np.float64)
    return np.asarray(np.clip(steps + zero_of(kind), low, high)).astype(numpy_dtype(kind.dtype))


def fused_multiply_add(x: Numbers, y: np.float32, z: Float32 | np.float32) -> Float32:
    """x * y + z rounded once, for |x| < 2**17: the float64 product is exact."""
    return (x.astype(np.float64) * np.float64(y) + np.float64(z)).astype(np.float32)


def element(number: float, kind: Type) -> Array:
    """One real number as an element of `kind` (a padding value, a bound)."""
    return typed(np.array(number, np.float32), Type(kind.dtype, (), kind.quant))
