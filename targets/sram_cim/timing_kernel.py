"""The closed form of `timing`, compiled: cycles and pJ of a mapping in less than a microsecond.

What the machine, the workload and the spatial choice fix is worked out once (`tables_of`): for each
operand and pair of positions in its chain what a transfer between them needs, for each position how
its tile grows. `measure` says what the loops of a mapping cover; `fits` and `evaluate` add up. All
arrays are passed one by one and none is sliced: counting references would cost more than the sums.

`cut[o, j]`: the first loop that the level at position j of operand o's chain keeps; `use`,
`double`: 0 or 1 by operand and position.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cimc import jit
from cimc.targets.sram_cim import search_kernel as base
from cimc.targets.sram_cim.search_kernel import (
    ACTIVATION,
    ACTIVATION_PJ,
    CELL_BITS,
    CHIP,
    EPILOGUE,
    HUGE,
    INPUT_BITS,
    LANES,
    LATENCY,
    LEAKAGE_PJ,
    LINK_BITS,
    LINK_HOP,
    LINK_PJ,
    ONE_PORT,
    PER_CORE,
    PSUM_BITS,
    READ,
    RESULT_BITS,
    SHARED,
    SIZE,
    VECTOR_PJ,
    WEIGHT_BITS,
    WORD,
    WRITE,
    Floats,
    Ints,
    Machine,
    P,
    Q,
    R,
    S,
    instances_of,
    spread_of,
)

njit = jit.compiler(__file__, base.__file__)

# columns of `ways`: a transfer from one position to another; pJ of a bit in all instances
READ_WIDTH, WRITE_WIDTH, READ_PJ, WRITE_PJ, DELAY, READING, WRITING, STOPS, CROSSES = range(9)
OF_READ, OF_STORED = 1, 2  # which bits cross between chip and cores

# columns of `kept`: a tile at a position
(LINEAR, ROWS, COLUMNS, HEIGHT, WIDTH, BITS, SUM_BITS, CAPACITY, LEVEL, INSTANCES,
 SHARES) = range(11)  # fmt: skip

# of `chip`
(ACTIVE, ACTIVE_PJ, LEAK_PJ, LINK, CROSS_PJ, RESULTS, LANE, OP_PJ, STEP_P, STEP_R, STEP_Q, STEP_S,
 UNITS) = range(13)  # fmt: skip

# columns of `cover`: elements of I (without rows and columns), W, O; extents of p q r s; visits
SPAN_P, SPAN_Q, SPAN_R, SPAN_S, VISITS = range(3, 8)

# first index of `work`, [5, loops + 1, columns]
HELD, BURSTS, WAITS, SLACK, BUSY = range(5)
AHEAD, MOVES = 3, 6  # columns of WAITS, behind those of transfers that the macro waits for


class Tables(NamedTuple):
    """What one spatial choice of a workload on a machine fixes."""

    ways: Floats  # [2, 3, positions, positions, 9] inwards and outwards, from outer to inner
    kept: Floats  # [3, positions, 11]
    chip: Floats  # [13]
    relevant: Ints  # [4, 8] of I, W, O: whether a loop moves the tile; whether it reduces
    length: Ints  # [3]


@njit
def tables_of(m: Machine, factors: Ints) -> Tables:
    """Work out everything that no mapping changes."""
    levels, positions = m.level.shape[0], m.chain.shape[1]
    spread, counts = spread_of(m, factors), instances_of(m, factors)
    unit, units = np.empty((levels, 2), np.int64), 0
    for level in range(levels):
        unit[level, 0] = units
        units += 1 if m.level[level, ONE_PORT] else 2
        unit[level, 1] = units - 1
    cores = 1
    for d in range(8):
        cores *= factors[0, d]
    ways = np.zeros((2, 3, positions, positions, 9))
    kept = np.zeros((3, positions, 11))
    relevant = np.zeros((4, 8), np.int64)
    for d in range(8):
        for o in range(3):
            relevant[o, d] = m.relevant[o, d]
        relevant[3, d] = m.reduced[d]
    last = m.length[1] - 1
    for o in range(3):
        for j in range(m.length[o]):
            level = m.chain[o, j]
            kept[o, j, LINEAR] = 1.0
            for d in range(8):
                if m.relevant[o, d] and (o > 0 or d not in (P, Q, R, S)):
                    kept[o, j, LINEAR] *= spread[o, level, d]
            kept[o, j, ROWS], kept[o, j, COLUMNS] = spread[o, level, P], spread[o, level, Q]
            kept[o, j, HEIGHT], kept[o, j, WIDTH] = spread[o, level, R], spread[o, level, S]
            bits = m.numbers[INPUT_BITS]
            if o == 1:
                bits = m.numbers[WEIGHT_BITS]
                if j == last:
                    bits = -(-bits // m.numbers[CELL_BITS]) * m.numbers[CELL_BITS]
            if o == 2:
                bits = m.numbers[RESULT_BITS]
            kept[o, j, BITS], kept[o, j, SUM_BITS] = bits, bits
            if o == 2:
                kept[o, j, SUM_BITS] = m.numbers[PSUM_BITS] if level else m.numbers[WORD]
            kept[o, j, CAPACITY], kept[o, j, LEVEL] = m.level[level, SIZE], level
            kept[o, j, INSTANCES], kept[o, j, SHARES] = counts[level], m.level[level, SHARED]
        for a in range(m.length[o]):
            for b in range(a + 1, m.length[o]):
                for outwards in range(2):
                    source = m.chain[o, b] if outwards else m.chain[o, a]
                    sink = m.chain[o, a] if outwards else m.chain[o, b]
                    way = ways[outwards, o, a, b]
                    way[READ_WIDTH], way[WRITE_WIDTH] = m.level[source, READ], m.level[sink, WRITE]
                    way[READ_PJ] = counts[source] * m.pj[source, 0]
                    way[WRITE_PJ] = counts[sink] * m.pj[sink, 1]
                    way[DELAY] = max(m.level[source, LATENCY], m.level[sink, LATENCY])
                    way[READING], way[WRITING] = unit[source, 0], unit[sink, 1]
                    way[STOPS] = sink == m.chain[1, last] and not m.may_double[1, last]
                    if m.level[source, CHIP] != m.level[sink, CHIP]:
                        way[CROSSES] = OF_READ if m.level[source, CHIP] else OF_STORED
                        way[DELAY] += m.numbers[LINK_HOP]
    chip = np.empty(13)
    chip[ACTIVE] = m.numbers[ACTIVATION]
    chip[ACTIVE_PJ], chip[LEAK_PJ] = cores * m.prices[ACTIVATION_PJ], m.prices[LEAKAGE_PJ]
    chip[LINK], chip[CROSS_PJ] = m.numbers[LINK_BITS], m.prices[LINK_PJ]
    chip[RESULTS], chip[OP_PJ] = m.numbers[EPILOGUE], m.prices[VECTOR_PJ]
    chip[LANE] = m.numbers[LANES] * (cores if m.numbers[PER_CORE] else 1)
    chip[STEP_P], chip[STEP_R], chip[STEP_Q], chip[STEP_S] = m.steps
    chip[UNITS] = units + 5  # the vector units, the macro, the link of each operand
    return Tables(ways, kept, chip, relevant, m.length.copy())


@njit
def room_for(m: Machine, loops: int) -> tuple[Floats, Floats]:
    """`cover` and `work` for mappings of up to so many loops."""
    units = max(2 * m.level.shape[0] + 5, MOVES + 1)
    return np.empty((loops + 1, 8)), np.empty((5, loops + 1, units))


@njit
def measure(relevant: Ints, count: int, dim: Ints, bound: Ints, cover: Floats) -> None:
    """What the loops cover, from each of them inwards."""
    for column in range(8):
        cover[count, column] = 1.0
    for i in range(count - 1, -1, -1):
        d, b = dim[i], bound[i]
        for column in range(7):
            cover[i, column] = cover[i + 1, column]
        if d == P:
            cover[i, SPAN_P] *= b
        elif d == Q:
            cover[i, SPAN_Q] *= b
        elif d == R:
            cover[i, SPAN_R] *= b
        elif d == S:
            cover[i, SPAN_S] *= b
        elif relevant[0, d]:
            cover[i, 0] *= b
        if relevant[1, d]:
            cover[i, 1] *= b
        if relevant[2, d]:
            cover[i, 2] *= b
    cover[0, VISITS] = 1.0
    for i in range(count):
        cover[i + 1, VISITS] = cover[i, VISITS] * bound[i]


@njit
def size_of(o: int, j: int, begin: int, kept: Floats, chip: Floats, cover: Floats) -> float:
    """Elements of the tile inside loop `begin`-1 in one instance of the level at a position."""
    size: float = cover[begin, o] * kept[o, j, LINEAR]
    if o > 0:
        return size
    p, q = cover[begin, SPAN_P] * kept[0, j, ROWS], cover[begin, SPAN_Q] * kept[0, j, COLUMNS]
    r, s = cover[begin, SPAN_R] * kept[0, j, HEIGHT], cover[begin, SPAN_S] * kept[0, j, WIDTH]
    rows = min((p - 1.0) * chip[STEP_P] + (r - 1.0) * chip[STEP_R] + 1.0, p * r)
    columns = min((q - 1.0) * chip[STEP_Q] + (s - 1.0) * chip[STEP_S] + 1.0, q * s)
    size *= rows * columns
    return size


@njit
def first_sum(
    relevant: Ints, length: Ints, count: int, dim: Ints, bound: Ints, cut: Ints, use: Ints
) -> int:
    """Outermost position of O that holds sums; the register, where no loop reduces."""
    for i in range(count):
        if relevant[3, dim[i]] and bound[i] > 1:
            found = 0
            for j in range(length[2]):
                if use[2, j] and cut[2, j] <= i:
                    found = j
            return found
    return int(length[2] - 1)


@njit
def fits(
    kept: Floats,
    chip: Floats,
    relevant: Ints,
    length: Ints,
    count: int,
    dim: Ints,
    bound: Ints,
    cut: Ints,
    use: Ints,
    double: Ints,
    cover: Floats,
    work: Floats,
) -> bool:
    """Whether all levels hold what the mapping keeps there."""
    sums = first_sum(relevant, length, count, dim, bound, cut, use)
    if sums == 0 and kept[2, 0, LEVEL] > 0.0:  # results that are kept on the chip are complete
        return False
    for column in range(work.shape[2]):
        work[BUSY, 0, column] = 0.0
    for o in range(3):
        for j in range(1, length[o]):
            if use[o, j]:
                bits = kept[o, j, SUM_BITS if o == 2 and j >= sums else BITS]
                level = int(kept[o, j, LEVEL])
                size = size_of(o, j, cut[o, j], kept, chip, cover)
                work[BUSY, 0, level] += size * bits * (1.0 + double[o, j])
                if work[BUSY, 0, level] > kept[o, j, CAPACITY]:
                    return False
    return True


@njit
def passage(
    ways: Floats,
    outwards: int,
    o: int,
    a: int,
    b: int,
    read: float,
    stored: float,
    banks: int,
    chip: Floats,
    work: Floats,
    kind: int,
    at: int,
    share: float,
) -> tuple[float, float]:
    """Cycles and pJ of one transfer; adds `share` of what it holds to work[kind, at].

    banks: the source (1), the sink (2) or both (3) are second banks with ports of their own.
    """
    reading, writing = int(ways[outwards, o, a, b, READING]), int(ways[outwards, o, a, b, WRITING])
    r = np.ceil(read / ways[outwards, o, a, b, READ_WIDTH])
    w = np.ceil(stored / ways[outwards, o, a, b, WRITE_WIDTH])
    if not banks & 1:
        work[kind, at, reading] += share * r
    if not banks & 2:
        work[kind, at, writing] += share * w
    cycles = max(r, w) if reading != writing or banks else r + w
    pj = read * ways[outwards, o, a, b, READ_PJ] + stored * ways[outwards, o, a, b, WRITE_PJ]
    crosses, units = ways[outwards, o, a, b, CROSSES], int(chip[UNITS])
    if crosses > 0.0:
        crossing = read if crosses == OF_READ else stored
        link = np.ceil(crossing / chip[LINK])
        work[kind, at, units - 3 + o] += share * link
        cycles = max(cycles, link)
        pj += crossing * chip[CROSS_PJ]
    if ways[outwards, o, a, b, STOPS] > 0.0:
        work[kind, at, units - 4] += share * cycles
    return cycles + ways[outwards, o, a, b, DELAY], pj


@njit
def evaluate(
    ways: Floats,
    kept: Floats,
    chip: Floats,
    relevant: Ints,
    length: Ints,
    count: int,
    dim: Ints,
    bound: Ints,
    cut: Ints,
    use: Ints,
    double: Ints,
    cover: Floats,
    work: Floats,
) -> tuple[float, float]:
    """Cycles and pJ of a mapping whose loops have been measured."""
    units = int(chip[UNITS])
    for i in range(count + 1):
        work[WAITS, i, MOVES] = 0.0
    start, last, pj = 0.0, 0.0, 0.0
    sums = first_sum(relevant, length, count, dim, bound, cut, use)
    for o in range(3):
        finish_at, finish_inner, finish_share, finish_out = -2, 0.0, 0.0, 0.0
        finish_visits, finish_double = 1.0, False
        outer, first, outside, outer_ahead = 0, 0.0, -1, False
        for j in range(1, length[o]):
            if not use[o, j]:
                continue
            at = cut[o, j]
            while at > 0 and not (bound[at - 1] > 1 and relevant[o, dim[at - 1]]):
                at -= 1
            visits = cover[at, VISITS]
            size = size_of(o, j, at, kept, chip, cover)
            read = size_of(o, outer, at, kept, chip, cover)
            read *= kept[o, outer, SUM_BITS if o == 2 and outer >= sums else BITS]
            stored = size * kept[o, j, SUM_BITS if o == 2 and j >= sums else BITS]
            if work[WAITS, at, MOVES] == 0.0:
                work[WAITS, at, MOVES] = 1.0
                for u in range(units):
                    work[HELD, at, u] = 0.0
                    work[BURSTS, at, u] = 0.0
                for column in range(MOVES):
                    work[WAITS, at, column] = 0.0
            if o < 2:
                loads_ahead = double[o, j] > 0 and at > 0
                banks, kind, column = 0, HELD, o
                if loads_ahead:
                    banks = 3 if outer_ahead and outside == at - 1 else 2
                    kind, column = BURSTS, AHEAD + o
                cycles, price = passage(
                    ways, 0, o, outer, j, read, stored, banks, chip, work, kind, at, 1.0
                )
                pj += visits * price
                work[WAITS, at, column] += cycles
                if loads_ahead:
                    first += cycles
                outer_ahead = loads_ahead
            else:
                reduction = 1.0
                for i in range(at):
                    if relevant[3, dim[i]]:
                        reduction *= bound[i]
                share = 1.0 - 1.0 / reduction
                later = double[o, j] > 0 and reduction == 1.0 and at - 1 > outside
                banks, kind = (1, BURSTS) if later else (0, HELD)
                out, price = passage(
                    ways, 1, o, outer, j, stored, read, banks, chip, work, kind, at, 1.0
                )
                pj += visits * price
                if reduction > 1.0:
                    back, price = passage(
                        ways, 0, o, outer, j, read, stored, 0, chip, work, HELD, at, share
                    )
                    pj += visits * share * price
                    work[WAITS, at, o] += share * back
                if reduction == 1.0 or finish_at == -2:
                    if finish_at != -2:
                        if finish_double:
                            last += finish_out
                        else:
                            work[WAITS, finish_at, o] += finish_out
                    finish_at, finish_inner = at, size * kept[o, j, INSTANCES]
                    finish_share, finish_out = 1.0 - share, out
                    finish_double, finish_visits = later, visits
                elif later:
                    last += out
                else:
                    work[WAITS, at, o] += out
            outer, outside = j, at - 1
        start = max(start, first)
        if o == 2:
            results = finish_inner * chip[RESULTS]
            cycles = finish_share * np.ceil(results / chip[LANE])
            work[HELD, finish_at, units - 5] += cycles
            pj += finish_visits * finish_share * results * chip[OP_PJ]
            if finish_double:
                last += max(finish_out, cycles)
            else:
                work[WAITS, finish_at, o] += max(finish_out, cycles)
    total = chip[ACTIVE]
    for u in range(units):
        work[BUSY, 0, u] = 0.0
        work[SLACK, 0, u] = HUGE
    work[BUSY, 0, units - 4] = total
    scale = 1.0
    for i in range(count, -1, -1):
        if work[WAITS, i, MOVES] > 0.0:
            blocked, most = 0.0, 0.0
            for u in range(units):
                burst = work[BURSTS, i, u]
                if burst > 0.0:
                    blocked = max(blocked, burst - work[SLACK, 0, u])
                busy = work[BUSY, 0, u] * scale + work[HELD, i, u] + burst
                work[BUSY, 0, u] = busy
                most = max(most, busy)
            scale = 1.0
            total += max(work[WAITS, i, 0], work[WAITS, i, 1], work[WAITS, i, 2]) + blocked
            total = max(total, most, work[WAITS, i, 3], work[WAITS, i, 4], work[WAITS, i, 5])
            for u in range(units):
                if work[BURSTS, i, u] > 0.0:
                    slack = max(total - work[BURSTS, i, u], 0.0)
                    work[SLACK, 0, u] = min(work[SLACK, 0, u], slack)
                if work[HELD, i, u] > 0.0:
                    work[SLACK, 0, u] = 0.0
        if i > 0:
            total *= bound[i - 1]
            scale *= bound[i - 1]
    total += start + last
    return total, pj + cover[count, VISITS] * chip[ACTIVE_PJ] + total * chip[LEAK_PJ]
