"""Quantized operators: all become quantize and dequantize around the op of real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cimc.frontend import codes
from cimc.frontend.lowering.heavy import bias_of, conv_type, emit_gemm, emit_matmul, matmul_type
from cimc.frontend.lowering.pooling import emit_average
from cimc.frontend.lowering.registry import MICROSOFT, lowers
from cimc.frontend.lowering.site import Bound, Site
from cimc.frontend.tensors import ELEMENT_TYPES, element_name
from cimc.ir import ops
from cimc.ir.graph import Value
from cimc.ir.types import Array, Quant, Type, is_integer

_INTEGERS = ("u2", "i2", "u4", "i4", "u8", "i8", "u16", "i16", "i32")


def _checked_scale(site: Site, index: int) -> NDArray[np.float32]:
    """The scale operand: constant, positive, finite."""
    scale = site.array(index).astype(np.float32)
    if site.kind(index).dtype not in ("f16", "f32") or not (
        np.isfinite(scale).all() and (scale > 0).all()
    ):
        site.refuse(
            f"the scale of {site.op_type} is impossible",
            need="positive finite float numbers",
            have=f"{site.kind(index)}",
        )
    return scale


def _axis_of(site: Site, scale: Array, x: Type, axis: int) -> int | None:
    """The axis that a vector of scales runs along; None for a single scale."""
    if scale.size == 1:
        return None
    axis = site.axis(axis, len(x.shape))
    if scale.shape != (x.shape[axis],):
        blocked = scale.ndim == len(x.shape)
        site.refuse(
            f"{site.op_type} in blocks is not supported"
            if blocked
            else f"the scales of {site.op_type} do not fit",
            need=f"one scale, or {x.shape[axis]} along axis {axis}",
            have=f"{site.name}: scales {scale.shape} for {x}",
            help_="quantize per tensor or per channel",
        )
    return axis


def _check_zero(site: Site, index: int, scale: Array, dtype: str | None) -> None:
    """The zero point must have the scale's shape and be of type `dtype`, if that is given."""
    kind = site.kind(index)
    zero = site.array(index)
    if (
        zero.size != scale.size
        or kind.dtype not in _INTEGERS
        or kind.dtype != (dtype or kind.dtype)
    ):
        site.refuse(
            f"the zero point of {site.op_type} does not fit",
            need=f"{dtype or 'integers'}, {scale.size} elements",
            have=str(kind),
            code=codes.SHAPES,
        )


def _quant(scale: NDArray[np.float32], zero: Array | None) -> Quant | None:
    """Scale and zero of a type; None where each channel has its own."""
    if scale.size != 1:
        return None
    number = float(scale.reshape(()))
    return Quant(number, 0 if zero is None else int(zero.reshape(()).astype(np.int64)))


@lowers("QuantizeLinear", note="per tensor or per axis; integers of 2 to 16 bits")
@lowers("QuantizeLinear", domain=MICROSOFT, note="as the standard operator")
def quantize(site: Site) -> None:
    """One quantize; a single scale goes into the type of the result."""
    scale = _checked_scale(site, 1)
    _refuse_blocks(site)
    wanted = site.attr_int("output_dtype")
    dtype = ELEMENT_TYPES.get(wanted, element_name(wanted)) if wanted else "u8"
    zero: Array | None = None
    if site.has(2):
        dtype = site.kind(2).dtype
        _check_zero(site, 2, scale, dtype)
        zero = site.array(2)
    if dtype not in _INTEGERS or dtype == "i32" or is_integer(site.kind().dtype):
        site.refuse(
            "QuantizeLinear between these types is not supported",
            need="floats to integers of 2 to 16 bits",
            have=f"{site.kind()} to {dtype}",
            code=codes.ELEMENT_TYPE,
        )
    x = site.value(0)
    axis = _axis_of(site, scale, x.type, site.attr_int("axis", 1))
    out = site.out(Type(dtype, x.shape, _quant(scale, zero)))
    site.emit(ops.Quantize(out, x, site.value(1), site.optional(2), axis))


@lowers("DequantizeLinear", note="per tensor or per axis; integers of 2 to 16 bits, int32")
@lowers("DequantizeLinear", domain=MICROSOFT, note="as the standard operator")
def dequantize(site: Site) -> None:
    """One dequantize; it stays even where it reads a constant."""
    scale = _checked_scale(site, 1)
    _refuse_blocks(site)
    bound = site.bound(0)
    if bound.value.type.dtype not in _INTEGERS:
        site.refuse(
            "DequantizeLinear of this type is not supported",
            need="integers of 2 to 16 bits, or int32",
            have=str(bound.value.type),
            code=codes.ELEMENT_TYPE,
        )
    if site.has(2):
        _check_zero(site, 2, scale, bound.value.type.dtype)
    axis = _axis_of(site, scale, bound.value.type, site.attr_int("axis", 1))
    out = site.out(Type(site.kind(1).dtype, bound.value.shape))
    op = ops.Dequantize(out, site.value(0), site.value(1), site.optional(2), axis)
    site.emit(op)
    if bound.constant:
        held = replace(op, nodes=(site.name,))
        site.results[out.name] = Bound(out, op=held, stored=bound)


