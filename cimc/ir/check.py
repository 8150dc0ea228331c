"""What is wrong with the types of an op: its declared result against the inferred one.

`Graph.verify` asks for every op, so a pass that writes a wrong shape or element type is caught
where it happens and not where the values differ.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator

import numpy as np

from cimc.errors import Fault
from cimc.ir import ops
from cimc.ir.evaluate.functions import BINARY, PREDICATES, REDUCE, UNARY
from cimc.ir.graph import Op, Value, operands
from cimc.ir.types import Type, bits_of, int_range

Shape = tuple[int, ...]
_MOVES = (
    ops.Reshape, ops.Transpose, ops.Slice, ops.Pad, ops.Gather, ops.Broadcast, ops.Tile, ops.Resize,
    ops.Concat, ops.Where,
)  # fmt: skip
_SAME_SHAPE = (
    ops.Quantize, ops.Dequantize, ops.Requant, ops.Cast, ops.Unary, ops.Lut, ops.Softmax,
    ops.BatchNorm, ops.LayerNorm, ops.Lrn,
)  # fmt: skip


def window_extent(extent: int, kernel: int, stride: int, pads: int, dilation: int) -> int:
    """Places of a window along one axis, rounded down."""
    return (extent + pads - (kernel - 1) * dilation - 1) // stride + 1


def result_shape(op: Op) -> Shape | None:
    """The shape that an op's operands and attributes imply; None where out's own shape says it.

    Raises ValueError where the operands do not fit each other.
    """
    match op:
        case ops.Conv(x=x, w=w, strides=strides, pads=pads, dilations=dilations, group=group):
            if x.shape[1] != w.shape[1] * group or w.shape[0] % group:
                raise ValueError(f"{group} groups of channels of {x.type} and {w.type}")
            return (x.shape[0], w.shape[0], *_places(x.shape, w.shape, strides, pads, dilations))
        case ops.ConvTranspose(x=x, w=w, strides=strides, pads=pads, dilations=dilations):
            if x.shape[1] != w.shape[0] or w.shape[0] % op.group:
                raise ValueError(f"{op.group} groups of channels of {x.type} and {w.type}")
            axes = len(x.shape) - 2
            reach = (
                s * (e - 1) + d * (k - 1) + 1 - pads[i] - pads[axes + i]
                for i, (s, e, d, k) in enumerate(
                    zip(strides, x.shape[2:], dilations, w.shape[2:], strict=True)
                )
            )
            return (x.shape[0], w.shape[1] * op.group, *reach)
        case ops.Matmul(a=a, b=b):
            return _matmul(a.shape, b.shape)
        case ops.Binary(a=a, b=b):
            return np.broadcast_shapes(a.shape, b.shape)
        case ops.Where(condition=condition, a=a, b=b):
            return np.broadcast_shapes(condition.shape, a.shape, b.shape)
        case ops.Pool(x=x, kernel=kernel, strides=strides, pads=pads, dilations=dilations):
            places = _places(x.shape, (0, 0, *kernel), strides, pads, dilations)
            further = tuple(
                min(o, p + 1) for o, p in zip(op.out.shape[2:], places, strict=True)
            )  # ONNX's ceil_mode has one place more
            return (*x.shape[:2], *map(max, places, further))
        case ops.Reduce(x=x, axes=axes, keep=keep):
            return _reduced(x.shape, tuple(axis % len(x.shape) for axis in axes), keep)
        case ops.ArgReduce(x=x, axis=axis, keep=keep):
            return _reduced(x.shape, (axis % len(x.shape),), keep)
        case ops.Transpose(x=x, perm=perm):
            if sorted(perm) != list(range(len(x.shape))):
                raise ValueError(f"{perm} permutes the axes of {x.type}")
            return tuple(x.shape[axis] for axis in perm)
        case ops.Concat(xs=xs, axis=axis):
            return _concat([x.shape for x in xs], axis)
        case ops.Pad(x=x, pads=pads):
            rank = len(x.shape)
            return tuple(e + pads[i] + pads[rank + i] for i, e in enumerate(x.shape))
        case ops.Gather(x=x, indices=indices, axis=axis):
            axis %= len(x.shape)
            return x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
        case _ if isinstance(op, _SAME_SHAPE):
            return operands(op)[0].shape
        case _:
            return None


def _places(x: Shape, w: Shape, strides: Shape, pads: Shape, dilations: Shape) -> tuple[int, ...]:
    axes = len(x) - 2
    if not len(strides) == len(dilations) == len(w) - 2 == axes or len(pads) != 2 * axes:
        raise ValueError(f"kernel, strides, pads and dilations for {axes} spatial axes")
    return tuple(
        window_extent(x[2 + i], w[2 + i], strides[i], pads[i] + pads[axes + i], dilations[i])
        for i in range(axes)
    )


def _matmul(a: Shape, b: Shape) -> Shape:
    if not a or not b or a[-1] != b[-2 if len(b) > 1 else 0]:
        raise ValueError(f"inner extents of {a} and {b} are equal")
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return (*np.broadcast_shapes(a[:-2], b[:-2]), *rows, *columns)


def _reduced(shape: Shape, axes: Shape, keep: bool) -> Shape:
    kept = (1 if axis in axes else extent for axis, extent in enumerate(shape))
    return tuple(kept) if keep else tuple(e for i, e in enumerate(shape) if i not in axes)


def _concat(shapes: list[Shape], axis: int) -> Shape:
    first = list(shapes[0])
    axis %= len(first)
    for shape in shapes[1:]:
        if [e for i, e in enumerate(shape) if i != axis] != first[:axis] + first[axis + 1 :]:
            raise ValueError(f"equal extents but for axis {axis}: {shapes}")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def type_faults(op: Op) -> Iterator[Fault]:
    """Wrong shapes and element types of one op."""
    where = f"{op.mnemonic} {op.out}"
    try:
        shape = result_shape(op)
    except (ValueError, IndexError, ZeroDivisionError) as problem:
        yield Fault(where, need=str(problem), code="CIM9006")
        return
    if shape is not None and shape != op.out.shape:
        yield Fault(where, need=f"a result of shape {shape}", have=str(op.out.type), code="CIM9006")
    try:
        needs = (*_shape_needs(op), *_element_needs(op), *_quant_needs(op.out.type))
    except ValueError as problem:  # shapes that do not broadcast
        needs = (str(problem),)
    for need in needs:
        have = " ".join(str(value.type) for value in (*operands(op), op.out))
        yield Fault(where, need=need, have=have, code="CIM9007")


def _shape_needs(op: Op) -> Iterator[str]:
    match op:
        case ops.Reshape(out=out, x=x) if out.type.elements != x.type.elements:
            yield "as many elements as x"
        case ops.Broadcast(out=out, x=x):
            if np.broadcast_shapes(x.shape, out.shape) != out.shape:
                yield "x that broadcasts to the result"
        case ops.Tile(out=out, x=x):
            fits = len(x.shape) == len(out.shape)
            if not fits or any(e and o % e for o, e in zip(out.shape, x.shape, strict=True)):
                yield "whole copies of x"
        case ops.Slice(out=out, x=x, starts=starts, steps=steps):
            if not len(starts) == len(steps) == len(x.shape) == len(out.shape):
                yield "a start and a step for every axis"
                return
            for start, step, extent, size in zip(starts, steps, out.shape, x.shape, strict=True):
                if extent and not (0 <= start < size and 0 <= start + step * (extent - 1) < size):
                    yield "elements inside of x"
        case ops.Resize(x=x, scales=scales) if len(scales) != len(x.shape):
            yield "a scale for every axis"
        case ops.Conv(w=w, bias=Value() as bias) if bias.shape != (w.shape[0],):
            yield "one bias for each output channel"
        case ops.Matmul(out=out, bias=Value() as bias):
            if np.broadcast_shapes(bias.shape, out.shape) != out.shape:
                yield "a bias that broadcasts to the result"
        case ops.Lut(x=x, table=table) if table.shape != (2 ** bits_of(x.type.dtype),):
            yield "one table entry for each value of x"
        case ops.Requant(x=x, axis=axis, gain=gain, bias=bias):
            channels = x.shape[axis] if x.shape else 1
            for name, value in (("gain", gain), ("bias", bias)):
                if value is not None and value.type.elements not in (1, channels):
                    yield f"a {name} of 1 or {channels} elements"


def _element_needs(op: Op) -> Iterator[str]:
    out = op.out.type
    match op:
        case ops.Quantize(x=x) if x.type.is_integer or not out.is_integer:
            yield "a float operand and an integer result"
        case ops.Dequantize(x=x) if not x.type.is_integer or out.is_integer:
            yield "an integer operand and a float result"
        case ops.Requant(x=x, gain=gain, bias=bias):
            if any(v is not None and v.type.dtype != "i32" for v in (x, gain, bias)):
                yield "an i32 operand, gain and bias"
        case ops.Conv(x=x, w=w) | ops.ConvTranspose(x=x, w=w) | ops.Matmul(a=x, b=w):
            yield from _product_needs(x.type, w.type, op.bias.type if op.bias else None, out)
        case ops.Unary(fn=fn):
            yield from _named(fn, UNARY)
            if (fn in PREDICATES) != (out.dtype == "bool"):
                yield "a bool result of a predicate only"
        case ops.Lut(x=x, table=table) if (
            bits_of(x.type.dtype) > 8 or table.type.dtype != out.dtype
        ):
            yield "8 bits or fewer, and a table of the result's elements"
        case ops.Binary(fn=fn):
            yield from _named(fn, BINARY)
            yield from _binary_needs(op)
        case ops.Reduce(fn=fn):
            yield from _named(fn, REDUCE)
        case ops.Pool(fn=fn):
            yield from _named(fn, ("max", "average", "lp"))
    if isinstance(op, ops.Where) and op.condition.type.dtype != "bool":
        yield "a bool condition"
    if isinstance(op, _MOVES):
        moved = operands(op)[1:] if isinstance(op, ops.Where) else operands(op)
        moved = moved[:1] if isinstance(op, ops.Gather) else moved
        for value in moved:
            if value.type.quant is None and value.type.dtype != out.dtype and out.quant is None:
                yield "a result of x's elements"


def _product_needs(x: Type, w: Type, bias: Type | None, out: Type) -> Iterator[str]:
    if not x.is_integer == w.is_integer == out.is_integer:
        yield "integers only or floats only"
    elif x.is_integer and (out.dtype != "i32" or (bias is not None and bias.dtype != "i32")):
        yield "an i32 result and bias"


def _binary_needs(op: ops.Binary) -> Iterator[str]:
    a, b, out = op.a.type, op.b.type, op.out.type
    if (op.fn in PREDICATES) != (out.dtype == "bool"):
        yield "a bool result of a predicate only"
    if a.quant is None and b.quant is None and a.dtype != b.dtype:
        yield "operands of one element type"
    plain = out.quant is None and out.dtype != "bool"
    if plain and a.quant is None and a.dtype != out.dtype:
        yield "a result of the operands' element type"
    if (op.low is not None or op.high is not None) and out.quant is None:
        yield "a quantized result to clamp"


def _quant_needs(kind: Type) -> Iterator[str]:
    if kind.quant is None:
        return
    scale, zero = kind.quant.scale, kind.quant.zero
    if not kind.is_integer:
        yield "integers where there is a scale"
        return
    low, high = int_range(kind.dtype)
    if not low <= zero <= high:
        yield f"a zero point in {low} .. {high}"
    if not (math.isfinite(scale) and scale > 0):
        yield "a positive scale"


def _named(name: str, names: Container[str]) -> Iterator[str]:
    if name not in names:
        yield f"a known function instead of {name!r}"
