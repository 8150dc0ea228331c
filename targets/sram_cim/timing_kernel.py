"""The closed form of `timing`, compiled: cycles and pJ of a mapping in about two microseconds.

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
    PIECE,
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
(LINEAR, ROWS, COLUMNS, HEIGHT, WIDTH, BITS, SUM_BITS, CAPACITY, LEVEL, INSTANCES, SHARES,
 IS_SPREAD, WAIT) = range(13)  # fmt: skip

# of `chip`; short: cycles up to which transfers are not cut; home: the outermost memory
(ACTIVE, ACTIVE_PJ, LEAK_PJ, LINK, CROSS_PJ, RESULTS, RESULT, PSUM, LANE, OP_PJ, STEP_P,
 STEP_R, STEP_Q, STEP_S, SHORT, HOME, HOME_WIDTH, HOME_PJ, UNITS) = range(19)  # fmt: skip

# columns of `cover`: elements of I (without rows and columns), W, O; extents of p q r s; visits
SPAN_P, SPAN_Q, SPAN_R, SPAN_S, VISITS = range(3, 8)

# rows of `work`: by unit, by position (`THERE`: of I, W, O), by loop; the rest are moves
BUSY, FREE, FED, ONCE, GONE, THERE, RUNS, ORDER, FIRST_MOVE = 0, 1, 2, 3, 4, 5, 8, 9, 10

# columns of moves, as in `timing`, and of their passages: four units with the cycles that each is
# held, then the longest of these, cycles, pJ
(PLACE, OPERAND, FROM, TO, OUTER, INNERMOST, DOUBLE, TWO, ASIDE, BASE, SPREAD, SMALLEST, PASSES,
 TIMES, SHARE, WAY_IN, ARRIVAL, EARLY, LATER, ELEMENTS, OUTSIDE, LAST) = range(22)  # fmt: skip
COME, GO, END, SMALL, MOVE_COLUMNS = range(22, 22 + 5 * 11, 11)
HELD, CYCLES, PRICE = 8, 9, 10

NEVER = -HUGE


class Tables(NamedTuple):
    """What one spatial choice of a workload on a machine fixes."""

    ways: Floats  # [2, 3, positions, positions, 9] inwards and outwards, from outer to inner
    kept: Floats  # [3, positions, 13]
    chip: Floats  # [19]
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
    kept = np.zeros((3, positions, 13))
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
            kept[o, j, IS_SPREAD] = m.along[level].any()
            kept[o, j, WAIT] = m.level[level, LATENCY]
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
    chip = np.empty(19)
    chip[ACTIVE] = m.numbers[ACTIVATION]
    chip[ACTIVE_PJ], chip[LEAK_PJ] = cores * m.prices[ACTIVATION_PJ], m.prices[LEAKAGE_PJ]
    chip[LINK], chip[CROSS_PJ] = m.numbers[LINK_BITS], m.prices[LINK_PJ]
    chip[RESULT], chip[PSUM] = m.numbers[RESULT_BITS], m.numbers[PSUM_BITS]
    chip[SHORT] = m.numbers[PIECE]
    chip[RESULTS], chip[OP_PJ] = m.numbers[EPILOGUE], m.prices[VECTOR_PJ]
    chip[HOME], chip[HOME_WIDTH], chip[HOME_PJ] = unit[0, 0], m.level[0, READ], m.pj[0, 0]
    chip[LANE] = m.numbers[LANES] * (cores if m.numbers[PER_CORE] else 1)
    chip[STEP_P], chip[STEP_R], chip[STEP_Q], chip[STEP_S] = m.steps
    chip[UNITS] = units + 5  # the vector units, the macro, the link of each operand
    return Tables(ways, kept, chip, relevant, m.length.copy())


@njit
def room_for(m: Machine, loops: int) -> tuple[Floats, Floats]:
    """`cover` and `work` for mappings of up to so many loops."""
    columns = max(2 * m.level.shape[0] + 5, loops + 2, MOVE_COLUMNS, 3 * m.chain.shape[1])
    return np.empty((loops + 1, 8)), np.empty((FIRST_MOVE + 3 * m.chain.shape[1], columns))


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
    for column in range(work.shape[1]):
        work[BUSY, column] = 0.0
    for o in range(3):
        for j in range(1, length[o]):
            if use[o, j]:
                bits = kept[o, j, SUM_BITS if o == 2 and j >= sums else BITS]
                level = int(kept[o, j, LEVEL])
                size = size_of(o, j, cut[o, j], kept, chip, cover)
                work[BUSY, level] += size * bits * (1.0 + double[o, j])
                if work[BUSY, level] > kept[o, j, CAPACITY]:
                    return False
    return True


@njit
def hold(work: Floats, k: int, at: int, unit: int, cycles: float) -> None:
    """A unit that the passage at column `at` of move k holds."""
    for slot in range(at, at + HELD, 2):
        if work[k, slot] == unit or work[k, slot] < 0.0:
            work[k, slot + 1] = cycles + (work[k, slot + 1] if work[k, slot] == unit else 0.0)
            work[k, slot] = unit
            work[k, at + HELD] = max(work[k, at + HELD], work[k, slot + 1])
            return


@njit
def clear(work: Floats, k: int, at: int) -> None:
    """A passage that holds nothing."""
    for slot in range(at, at + HELD, 2):
        work[k, slot] = -1.0
    work[k, at + HELD], work[k, at + CYCLES], work[k, at + PRICE] = 0.0, 0.0, 0.0


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
    k: int,
    at: int,
) -> None:
    """Fill the passage at column `at` of move k with a transfer of so many bits.

    banks: the source (1), the sink (2) or both (3) are second banks with ports of their own.
    """
    clear(work, k, at)
    r = np.ceil(read / ways[outwards, o, a, b, READ_WIDTH])
    w = np.ceil(stored / ways[outwards, o, a, b, WRITE_WIDTH])
    if not banks & 1:
        hold(work, k, at, int(ways[outwards, o, a, b, READING]), r)
    if not banks & 2:
        hold(work, k, at, int(ways[outwards, o, a, b, WRITING]), w)
    pj = read * ways[outwards, o, a, b, READ_PJ] + stored * ways[outwards, o, a, b, WRITE_PJ]
    crosses, units = ways[outwards, o, a, b, CROSSES], int(chip[UNITS])
    if crosses > 0.0:
        crossing = read if crosses == OF_READ else stored
        hold(work, k, at, units - 3 + o, np.ceil(crossing / chip[LINK]))
        pj += crossing * chip[CROSS_PJ]
    cycles = max(r, w, work[k, at + HELD])
    if ways[outwards, o, a, b, STOPS] > 0.0:
        hold(work, k, at, units - 4, cycles)
    work[k, at + CYCLES] = cycles + ways[outwards, o, a, b, DELAY]
    work[k, at + PRICE] = pj


@njit
def epilogue(
    ways: Floats,
    kept: Floats,
    a: int,
    b: int,
    inner: float,
    outer: float,
    union: float,
    chip: Floats,
    work: Floats,
    k: int,
    at: int,
) -> None:
    """Fill a passage with the vector operations on a tile, from position b of O's chain to a.

    `inner`, `outer`: results in one instance; `union`: in all.
    """
    clear(work, k, at)
    sums, results = inner * chip[PSUM], outer * chip[RESULT]
    done = max(1.0, np.ceil(union / chip[LANE]))
    r = np.ceil(sums / ways[1, 2, a, b, READ_WIDTH])
    w = np.ceil(results / ways[1, 2, a, b, WRITE_WIDTH])
    hold(work, k, at, int(ways[1, 2, a, b, READING]), r)
    hold(work, k, at, int(ways[1, 2, a, b, WRITING]), w)
    pj = sums * ways[1, 2, a, b, READ_PJ] + results * ways[1, 2, a, b, WRITE_PJ]
    pj += union * chip[RESULTS] * chip[OP_PJ]
    cycles = max(r, w, done) + max(kept[2, b, WAIT], kept[2, a, WAIT])
    others = chip[RESULTS] - 1.0
    if others > 0.0:
        bits = union * chip[RESULT]
        fetched = np.ceil(bits / chip[HOME_WIDTH])
        hold(work, k, at, int(chip[HOME]), others * fetched)
        pj += others * bits * chip[HOME_PJ]
        cycles = max(r, done) + kept[2, b, WAIT]
        cycles += (others - 1.0) * (max(fetched, done) + kept[2, 0, WAIT])
        cycles += max(fetched, done, w) + max(kept[2, 0, WAIT], kept[2, a, WAIT])
        done = cycles  # the units' own store holds one tile
    hold(work, k, at, int(chip[UNITS]) - 5, done)
    work[k, at + CYCLES] = cycles
    work[k, at + PRICE] = pj


@njit
def moves_of(
    ways: Floats,
    kept: Floats,
    chip: Floats,
    relevant: Ints,
    length: Ints,
    bound: Ints,
    dim: Ints,
    sums: int,
    cut: Ints,
    use: Ints,
    double: Ints,
    cover: Floats,
    work: Floats,
) -> tuple[int, int, float]:
    """Fill all moves; the row behind the last, the first row of O, pJ."""
    k, results, pj = FIRST_MOVE, FIRST_MOVE, 0.0
    last_sums = -1
    for o in range(3):
        outer, before, results = 0, -1, k
        for j in range(1, length[o]):
            if not use[o, j]:
                continue
            at = cut[o, j]
            while at > 0 and not (bound[at - 1] > 1 and relevant[o, dim[at - 1]]):
                at -= 1
            size = size_of(o, j, at, kept, chip, cover)
            outer_size = size_of(o, outer, at, kept, chip, cover)
            read = outer_size * kept[o, outer, SUM_BITS if o == 2 and outer >= sums else BITS]
            stored = size * kept[o, j, SUM_BITS if o == 2 and j >= sums else BITS]
            work[k, PLACE], work[k, OPERAND], work[k, FROM], work[k, TO] = at - 1, o, outer, j
            work[k, OUTER], work[k, INNERMOST], work[k, PASSES] = before, 0.0, 0.0
            work[k, DOUBLE] = double[o, j]
            work[k, TIMES], work[k, SHARE], work[k, ELEMENTS] = cover[at, VISITS], 0.0, size
            work[k, EARLY], work[k, LATER], work[k, LAST] = 0.0, 0.0, GO
            work[k, OUTSIDE], work[k, SMALLEST] = outer_size, HUGE
            if not (kept[o, outer, IS_SPREAD] or kept[o, j, IS_SPREAD]):
                width = min(ways[0, o, outer, j, READ_WIDTH], ways[0, o, outer, j, WRITE_WIDTH])
                width = min(width, ways[1, o, outer, j, READ_WIDTH])
                width = min(width, ways[1, o, outer, j, WRITE_WIDTH])
                bits = kept[o, j, SUM_BITS if o == 2 and j >= sums else BITS]
                work[k, SMALLEST] = chip[SHORT] * width / bits
            if o < 2:
                two, base = double[o, j] > 0 and at > 0, -1.0
                banks = 2 if two else 0
                if before >= 0 and work[before, TWO] > 0.0:
                    base = work[before, BASE]
                    banks += 1 if two and work[before, PLACE] == at - 1 else 0
                elif before >= 0:
                    base = work[before, PLACE]
                work[k, TWO], work[k, BASE], work[k, ASIDE] = two, base, two and at - 1 > base
                passage(ways, 0, o, outer, j, read, stored, banks, chip, work, k, COME)
                pj += work[k, TIMES] * work[k, COME + PRICE]
            else:
                reduction = 1.0
                for i in range(at):
                    if relevant[3, dim[i]]:
                        reduction *= bound[i]
                outside = work[before, PLACE] if before >= 0 else -1.0
                aside = double[o, j] > 0 and reduction == 1.0 and at - 1 > outside
                work[k, ASIDE], work[k, SHARE] = aside, 1.0 - 1.0 / reduction
                work[k, TWO], work[k, BASE] = aside, -1.0
                clear(work, k, COME)
                if reduction > 1.0:
                    passage(ways, 0, o, outer, j, read, stored, 0, chip, work, k, COME)
                passage(ways, 1, o, outer, j, stored, read, int(aside), chip, work, k, GO)
                if reduction == 1.0 or last_sums < 0:
                    last_sums = k
            outer, before = j, k
            k += 1
        if before >= 0:
            work[before, INNERMOST] = 1.0
    for row in range(FIRST_MOVE, k):
        work[row, SPREAD] = 0.0
        if work[row, ASIDE] > 0.0:
            work[row, SPREAD] = spread(work, row, k, len(dim), bound)
    finish(ways, kept, chip, sums, cut, use, double, cover, work, last_sums, k - 1)
    for row in range(results, k):
        share, last = work[row, SHARE], int(work[row, LAST])
        price = share * (work[row, COME + PRICE] + work[row, GO + PRICE])
        pj += work[row, TIMES] * (price + (1.0 - share) * work[row, last + PRICE])
    return k, results, pj


@njit
def spread(work: Floats, k: int, total: int, count: int, bound: Ints) -> float:
    """Over how much of an iteration a transfer is spread (`timing._Evaluation.spread`)."""
    until = count - 1
    if k + 1 < total and work[k + 1, OUTER] == k and work[k, OPERAND] < 2.0:
        until = int(work[k + 1, PLACE]) if work[k + 1, DOUBLE] > 0.0 else until
    parts, at_first = 1.0, 1.0
    for i in range(int(work[k, PLACE]) + 1, until + 1):
        if work[k, ELEMENTS] <= parts * work[k, SMALLEST]:
            break
        more = parts * bound[i]
        if work[k, ELEMENTS] % more or work[k, OUTSIDE] % more:
            at_first *= bound[i]
        else:
            parts = more
    return 1.0 / at_first if parts > 1.0 else 0.0


@njit
def finish(
    ways: Floats,
    kept: Floats,
    chip: Floats,
    sums: int,
    cut: Ints,
    use: Ints,
    double: Ints,
    cover: Floats,
    work: Floats,
    k: int,
    register: int,
) -> None:
    """Move k ends with the epilogue; whether its sums pass (see `timing._Evaluation.can_pass`)."""
    a, b = int(work[k, FROM]), int(work[k, TO])
    size = work[k, ELEMENTS]
    outer = size_of(2, a, int(work[k, PLACE]) + 1, kept, chip, cover)
    work[k, LAST] = END
    epilogue(ways, kept, a, b, size, outer, size * kept[2, b, INSTANCES], chip, work, k, END)
    if work[register, OUTER] != k or work[k, SHARE] > 0.0 or work[k, ASIDE] > 0.0:
        return
    if work[register, PLACE] < 0.0:
        return
    inner = size_of(2, b, int(work[register, PLACE]) + 1, kept, chip, cover)
    taken = 2.0 * inner * chip[PSUM]
    for o in range(3):
        for j in range(1, use.shape[1]):
            if use[o, j] and kept[o, j, LEVEL] == kept[2, b, LEVEL]:
                bits = kept[o, j, SUM_BITS if o == 2 and j >= sums else BITS]
                tile = size_of(o, j, cut[o, j], kept, chip, cover)
                taken += tile * bits * (1.0 + double[o, j])
    union = work[register, ELEMENTS] * kept[2, int(work[register, TO]), INSTANCES]
    parts = kept[2, a, INSTANCES]
    if taken > kept[2, b, CAPACITY] or union % chip[LANE] != 0.0:
        return
    if union * chip[RESULT] % (parts * ways[1, 2, a, b, WRITE_WIDTH]) != 0.0:
        return
    work[k, PASSES] = 1.0
    epilogue(ways, kept, a, b, inner, np.ceil(union / parts), union, chip, work, k, SMALL)


@njit
def sort(work: Floats, total: int) -> None:
    """Rows of moves in the program's order, as far as tiles come in (`timing._Evaluation.rank`)."""
    for k in range(FIRST_MOVE, total):
        o, place = work[k, OPERAND], work[k, PLACE]
        rank = 1.0 if (o == 1.0) == (place >= 0.0) else 0.0
        if o == 2.0:
            rank = 3.0 if work[k, ASIDE] > 0.0 else 2.0
        work[GONE, k - FIRST_MOVE] = 4.0 * place + rank
        at = k - FIRST_MOVE
        while at > 0:
            before = int(work[ORDER, at - 1])
            if work[GONE, before - FIRST_MOVE] <= work[GONE, k - FIRST_MOVE]:
                break
            work[ORDER, at] = before
            at -= 1
        work[ORDER, at] = k


