"""What moves between levels, how often and how much: the nest's traffic in closed form."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from cimc.mapping.machine import INPUT, OUTPUT, REDUCED, WEIGHT
from cimc.mapping.nest import Block, Mapped


@dataclass(frozen=True, slots=True)
class Flow:
    """Tiles of one operand between two neighbouring levels that it uses.

    In every iteration of loop `loop` (once before all loops where it is -1) one tile comes in; of
    the results, tiles of partial sums come back in after their first visit, and every tile goes
    out. Elements count for one instance of a level.
    """

    operand: int
    outer: Block
    inner: Block
    loop: int
    outer_elements: int  # one instance of the outer level hands out for one tile
    inner_elements: int  # one instance of the inner level takes up
    inward: int  # tiles
    outward: int
    partial: bool  # sums move that are not complete yet
    double: bool  # the inner level has two buffers


def flows(mapped: Mapped) -> tuple[Flow, ...]:
    """All flows: I, W, O, each from the outermost level inwards."""
    return tuple(
        _flow(mapped, operand, outer, inner)
        for operand in (INPUT, WEIGHT, OUTPUT)
        for outer, inner in itertools.pairwise(mapped.chain(operand))
    )


def _flow(mapped: Mapped, operand: int, outer: Block, inner: Block) -> Flow:
    loop = mapped.filled_in(operand, inner)
    visits = math.prod(bound for _, bound in mapped.loops[: loop + 1])
    reduced = math.prod(mapped.loops[place][1] for place in reductions(mapped, loop))
    inward = visits - visits // reduced if operand == OUTPUT else visits
    elements = mapped.workload.elements
    return Flow(
        operand,
        outer,
        inner,
        loop,
        elements(operand, mapped.extents(loop + 1, operand, outer.level)),
        elements(operand, mapped.extents(loop + 1, operand, inner.level)),
        inward,
        visits if operand == OUTPUT else 0,
        operand == OUTPUT and reduced > 1,
        (inner.level, operand) in mapped.double,
    )


def reductions(mapped: Mapped, loop: int) -> tuple[int, ...]:
    """Loops up to and with `loop` that reduce: a tile of results is visited once for each step."""
    return tuple(
        place
        for place, (dim, bound) in enumerate(mapped.loops[: loop + 1])
        if dim in REDUCED and bound > 1
    )
