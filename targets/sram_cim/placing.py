"""Loops in a given order, and at which levels they keep the operands: as far out as tiles fit.

A level further out than its tiles need would only fetch them more often, so each level takes all
loops from the innermost outwards whose tile it can hold; levels that several operands share are
filled with weights first, then inputs, then results.
"""

from __future__ import annotations

from collections.abc import Sequence

from cimc.errors import InternalError
from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.mapping.machine import INPUT, NAMES, OUTPUT, WEIGHT, Machine
from cimc.mapping.nest import Mapped
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
    """The mapping of these loops with every operand as far out as it fits."""
    count = len(loops)
    cuts: Cuts = [[0] + [count] * (len(machine.chain(o)) - 1) for o in (INPUT, WEIGHT, OUTPUT)]
    mapped = with_cuts(workload, machine, spatial, loops, double, cuts)
    left = [level.size_bits for level in machine.levels]
    for operand in (WEIGHT, INPUT, OUTPUT):
        chain = machine.chain(operand)
        for position in range(1, len(chain)):
            level = chain[position]
            copies = 2 if (level, operand) in double else 1
            bits = _bits(mapped, operand, level)
            cut = count
            for begin in range(count, cuts[operand][position - 1] - 1, -1):
                tile = mapped.extents(begin, operand, level)
                size = workload.elements(operand, tile) * copies * bits
                if size > left[level]:
                    break
                cut = begin
            cuts[operand][position] = cut
        for position in range(1, len(chain)):
            ends = [*cuts[operand], count]
            if ends[position] < ends[position + 1] or position == len(chain) - 1:
                tile = mapped.extents(ends[position], operand, chain[position])
                copies = 2 if (chain[position], operand) in double else 1
                size = workload.elements(operand, tile) * copies
                left[chain[position]] -= size * _bits(mapped, operand, chain[position])
    return with_cuts(workload, machine, spatial, loops, double, cuts)


def _bits(mapped: Mapped, operand: int, level: int) -> int:
    """Bits of an element, of a sum wherever it may be partial."""
    if operand == OUTPUT:
        return max(mapped.machine.psum_bits, mapped.workload.bits[OUTPUT])
    return mapped.bits(operand, level)


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


def nest_of(mapped: Mapped) -> Nest:
    """The mapping by names, with neighbouring loops of one dim and equal levels made one.

    A loop of bound 1 is kept where it alone names a level, which tiles pass through.
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
        if loops and loops[-1].dim == dim and loops[-1].levels == (i, w, o):
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
