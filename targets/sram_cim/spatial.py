"""Choices of loops that run in space, those with the fewest activations first."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cimc.mapping.machine import WEIGHT, Machine
from cimc.mapping.nest import DIMS
from cimc.mapping.workload import Workload
from cimc.targets.sram_cim.placing import Factors

Choice = tuple[tuple[str, int], ...]  # (dim, factor)


def spatial_choices(
    workload: Workload, machine: Machine, most: int, *, tails: bool = True
) -> tuple[Factors, ...]:
    """The `most` choices with the fewest activations; `tails`: factors need not divide extents."""
    chosen: list[tuple[int, Factors]] = []
    known: dict[tuple[str, Choice], list[tuple[int, Choice]]] = {}
    by_axis = {axis.name: place for place, axis in enumerate(machine.axes)}
    names = [name for name in ("columns", "rows", "cores") if name in by_axis]

    def extend(left: dict[str, int], found: dict[str, Choice], place: int) -> None:
        name = names[place]
        axis = machine.axes[by_axis[name]]
        key = name, tuple((d, left[d]) for d in DIMS if d in axis.dims and left[d] > 1)
        if key not in known:
            found_here = _choices([dim for dim, _ in key[1]], left, axis.size, tails)
            ranked = sorted(found_here, key=lambda item: item[0])
            known[key] = ranked[: 12 if name == "cores" else 6]
        others = math.prod(extent for dim, extent in left.items() if dim not in axis.dims)
        for iterations, choice in known[key]:
            extended = {**found, name: choice}
            if place + 1 == len(names):
                factors = tuple(extended.get(axis.name, ()) for axis in machine.axes)
                chosen.append((others * iterations, factors))
                continue
            after = dict(left)
            for dim, factor in choice:
                after[dim] = -(-left[dim] // factor)
            extend(after, extended, place + 1)

    extend(workload.dims, {}, 0)
    chosen = [item for item in chosen if _fits_cells(workload, machine, item[1])]
    chosen.sort(key=lambda item: item[0])
    return tuple(factors for _, factors in chosen[:most])


def _fits_cells(workload: Workload, machine: Machine, factors: Factors) -> bool:
    """Whether weights whose only home are the cells fit there: all that is not spread in space."""
    chain = machine.chain(WEIGHT)
    if len(chain) > 1:
        return True
    left = workload.dims
    for axis, own in zip(machine.axes, factors, strict=True):
        if axis.source[WEIGHT] < chain[0]:
            for dim, factor in own:
                left[dim] = -(-left[dim] // factor)
    bits = -(-workload.bits[WEIGHT] // machine.weight_bits) * machine.weight_bits
    return workload.elements(WEIGHT, left) * bits <= machine.levels[chain[0]].size_bits


def _choices(
    dims: list[str], left: dict[str, int], room: int, tails: bool
) -> Iterator[tuple[int, Choice]]:
    """All ways to share the positions of an axis, with the iterations that remain."""
    if not dims:
        yield 1, ()
        return
    dim = dims[0]
    for factor in _factors(left[dim], room, tails):
        own = ((dim, factor),) if factor > 1 else ()
        for iterations, others in _choices(dims[1:], left, room // factor, tails):
            yield iterations * -(-left[dim] // factor), (*own, *others)


def _factors(extent: int, room: int, tails: bool) -> list[int]:
    """Factors worth trying: of those that leave equally many iterations the smallest."""
    most = min(extent, room)
    if not tails:
        return [factor for factor in range(1, most + 1) if extent % factor == 0]
    found = {-(-extent // -(-extent // factor)) for factor in range(1, most + 1)}
    return sorted(found)