@njit
def take(work: Floats, k: int, at: int, ready: float, holds: bool = True) -> float:
    """When a passage starts, after all that its units serve before."""
    start = ready
    for slot in range(at, at + HELD, 2):
        unit = int(work[k, slot])
        if unit < 0:
            break
        start = max(start, work[FREE, unit])
    for slot in range(at, at + HELD, 2):
        unit = int(work[k, slot])
        if unit < 0 or not holds:
            break
        work[FREE, unit] = start + work[k, slot + 1]
    return start


@njit
def feed(work: Floats, k: int) -> None:
    """Ports with what comes in last where a loop, and all loops inside, step before."""
    for slot in range(COME, COME + HELD, 2):
        unit = int(work[k, slot])
        if unit < 0:
            break
        last = -work[RUNS, int(work[k, PLACE]) + 1]
        last += work[k, slot + 1] if work[k, ASIDE] > 0.0 else 0.0
        work[FED, unit] = max(work[FED, unit], last)


@njit
def add(work: Floats, k: int, at: int, share: float, once: float) -> None:
    """Add what a passage holds in one iteration; `once`: how much of it beside the run."""
    for slot in range(at, at + HELD, 2):
        unit = int(work[k, slot])
        if unit < 0:
            break
        work[BUSY, unit] += share * work[k, slot + 1]
        work[ONCE, unit] += once * work[k, slot + 1]


