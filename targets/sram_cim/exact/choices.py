"""All choices of spatial loops that an optimum can need, given as factors by axis and dim.

A factor that leaves as many iterations in time as a smaller one is never better: with the smaller
one every tile, every count of instances and every padded extent is at most as large. So of equal
remainders the smallest factor stands for all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from cimc.ir.tiles import Spatial
from cimc.mapping.machine import Axis, Machine
from cimc.mapping.nest import DIMS
from cimc.mapping.workload import Workload
from cimc.targets.sram_cim.placing import Factors

Choice = tuple[tuple[str, int], ...]  # (dim, factor) along one axis


def all_choices(workload: Workload, machine: Machine) -> Iterator[Factors]:
    """Every choice, each once; dims that several axes can run are shared in every way."""
    yield from _extended(machine.axes, workload.dims, ())


def _extended(axes: tuple[Axis, ...], left: dict[str, int], found: Factors) -> Iterator[Factors]:
    if not axes:
        yield found
        return
    axis = axes[0]
    dims = [dim for dim in DIMS if dim in axis.dims and left[dim] > 1]
    for choice in _choices(dims, left, axis.size):
        after = dict(left)
        for dim, factor in choice:
            after[dim] = -(-left[dim] // factor)
        yield from _extended(axes[1:], after, (*found, choice))


def _choices(dims: list[str], left: dict[str, int], room: int) -> Iterator[Choice]:
    if not dims:
        yield ()
        return
    dim = dims[0]
    for factor in distinct_factors(left[dim], room):
        own = ((dim, factor),) if factor > 1 else ()
        for others in _choices(dims[1:], left, room // factor):
            yield (*own, *others)


def distinct_factors(extent: int, room: int) -> list[int]:
    """Factors up to `room`: of those that leave equally many iterations the smallest."""
    return sorted(
        {-(-extent // -(-extent // factor)) for factor in range(1, min(extent, room) + 1)}
    )


def remaining(workload: Workload, factors: Factors) -> dict[str, int]:
    """Iterations that loops in time have to make."""
    left = workload.dims
    for dim, factor in itertools.chain.from_iterable(factors):
        left[dim] = -(-left[dim] // factor)
    return left


def used(choice: Choice) -> int:
    """Positions in use along an axis."""
    return math.prod(factor for _, factor in choice)


def factors_of(spatial: tuple[Spatial, ...], machine: Machine) -> Factors:
    """A nest's spatial loops as factors for each axis of the machine."""
    given = {axis.axis: axis.factors for axis in spatial}
    return tuple(given.get(axis.name, ()) for axis in machine.axes)


def spatial_of(factors: Factors, machine: Machine) -> tuple[Spatial, ...]:
    """The reverse of `factors_of`."""
    return tuple(
        Spatial(axis.name, choice)
        for axis, choice in zip(machine.axes, factors, strict=True)
        if choice
    )
