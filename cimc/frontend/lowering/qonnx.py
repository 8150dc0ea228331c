"""QONNX: quantization to any number of bits, from floats to floats.

    Quant     q = round(clip(x / scale + zeropt, low, high));  y = (q - zeropt) * scale
    Bipolar   q = +1 where x >= 0, else -1;                    y = q * scale
    Trunc     q = round(round(x / scale + zeropt) / 2^drop);   y = (q - zeropt) * scale

Each becomes quantize and dequantize in the narrowest element type that holds q, with a clip where q
has fewer values than that type. Where rounding or a zero point makes more of it than one quantize,
the formula stands before them in float ops, and they only find q again. Weights become integers.
Definitions: the operators' pages and reference code in the QONNX project.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cimc.frontend import codes
from cimc.frontend.lowering.registry import lowers
from cimc.frontend.lowering.site import Bound, Site
from cimc.frontend.reader import QONNX_DOMAINS
from cimc.ir import ops
from cimc.ir.graph import Value
from cimc.ir.types import Array, Quant, Type, bits_of, int_range, numpy_dtype

MOST_BITS = 32
_SIGNED, _UNSIGNED = ("i2", "i4", "i8", "i16", "i32"), ("u2", "u4", "u8", "u16", "u32")
_ROUNDINGS = {"ROUND": "HALF_EVEN"}  # names that mean the same
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Codes:
    """The integers of a quantized tensor: their range, scale and zero point, maybe along `axis`."""

    low: int
    high: int
    scale: Floats  # of one element, or one for each place on `axis`
    zero: NDArray[np.int64]
    axis: int | None

    @property
    def dtype(self) -> str:
        """The narrowest element type that holds the integers and the zero points."""
        low, high = min(self.low, int(self.zero.min())), max(self.high, int(self.zero.max()))
        names = _SIGNED if low < 0 else _UNSIGNED
        return next((name for name in names if _holds(name, low, high)), names[-1])

    @property
    def is_whole(self) -> bool:
        """True where every value of the element type is used."""
        return (self.low, self.high) == int_range(self.dtype)

    def spread(self, array: Array, rank: int) -> Array:
        """A vector along `axis`, or a single number, shaped to broadcast."""
        if self.axis is None:
            return array.reshape(())
        return array.reshape([-1 if axis == self.axis else 1 for axis in range(rank)])


def _holds(dtype: str, low: int, high: int) -> bool:
    lowest, highest = int_range(dtype)
    return lowest <= low and high <= highest


def _in_domains(
    *op_types: str, note: str
) -> Callable[[Callable[[Site], None]], Callable[[Site], None]]:
    """Decorator: the function lowers these operators in each of QONNX's domains."""

    def add(function: Callable[[Site], None]) -> Callable[[Site], None]:
        for domain in QONNX_DOMAINS:
            lowers(*op_types, domain=domain, note=note)(function)
        return function

    return add


@_in_domains(
    "Quant",
    "IntQuant",
    note="1 to 32 bits; scale per tensor or along one axis; weights become integers",
)
def quant(site: Site) -> None:
    """Operands x, scale, zeropt, bitwidth."""
    bits = _bits(site, 3)
    signed, narrow = bool(site.attr_int("signed", 1)), bool(site.attr_int("narrow", 1))
    rounding = _rounding(site, "ROUND")
    is_sign = bits == 1 and signed
    low, high = (-1, 1) if is_sign else limits(bits, signed, narrow)
    held = _codes(site, low, high)
    _emit(site, held, "SIGN" if is_sign else rounding)


@_in_domains("BipolarQuant", note="-1 and +1; scale per tensor or along one axis")
def bipolar_quant(site: Site) -> None:
    """Operands x, scale."""
    _emit(site, _codes(site, -1, 1, has_zero=False), "SIGN", is_scaled=False)


