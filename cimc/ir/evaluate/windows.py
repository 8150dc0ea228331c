"""Pools, reductions and normalizations."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.evaluate.elementwise import same_byte, saturated
from cimc.ir.evaluate.functions import REDUCE
from cimc.ir.evaluate.heavy import windows
from cimc.ir.evaluate.numbers import Numbers, converted, less_zero, real, rescaled, typed
from cimc.ir.evaluate.registry import Held, meaning
from cimc.ir.types import Array, Type, int_range


def _lowest(kind: Type) -> float:
    return int_range(kind.dtype)[0] if kind.is_integer else -np.inf


@meaning(ops.Pool)
def pool(op: ops.Pool, held: Held) -> Array:
    """Extreme, mean or norm of every window; the mean of quantized integers is an exact sum."""
    x = held[op.x.name]
    axes = x.ndim - 2
    begins, ends = op.pads[:axes], op.pads[axes:]
    window = (op.strides, op.kernel, op.dilations)
    # where ONNX rounds the output's size up, the last windows reach `over` elements further
    over = [
        max(0, (o - 1) * s + (k - 1) * d + 1 - (e + b + f))
        for o, s, k, d, e, b, f in zip(
            op.out.shape[2:], *window, x.shape[2:], begins, ends, strict=True
        )
    ]

    def seen(array: Numbers, inside: float, beyond: float) -> Numbers:
        """Windows with one value in the pads and another one past them."""
        none = ((0, 0), (0, 0))
        near, far = (*none, *zip(begins, ends, strict=True)), (*none, *((0, o) for o in over))
        array = np.pad(array, near, constant_values=inside)
        array = np.pad(array, far, constant_values=beyond)
        view = windows(array, op.kernel, op.strides, op.dilations)
        places = tuple(slice(0, extent) for extent in op.out.shape[2:])
        return np.asarray(view[(slice(None), slice(None), *places)])

    last = tuple(range(-axes, 0))
    if op.fn == "max":
        lowest = _lowest(op.x.type)
        return converted(np.max(seen(x, lowest, lowest), axis=last), op.x.type, op.out.type)
    if op.fn == "lp":
        x = real(x, op.x.type)
        powers = np.sum(np.abs(seen(x, 0, 0)) ** op.p, axis=last, dtype=x.dtype)
        return typed(powers ** np.asarray(1 / op.p, x.dtype), op.out.type)
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    count = np.asarray(np.sum(seen(ones, int(op.include_pad), 0), axis=last), np.float32)
    if op.x.type.quant is not None and op.out.type.quant is not None:
        total = np.sum(seen(less_zero(x, op.x.type), 0, 0), axis=last, dtype=np.int64)
        return rescaled(np.asarray(total), mean_scale(op.x.type, op.out.type, count), op.out.type)
    x = real(x, op.x.type)
    return typed(
        np.sum(seen(x, 0, 0), axis=last, dtype=x.dtype) / count.astype(x.dtype), op.out.type
    )


def mean_scale(x: Type, out: Type, count: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale of x / (scale of out * count): a mean of integers is an exact sum times this."""
    assert x.quant is not None
    assert out.quant is not None
    return np.asarray(np.float32(x.quant.scale) / (np.float32(out.quant.scale) * count))


@meaning(ops.Reduce)
def reduce(op: ops.Reduce, held: Held) -> Array:
    """One of the functions of REDUCE; sums and means of quantized integers are exact sums."""
    x = held[op.x.name]
    if op.fn in ("mean", "sum") and op.x.type.quant is not None and op.out.type.quant is not None:
        total = np.sum(less_zero(x, op.x.type), axis=op.axes, keepdims=op.keep, dtype=np.int64)
        count = math.prod(x.shape[axis] for axis in op.axes) if op.fn == "mean" else 1
        scale = mean_scale(op.x.type, op.out.type, np.array(count, np.float32))
        return rescaled(np.asarray(total), scale, op.out.type)
    if op.fn in ("max", "min"):
        return converted(REDUCE[op.fn](x, op.axes, op.keep), op.x.type, op.out.type)
    return typed(np.asarray(REDUCE[op.fn](real(x, op.x.type), op.axes, op.keep)), op.out.type)


@meaning(ops.ArgReduce)
def arg_reduce(op: ops.ArgReduce, held: Held) -> Array:
    """First or last index of the extreme."""
    x = held[op.x.name]
    find = np.argmax if op.fn == "max" else np.argmin
    if op.last:
        found = x.shape[op.axis] - 1 - find(np.flip(x, op.axis), axis=op.axis)
    else:
        found = find(x, axis=op.axis)
    return typed(np.expand_dims(found, op.axis) if op.keep else np.asarray(found), op.out.type)