def _refuse_blocks(site: Site) -> None:
    if site.attr_int("block_size"):
        site.refuse(
            f"{site.op_type} in blocks is not supported",
            have=f"block_size = {site.attr_int('block_size')}",
            help_="quantize per tensor or per channel",
        )


# Operators that hold their scales as operands (onnxruntime's QOperator format).


def _real(site: Site, index: int, suffix: str, axis: int | None = None) -> Value:
    """Operand `index`, followed by its scale and zero point, as real numbers."""
    return _real_bound(site, index, suffix, axis).value


def _real_bound(site: Site, index: int, suffix: str, axis: int | None = None) -> Bound:
    scale = _checked_scale(site, index + 1)
    x = site.value(index)
    along = None if scale.size == 1 else _axis_of(site, scale.reshape(-1), x.type, axis or 0)
    zero = site.optional(index + 2)
    if zero is not None:
        _check_zero(site, index + 2, scale, x.type.dtype)
    out = site.fresh(suffix, Type("f32", x.shape))
    op = ops.Dequantize(out, x, site.value(index + 1), zero, along)
    site.emit(op)
    stored = site.bound(index)
    return Bound(out, op=op, stored=stored if stored.constant else None)


def _result(site: Site, index: int, shape: tuple[int, ...], dtype: str) -> tuple[Value, Value]:
    """The real and the quantized result; scale and zero are operands `index` and `index` + 1."""
    scale = _checked_scale(site, index)
    zero: Array | None = None
    if site.has(index + 1):
        dtype = site.kind(index + 1).dtype
        _check_zero(site, index + 1, scale, dtype)
        zero = site.array(index + 1)
    if scale.size != 1:
        site.refuse(f"{site.op_type} needs one scale for its result", have=str(site.kind(index)))
    real = site.fresh("real", Type("f32", shape))
    out = site.out(Type(dtype, shape, _quant(scale, zero)))
    return real, out


def _quantized(site: Site, index: int, real: Value, out: Value) -> None:
    site.emit(ops.Quantize(out, real, site.value(index), site.optional(index + 1)))


@lowers("QLinearConv", note="becomes dequantize, conv, quantize")
def qlinear_conv(site: Site) -> None:
    """The bias is of scale x_scale * w_scale."""
    x, w = _real(site, 0, "x"), _real(site, 3, "w", 0)
    view, group, kind = conv_type(site, x, w, "f32")
    bias: Value | None = None
    if site.has(8):
        scale = _checked_scale(site, 1).reshape(()) * _checked_scale(site, 4).reshape(-1)
        bias = _real_bias(site, site.value(8), scale.astype(np.float32), w.shape[0])
    real, out = _result(site, 6, kind.shape, site.kind(0).dtype)
    site.emit(ops.Conv(real, x, w, bias, view.strides, view.pads, view.dilations, group))
    _quantized(site, 6, real, out)


def _real_bias(site: Site, bias: Value, scale: Array, channels: int) -> Value:
    bias_of(site, bias, channels)
    scales = site.constant(scale.reshape(()) if scale.size == 1 else scale, "bias_scale")
    out = site.fresh("bias", Type("f32", bias.shape))
    return site.emit(ops.Dequantize(out, bias, scales, None, None if scale.size == 1 else 0))


@lowers("QLinearMatMul", note="per tensor, or b per column; becomes dequantize, matmul, quantize")
def qlinear_matmul(site: Site) -> None:
    """Scales of a per row are refused."""
    a, b = _real(site, 0, "a", 0), _real(site, 3, "b", -1)
    if site.array(1).size != 1:
        site.refuse("QLinearMatMul with a scale for each row is not supported")
    real, out = _result(site, 6, matmul_type(site, a.type, b.type, "f32").shape, site.kind(0).dtype)
    emit_matmul(site, real, a, b)
    _quantized(site, 6, real, out)