@njit
def beside(work: Floats, k: int, place: int, results: int, total: int) -> float:
    """A transfer by a second buffer; what waits for it (see `timing._Evaluation.beside`)."""
    o, found, run = int(work[k, OPERAND]), 0.0, work[RUNS, int(work[k, PLACE]) + 1]
    is_whole, at = work[k, SPREAD] == 0.0, COME
    if o == 2:
        at, ready = int(work[k, LAST]), 0.0
        if k + 1 < total:
            ready = max(0.0, work[GONE, int(work[k + 1, TO])])
        start = take(work, k, at, ready, is_whole)
    else:
        ready, before = 0.0 if work[k, INNERMOST] > 0.0 else -work[k, EARLY], int(work[k, OUTER])
        if before >= 0 and work[before, PLACE] == work[k, PLACE]:
            ready = max(ready, work[before, ARRIVAL])
        start = take(work, k, at, ready, is_whole)
        if is_whole:
            arrival = start + work[k, at + CYCLES]
            work[k, ARRIVAL] = arrival
            found = arrival - run
            if work[k, PLACE] == place:
                found = max(found, (found + work[k, WAY_IN]) / 2)
    window = work[k, SPREAD] * run
    for slot in range(at, at + HELD, 2):
        unit = work[k, slot]
        if unit < 0.0:
            break
        for row in range(FIRST_MOVE, total):
            if is_whole and row < results and work[row, SPREAD] == 0.0:
                continue
            if work[row, PLACE] <= work[k, PLACE] or work[row, PASSES] > 0.0:
                continue
            last, uses = COME if row < results else int(work[row, LAST]), False
            for other in range(last, last + HELD, 2):
                uses = uses or work[row, other] == unit
            if uses:
                aside, after = work[row, ASIDE] > 0.0, 0.0
                if row >= results or aside:
                    after = work[RUNS, int(work[row, PLACE]) + 1]
                if aside:
                    after = after * (2.0 if row >= results else 1.0) - work[row, last + CYCLES]
                found = max(found, start + work[k, slot + 1] - max(after, window))
    return found


