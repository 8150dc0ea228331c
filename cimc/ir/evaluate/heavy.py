"""Convolution and matrix product: float32, or exact sums of integers."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cimc.ir import ops
from cimc.ir.evaluate.numbers import Numbers, less_zero
from cimc.ir.evaluate.registry import Held, meaning
from cimc.ir.types import Array, numpy_dtype


def exact_matmul(a: Numbers, b: Numbers) -> Numbers:
    """a @ b of integers, exact as int64; on floating-point BLAS wherever no partial sum can round.

    No partial sum exceeds max|a| * max over columns of sum|b|. Below 2**24 float32 holds it
    exactly, below 2**53 float64.
    """
    if not a.size or not b.size:
        return np.asarray(np.matmul(a.astype(np.int64), b.astype(np.int64)), np.int64)
    columns = np.abs(b.astype(np.int64)).sum(axis=-2, dtype=np.float64).max()
    bound = float(np.abs(a.astype(np.int64)).max()) * float(columns)
    for exact, limit in ((np.float32, 2.0**24), (np.float64, 2.0**53)):
        if bound < limit:
            return np.asarray(np.matmul(a.astype(exact), b.astype(exact)).astype(np.int64))
    return np.asarray(np.matmul(a.astype(np.int64), b.astype(np.int64)), np.int64)


def windows(
    x: Numbers, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> Numbers:
    """All windows of a padded N C spatial... array: N C positions... kernel... (a view)."""
    axes = tuple(range(2, x.ndim))
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    view = sliding_window_view(x, reach, axis=axes)
    step = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
    return np.asarray(view[(*step, *(slice(None, None, d) for d in dilations))])


@meaning(ops.Conv)
def conv(op: ops.Conv, held: Held) -> Array:
    """im2col, then one matrix product per group."""
    x, w = less_zero(held[op.x.name], op.x.type), less_zero(held[op.w.name], op.w.type)
    axes = x.ndim - 2
    pads = list(zip(op.pads[:axes], op.pads[axes:], strict=True))
    seen = windows(
        np.pad(x, [(0, 0), (0, 0), *pads]), w.shape[2:], op.strides, op.dilations
    )  # N C P... R...
    n, c, k = x.shape[0], x.shape[1], w.shape[0]
    places = seen.shape[2 : 2 + axes]
    seen = seen.reshape(n, op.group, c // op.group, *seen.shape[2:])
    order = (0, 1, *range(3, 3 + axes), 2, *range(3 + axes, 3 + 2 * axes))
    columns = seen.transpose(order).reshape(n, op.group, int(np.prod(places)), -1)
    weights = w.reshape(op.group, k // op.group, -1).transpose(0, 2, 1)
    integer = op.x.type.is_integer
    sums = exact_matmul(columns, weights) if integer else np.matmul(columns, weights)
    out = sums.transpose(0, 1, 3, 2).reshape(n, k, *places)
    if op.bias is not None:
        out = out + held[op.bias.name].reshape(1, k, *(1,) * axes)
    return out.astype(numpy_dtype(op.out.type.dtype))


@meaning(ops.ConvTranspose)
def conv_transpose(op: ops.ConvTranspose, held: Held) -> Array:
    """Every input element adds its weighted kernel to the output."""
    x, w = less_zero(held[op.x.name], op.x.type), less_zero(held[op.w.name], op.w.type)
    axes, integer = x.ndim - 2, op.x.type.is_integer
    n, c, kernel = x.shape[0], x.shape[1], w.shape[2:]
    per_group = w.shape[1]
    ends = [op.pads[i] + extent for i, extent in enumerate(op.out.shape[2:])]
    reach = [
        max(end, (e - 1) * stride + (k - 1) * d + 1)
        for end, e, stride, k, d in zip(
            ends, x.shape[2:], op.strides, kernel, op.dilations, strict=True
        )
    ]
    out = np.zeros((n, op.group, per_group, *reach), np.int64 if integer else x.dtype)
    rows = x.reshape(n, op.group, c // op.group, -1).transpose(0, 1, 3, 2)
    weights = w.reshape(op.group, c // op.group, per_group, -1)
    for index, place in enumerate(product(*(range(k) for k in kernel))):
        tap = weights[..., index]
        sums = exact_matmul(rows, tap) if integer else np.matmul(rows, tap)
        where = tuple(
            slice(r * d, r * d + (e - 1) * s + 1, s)
            for r, d, e, s in zip(place, op.dilations, x.shape[2:], op.strides, strict=True)
        )
        out[(slice(None), slice(None), slice(None), *where)] += sums.transpose(0, 1, 3, 2).reshape(
            n, op.group, per_group, *x.shape[2:]
        )
    inside = tuple(
        slice(op.pads[i], op.pads[i] + extent) for i, extent in enumerate(op.out.shape[2:])
    )
    out = out[(slice(None), slice(None), slice(None), *inside)].reshape(op.out.shape)
    if op.bias is not None:
        out = out + held[op.bias.name].reshape(1, -1, *(1,) * axes)
    return out.astype(numpy_dtype(op.out.type.dtype))


@meaning(ops.Matmul)
def matmul(op: ops.Matmul, held: Held) -> Array:
    """a @ b + bias."""
    a, b = less_zero(held[op.a.name], op.a.type), less_zero(held[op.b.name], op.b.type)
    out = exact_matmul(a, b) if op.a.type.is_integer else np.matmul(a, b)
    if op.bias is not None:
        out = out + held[op.bias.name]
    return np.asarray(out).astype(numpy_dtype(op.out.type.dtype))
