"""What is mapped: a heavy op as loop bounds, and how its operands' axes follow the loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from cimc.lowering import ConvShape


@dataclass(frozen=True, slots=True)
class TensorAxis:
    """One axis of an operand: coordinate = start + sum of step * loop; 0 .. limit-1 are real.

    An axis follows one loop, or two (p and r of an input's rows).
    """

    terms: tuple[tuple[str, int], ...]  # (loop, step)
    limit: int
    stride: int  # elements between neighbours in the whole tensor
    start: int = 0

    def extent(self, tile: Mapping[str, int]) -> int:
        """Elements along the axis that a tile of these loop extents touches, stored without gaps.

        With window position p (step `a`) and kernel r (step `b`): the shorter of all rows from the
        first to the last, (p - 1)*a + (r - 1)*b + 1, and each position's own, p*r.
        """
        if len(self.terms) == 1:
            return tile[self.terms[0][0]]
        return min(self.box(tile), tile[self.terms[0][0]] * tile[self.terms[1][0]])

    def box(self, tile: Mapping[str, int]) -> int:
        """Elements from the first to the last that a tile touches."""
        return 1 + sum(step * (tile[dim] - 1) for dim, step in self.terms)


@dataclass(frozen=True, slots=True)
class Workload:
    """A heavy op and the bits of an element of I, of W, and of O when its sum is complete."""

    shape: ConvShape
    bits: tuple[int, int, int] = (8, 8, 8)

    @property
    def dims(self) -> dict[str, int]:
        """Loop bounds."""
        return dict(self.shape.dims)

    @property
    def axes(self) -> tuple[tuple[TensorAxis, ...], ...]:
        """Axes of I, W and O."""
        return operand_axes(self.shape)

    def elements(self, operand: int, tile: Mapping[str, int]) -> int:
        """Elements of an operand's tile with these loop extents, padding included."""
        count = 1
        for axis in self.axes[operand]:
            count *= axis.extent(tile)
        return count


@cache
def operand_axes(shape: ConvShape) -> tuple[tuple[TensorAxis, ...], ...]:
    """Axes of I, W and O in the layouts of the graph's tensors."""
    return _matmul_axes(shape) if shape.matmul else _conv_axes(shape)


def _matmul_axes(shape: ConvShape) -> tuple[tuple[TensorAxis, ...], ...]:
    step = shape.x_strides
    inputs = (
        TensorAxis((("g", 1),), shape.g, step["g"]),
        TensorAxis((("p", 1),), shape.p, step["h"]),
        TensorAxis((("c", 1),), shape.c, 1),
    )
    weights = (
        TensorAxis((("g", 1),), shape.g, shape.c * shape.k),
        TensorAxis((("c", 1),), shape.c, shape.k),
        TensorAxis((("k", 1),), shape.k, 1),
    )
    outputs = (
        TensorAxis((("g", 1),), shape.g, shape.p * shape.k),
        TensorAxis((("p", 1),), shape.p, shape.k),
        TensorAxis((("k", 1),), shape.k, 1),
    )
    return inputs, weights, outputs


def _conv_axes(shape: ConvShape) -> tuple[tuple[TensorAxis, ...], ...]:
    step = shape.x_strides
    (a, b), (above, left), (u, v) = shape.strides, shape.pads, shape.dilations
    inputs = (
        TensorAxis((("n", 1),), shape.n, step["n"]),
        TensorAxis((("g", 1),), shape.g, step["g"]),
        TensorAxis((("c", 1),), shape.c, step["c"]),
        TensorAxis((("p", a), ("r", u)), shape.h, step["h"], -above),
        TensorAxis((("q", b), ("s", v)), shape.w, step["w"], -left),
    )
    window, kernel, plane = shape.window, shape.r * shape.s, shape.p * shape.q
    weights = (
        TensorAxis((("g", 1),), shape.g, shape.k * window),
        TensorAxis((("k", 1),), shape.k, window),
        TensorAxis((("c", 1),), shape.c, kernel),
        TensorAxis((("r", 1),), shape.r, shape.s),
        TensorAxis((("s", 1),), shape.s, 1),
    )
    outputs = (
        TensorAxis((("n", 1),), shape.n, shape.g * shape.k * plane),
        TensorAxis((("g", 1),), shape.g, shape.k * plane),
        TensorAxis((("k", 1),), shape.k, plane),
        TensorAxis((("p", 1),), shape.p, shape.q),
        TensorAxis((("q", 1),), shape.q, 1),
    )
    return inputs, weights, outputs
