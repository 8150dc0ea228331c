"""Small changes of a mapping: what its last few percent hang on, once bounds no longer tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from cimc.ir.tiles import Nest, TemporalLoop
from cimc.mapping.machine import NAMES, OPERANDS, Machine


def polished(
    nest: Nest, machine: Machine, score: Callable[[Nest], float], tries: int
) -> tuple[Nest, float]:
    """The best mapping that changes, one after the other, lead to in so many tries."""
    best, least = nest, score(nest)
    improved = True
    while improved and tries > 0:
        improved = False
        for candidate in neighbours(best, machine):
            tries -= 1
            if tries < 0:
                break
            found = score(candidate)
            if found < least:
                best, least, improved = candidate, found, True
                break
    return best, least


def neighbours(nest: Nest, machine: Machine) -> Iterator[Nest]:
    """Mappings that differ in one second buffer, one loop's level, or the order of two loops."""
    for level in machine.levels[1:]:
        for operand in OPERANDS:
            if level.double[operand]:
                item = (level.name, NAMES[operand])
                double = tuple(sorted(set(nest.double) ^ {item}))
                yield dataclasses.replace(nest, double=double)
    loops = nest.loops
    for place in range(len(loops) - 1, -1, -1):
        for operand in OPERANDS:
            chain = [machine.levels[level].name for level in machine.chain(operand)]
            now = chain.index(loops[place].levels[operand])
            low = chain.index(loops[place - 1].levels[operand]) if place else 0
            high = len(chain) - 1
            if place + 1 < len(loops):
                high = chain.index(loops[place + 1].levels[operand])
            for wanted in range(low, high + 1):
                if wanted != now:
                    yield _with_loop(nest, place, _at(loops[place], operand, chain[wanted]))
    for place in range(len(loops) - 1):
        one, two = loops[place], loops[place + 1]
        if one.dim != two.dim:
            swapped = list(loops)
            swapped[place] = TemporalLoop(two.dim, two.bound, one.levels)
            swapped[place + 1] = TemporalLoop(one.dim, one.bound, two.levels)
            yield dataclasses.replace(nest, loops=tuple(swapped))


def _at(loop: TemporalLoop, operand: int, level: str) -> TemporalLoop:
    i, w, o = (level if place == operand else loop.levels[place] for place in OPERANDS)
    return TemporalLoop(loop.dim, loop.bound, (i, w, o))


def _with_loop(nest: Nest, place: int, loop: TemporalLoop) -> Nest:
    return dataclasses.replace(nest, loops=(*nest.loops[:place], loop, *nest.loops[place + 1 :]))