@njit
def gap(work: Floats, results: int, total: int, place: int, is_complete: bool, units: int) -> float:
    """Cycles from the end of an activation to the begin of the next where a loop steps."""
    for unit in range(units):
        work[FREE, unit] = work[FED, unit]
    for k in range(FIRST_MOVE, results):
        work[k, ARRIVAL] = NEVER
    for column in range((work.shape[0] - FIRST_MOVE) // 3):
        work[GONE, column] = 0.0
        for o in range(3):
            work[THERE + o, column] = NEVER
    data, ready = 0.0, 0.0
    for k in range(total - 1, results - 1, -1):
        if work[k, PLACE] < place or work[k, PASSES] > 0.0:
            continue
        j = int(work[k, TO])
        if work[k, ASIDE] > 0.0:
            data = NEVER
            work[GONE, j] = NEVER
            continue
        at = int(work[k, LAST]) if is_complete else GO
        start = take(work, k, at, max(data, 0.0))
        data = start + work[k, at + CYCLES]
        work[GONE, j] = start + work[k, at + HELD]
        if is_complete and work[k, INNERMOST] == 0.0:
            ready = max(ready, work[GONE, j] - work[k, LATER])
    for number in range(total - FIRST_MOVE):
        k = int(work[ORDER, number])
        if work[k, PLACE] < place:
            continue
        if work[k, ASIDE] > 0.0 and place > work[k, BASE]:
            ready = max(ready, beside(work, k, place, results, total))
            continue
        o, j = int(work[k, OPERAND]), int(work[k, TO])
        if o == 2 and is_complete:
            if work[k, INNERMOST] > 0.0:
                ready = max(ready, work[GONE, j])
            continue
        space = work[GONE, j] if o == 2 else -work[k, EARLY]
        if work[k, ASIDE] > 0.0:
            space = -work[RUNS, int(work[k, PLACE]) + 1]
        start = take(work, k, COME, max(space, work[THERE + o, int(work[k, FROM])]))
        work[THERE + o, j] = start + work[k, COME + CYCLES]
        if work[k, INNERMOST] > 0.0:
            ready = max(ready, work[THERE + o, j])
    return ready


@njit
def ends(work: Floats, results: int, total: int, units: int) -> float:
    """Cycles until all is there for the first activation, and from the last to the last result."""
    for unit in range(units):
        work[FREE, unit] = NEVER
    for column in range((work.shape[0] - FIRST_MOVE) // 3):
        for o in range(3):
            work[THERE + o, column] = 0.0
    begin = 0.0
    for number in range(total - FIRST_MOVE):
        k = int(work[ORDER, number])
        o = int(work[k, OPERAND])
        if o < 2:
            start = take(work, k, COME, work[THERE + o, int(work[k, FROM])])
            there = start + work[k, COME + CYCLES]
            work[THERE + o, int(work[k, TO])] = there
            begin = max(begin, there)
    for unit in range(units):
        work[FREE, unit] = NEVER
    data, latest = 0.0, 0.0
    for k in range(total - 1, results - 1, -1):
        at = SMALL if work[k, PASSES] > 0.0 else int(work[k, LAST])
        data = take(work, k, at, data) + work[k, at + CYCLES]
        latest = max(latest, data)
    return begin + latest


@njit
def held_up(
    work: Floats,
    k: int,
    results: int,
    total: int,
    run: float,
    relevant: Ints,
    count: int,
    dim: Ints,
    bound: Ints,
) -> float:
    """How much longer the last visits to a tile take whose sums pass their level."""
    first = int(work[k, PLACE]) + 1
    visits = 1.0
    for i in range(first, count):
        if relevant[3, dim[i]]:
            visits *= bound[i]
    both = 2.0 * work[RUNS, int(work[total - 1, PLACE]) + 1]  # registers that may wait
    longest, waited = work[k, END + HELD], 0.0
    for row in range(FIRST_MOVE, results):
        if work[row, ASIDE] == 0.0 or work[row, SPREAD] > 0.0 or work[row, PLACE] < first:
            continue
        times = 1.0
        for i in range(first, int(work[row, PLACE]) + 1):
            if not relevant[3, dim[i]]:
                times *= bound[i]
        for slot in range(COME, COME + HELD, 2):
            for other in range(END, END + HELD, 2):
                if work[row, slot] >= 0.0 and work[row, slot] == work[k, other]:
                    longest = max(longest, work[k, other + 1] + times * work[row, slot + 1])
                    waited += times * max(0.0, work[row, slot + 1] - both)
    return float(max(0.0, longest - run / visits, waited))


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
    sums = first_sum(relevant, length, count, dim, bound, cut, use)
    total, results, pj = moves_of(
        ways, kept, chip, relevant, length, bound, dim, sums, cut, use, double, cover, work
    )
    sort(work, total)
    run = chip[ACTIVE]
    for u in range(units):
        work[BUSY, u] = 0.0
        work[ONCE, u] = 0.0
        work[FED, u] = NEVER
    work[BUSY, units - 4] = run
    outside = 1.0  # visits to a tile by the loops outside
    for i in range(count):
        if relevant[3, dim[i]]:
            outside *= bound[i]
    coming_i, coming_w = 0.0, 0.0  # transfers of I, W that an activation waits for
    complete_gap, other_gap = -1.0, -1.0
    for i in range(count - 1, -2, -1):
        work[RUNS, i + 1] = run
        ahead_i, ahead_w = 0.0, 0.0
        for k in range(total - 1, FIRST_MOVE - 1, -1):
            if work[k, PLACE] != i:
                continue
            complete_gap, other_gap = -1.0, -1.0
            before = int(work[k, OUTER])
            feed(work, k)
            if k < results:
                cycles, aside = work[k, COME + CYCLES], work[k, ASIDE] > 0.0
                add(work, k, COME, 1.0, 1.0)
                is_input = work[k, OPERAND] == 0.0
                work[k, WAY_IN] = coming_i if is_input else coming_w
                if before >= 0:
                    early = work[RUNS, i + 1] + (coming_i if is_input else coming_w)
                    work[before, EARLY] = 2.0 * work[RUNS, i + 1] if aside else early
                if is_input:
                    ahead_i += cycles if aside else 0.0
                    coming_i += 0.0 if aside else cycles
                else:
                    ahead_w += cycles if aside else 0.0
                    coming_w += 0.0 if aside else cycles
            else:
                share, passes = work[k, SHARE], work[k, PASSES] > 0.0
                add(work, k, GO, share, 0.0)
                add(work, k, int(work[k, LAST]), 1.0 - share, 0.0 if passes else 1.0)
                add(work, k, COME, share, 0.0)
                if before >= 0:
                    work[before, LATER] = work[RUNS, i + 1]
                if passes:
                    run += held_up(work, k, results, total, run, relevant, count, dim, bound)
        if i < 0:
            break
        complete = 0.0
        if relevant[3, dim[i]] and bound[i] > 1:
            outside /= bound[i]
        elif not relevant[3, dim[i]]:
            complete = 1.0 / outside
        between = 0.0
        if complete > 0.0:
            if complete_gap < 0.0:
                complete_gap = gap(work, results, total, i, True, units)
            between += complete * complete_gap
        if complete < 1.0:
            if other_gap < 0.0:
                other_gap = gap(work, results, total, i, False, units)
            between += (1.0 - complete) * other_gap
        whole = bound[i] * run + (bound[i] - 1) * between
        whole = max(whole, (bound[i] - 1) * max(ahead_i, ahead_w) + run)
        for u in range(units):
            work[BUSY, u] *= bound[i]
            whole = max(whole, work[BUSY, u] - work[ONCE, u])
        run = whole
    run += ends(work, results, total, units)
    return run, pj + cover[count, VISITS] * chip[ACTIVE_PJ] + run * chip[LEAK_PJ]