def quantized_softmax(x: Numbers, axis: int, before: Type, after: Type) -> Array:
    """Softmax of 8-bit integers with one table of exponentials, as onnxruntime's QLinearSoftmax.

    e[d] = f32(exp((shift - d) * scale)),  d = max - x,  shift * scale = ln(f32_max / n) - 5
    out = rint(e * floor(1 / out_scale) / sum of e) + zero        [each step in float32, in order]
    """
    assert before.quant is not None
    assert after.quant is not None
    most = np.finfo(np.float32).max / np.float32(x.shape[axis])
    shift = max(0.0, math.log(float(most)) - 5) / before.quant.scale
    table = np.exp((shift - np.arange(256)) * before.quant.scale).astype(np.float32)
    below = np.max(x, axis=axis, keepdims=True).astype(np.int64) - x.astype(np.int64)
    e = table[below]
    total = np.take(np.add.accumulate(e, axis=axis), [-1], axis=axis)
    steps = np.rint(e * np.floor(1 / np.float32(after.quant.scale)) / total)
    return saturated(steps + np.float32(after.quant.zero), after)


@meaning(ops.Softmax)
def softmax(op: ops.Softmax, held: Held) -> Array:
    """Shifted by the maximum, so that nothing overflows; all zero where every element is -inf."""
    if same_byte((op.x.type, op.out.type)) and not op.log:
        return quantized_softmax(held[op.x.name], op.axis, op.x.type, op.out.type)
    x = real(held[op.x.name], op.x.type)
    most = np.max(x, axis=op.axis, keepdims=True)
    shifted = x - np.where(np.isneginf(most), most.dtype.type(0), most)
    e = np.exp(shifted)
    total = np.sum(e, axis=op.axis, keepdims=True)
    if op.log:
        return typed(shifted - np.log(total), op.out.type)
    return typed(e / np.where(total == 0, total.dtype.type(1), total), op.out.type)


@meaning(ops.BatchNorm)
def batch_norm(op: ops.BatchNorm, held: Held) -> Array:
    """Per channel."""
    x = real(held[op.x.name], op.x.type)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    scale, bias, mean, variance = (
        held[value.name].reshape(shape) for value in (op.scale, op.bias, op.mean, op.variance)
    )
    spread = np.sqrt(variance + np.asarray(op.epsilon, x.dtype))
    return typed(scale * (x - mean) / spread + bias, op.out.type)


@meaning(ops.LayerNorm)
def layer_norm(op: ops.LayerNorm, held: Held) -> Array:
    """Mean and variance over the last axes, or over each group of channels."""
    x = real(held[op.x.name], op.x.type)
    shape, axis = x.shape, op.axis % x.ndim
    if op.groups:
        x = x.reshape(shape[0], op.groups, -1)
    axes = (2,) if op.groups else tuple(range(axis, x.ndim))
    centered = x - np.mean(x, axis=axes, keepdims=True, dtype=x.dtype)
    variance = np.mean(centered * centered, axis=axes, keepdims=True, dtype=x.dtype)
    out = (centered / np.sqrt(variance + np.asarray(op.epsilon, x.dtype))).reshape(shape)
    channels = (1, -1, *(1,) * (len(shape) - 2))
    if op.scale is not None:
        scale = held[op.scale.name]
        out = out * (scale.reshape(channels) if op.groups else scale)
    if op.bias is not None:
        bias = held[op.bias.name]
        out = out + (bias.reshape(channels) if op.groups else bias)
    return typed(out, op.out.type)


@meaning(ops.Lrn)
def lrn(op: ops.Lrn, held: Held) -> Array:
    """x / (bias + alpha / size * sum of squares over the neighbouring channels) ** beta."""
    x = real(held[op.x.name], op.x.type)
    before, channels = (op.size - 1) // 2, x.shape[1]
    squares = np.pad(x * x, [(0, 0), (before, op.size - 1 - before)] + [(0, 0)] * (x.ndim - 2))
    near = sum(squares[:, i : i + channels] for i in range(op.size))
    alpha, beta, bias = (np.asarray(v, x.dtype) for v in (op.alpha / op.size, op.beta, op.bias))
    return typed(x / (bias + alpha * near) ** beta, op.out.type)
