"""Transposed convolution as a convolution of the input with zeros between its elements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cimc.ir import ops
from cimc.ir.graph import Value
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Array
from cimc.passes._weights import put, weights_of


def as_conv(new: Rewrite, op: ops.ConvTranspose) -> bool:
    """Add zeros between elements, then convolve with the flipped kernel; False without weights."""
    weights = weights_of(new, op.w)
    axes = len(op.x.shape) - 2
    if weights is None:
        return False
    group, kernel = op.group, op.w.shape[2:]

    def turned(array: Array) -> Array:
        """[C, K/g, kernel...] to [K, C/g, flipped kernel...]."""
        c, k = array.shape[:2]
        parts = array.reshape(group, c // group, k, *kernel).swapaxes(1, 2)
        whole = parts.reshape(group * k, c // group, *kernel)
        return np.flip(whole, axis=tuple(range(2, 2 + axes)))

    w = put(new, weights.map(turned), f"{op.out.name}.weight", 0)
    if w is None:
        return False
    x = _spread(new, op.x, op.strides, op.out.name)
    # the window must reach (kernel - 1) * dilation beyond the first element, less what is cut off
    reach = [(k - 1) * d for k, d in zip(kernel, op.dilations, strict=True)]
    begins = [r - p for r, p in zip(reach, op.pads[:axes], strict=True)]
    ends = [r - p for r, p in zip(reach, op.pads[axes:], strict=True)]
    if any(p < 0 for p in (*begins, *ends)):
        crop = (0, 0, *(min(p, 0) for p in begins), 0, 0, *(min(p, 0) for p in ends))
        spatial = (e + crop[2 + i] + crop[4 + axes + i] for i, e in enumerate(x.shape[2:]))
        kind = replace(x.type, shape=(*x.shape[:2], *spatial))
        x = new.add(ops.Pad(Value(new.fresh(f"{op.out.name}.cropped"), kind), x, crop))
    pads = (*(max(p, 0) for p in begins), *(max(p, 0) for p in ends))
    ones = (1,) * axes
    new.add(ops.Conv(op.out, x, w, op.bias, ones, pads, op.dilations, group, nodes=op.nodes))
    return True


def _spread(new: Rewrite, x: Value, strides: tuple[int, ...], name: str) -> Value:
    """stride - 1 zeros between neighbours on each spatial axis."""
    if all(stride == 1 for stride in strides):
        return x
    spatial = x.shape[2:]
    apart = tuple(n for extent in spatial for n in (extent, 1))
    wide = tuple(n for extent, s in zip(spatial, strides, strict=True) for n in (extent, s))
    joined = tuple(extent * s for extent, s in zip(spatial, strides, strict=True))

    def value(suffix: str, shape: tuple[int, ...]) -> Value:
        return Value(new.fresh(f"{name}.{suffix}"), replace(x.type, shape=(*x.shape[:2], *shape)))

    ends = tuple(n for s in strides for n in (0, s - 1))
    split = new.add(ops.Reshape(value("apart", apart), x))
    pads = (0,) * (2 + len(apart)) + (0, 0, *ends)
    padded = new.add(ops.Pad(value("wide", wide), split, pads))
    whole = new.add(ops.Reshape(value("spread", joined), padded))
    # the zeros behind the last element are none between two
    crop = (0,) * (2 + len(spatial)) + (0, 0, *(1 - s for s in strides))
    shape = tuple(extent - s + 1 for extent, s in zip(joined, strides, strict=True))
    return new.add(ops.Pad(value("upsampled", shape), whole, crop))
