"""Ops that only move elements: integers stay the integers they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, UnsupportedError
from cimc.ir import ops
from cimc.ir.evaluate.numbers import converted, element, real, typed
from cimc.ir.evaluate.registry import Held, meaning
from cimc.ir.types import Array


@meaning(ops.Reshape)
def reshape(op: ops.Reshape, held: Held) -> Array:
    """Same order of elements."""
    return converted(held[op.x.name].reshape(op.out.shape), op.x.type, op.out.type)


@meaning(ops.Transpose)
def transpose(op: ops.Transpose, held: Held) -> Array:
    """Axis i of the result is axis perm[i] of x."""
    return converted(held[op.x.name].transpose(op.perm), op.x.type, op.out.type)


@meaning(ops.Concat)
def concat(op: ops.Concat, held: Held) -> Array:
    """Each operand in the type of the result, one after another."""
    parts = [converted(held[x.name], x.type, op.out.type) for x in op.xs]
    return np.concatenate(parts, axis=op.axis)


@meaning(ops.Slice)
def slice_(op: ops.Slice, held: Held) -> Array:
    """Every axis from its start with its step, as many elements as the result has."""
    x = held[op.x.name]
    for axis, (start, step, extent) in enumerate(
        zip(op.starts, op.steps, op.out.shape, strict=True)
    ):
        x = np.take(x, start + step * np.arange(extent), axis=axis)
    return converted(x, op.x.type, op.out.type)


@meaning(ops.Pad)
def pad(op: ops.Pad, held: Held) -> Array:
    """Crop where pads are negative, pad where they are positive."""
    x, rank = held[op.x.name], len(op.x.shape)
    ends = list(zip(op.pads[:rank], op.pads[rank:], strict=True))
    crop = tuple(
        slice(max(0, -begin), extent - max(0, -end))
        for (begin, end), extent in zip(ends, x.shape, strict=True)
    )
    grow = [(max(0, begin), max(0, end)) for begin, end in ends]
    if op.mode == "constant":
        out = np.pad(x[crop], grow, constant_values=element(op.value, op.x.type))
    elif op.mode == "reflect":
        out = np.pad(x[crop], grow, mode="reflect")
    elif op.mode == "edge":
        out = np.pad(x[crop], grow, mode="edge")
    else:
        out = np.pad(x[crop], grow, mode="wrap")
    return converted(out, op.x.type, op.out.type)


@meaning(ops.Gather)
def gather(op: ops.Gather, held: Held) -> Array:
    """np.take."""
    indices = held[op.indices.name].astype(np.int64)
    return converted(np.take(held[op.x.name], indices, op.axis), op.x.type, op.out.type)


@meaning(ops.Broadcast)
def broadcast(op: ops.Broadcast, held: Held) -> Array:
    """NumPy's broadcasting."""
    out = np.broadcast_to(held[op.x.name], op.out.shape).copy()
    return converted(out, op.x.type, op.out.type)


@meaning(ops.Tile)
def tile(op: ops.Tile, held: Held) -> Array:
    """Whole copies along every axis."""
    x = held[op.x.name]
    times = [o // e if e else 1 for o, e in zip(op.out.shape, x.shape, strict=True)]
    return converted(np.tile(x, times), op.x.type, op.out.type)


def _coordinates(mode: str, before: int, after: int, scale: float) -> NDArray[np.float64]:
    """Where each output element lies on the input's axis (ONNX's coordinate modes)."""
    place = np.arange(after, dtype=np.float64)
    if mode == "half_pixel":
        return np.asarray((place + 0.5) / scale - 0.5)
    if mode == "half_pixel_symmetric":
        adjustment = after / (before * scale)
        offset = before / 2 * (1 - adjustment)
        return np.asarray(offset + (place + 0.5) / scale - 0.5)
    if mode == "pytorch_half_pixel":
        return (place + 0.5) / scale - 0.5 if after > 1 else np.zeros_like(place)
    if mode == "align_corners":
        return place * (before - 1) / (after - 1) if after > 1 else np.zeros_like(place)
    if mode == "asymmetric":
        return np.asarray(place / scale)
    raise UnsupportedError(Fault(f"resize with coordinates {mode}"))


_NEAREST: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "round_prefer_floor": lambda place: np.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: np.floor(place + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@meaning(ops.Resize)
def resize(op: ops.Resize, held: Held) -> Array:
    """Axis by axis: the nearest element, or the weighted mean of two."""
    x = held[op.x.name]
    if op.mode == "linear":
        x = real(x, op.x.type)
    for axis, (before, after, scale) in enumerate(
        zip(op.x.shape, op.out.shape, op.scales, strict=True)
    ):
        if before == after and scale == 1:
            continue
        place = _coordinates(op.coordinates, before, after, scale)
        if op.mode == "nearest":
            index = np.clip(_NEAREST[op.nearest](place), 0, before - 1).astype(np.int64)
            x = np.take(x, index, axis=axis)
        else:
            place = np.clip(place, 0, before - 1)
            low = np.floor(place).astype(np.int64)
            high = np.minimum(low + 1, before - 1)
            weight = (place - low).astype(x.dtype)
            weight = weight.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
            one = np.asarray(1, x.dtype)
            x = np.take(x, low, axis=axis) * (one - weight) + np.take(x, high, axis=axis) * weight
    if op.mode == "nearest":
        return converted(x, op.x.type, op.out.type)
    return typed(x, op.out.type)
