"""Constants with the scales they were quantized with, as one thing to transform.

A float model holds `constant`, a quantized one `dequantize(constant, scale, zero)`. A pass that
transposes or scales weights does the same to both: `weights_of` reads either, `Weights.map` moves
elements, `Weights.scaled` multiplies, `put` writes the result back in the form it came in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.graph import Value
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Array, Type, dtype_of

Floats = NDArray[np.float32]
Element = TypeVar("Element", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Weights:
    """Elements, and where they are integers: scale and zero point of each, all of one shape.

    Scales and zero points that elements share are held once (`np.broadcast_to`).
    """

    elements: Array
    dtype: str  # of the elements: i4 is held in bytes
    scale: Floats | None = None
    zero: NDArray[np.int32] | None = None
    nodes: tuple[str, ...] = ()

    @property
    def real(self) -> Floats:
        """The real numbers."""
        if self.scale is None:
            return self.elements.astype(np.float32)
        assert self.zero is not None
        centered = self.elements.astype(np.int32) - self.zero
        return np.asarray(centered.astype(np.float32) * self.scale)

    def map(self, move: Callable[[Array], Array]) -> Weights:
        """Elements moved about; each keeps its scale and zero point."""
        if self.scale is None or self.zero is None:
            return replace(self, elements=move(self.elements))
        scale: Floats = move(self.scale).astype(np.float32, copy=False)
        zero: NDArray[np.int32] = move(self.zero).astype(np.int32, copy=False)
        return replace(self, elements=move(self.elements), scale=scale, zero=zero)

    def scaled(self, factor: Floats) -> Weights | None:
        """Times `factor`, which broadcasts; None where a scale would not stay positive."""
        if self.scale is None:
            product = self.elements.astype(np.float64) * factor
            return replace(self, elements=product.astype(np.float32))
        scale = (distinct(self.scale).astype(np.float64) * factor).astype(np.float32)
        if not (np.isfinite(scale) & (scale > 0)).all():
            return None
        spread: Floats = np.broadcast_to(scale, self.elements.shape)
        return replace(self, scale=spread)

    def along(self, axis: int) -> tuple[Floats, NDArray[np.int32]] | None:
        """Scale and zero point of each place on `axis` or one for all; None if not of that form."""
        assert self.scale is not None
        assert self.zero is not None
        found = []
        for array in (self.scale, self.zero):
            once = distinct(array)
            lines = np.moveaxis(once, axis, 0).reshape(once.shape[axis], -1)
            if lines.size and (lines != lines[:, :1]).any():
                return None
            line = lines[:, 0] if lines.size else lines.reshape(-1)
            found.append(np.broadcast_to(line, array.shape[axis]))
        scale, zero = found
        if (scale == scale[:1]).all() and (zero == zero[:1]).all():
            scale, zero = scale[:1], zero[:1]
        return scale.astype(np.float32), zero.astype(np.int32)


def distinct(array: NDArray[Element]) -> NDArray[Element]:
    """The array with a single place along each axis that repeats its elements."""
    steps = zip(array.strides, array.shape, strict=True)
    return array[tuple(slice(min(extent, 1) if step == 0 else extent) for step, extent in steps)]


def weights_of(new: Rewrite, value: Value) -> Weights | None:
    """The constant behind a value, through a dequantize and ops that only move its elements."""
    array = new.array(value)
    if array is not None:
        return Weights(array, value.type.dtype)
    match new.maker(value):
        case ops.Dequantize(x=x, scale=scale, zero=zero, axis=axis, nodes=nodes):
            held = weights_of(new, x)
            if held is None or held.scale is not None:
                return None
            scales, zeros = new.array(scale), None if zero is None else new.array(zero)
            if scales is None or (zero is not None and zeros is None):
                return None
            shape = held.elements.shape
            single = np.zeros((), np.int32) if zeros is None else zeros.astype(np.int32)
            spread: Floats = _along(scales.astype(np.float32), axis, len(shape))
            origin: NDArray[np.int32] = _along(single, axis, len(shape))
            return replace(
                held,
                scale=np.broadcast_to(spread, shape),
                zero=np.broadcast_to(origin, shape),
                nodes=(*held.nodes, *nodes),
            )
        case ops.Transpose(x=x, perm=perm, nodes=nodes):
            held = weights_of(new, x)
            moved = held and held.map(lambda array: array.transpose(perm))
        case ops.Reshape(out=out, x=x, nodes=nodes):
            held = weights_of(new, x)
            moved = held and held.map(lambda array: array.reshape(out.shape))
        case _:
            return None
    return moved and replace(moved, nodes=(*moved.nodes, *nodes))


def _along(array: NDArray[Element], axis: int | None, rank: int) -> NDArray[Element]:
    if array.size == 1 or axis is None:
        return array.reshape(())
    return array.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def put(new: Rewrite, weights: Weights, name: str, axis: int = 0) -> Value | None:
    """Write weights as a constant, with a dequantize along `axis` where they have scales.

    None where their scales vary along another axis.
    """
    kind = Type(weights.dtype, weights.elements.shape)
    if weights.scale is None:
        array = weights.elements.astype(np.float32)
        return new.constant(array, name, Type("f32", array.shape))
    found = weights.along(axis)
    if found is None:
        return None
    scale, zero = found
    single = scale.size == 1
    held = new.constant(weights.elements, f"{name}.integers", kind)
    scales = new.constant(scale.reshape(()) if single else scale, f"{name}.scale")
    zeros = None
    if zero.any():
        stored = zero.astype(weights.elements.dtype)
        stored = stored.reshape(()) if single else stored
        zeros = new.constant(stored, f"{name}.zero", Type(weights.dtype, stored.shape))
    out = Value(new.fresh(name), Type("f32", weights.elements.shape))
    along = None if single else axis
    return new.add(ops.Dequantize(out, held, scales, zeros, along, nodes=weights.nodes))


def put_float(new: Rewrite, array: Array, name: str) -> Value:
    """Write an array as a float constant."""
    array = np.asarray(array, np.float32)
    return new.constant(array, new.fresh(name), Type(dtype_of(array), array.shape))