@_in_domains("Trunc", note="both versions; constant bit widths")
def trunc(site: Site) -> None:
    """Operands x, scale, zeropt, input bits, (version 2: output scale,) output bits."""
    rounding = _rounding(site, "FLOOR")
    second = len(site.inputs) > 5
    given = _codes(site, 0, 1)
    if given.axis is not None:
        site.refuse(f"{site.op_type} needs one scale", have=str(site.kind(1)))
    bits = _bits(site, 5 if second else 4)
    scale, zero = float(given.scale.flat[0]), int(given.zero.flat[0])
    if second:
        step = 2.0 ** round(math.log2(_positive(site, 4) / scale))
        signed, narrow = bool(site.attr_int("signed", 1)), bool(site.attr_int("narrow", 0))
        low, high = limits(bits, signed, narrow)
        out_scale, out_zero = _positive(site, 4), zero / step
    else:
        step = 2.0 ** (_bits(site, 3) - bits)
        low, high = -(2**bits), 2**bits - 1  # no attribute says whether it is signed
        out_scale, out_zero = scale, float(zero)
    if out_zero != int(out_zero):
        site.refuse(f"{site.op_type} makes a zero point that is no integer", have=f"{out_zero:g}")
    x = site.value()
    y = _apply(site, x, "div", scale)
    y = _apply(site, y, "add", zero)
    y = site.emit(ops.Unary(site.fresh("rounded", x.type), y, "round"))
    y = _apply(site, y, "div", step)
    if second:
        y = site.emit(ops.Unary(site.fresh("clipped", x.type), y, "clip", low, high))
    y = _rounded(site, y, rounding)
    y = _apply(site, y, "sub", out_zero)
    y = _apply(site, y, "mul", out_scale)
    one, origin = np.array([out_scale], np.float32), np.array([int(out_zero)])
    _emit_pair(site, y, Codes(low, high, one, origin, None))


