"""Where the elements of a tile lie in its buffer, and views from one tile into another.

A tile's buffer is row-major over the operand's axes, but for k: neighbouring output channels, which
the columns of a macro hold, lie next to each other. An axis with two loops (window position p,
kernel row r) is stored as the run of rows from the first to the last, or, where that is shorter,
as each position's own rows (p x r).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cimc.ir.program import Affine, Bound, View
from cimc.mapping.workload import TensorAxis

K_ONLY = (("k", 1),)  # the terms of an axis of output channels


@dataclass(frozen=True, slots=True)
class Run:
    """One axis of a buffer: `extent` elements, `stride` apart.

    It follows one loop, or (a box) the rows of two, `terms` saying how far each moves along it.
    """

    terms: tuple[tuple[str, int], ...]
    extent: int
    stride: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The runs of a tile's buffer, for each axis of the operand one or, stored apart, two."""

    axes: tuple[TensorAxis, ...]
    runs: tuple[tuple[Run, ...], ...]

    @property
    def elements(self) -> int:
        """Elements of the buffer."""
        return math.prod(run.extent for runs in self.runs for run in runs)

    def step(self, dim: str) -> int:
        """Distance of neighbours along a loop; 0 where the operand does not follow it."""
        for runs in self.runs:
            for run in runs:
                for other, step in run.terms:
                    if other == dim:
                        return step * run.stride
        return 0


def tile_layout(axes: tuple[TensorAxis, ...], extents: Mapping[str, int]) -> Layout:
    """The dense layout of a tile with these loop extents."""
    shapes: list[list[tuple[tuple[tuple[str, int], ...], int]]] = []
    for axis in axes:
        if len(axis.terms) == 2 and axis.box(extents) >= math.prod(
            extents[dim] for dim, _ in axis.terms
        ):
            shapes.append([(((dim, 1),), extents[dim]) for dim, _ in axis.terms])
        else:
            shapes.append([(axis.terms, axis.box(extents))])
    stride, runs = 1, dict[int, tuple[Run, ...]]()
    for place in sorted(range(len(axes)), key=lambda place: (axes[place].terms != K_ONLY, -place)):
        made = []
        for terms, extent in reversed(shapes[place]):
            made.append(Run(terms, extent, stride))
            stride *= extent
        runs[place] = tuple(reversed(made))
    return Layout(axes, tuple(runs[place] for place in range(len(axes))))


def whole_layout(axes: tuple[TensorAxis, ...]) -> Layout:
    """The layout of the whole tensor in the outermost memory."""
    return Layout(axes, tuple((Run(axis.terms, axis.limit, axis.stride),) for axis in axes))


@dataclass(frozen=True, slots=True)
class Window:
    """A tile seen in a buffer that holds more: stride and moves of each axis of the tile's view."""

    dims: tuple[tuple[int, int], ...]  # extent, stride
    offset: Affine
    bounds: tuple[Bound, ...]  # coordinates that leave the tensor

    def view(self, buffer: str) -> View:
        """The view."""
        return View(buffer, self.offset, self.dims)


def window(
    tile: Layout,
    outer: Layout,
    start: Mapping[str, Affine],
    trips: Mapping[str, int] | None,
) -> Window:
    """The elements of `tile`, which starts at `start` (by loop) within `outer`.

    `trips`: trip counts by loop variable, for a whole tensor as `outer`: there the tile's window
    can leave the tensor, and bounds say where. None for a tile that holds all of the inner one.
    """
    dims: list[tuple[int, int]] = []
    offset = Affine()
    for dim, at in start.items():
        offset = offset + at * outer.step(dim)
    moves: list[list[int]] = [[] for _ in tile.axes]  # of each coordinate, along the view's axes
    for place, runs in enumerate(tile.runs):
        for run in runs:
            unit = _unit(outer.runs[place], run)
            dims.append((run.extent, unit))
            step = dict(tile.axes[place].terms)[run.terms[0][0]] if len(runs) == 2 else 1
            for other, move in enumerate(moves):
                move.append(step if other == place else 0)
    bounds: list[Bound] = []
    if trips is not None:
        for axis, steps in zip(tile.axes, moves, strict=True):
            offset = offset + axis.start * axis.stride
            first = Affine(axis.start)
            for dim, step in axis.terms:
                first = first + start.get(dim, Affine()) * step
            extents = [extent for extent, _ in dims]
            if _leaves(first, steps, extents, axis.limit, trips):
                bounds.append(Bound(first, tuple(steps), axis.limit))
    return Window(tuple(dims), offset, tuple(bounds))


def _unit(outer: tuple[Run, ...], run: Run) -> int:
    """Distance in the outer buffer of neighbours along a run of the inner one."""
    for other in outer:
        steps = dict(other.terms)
        if run.terms == other.terms:
            return other.stride
        if len(run.terms) == 1 and run.terms[0][0] in steps:
            return steps[run.terms[0][0]] * other.stride
    raise AssertionError("a tile stored apart lies in one that is, too")


def _leaves(
    first: Affine, steps: list[int], extents: list[int], limit: int, trips: Mapping[str, int]
) -> bool:
    low = first.const + sum(min(0, factor * (trips[v] - 1)) for v, factor in first.terms)
    high = first.const + sum(max(0, factor * (trips[v] - 1)) for v, factor in first.terms)
    high += sum(step * (extent - 1) for step, extent in zip(steps, extents, strict=True))
    return low < 0 or high >= limit