@lowers("QGemm", domain=MICROSOFT, note="becomes dequantize, matmul, quantize")
def qgemm(site: Site) -> None:
    """Operands A, B, C; without a result scale the result is float."""
    if len(site.kind(0).shape) != 2 or len(site.kind(3).shape) != 2:
        site.refuse("QGemm needs matrices", have=f"{site.kind(0)} and {site.kind(3)}")
    trans_b = bool(site.attr_int("transB"))
    a, b = _real_bound(site, 0, "a", 0), _real_bound(site, 3, "b", 0 if trans_b else -1)
    rows = a.value.shape[1] if site.attr_int("transA") else a.value.shape[0]
    columns = b.value.shape[0] if trans_b else b.value.shape[-1]
    c: Value | None = None
    if site.has(6):
        alpha = np.float32(site.attr_float("alpha", 1.0))
        scale = alpha * _checked_scale(site, 1).reshape(()) * _checked_scale(site, 4).reshape(-1)
        c = _real_bias(site, site.value(6), scale.astype(np.float32), columns)
    if site.has(7):
        real, out = _result(site, 7, (rows, columns), site.kind(0).dtype)
        emit_gemm(site, real, a, b, c)
        _quantized(site, 7, real, out)
    else:
        out = site.out(Type("f32", (rows, columns)))
        emit_gemm(site, out, a, b, c)


_QUANTIZED_BINARY = {"QLinearAdd": "add", "QLinearMul": "mul"}


@lowers(*_QUANTIZED_BINARY, domain=MICROSOFT)
def qlinear_binary(site: Site) -> None:
    """Operands A, B, then the result's scale."""
    a, b = _real(site, 0, "a"), _real(site, 3, "b")
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        site.refuse(f"the operands of {site.op_type} do not broadcast", code=codes.SHAPES)
    real, out = _result(site, 6, shape, site.kind(0).dtype)
    site.emit(ops.Binary(real, a, b, _QUANTIZED_BINARY[site.op_type]))
    _quantized(site, 6, real, out)


def _one_operand(site: Site, op: Callable[[Value, Value], ops.Unary | ops.Softmax]) -> None:
    x = _real(site, 0, "x")
    real, out = _result(site, 3, x.shape, site.kind(0).dtype)
    site.emit(op(real, x))
    _quantized(site, 3, real, out)


@lowers("QLinearSigmoid", domain=MICROSOFT)
def qlinear_sigmoid(site: Site) -> None:
    """A sigmoid of real numbers."""
    _one_operand(site, lambda out, x: ops.Unary(out, x, "sigmoid"))


@lowers("QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_leaky_relu(site: Site) -> None:
    """A leaky_relu of real numbers."""
    alpha = site.attr_float("alpha", 0.01)
    _one_operand(site, lambda out, x: ops.Unary(out, x, "leaky_relu", alpha))


@lowers("QLinearSoftmax", domain=MICROSOFT, note="along one axis (opset 13 semantics)")
def qlinear_softmax(site: Site) -> None:
    """A softmax of real numbers."""
    rank = len(site.kind().shape)
    axis = site.axis(site.attr_int("axis", -1), rank)
    if site.attr_int("opset") < 13 and math.prod(site.kind().shape[axis + 1 :]) != 1:
        site.refuse("QLinearSoftmax over several axes is not supported", have=f"axis = {axis}")
    _one_operand(site, lambda out, x: ops.Softmax(out, x, axis))


@lowers("QLinearGlobalAveragePool", domain=MICROSOFT, note="channels first")
def qlinear_global_average_pool(site: Site) -> None:
    """A mean over the spatial axes."""
    _refuse_channels_last(site)
    x = _real(site, 0, "x")
    shape = (*x.shape[:2], *(1 for _ in x.shape[2:]))
    real, out = _result(site, 3, shape, site.kind(0).dtype)
    site.emit(ops.Reduce(real, x, "mean", tuple(range(2, len(x.shape)))))
    _quantized(site, 3, real, out)


@lowers("QLinearAveragePool", domain=MICROSOFT, note="channels first")
def qlinear_average_pool(site: Site) -> None:
    """An average of real numbers."""
    _refuse_channels_last(site)
    x = _real(site, 0, "x")
    real = emit_average(site, x, "real")
    _, out = _result(site, 3, real.shape, site.kind(0).dtype)
    _quantized(site, 3, real, out)


def _refuse_channels_last(site: Site) -> None:
    if site.attr_int("channels_last"):
        site.refuse(f"{site.op_type} with channels last is not supported", help_="use NCHW")


@lowers("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(site: Site) -> None:
    """Result scale and zero first, then operand, scale, zero for each part."""
    parts = [_real(site, index, f"x{index}") for index in range(2, len(site.inputs), 3)]
    if not parts:
        site.refuse("QLinearConcat lacks operands", code=codes.INVALID)
    axis = site.axis(site.attr_int("axis"), len(parts[0].shape))
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    for part in parts:
        if [e for i, e in enumerate(part.shape) if i != axis] != [
            e for i, e in enumerate(shape) if i != axis
        ]:
            site.refuse("the operands of QLinearConcat do not fit", code=codes.SHAPES)
    real, out = _result(site, 0, tuple(shape), site.kind(2).dtype)
    site.emit(ops.Concat(real, tuple(parts), axis))
    _quantized(site, 0, real, out)