def limits(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """Lowest and highest integer of `bits`; a narrow range has one value less."""
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


# What the operands say.


def _bits(site: Site, index: int) -> int:
    array = site.array(index).astype(np.float64)
    bits = array.flat[0] if array.size else math.nan
    if not (array == bits).all() or not 1 <= bits <= MOST_BITS or bits != int(bits):
        site.refuse(
            f"the bit width of {site.op_type} is impossible",
            need=f"one whole number, 1 to {MOST_BITS}",
            have=", ".join(f"{item:g}" for item in array.reshape(-1)[:4]),
        )
    return int(bits)


def _rounding(site: Site, default: str) -> str:
    name = site.attr_string("rounding_mode", default).upper()
    name = _ROUNDINGS.get(name, name)
    if name not in _STEPS:
        names = ", ".join((*_ROUNDINGS, *_STEPS))
        site.refuse(f"rounding_mode of {site.op_type} is unknown", names, name, code=codes.INVALID)
    return name


def _positive(site: Site, index: int) -> float:
    number = site.scalar(index)
    if not (math.isfinite(number) and number > 0):
        site.refuse(
            f"the scale of {site.op_type} is impossible", "a positive number", f"{number:g}"
        )
    return number


def _codes(site: Site, low: int, high: int, has_zero: bool = True) -> Codes:
    """Scale and zero point, as one number each or along one axis of x."""
    kind = site.kind()
    if kind.dtype != "f32":
        site.refuse(
            f"{site.op_type} of this type is not supported",
            "float32",
            str(kind),
            code=codes.ELEMENT_TYPE,
        )
    scale, axis = _along(site, 1)
    if not (np.isfinite(scale) & (scale > 0)).all():
        site.refuse(f"the scale of {site.op_type} is impossible", "positive finite numbers")
    zero, across = np.zeros(1), None
    if has_zero:
        zero, across = _along(site, 2)
        if (zero != np.rint(zero)).any() or (abs(zero) > 2**15).any():
            site.refuse(
                f"the zero point of {site.op_type} is no integer",
                need="whole numbers up to 32768",
                have=", ".join(f"{item:g}" for item in zero[:4]),
            )
    if None not in (axis, across) and axis != across:
        site.refuse(f"scale and zero point of {site.op_type} lie along different axes")
    axis = across if axis is None else axis
    size = 1 if axis is None else kind.shape[axis]
    scales: Floats = np.broadcast_to(scale, size).astype(np.float32)
    return Codes(low, high, scales, np.broadcast_to(zero, size).astype(np.int64), axis)


def _along(site: Site, index: int) -> tuple[NDArray[np.float64], int | None]:
    """The operand as a vector, and the axis of x that it runs along; None where all are equal."""
    array: NDArray[np.float64] = site.array(index).astype(np.float64)
    shape = site.kind().shape
    padded = (1,) * (len(shape) - array.ndim) + array.shape
    if array.size and (array == array.flat[0]).all():
        return array.reshape(-1)[:1], None
    axes = [axis for axis, extent in enumerate(padded) if extent != 1]
    if len(padded) != len(shape) or len(axes) != 1 or padded[axes[0]] != shape[axes[0]]:
        site.refuse(
            f"operand {index} of {site.op_type} does not fit",
            need=f"one number, or one for each place on one axis of {site.kind()}",
            have=str(site.kind(index)),
            help_="quantize per tensor or per channel",
            code=codes.SHAPES,
        )
    return array.reshape(-1), axes[0]


# Ops.


def _emit(site: Site, held: Codes, rounding: str, is_scaled: bool = True) -> None:
    """Quantize operand 0; `is_scaled` where the sign is taken of x / scale + zeropt."""
    x = site.bound(0)
    if x.constant:
        _emit_weights(site, x, held, rounding, is_scaled)
        return
    value = site.value()
    if rounding == "HALF_EVEN" and not held.zero.any() and bits_of(held.dtype) <= 16:
        if not held.is_whole:
            value = _clipped(site, value, held)
    else:
        value = _formula(site, value, held, rounding, is_scaled)
    _emit_pair(site, value, held)


def _emit_weights(site: Site, x: Bound, held: Codes, rounding: str, is_scaled: bool) -> None:
    """A constant's integers, and the dequantize that later passes look through."""
    kind = Type(held.dtype, x.value.shape)
    if x.array is None:
        integers = site.absent("codes", kind)
    else:
        found = _computed(x.array.astype(np.float32), held, rounding, is_scaled)
        integers = site.constant(found.astype(numpy_dtype(held.dtype)), "codes", held.dtype)
    out = site.out(Type("f32", kind.shape))
    op = ops.Dequantize(out, integers, *_scale_and_zero(site, held), held.axis)
    site.emit(op)
    stored = Bound(integers, site.arrays.get(integers.name), constant=True)
    site.results[out.name] = Bound(out, op=replace(op, nodes=(site.name,)), stored=stored)


def _emit_pair(site: Site, value: Value, held: Codes) -> None:
    """Quantize and dequantize; more than 16 bits stay float, rounded as defined."""
    if bits_of(held.dtype) > 16:
        site.emit(ops.Reshape(site.out(value.type), value))
        return
    scale, zero = _scale_and_zero(site, held)
    quant_ = Quant(float(held.scale[0]), int(held.zero[0])) if held.axis is None else None
    out = site.out(value.type)
    integers = Type(held.dtype, value.shape, quant_)
    q = site.emit(ops.Quantize(site.fresh("codes", integers), value, scale, zero, held.axis))
    site.emit(ops.Dequantize(out, q, scale, zero, held.axis))


def _scale_and_zero(site: Site, held: Codes) -> tuple[Value, Value | None]:
    shape = () if held.axis is None else (-1,)
    scale = site.constant(held.scale.reshape(shape), "scale")
    if not held.zero.any():
        return scale, None
    zero = held.zero.astype(numpy_dtype(held.dtype)).reshape(shape)
    return scale, site.constant(zero, "zero", held.dtype)


def _clipped(site: Site, x: Value, held: Codes) -> Value:
    """x between the real numbers of the lowest and the highest integer."""
    rank = len(x.shape)
    low, high = (held.scale * np.float32(bound) for bound in (held.low, held.high))
    if held.axis is None:
        clip = ops.Unary(site.fresh("clipped", x.type), x, "clip", float(low[0]), float(high[0]))
        return site.emit(clip)
    least, most = (
        site.constant(held.spread(bound, rank), name)
        for bound, name in ((low, "low"), (high, "high"))
    )
    x = site.emit(ops.Binary(site.fresh("raised", x.type), x, least, "max"))
    return site.emit(ops.Binary(site.fresh("clipped", x.type), x, most, "min"))


def _formula(site: Site, x: Value, held: Codes, rounding: str, is_scaled: bool) -> Value:
    """The definition, op by op."""
    rank, kind = len(x.shape), x.type
    scale = np.asarray(held.spread(held.scale, rank), np.float32)
    zero = np.asarray(held.spread(held.zero, rank), np.float32)
    if is_scaled:
        x = _apply(site, x, "div", scale)
        x = _apply(site, x, "add", zero)
    if rounding != "SIGN":
        x = site.emit(
            ops.Unary(site.fresh("clipped", kind), x, "clip", float(held.low), float(held.high))
        )
    x = _rounded(site, x, rounding)
    x = _apply(site, x, "sub", zero)
    return _apply(site, x, "mul", scale)


def _apply(site: Site, x: Value, fn: str, number: Array | float) -> Value:
    """fn of x and a number, or one number for each channel; x where that changes nothing."""
    array = np.asarray(number, np.float32)
    if (array == (0 if fn in ("add", "sub") else 1)).all():
        return x
    return site.emit(ops.Binary(site.fresh(fn, x.type), x, site.constant(array, f"{fn}.by"), fn))


# Rounding, in parts that rise with x: function and offset for x >= 0, then for x <= 0; where both
# parts are one function it is applied as it is.
_STEPS: dict[str, tuple[str, float, str, float]] = {
    "HALF_EVEN": ("round", 0.0, "round", 0.0),
    "CEIL": ("ceil", 0.0, "ceil", 0.0),
    "FLOOR": ("floor", 0.0, "floor", 0.0),
    "UP": ("ceil", 0.0, "floor", 0.0),
    "DOWN": ("floor", 0.0, "ceil", 0.0),
    "HALF_UP": ("floor", 0.5, "ceil", -0.5),
    "HALF_DOWN": ("ceil", -0.5, "floor", 0.5),
}


def _rounded(site: Site, x: Value, rounding: str) -> Value:
    kind = x.type
    if rounding == "SIGN":  # 2 * clip(floor(x), -1, 0) + 1
        x = site.emit(ops.Unary(site.fresh("floor", kind), x, "floor"))
        x = site.emit(ops.Unary(site.fresh("negative", kind), x, "clip", -1.0, 0.0))
        return _apply(site, _apply(site, x, "mul", 2.0), "add", 1.0)
    above, more, below, less = _STEPS[rounding]
    if above == below:
        return site.emit(ops.Unary(site.fresh(above, kind), x, above))
    positive = site.emit(ops.Unary(site.fresh("positive", kind), x, "clip", 0.0, math.inf))
    negative = site.emit(ops.Unary(site.fresh("negative", kind), x, "clip", -math.inf, 0.0))
    positive, negative = _apply(site, positive, "add", more), _apply(site, negative, "add", less)
    positive = site.emit(ops.Unary(site.fresh(above, kind), positive, above))
    negative = site.emit(ops.Unary(site.fresh(below, kind), negative, below))
    return site.emit(ops.Binary(site.fresh("rounded", kind), positive, negative, "add"))


_FUNCTIONS = {"round": np.rint, "ceil": np.ceil, "floor": np.floor}


def _computed(x: Floats, held: Codes, rounding: str, is_scaled: bool) -> Floats:
    """The integers of a constant, in float32 as defined."""
    scale = np.asarray(held.spread(held.scale, x.ndim), np.float32)
    zero = np.asarray(held.spread(held.zero, x.ndim), np.float32)
    y: Floats = np.asarray(x / scale + zero if is_scaled else x, np.float32)
    if rounding == "SIGN":
        return np.asarray(np.where(y >= 0, 1, -1), np.float32)
    y = np.clip(y, np.float32(held.low), np.float32(held.high))
    above, more, below, less = _STEPS[rounding]
    if above == below:
        return np.asarray(_FUNCTIONS[above](y), np.float32)
    up = _FUNCTIONS[above](np.maximum(y, 0) + np.float32(more))
    down = _FUNCTIONS[below](np.minimum(y, 0) + np.float32(less))
    return np.asarray(up + down, np.float32)
