"""A mapper in the manner of ZigZag's LOMA, to compare with: all orders, levels filled greedily.

The spatial choices with the fewest activations; for each, all orders of the loops that remain,
their prime factors merged until few are left; for each order, levels filled from the innermost
outwards: a level that one operand has for itself takes all loops that fit, one that several share
takes those that fill it best. Two buffers wherever they fit, or planned from the beginning. Of all
these the best by the timing's own closed form is taken, which favours this mapper: ZigZag decides
by a model of its own.  [Symons 2021, LOMA; Mei 2021, ZigZag]
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from cimc import jit
from cimc.mapping.nest import DIMS, Mapped, capacity_faults
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim import search_kernel, timing_kernel
from cimc.targets.sram_cim.anneal import packed, with_levels
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import Loops
from cimc.targets.sram_cim.private_ports import batch as private
from cimc.targets.sram_cim.search_kernel import HUGE, SIZE, Floats, Ints, Machine
from cimc.targets.sram_cim.spatial import spatial_choices
from cimc.targets.sram_cim.stationary import primes, remaining
from cimc.targets.sram_cim.timing_kernel import (
    BITS,
    SUM_BITS,
    evaluate,
    fits,
    measure,
    room_for,
    size_of,
    tables_of,
)

njit = jit.compiler(__file__, search_kernel.__file__, timing_kernel.__file__, private.__file__)

CHOICES = 3  # spatial ones, as many as ZigZag generates
LOOPS = 6  # "loop prime factors" that orders are made of


@njit
def fill(
    m: Machine,
    kept: Floats,
    chip: Floats,
    count: int,
    ahead: int,
    cover: Floats,
    cut: Ints,
    size: Floats,
) -> None:
    """First loop that each level keeps, of loops that `cover`; `ahead`: plan second buffers.

    size: [3, loops + 1], overwritten
    """
    cut[:] = count
    for o in range(3):
        cut[o, 0] = 0
    for level in range(m.level.shape[0] - 1, 0, -1):
        at, sharers = np.full(3, -1), 0
        for o in range(3):
            for j in range(1, m.length[o]):
                if m.chain[o, j] == level:
                    at[o] = j
                    sharers += 1
        for o in range(3):
            size[o, :] = HUGE
            if at[o] < 0:
                size[o, count] = 0.0
                continue
            j = at[o]
            bits = max(kept[o, j, BITS], kept[o, j, SUM_BITS])
            inner = cut[o, j + 1] if j + 1 < m.length[o] else count
            for begin in range(inner, -1, -1):
                elements = size_of(o, j, begin, kept, chip, cover)
                size[o, begin] = elements * bits * (1 + ahead * m.may_double[o, j])
        best, most = np.full(3, count), -1.0
        for a in range(count + 1):
            if size[0, a] > m.level[level, SIZE]:
                continue
            for b in range(count + 1):
                if size[0, a] + size[1, b] > m.level[level, SIZE]:
                    continue
                for c in range(count + 1):
                    taken = size[0, a] + size[1, b] + size[2, c]
                    if most < taken <= m.level[level, SIZE]:  # of equal ones, that of most loops
                        best[0], best[1], best[2], most = a, b, c, taken
        for o in range(3):
            if at[o] >= 0 and most >= 0.0:
                cut[o, at[o]] = best[o]


@njit
def price_all(
    m: Machine,
    limits: Ints,
    factors: Ints,
    dim: Ints,
    bound: Ints,
    shared: bool,
    ahead: int,
    cuts: Ints,
    uses: Ints,
    doubles: Ints,
    latency: Floats,
    energy: Floats,
) -> None:
    """Fill levels for each order (a row of `dim`, `bound`), and price it; HUGE where nothing fits.

    shapes  cuts, uses, doubles [orders, 3, positions]; latency, energy [orders]
    """
    rows, count = dim.shape
    ways, kept, chip, relevant, length = tables_of(m, factors)
    cover, work = room_for(m, count)
    size = np.empty((3, count + 1))
    at = np.zeros((1, 3, count), np.int64)
    loops = np.array([count])
    for row in range(rows):
        d, b = dim[row], bound[row]
        measure(relevant, count, d, b, cover)
        cut, use, double = cuts[row], uses[row], doubles[row]
        fill(m, kept, chip, count, ahead, cover, cut, size)
        use[:], double[:] = 1, 0
        for o in range(3):
            for j in range(1, m.length[o]):
                if j + 1 < m.length[o] and cut[o, j] == cut[o, j + 1]:
                    use[o, j] = 0  # what keeps no loop is passed by
                else:
                    double[o, j] = ahead * m.may_double[o, j]
        latency[row], energy[row] = HUGE, HUGE
        if not fits(kept, chip, relevant, length, count, d, b, cut, use, double, cover, work):
            continue
        for o in range(3):  # second buffers where room is left
            for j in range(1, m.length[o]):
                if use[o, j] and m.may_double[o, j] and not double[o, j]:
                    double[o, j] = 1
                    if not fits(
                        kept, chip, relevant, length, count, d, b, cut, use, double, cover, work
                    ):
                        double[o, j] = 0
        if shared:
            latency[row], energy[row] = evaluate(
                ways, kept, chip, relevant, length, count, d, b, cut, use, double, cover, work
            )
        else:
            for o in range(3):
                for i in range(count):
                    for j in range(m.length[o]):
                        if cut[o, j] <= i:
                            at[0, o, i] = j
            private.closed_forms(
                m,
                limits,
                factors,
                loops,
                dim[row : row + 1],
                bound[row : row + 1],
                at,
                doubles[row : row + 1],
                latency[row : row + 1],
                energy[row : row + 1],
            )


def zigzag_style(
    workload: Workload,
    target: Target,
    objective: Literal["latency", "energy", "edp"],
    timing: Literal["private", "shared"],
    epilogue: int = 1,
) -> Mapped:
    """The best mapping of this mapper by the closed form of the timing."""
    machine = machine_of(target)
    m = packed(workload, machine, spec_of(target), epilogue)
    limits = np.array([workload.shape.h, workload.shape.w], np.int64)
    best, found = HUGE, None
    for factors in spatial_choices(workload, machine, CHOICES):
        table = np.ones((len(factors), len(DIMS)), np.int64)
        for axis, own in enumerate(factors):
            for dim, factor in own:
                table[axis, DIMS.index(dim)] = factor
        dims, bounds = orders(remaining(workload, factors, DIMS))
        rows = len(dims)
        for ahead in (0, 1):
            cuts, uses, doubles = (np.zeros((rows, *m.chain.shape), np.int64) for _ in range(3))
            latency, energy = np.empty(rows), np.empty(rows)
            price_all(
                m,
                limits,
                table,
                dims,
                bounds,
                timing == "shared",
                ahead,
                cuts,
                uses,
                doubles,
                latency,
                energy,
            )
            score = {"latency": latency, "energy": energy, "edp": latency * energy}[objective]
            row = int(np.argmin(score))
            if score[row] < best:
                loops = [(DIMS[d], int(b)) for d, b in zip(dims[row], bounds[row], strict=True)]
                cut, use, double = cuts[row], uses[row], doubles[row]
                mapped = with_levels(workload, machine, factors, loops, cut, use, double)
                if not any(capacity_faults(mapped)):
                    best, found = float(score[row]), mapped
    if found is None:
        raise ValueError(f"no order of {workload.shape} fits {target.name}")
    return found


def orders(loops: Loops) -> tuple[Ints, Ints]:
    """All different orders of at most LOOPS loops: dims and bounds, an order in each row."""
    left = merged(loops)
    found = sorted(set(itertools.permutations(left)))
    table = np.array(found, np.int64).reshape(len(found), len(left), 2)
    return np.ascontiguousarray(table[:, :, 0]), np.ascontiguousarray(table[:, :, 1])


def merged(loops: Loops) -> list[tuple[int, int]]:
    """Prime factors by dim; the two smallest of the dim that has most are made one, till few."""
    own = {dim: primes(bound) for dim, bound in loops if bound > 1}
    while sum(len(factors) for factors in own.values()) > LOOPS:
        dim = max(own, key=lambda d: len(own[d]))
        if len(own[dim]) == 1:
            break
        a, b, *others = own[dim]
        own[dim] = sorted([a * b, *others])
    return [(DIMS.index(dim), factor) for dim, factors in own.items() for factor in factors]
