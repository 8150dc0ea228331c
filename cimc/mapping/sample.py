"""Random legal mappings, to test what must hold for every mapping."""

from __future__ import annotations

import random

from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.mapping.machine import NAMES, OPERANDS, Machine
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.workload import Workload


def random_nest(
    workload: Workload, machine: Machine, rng: random.Random, *, exact: bool = False
) -> Nest:
    """A legal nest drawn at random; `exact`: products of bounds equal the extents, no tails."""
    left = workload.dims
    spatial = []
    for axis in machine.axes:
        factors, room = [], axis.size
        for dim in rng.sample(sorted(axis.dims), len(axis.dims)):
            factor = _factor(min(left[dim], room), left[dim], rng, exact)
            if factor > 1 and rng.random() < 0.7:
                factors.append((dim, factor))
                left[dim] = -(-left[dim] // factor)
                room //= factor
        if factors:
            spatial.append(Spatial(axis.name, tuple(factors)))
    loops: list[tuple[str, int]] = []
    for dim, extent in left.items():
        while extent > 1:
            factor = _factor(extent, extent, rng, exact)
            if rng.random() < 0.3:
                factor = extent
            if factor > 1:
                loops.append((dim, factor))
                extent = -(-extent // factor)
    rng.shuffle(loops)
    i, w, o = (machine.levels[machine.chain(operand)[0]].name for operand in OPERANDS)
    nest = Nest(
        tuple(workload.dims.items()),
        tuple(spatial),
        tuple(TemporalLoop(dim, bound, (i, w, o)) for dim, bound in loops),
    )
    for _ in range(rng.randrange(4 * len(loops) + 4)):
        changed = _pushed(nest, machine, rng)
        mapped = resolve(changed, workload, machine)
        if isinstance(mapped, Mapped) and not any(capacity_faults(mapped)):
            nest = changed
    return nest


def _factor(most: int, extent: int, rng: random.Random, exact: bool) -> int:
    choices = [f for f in range(1, most + 1) if not exact or extent % f == 0]
    return rng.choice(choices)


def _pushed(nest: Nest, machine: Machine, rng: random.Random) -> Nest:
    """The nest with one more double buffer, or an operand's inner loops one level further in."""
    operand = rng.choice(OPERANDS)
    chain = machine.chain(operand)
    if rng.random() < 0.2 and len(chain) > 1:
        name = machine.levels[rng.choice(chain[1:])].name
        double = tuple(sorted({*nest.double, (name, NAMES[operand])}))
        return Nest(nest.dims, nest.spatial, nest.loops, double)
    if not nest.loops:
        return nest
    level = rng.choice(chain)
    first = rng.randrange(len(nest.loops))
    names = [machine.levels[place].name for place in chain]
    loops = []
    for place, loop in enumerate(nest.loops):
        now = names.index(loop.levels[operand])
        wanted = chain.index(level)
        if place >= first:
            now = max(now, wanted)
        levels = list(loop.levels)
        levels[operand] = names[now]
        loops.append(TemporalLoop(loop.dim, loop.bound, (levels[0], levels[1], levels[2])))
    return Nest(nest.dims, nest.spatial, tuple(loops), nest.double)
