"""Convolutions and matrix products."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cimc.frontend import codes
from cimc.frontend.lowering.registry import lowers
from cimc.frontend.lowering.site import Bound, Site
from cimc.frontend.lowering.windows import Window, split_pads, window
from cimc.ir import ops
from cimc.ir.graph import Value
from cimc.ir.types import Type


def conv_type(site: Site, x: Value, w: Value, dtype: str) -> tuple[Window, int, Type]:
    """Window, groups and result type of a convolution; refused where shapes do not fit."""
    group = site.attr_int("group", 1)
    if len(x.shape) < 3 or len(w.shape) != len(x.shape):
        site.refuse(
            f"{site.op_type} needs an input and weights of the same rank, 3 or more",
            have=f"{x.type} and {w.type}",
            code=codes.SHAPES,
        )
    channels, kernels = x.shape[1], w.shape[0]
    if group < 1 or channels != w.shape[1] * group or kernels % group:
        site.refuse(
            f"channels and weights of {site.op_type} do not fit",
            need=f"{w.shape[1]} x {group} groups input channels, kernels in whole groups",
            have=f"{channels} channels, {kernels} kernels",
            code=codes.SHAPES,
        )
    view = window(site, x.shape[2:], w.shape[2:])
    axes = len(x.shape) - 2
    out = [
        (extent + view.pads[axis] + view.pads[axes + axis] - view.reach(axis)) // view.strides[axis]
        + 1
        for axis, extent in enumerate(x.shape[2:])
    ]
    if any(extent < 1 for extent in out):
        site.refuse(
            f"the kernel of {site.op_type} is larger than its padded input",
            have=f"input {x.shape[2:]}, kernel {view.kernel}, pads {view.pads}",
            code=codes.SHAPES,
        )
    return view, group, site.checked(Type(dtype, (x.shape[0], kernels, *out)))


def bias_of(site: Site, bias: Value | None, channels: int) -> Value | None:
    """The bias, which must be one number for each channel."""
    if bias is not None and bias.shape != (channels,):
        site.refuse(
            f"the bias of {site.op_type} does not fit",
            need=f"shape ({channels},)",
            have=str(bias.type),
            code=codes.SHAPES,
        )
    return bias


@lowers("Conv", note="any number of spatial axes, groups, dilations, auto_pad")
def conv(site: Site) -> None:
    """One conv with explicit pads."""
    x, w = site.value(0), site.value(1)
    view, group, kind = conv_type(site, x, w, x.type.dtype)
    bias = bias_of(site, site.optional(2), w.shape[0])
    out = site.out(kind)
    site.emit(ops.Conv(out, x, w, bias, view.strides, view.pads, view.dilations, group))


@lowers("ConvTranspose", note="any number of spatial axes, groups, output_padding, output_shape")
def conv_transpose(site: Site) -> None:
    """One conv_transpose; output_padding and output_shape become pads."""
    x, w = site.value(0), site.value(1)
    group, axes = site.attr_int("group", 1), len(x.shape) - 2
    if axes < 1 or len(w.shape) != axes + 2 or group < 1 or x.shape[1] != w.shape[0]:
        site.refuse(
            "input and weights of ConvTranspose do not fit",
            have=f"{x.type} and {w.type}",
            code=codes.SHAPES,
        )
    if w.shape[0] % group:
        site.refuse("ConvTranspose needs whole groups", have=f"{w.shape[0]} channels / {group}")
    auto = site.attr_string("auto_pad", "NOTSET")
    view = _transposed_window(site, x.shape[2:], w.shape[2:], auto)
    extra = site.attr_ints("output_padding") or (0,) * axes
    wanted = site.attr_ints("output_shape")
    if len(extra) != axes or any(not 0 <= e < 2**24 for e in extra):
        site.refuse("output_padding of ConvTranspose is impossible", have=str(extra))
    full = [
        view.strides[axis] * (extent - 1) + view.reach(axis)
        for axis, extent in enumerate(x.shape[2:])
    ]
    begins = view.pads[:axes]
    spatial = [
        f + extra[axis] - view.pads[axis] - view.pads[axes + axis] for axis, f in enumerate(full)
    ]
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(e * s for e, s in zip(x.shape[2:], view.strides, strict=True))
    if wanted is not None:
        spatial = list(wanted[-axes:])
        if len(spatial) != axes or any(not 0 < size < 2**31 for size in spatial):
            site.refuse("output_shape of ConvTranspose is impossible", have=str(wanted))
        totals = [max(0, f + e - s) for f, e, s in zip(full, extra, spatial, strict=True)]
        begins = split_pads(totals, upper=auto == "SAME_UPPER")[:axes]
    pads = (*begins, *(f - b - s for f, b, s in zip(full, begins, spatial, strict=True)))
    if any(extent < 1 for extent in spatial):
        site.refuse("the result of ConvTranspose is empty", have=str(spatial), code=codes.SHAPES)
    kernels = w.shape[1] * group
    kind = site.checked(Type(x.type.dtype, (x.shape[0], kernels, *spatial)))
    bias = bias_of(site, site.optional(2), kernels)
    site.emit(
        ops.ConvTranspose(site.out(kind), x, w, bias, view.strides, pads, view.dilations, group)
    )


def _transposed_window(
    site: Site, extents: tuple[int, ...], kernel: tuple[int, ...], auto: str
) -> Window:
    view = window(site, extents, kernel)
    # SAME of a transposed convolution is about its output; the caller computes those pads
    return view if auto in ("", "NOTSET") else replace(view, pads=(0,) * len(view.pads))


@lowers("ConvInteger", note="a constant w_zero_point; exact i32 sums")
def conv_integer(site: Site) -> None:
    """Zero points are taken off both operands, then one integer conv."""
    w = _less_zero(site, 1, 3, "weights", channels=0)
    x = _less_zero(site, 0, 2, "centered")
    view, group, kind = conv_type(site, x, w, "i32")
    out = site.out(kind)
    site.emit(ops.Conv(out, x, w, None, view.strides, view.pads, view.dilations, group))


@lowers("MatMulInteger", note="constant zero points; exact i32 sums")
def matmul_integer(site: Site) -> None:
    """Zero points are taken off both operands, then one integer matmul."""
    a = _less_zero(site, 0, 2, "a_centered", channels=-2)
    b = _less_zero(site, 1, 3, "b_centered", channels=-1)
    emit_matmul(site, site.out(matmul_type(site, a.type, b.type, "i32")), a, b)


def _less_zero(site: Site, index: int, zero_index: int, suffix: str, channels: int = 0) -> Value:
    """Operand minus its zero point as plain integers, i8 where the differences fit, else i16.

    Several zero points lie along axis `channels`.
    """
    bound = site.bound(index)
    zero = site.array(zero_index).astype(np.int64) if site.has(zero_index) else np.zeros((), int)
    if zero.size > 1:
        rank = len(bound.value.shape)
        zero = zero.reshape([-1 if axis == channels % rank else 1 for axis in range(rank)])
        if bound.value.shape[channels] != zero.size:
            site.refuse(
                f"the zero points of {site.op_type} do not fit its operand",
                have=f"{zero.size} for {bound.value.type}",
                code=codes.SHAPES,
            )
    if bound.array is not None:
        centered = bound.array.astype(np.int64) - zero.reshape(zero.shape if zero.size > 1 else ())
        narrow = centered.size == 0 or (centered.min() >= -128 and centered.max() <= 127)
        return site.constant(centered.astype(np.int8 if narrow else np.int16), suffix)
    x = site.value(index)
    if zero.size == 1 and int(zero.reshape(())) == (x.type.quant.zero if x.type.quant else 0):
        return x  # conv and matmul take the zero point of a type off themselves
    if x.type.quant is not None:
        site.refuse(f"{site.op_type} has another zero point than its operand", have=str(x.type))
    wide = site.emit(ops.Cast(site.fresh(f"{suffix}.wide", Type("i16", x.shape)), x))
    offset = site.constant(zero.astype(np.int16), f"{suffix}.zero")
    return site.emit(ops.Binary(site.fresh(suffix, wide.type), wide, offset, "sub"))


def transposed(site: Site, bound: Bound, suffix: str) -> Value:
    """The last two axes of an operand exchanged, at import where it is a (dequantized) constant."""
    x = bound.value
    rank = len(x.shape)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    kind = Type(x.type.dtype, tuple(x.shape[axis] for axis in perm), x.type.quant)
    if bound.array is not None:
        return site.constant(bound.array.transpose(perm), suffix, x.type.dtype)
    stored, op = bound.stored, bound.op
    if stored is not None and stored.array is not None and isinstance(op, ops.Dequantize):
        integers = site.constant(stored.array.transpose(perm), suffix, stored.value.type.dtype)
        axis = None if op.axis is None else perm.index(op.axis % rank)
        real = site.fresh(f"{suffix}.real", kind)
        dequantize = ops.Dequantize(real, integers, op.scale, op.zero, axis)
        return site.emit(dequantize, nodes=op.nodes)
    return site.emit(ops.Transpose(site.fresh(suffix, kind), site.use(bound), perm))


def matmul_type(site: Site, a: Type, b: Type, dtype: str) -> Type:
    """The type of a product of matrices, vectors, or stacks of matrices."""
    inner = b.shape[-2:][0] if b.shape else None
    if not a.shape or a.shape[-1] != inner:
        site.refuse(
            f"the operands of {site.op_type} do not fit", have=f"{a} and {b}", code=codes.SHAPES
        )
    leading = site.broadcast(a.shape[:-2], b.shape[:-2])
    rows = a.shape[-2:-1]
    columns = b.shape[-1:] if len(b.shape) > 1 else ()
    return Type(dtype, (*leading, *rows, *columns))


def emit_matmul(site: Site, out: Value, a: Value, b: Value, bias: Value | None = None) -> None:
    """One matmul; vectors become matrices of one row or column for it."""
    vector_a, vector_b = len(a.shape) == 1, len(b.shape) == 1
    if vector_a:
        a = site.emit(ops.Reshape(site.fresh("row", replace(a.type, shape=(1, *a.shape))), a))
    if vector_b:
        b = site.emit(ops.Reshape(site.fresh("column", replace(b.type, shape=(*b.shape, 1))), b))
    if not (vector_a or vector_b):
        site.emit(ops.Matmul(out, a, b, bias))
        return
    leading = out.shape[: len(out.shape) - (2 - vector_a - vector_b)]
    matrix = (*leading, a.shape[-2], b.shape[-1])
    product = site.fresh("product", Type(out.type.dtype, matrix))
    site.emit(ops.Reshape(out, site.emit(ops.Matmul(product, a, b, bias))))


@lowers("MatMul")
def matmul(site: Site) -> None:
    """One matmul."""
    a, b = site.value(0), site.value(1)
    kind = matmul_type(site, a.type, b.type, a.type.dtype)
    emit_matmul(site, site.out(kind), a, b)


@lowers("Gemm", note="alpha and beta are multiplied in where they are not 1")
def gemm(site: Site) -> None:
    """Transpose as asked, multiply, add the bias."""
    a, b = site.kind(0).shape, site.kind(1).shape
    if len(a) != 2 or len(b) != 2:
        site.refuse("Gemm needs matrices", have=f"{site.kind(0)} and {site.kind(1)}")
    shape = (a[1 if site.attr_int("transA") else 0], b[0 if site.attr_int("transB") else 1])
    out = site.out(Type(site.kind().dtype, shape))
    emit_gemm(site, out, site.bound(0), site.bound(1), site.optional(2))


def emit_gemm(site: Site, out: Value, a: Bound, b: Bound, c: Value | None) -> None:
    """alpha * A' @ B' + beta * C as matmul with bias."""
    left = transposed(site, a, "a") if site.attr_int("transA") else site.use(a)
    right = transposed(site, b, "b") if site.attr_int("transB") else site.use(b)
    alpha, beta = site.attr_float("alpha", 1.0), site.attr_float("beta", 1.0)
    if alpha != 1.0:
        factor = site.number(alpha, left.type.dtype, "alpha")
        left = site.emit(ops.Binary(site.fresh("scaled", left.type), left, factor, "mul"))
    if c is not None and beta != 1.0:
        factor = site.number(beta, c.type.dtype, "beta")
        c = site.emit(ops.Binary(site.fresh("bias", c.type), c, factor, "mul"))
    if c is not None and (math.prod(c.shape) > math.prod(out.shape) or len(c.shape) > 2):
        site.refuse("the bias of Gemm does not broadcast", have=str(c.type), code=codes.SHAPES)
    emit_matmul(site, out, left, right, c)
