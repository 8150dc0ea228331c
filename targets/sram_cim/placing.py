"""Loops in a given order, and at which levels they keep the operands: as far in as tiles fit."""

from __future__ import annotations

from collections.abc import Sequence

from cimc.errors import InternalError
from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.mapping.machine import INPUT, NAMES, OPERANDS, OUTPUT, REDUCED, WEIGHT, Machine
from cimc.mapping.nest import DIMS, Mapped
from cimc.mapping.workload import Workload

Loops = tuple[tuple[str, int], ...]
Factors = tuple[tuple[tuple[str, int], ...], ...]  # for each axis of the machine
Cuts = list[list[int]]  # for I, W, O: the first loop that each level of its chain keeps


def placed(
    workload: Workload,
    machine: Machine,
    spatial: Factors,
    loops: Loops,
    double: frozenset[tuple[int, int]],
) -> Mapped:
    """The mapping of these loops in which each stays as far in as its tiles fit.

    From the innermost loop outwards, first weights, then inputs, then results take a loop into the
    level that keeps the loop inside it; where the tile outgrows what is left of the level, all
    loops from there on are the next level's.
    """
    count = len(loops)
    chains = [machine.chain(o) for o in OPERANDS]
    cuts: Cuts = [[0] + [count] * (len(chain) - 1) for chain in chains]
    spread = _spread(machine, spatial)
    taken = [[0, 0, 0] for _ in machine.levels]  # by level and operand
    inside = dict.fromkeys(DIMS, 1)
    at = [len(chain) - 1 for chain in chains]
    reducing = sum(dim in REDUCED and bound > 1 for dim, bound in loops)  # loops yet to come
    sums = len(machine.levels)  # outermost level of partial sums so far

    def bits(operand: int, level: int) -> int:
        if operand == OUTPUT:
            is_sum = reducing or level >= min(sums, chains[OUTPUT][-1])
            return machine.psum_bits if is_sum else workload.bits[OUTPUT]
        if (operand, level) == (WEIGHT, chains[WEIGHT][-1]):
            return -(-workload.bits[WEIGHT] // machine.weight_bits) * machine.weight_bits
        return workload.bits[operand]

    def fits(operand: int, level: int) -> bool:
        tile = {dim: size * spread[operand, level, dim] for dim, size in inside.items()}
        copies = 2 if (level, operand) in double else 1
        taken[level][operand] = workload.elements(operand, tile) * copies * bits(operand, level)
        return sum(taken[level]) <= machine.levels[level].size_bits

    for o in OPERANDS:
        fits(o, chains[o][-1])  # what registers and cells hold without any loop
    for place in range(count - 1, -1, -1):
        dim, bound = loops[place]
        reduces = dim in REDUCED and bound > 1
        for o in (WEIGHT, INPUT, OUTPUT):
            before = inside[dim]
            inside[dim] *= bound
            while at[o]:
                level, held = chains[o][at[o]], taken[chains[o][at[o]]][o]
                if fits(o, level):
                    break
                taken[level][o] = held
                at[o] -= 1
            for position in range(1, at[o] + 1):
                cuts[o][position] = place
            if o == OUTPUT and reduces:
                reducing, sums = reducing - 1, chains[o][at[o]]
            inside[dim] = before
        inside[dim] *= bound
    return with_cuts(workload, machine, spatial, loops, double, cuts)


def _spread(machine: Machine, spatial: Factors) -> dict[tuple[int, int, str], int]:
    """Spatial factor of each dim that a tile of an operand at a level holds."""
    found = {
        (operand, level, dim): 1
        for operand in OPERANDS
        for level in range(len(machine.levels))
        for dim in DIMS
    }
    for axis, factors in zip(machine.axes, spatial, strict=True):
        for dim, factor in factors:
            for operand in OPERANDS:
                for level in range(axis.source[operand] + 1):
                    found[operand, level, dim] *= factor
    return found


def with_cuts(
    workload: Workload,
    machine: Machine,
    spatial: Factors,
    loops: Loops,
    double: frozenset[tuple[int, int]],
    cuts: Cuts,
) -> Mapped:
    """The mapping whose levels begin at these loops; second buffers of unused levels are none."""
    levels = []
    for operand in (INPUT, WEIGHT, OUTPUT):
        chain, ends = machine.chain(operand), [*cuts[operand], len(loops)]
        held: list[int] = []
        for position, level in enumerate(chain):
            held += [level] * (ends[position + 1] - ends[position])
        if len(held) != len(loops):
            raise InternalError("levels do not cover the loops")
        levels.append(tuple(held))
    used = frozenset(
        (level, operand)
        for level, operand in double
        if level in levels[operand] or level == machine.chain(operand)[-1]
    )
    return Mapped(
        workload, machine, loops, (levels[INPUT], levels[WEIGHT], levels[OUTPUT]), spatial, used
    )


def nest_of(mapped: Mapped, *, merge: bool = True) -> Nest:
    """The mapping by names, with neighbouring loops of one dim and equal levels made one (`merge`).

    Apart they divide long transfers in more ways. A loop of bound 1 is kept where it alone names a
    level, which tiles pass through.
    """
    names = [level.name for level in mapped.machine.levels]
    named = [
        {levels[place] for place, (_, bound) in enumerate(mapped.loops) if bound > 1}
        for levels in mapped.levels
    ]
    loops: list[TemporalLoop] = []
    for place, (dim, bound) in enumerate(mapped.loops):
        i, w, o = (names[mapped.levels[operand][place]] for operand in range(3))
        levels = [mapped.levels[operand][place] for operand in range(3)]
        if bound == 1 and all(levels[operand] in named[operand] for operand in range(3)):
            continue
        if merge and loops and loops[-1].dim == dim and loops[-1].levels == (i, w, o):
            loops[-1] = TemporalLoop(dim, loops[-1].bound * bound, (i, w, o))
        else:
            loops.append(TemporalLoop(dim, bound, (i, w, o)))
    spatial: Sequence[Spatial] = [
        Spatial(axis.name, tuple(item for item in factors if item[1] > 1))
        for axis, factors in zip(mapped.machine.axes, mapped.spatial, strict=True)
    ]
    return Nest(
        tuple(mapped.workload.dims.items()),
        tuple(axis for axis in spatial if axis.factors),
        tuple(loops),
        tuple(sorted((names[level], NAMES[operand]) for level, operand in mapped.double)),
    )
