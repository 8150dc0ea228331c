"""What flows cost on shared ports, loop by loop from the innermost outwards, compiled.

A mapping grows from the inside. What lies inside is a point of a grid: how many of each prime
factor of the iterations are placed. An operand sits at one level of its chain; where a loop moves
its tile, it may go on to a level further out, by way of any levels between (a `Way`). All that the
move costs is known then: tiles are what lies inside, and how often they move is what is left.

Costs are sums over the whole layer, in one row:

    chain      cycles between the start of the first activation and the last result that neither
               activations nor waits hide: gaps between activations are charged by `gaps`
    units      cycles that each port of the chip's own levels, and the vector units, are held
    pj         energy of moves and vector operations
    bits       of each level that operands share, in one instance
    risk       cycles of transfers that nothing is sure to hide; no bound, but a hint

    gaps       between two activations the registers change: an input comes after the activation
               before is over, a weight too, sums go out and others come in; they do so side by side
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.targets.sram_cim import search_kernel as packed
from cimc.targets.sram_cim.search_kernel import (
    ACTIVATION,
    CELL_BITS,
    CHIP,
    EPILOGUE,
    INPUT_BITS,
    LANES,
    LATENCY,
    LINK_BITS,
    LINK_HOP,
    LINK_PJ,
    ONE_PORT,
    PER_CORE,
    PSUM_BITS,
    READ,
    RESULT_BITS,
    SIZE,
    VECTOR_PJ,
    WEIGHT_BITS,
    WORD,
    WRITE,
    elements,
)

njit = jit.compiler(__file__, packed.__file__)
part = jit.compiler(__file__, packed.__file__, inner=True)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CHAIN = 0  # first column of a row of costs
FIRST, AGAIN, BETWEEN = 2, 3, 4  # before a tile's first visit, after another's last one, otherwise
LATE, PENDING, QUIET = 7, 8, 9  # after results left for the outermost memory; cycles of that, if
# they pass their level; -1 if they leave later
WAITS = (
    10  # of the registers of I and W, of O in these cases; activations that the tile of I and of
)
# W inside lasts, negative; behind them, those since a level was read last


class Space(NamedTuple):
    """A machine, a workload and one choice of spatial loops."""

    m: packed.Machine
    dim: Ints  # [kinds] of loops: their dim
    prime: Ints  # [kinds] their bound
    most: Ints  # [kinds] how many there are
    stride: Ints  # [kinds] of the grid
    placed: Floats  # [points] iterations inside
    reduced: Floats  # [points] iterations outside that reduce
    tile: Floats  # [3, levels, points] elements in one instance
    union: Floats  # [points] results in all instances
    counts: Ints  # [levels] instances in use
    parts: Ints  # [levels] instances that a tile of results is shared among
    cores: Ints  # [levels] cores that an instruction on the level uses
    column: Ints  # [2 * levels + 1] column of each unit's cycles, -1 for those left out
    shared: Ints  # [levels] column of the bits there, -1
    way: Ints  # [ways, 5] operand, from, to, levels between (bits), levels with second buffers
    places: Ints  # [3] number of places: positions, and where the register was filled from
    position: Ints  # [3, places]
    near: Ints  # [3, places] the position that the register was filled from; -1 in the register
    leads: Ints  # [ways, places] where a way leads from a place; -1 where it does not begin
    richer: Ints  # [ways] a way with more second buffers in levels of its own; -1


WAY_OPERAND, WAY_FROM, WAY_TO, WAY_BY, WAY_DOUBLE = range(5)


@njit
def grid(
    m: packed.Machine,
    spread: Ints,
    dim: Ints,
    prime: Ints,
    most: Ints,
    stride: Ints,
    points: int,
    placed: Floats,
    reduced: Floats,
    tile: Floats,
    union: Floats,
) -> None:
    """Fill the tables of a grid."""
    extent, inner = np.empty(8, np.int64), np.empty(8, np.int64)
    total = 1.0
    for k in range(dim.shape[0]):
        if m.reduced[dim[k]]:
            total *= float(prime[k]) ** most[k]
    for v in range(points):
        extent[:] = 1
        product, inside = 1.0, 1.0
        for k in range(dim.shape[0]):
            number = (v // stride[k]) % (most[k] + 1)
            for _ in range(number):
                extent[dim[k]] *= prime[k]
                product *= prime[k]
                if m.reduced[dim[k]]:
                    inside *= prime[k]
        placed[v] = product
        reduced[v] = total / inside
        for o in range(3):
            for level in range(m.level.shape[0]):
                for d in range(8):
                    inner[d] = extent[d] * spread[o, level, d]
                tile[o, level, v] = elements(o, inner, m.steps)
        for d in range(8):
            inner[d] = extent[d] * spread[2, 0, d]
        union[v] = elements(2, inner, m.steps)


@part
def up(number: float, width: float) -> float:
    """The quotient, rounded up."""
    return float(np.ceil(number / width))


@part
def bits_at(m: packed.Machine, o: int, j: int, sums: bool) -> float:
    """Bits of an element at position j of operand o's chain."""
    if o == 0:
        return float(m.numbers[INPUT_BITS])
    if o == 1:
        bits, width = m.numbers[WEIGHT_BITS], m.numbers[CELL_BITS]
        if j == m.length[1] - 1:
            return float(-(-bits // width) * width)
        return float(bits)
    return float(m.numbers[PSUM_BITS] if sums else m.numbers[RESULT_BITS])


@part
def hold(s: Space, unit: int, cycles: float, row: Floats) -> None:
    """Add what a unit is held."""
    if s.column[unit] >= 0:
        row[s.column[unit]] += cycles


@part
def passage(
    s: Space,
    o: int,
    source: int,
    sink: int,
    read: float,
    stored: float,
    crossing: float,
    banks: int,
    times: float,
    pj: int,
    row: Floats,
) -> tuple[float, float]:
    """Cycles that a transfer holds its units, and until its data are there; `times` of them."""
    m = s.m
    reading = 2 * source
    writing = 2 * sink + (0 if m.level[sink, ONE_PORT] else 1)
    r, w = up(read, m.level[source, READ]), up(stored, m.level[sink, WRITE])
    if not banks & 1:
        hold(s, reading, times * r, row)
    if not banks & 2:
        hold(s, writing, times * w, row)
    held = max(r, w)
    latency = max(m.level[source, LATENCY], m.level[sink, LATENCY])
    price = read * s.counts[source] * m.pj[source, 0] + stored * s.counts[sink] * m.pj[sink, 1]
    if m.level[source, CHIP] != m.level[sink, CHIP]:
        held = max(held, up(crossing, m.numbers[LINK_BITS]))
        price += crossing * m.prices[LINK_PJ]
        latency += m.numbers[LINK_HOP]
    row[pj] += times * price
    return held, held + latency


@part
def finish(
    s: Space, inner: int, outer: int, v: int, times: float, pj: int, row: Floats
) -> tuple[float, float]:
    """The epilogue of a tile: cycles that its sums are read, and until all is written."""
    m = s.m
    vector = 2 * m.level.shape[0]
    size, count = s.union[v], m.numbers[EPILOGUE]
    acc = up(size, s.parts[inner]) * m.numbers[PSUM_BITS]
    out = up(size, s.parts[outer]) * m.numbers[RESULT_BITS]
    r, w = up(acc, m.level[inner, READ]), up(out, m.level[outer, WRITE])
    writing = 2 * outer + (0 if m.level[outer, ONE_PORT] else 1)
    hold(s, 2 * inner, times * r, row)
    hold(s, writing, times * w, row)
    price = acc * s.parts[inner] * m.pj[inner, 0] + out * s.parts[outer] * m.pj[outer, 1]
    lanes, per_core = m.numbers[LANES], m.numbers[PER_CORE]
    both = max(s.cores[inner], s.cores[outer])
    if count == 1:
        work = max(1.0, up(size, lanes * (both if per_core else 1)))
        held = max(r, w, work)
        cycles = held + max(m.level[inner, LATENCY], m.level[outer, LATENCY])
        hold(s, vector, times * work, row)
    else:
        work = max(1.0, up(size, lanes * (s.cores[inner] if per_core else 1)))
        held = max(r, work)
        cycles = held + m.level[inner, LATENCY]
        hold(s, vector, times * work, row)
        fetched = size * m.numbers[RESULT_BITS]
        for number in range(2, count + 1):
            used = s.cores[outer] if per_core and number == count else 1
            work = max(1.0, up(size, lanes * used))
            hold(s, vector, times * work, row)
            hold(s, 0, times * up(fetched, m.level[0, READ]), row)
            price += fetched * m.pj[0, 0]
            cycles += max(work, w) + m.level[outer, LATENCY] if number == count else work
    row[pj] += times * (price + size * count * m.prices[VECTOR_PJ])
    return held, cycles


@part
def inward(
    s: Space, o: int, i: int, j: int, v: int, ahead: bool, behind: bool, pj: int, row: Floats
) -> float:
    """Tiles of inputs or weights from position i to j; the cycles that a level waits for one.

    ahead: into a second buffer; behind: out of one, while it is filled.
    """
    m = s.m
    source, sink = m.chain[o, i], m.chain[o, j]
    times = s.placed[-1] / s.placed[v]
    bits = bits_at(m, o, 0, False)
    read = s.tile[o, source, v] * bits
    taken = s.tile[o, sink, v]
    stored = taken * bits_at(m, o, j, False)
    crossing = read if m.level[source, CHIP] else taken * bits
    banks = (2 if ahead else 0) + (1 if behind else 0)
    _, cycles = passage(s, o, source, sink, read, stored, crossing, banks, times, pj, row)
    if ahead and i > 0 and m.may_double[o, i] and not behind:
        # The first tile of each one outside may come from its second bank: at most every other.
        hold(s, 2 * source, -0.5 * times * up(read, m.level[source, READ]), row)
    if i == 0:
        row[CHAIN] += up(read, m.level[0, READ])
    if not ahead and (j < m.length[o] - 1 or m.level[source, CHIP]):
        row[row.shape[0] - 1] += (times - 1.0) * cycles
    if ahead:
        return 0.0
    if o == 1 and j == m.length[o] - 1:
        row[CHAIN] += (times - 1.0) * cycles
    return cycles


@part
def outward(
    s: Space, i: int, j: int, v: int, sums: bool, later: bool, pj: int, row: Floats
) -> tuple[float, float, float]:
    """Tiles of results from position j to i, partial ones back, too.

    Returns the cycles that the sums' register waits before a first visit, after a last one, and
    between others; further out, those that take longer.
    """
    m = s.m
    outer, inner = m.chain[2, i], m.chain[2, j]
    times, left = s.placed[-1] / s.placed[v], s.reduced[v]
    partial = left > 1.0
    register = j == m.length[2] - 1
    if sums and not partial:
        held, cycles = finish(s, inner, outer, v, times, pj, row)
        if not later and not register:  # register tiles may go out one by one
            _, cycles = finish(s, inner, outer, 0, 0.0, pj, row)
        row[CHAIN] += cycles
        if register and not later:
            row[row.shape[0] - 1] += (times - 1.0) * cycles
        return (0.0 if later or not register else held), 0.0, 0.0
    bits = bits_at(m, 2, j, sums)
    read, stored = s.tile[2, inner, v] * bits, s.tile[2, outer, v] * bits
    crossing = read if m.level[inner, CHIP] else stored
    if sums and i == 0:
        stored = s.tile[2, outer, v] * float(m.numbers[WORD])
    again = times - times / left
    leaving = again if sums and i == 0 else times
    banks = 1 if later else 0
    held, leaves = passage(s, 2, inner, outer, read, stored, crossing, banks, leaving, pj, row)
    cycles = leaves
    first, last, between = held, 0.0, 0.0
    if sums:
        width = float(m.numbers[WORD] if i == 0 else m.numbers[PSUM_BITS])
        down, into = s.tile[2, outer, v] * width, s.tile[2, inner, v] * m.numbers[PSUM_BITS]
        _, coming = passage(s, 2, outer, inner, down, into, down, 0, again, pj, row)
        if i == 0:
            done, cycles = finish(s, inner, outer, v, times / left, pj, row)
            first = min(first, done)
        between = leaves + coming
        # Complete sums may leave elsewhere: nobody waits until they are there.
        last = (first if register or i == 0 else leaves) + coming
    row[CHAIN] += cycles
    if not later and (not register or m.level[outer, CHIP]):
        row[row.shape[0] - 1] += (times - 1.0) * max(cycles, last)
    if later:
        return 0.0, 0.0, 0.0
    return first if register else 0.0, last if partial else 0.0, between if partial else 0.0


@part
def way_costs(
    s: Space, way: int, v: int, sums: bool, is_last: bool, row: Floats, gap: Floats
) -> bool:
    """Fill a row with what a way costs at point v, gap with what is waited for; False: no way.

    is_last: no loops are left, each tile moves once.
    gap:     cycles that a register waits, that of sums in three cases; ways from further out, how
             much longer they make it wait; of inputs and weights also those of a second move, and
             how long a tile loaded ahead holds the outermost memory's port, in how many pieces
    """
    m = s.m
    o, j, end = s.way[way, WAY_OPERAND], s.way[way, WAY_FROM], s.way[way, WAY_TO]
    by, double = s.way[way, WAY_BY], s.way[way, WAY_DOUBLE]
    if is_last and double:
        return False
    for column in range(row.shape[0]):
        row[column] = 0.0
    pj = s.column[2 * m.level.shape[0]] + 1
    gap[:] = 0.0
    is_first = True
    while j > end:
        i = j - 1
        while i > end and not (by >> i) & 1:
            i -= 1
        twice = bool((double >> j) & 1)
        level = m.chain[o, j]
        size = s.tile[o, level, v] * bits_at(m, o, j, sums) * (2.0 if twice else 1.0)
        if size > m.level[level, SIZE]:
            return False
        if s.shared[level] >= 0:
            row[s.shared[level]] += size
        if o < 2:
            behind = i > end and bool((double >> i) & 1)
            waits = inward(s, o, i, j, v, twice, behind, pj, row)
            if is_first:
                gap[0] = waits
            elif gap[1] == 0.0:
                gap[1] = waits
            if i == 0 and twice:
                gap[3] = up(s.tile[o, m.chain[o, 0], v] * bits_at(m, o, 0, False), m.level[0, READ])
                gap[4] = pieces(s, o, level, v)
        else:
            partial = s.reduced[v] > 1.0
            if twice and (partial or i != end):
                return False
            waits, last, between = outward(s, i, j, v, sums, twice, pj, row)
            gap[0] += waits
            gap[1] += last
            gap[2] += between
            sums = sums and partial
        is_first = False
        j = i
    return True


@part
def fits(s: Space, o: int, j: int, v: int, sums: bool) -> bool:
    """Whether the level at position j holds the tile of point v."""
    if j == 0:
        return True
    level = s.m.chain[o, j]
    return bool(s.tile[o, level, v] * bits_at(s.m, o, j, sums) <= s.m.level[level, SIZE])


@part
def pieces(s: Space, o: int, level: int, v: int) -> float:
    """In how many pieces a tile is loaded ahead at most (see `pieces_of`)."""
    if not (s.m.level[0, CHIP] and s.m.level[level, CHIP]):
        return 1.0
    most, whole = 1.0, s.tile[o, level, v]
    for k in range(s.dim.shape[0]):
        prime = s.prime[k]
        if k > 0 and np.any(s.prime[:k] == prime):
            continue
        loops = 0
        for other in range(s.dim.shape[0]):
            if s.prime[other] == prime:
                loops += (v // s.stride[other]) % (s.most[other] + 1)
        while loops > 0 and whole % prime == 0.0:
            most *= prime
            whole /= prime
            loops -= 1
    return most


@part
def wait(
    s: Space, o: int, way: int, v: int, is_register: bool, gap: Floats, waits: Floats
) -> float:
    """Take a move of operand o into account in `waits`; cycles that the chain takes longer.

    A tile in the only buffer of a level moves when all that was made of the one before is on its
    way further in, and when its port has served what came before. Inputs and weights have as long
    as what is inside keeps the macro busy. Sums come back when others are gone: nothing hides that.

    A port serves in order. What is loaded ahead keeps it from small tiles of others, of which one
    is ahead, too: pieces that take longer than three of those hold up all.
    """
    m, first, end = s.m, s.way[way, WAY_FROM], s.way[way, WAY_TO]
    if o == 2:
        if is_register:
            waits[FIRST] = gap[0]
            waits[AGAIN], waits[BETWEEN] = max(gap[0], gap[1]), max(gap[0], gap[2])
        else:
            waits[AGAIN] += gap[1]
            waits[BETWEEN] += gap[2]
        if end == 0:
            return leave(s, way, v, waits)
        waits[PENDING] = 0.0
        return 0.0
    longest = waits[:5].max()
    each = float(m.numbers[ACTIVATION]) + longest
    source = m.chain[o, first_stop(s, way)]
    longer, extra = 0.0, 0.0
    if is_register:
        waits[o] = gap[0]
        since = -waits[WAITS + m.chain[o, end]]
        if o == 1 and since <= s.placed[v]:
            longer = max(0.0, gap[1] - since * each)
    else:
        inside = min(-waits[5 + o], -waits[WAITS + source])
        longer = max(0.0, gap[0] - inside * each)
    waits[o] += longer
    if end == 0 and m.level[0, ONE_PORT]:
        # It comes when the results before it are on their way through the same port.
        moving = gap[1] if is_register else gap[0]
        by = s.way[way, WAY_BY]
        if moving > 0.0 and (by == 0 if not is_register else s.way[way, WAY_FROM] - end == 2):
            waits[LATE] = max(waits[LATE], waits[o] - longer + moving)
    since = -waits[WAITS + m.chain[o, end]]
    if gap[3] > 0.0 and since < np.inf:
        most = gap[4]
        extra = max(0.0, gap[3] - 1.5 * since * each * most - waits[o])
    twice = (s.way[way, WAY_DOUBLE] >> first) & 1
    waits[5 + o] = -s.placed[v] * (2.0 if twice else 1.0)
    j = first
    for i in range(first - 1, end - 1, -1):
        if i == end or (s.way[way, WAY_BY] >> i) & 1:
            level = m.chain[o, i]
            ahead = (s.way[way, WAY_DOUBLE] >> j) & 1
            if m.level[level, CHIP] and (i == 0 or not ahead):
                waits[WAITS + level] = max(waits[WAITS + level], -2.0 * s.placed[v])
            j = i
    return float((s.placed[-1] / s.placed[v] - 1.0) * (extra + (longer if o == 1 else 0.0)))


@part
def leave(s: Space, way: int, v: int, waits: Floats) -> float:
    """Results go to the outermost memory: cycles of what they pass by that waited for them.

    Where it is sure that register tiles pass the only level in between one by one (`can_pass`).
    """
    m, j = s.m, s.way[way, WAY_FROM]
    if s.way[way, WAY_DOUBLE]:
        waits[QUIET] = -1.0
        return 0.0
    level, register = m.chain[2, j], m.chain[2, m.length[2] - 1]
    psum, result = float(m.numbers[PSUM_BITS]), float(m.numbers[RESULT_BITS])
    pending, waits[PENDING] = waits[PENDING], 0.0
    if j == m.length[2] - 1 or s.shared[level] >= 0 or s.way[way, WAY_BY]:
        return 0.0
    if m.level[register, SIZE] >= 2.0 * psum:
        return 0.0
    taken = s.tile[2, level, v] * psum
    waiting = 2.0 * s.tile[2, level, 0] * psum
    lanes = float(m.numbers[LANES] * (s.cores[level] if m.numbers[PER_CORE] else 1))
    words = s.union[0] * result / m.level[0, WRITE]
    fits_ = taken + waiting <= m.level[level, SIZE]
    if fits_ and words == np.floor(words) and s.union[0] % lanes == 0.0 and s.reduced[v] == 1.0:
        return float(pending)
    return 0.0


@part
def late(s: Space, v: int, kind: int, place: int, waits: Floats) -> float:
    """Cycles that `gaps` leaves out: of loads that come after results on the same port.

    place: of the results; where it is not the outermost memory the cycles are pending.
    """
    if waits[LATE] == 0.0 or waits[QUIET] < 0.0 or s.m.reduced[s.dim[kind]]:
        return 0.0
    times = s.placed[-1] / s.placed[v] * (1.0 - 1.0 / s.prime[kind])
    left = s.reduced[v]
    total = max(waits[0], waits[1], waits[AGAIN] if left > 1.0 else waits[FIRST])
    longer = float(times / left * max(0.0, waits[LATE] - total))
    if s.position[2, place] == 0:
        return longer
    if s.near[2, place] == s.position[2, place]:
        waits[PENDING] += longer
    return 0.0


@part
def no_waits(s: Space, waits: Floats) -> None:
    """Nothing has moved yet."""
    waits[:] = 0.0
    waits[WAITS:] = -np.inf


@part
def first_stop(s: Space, way: int) -> int:
    """The position that the first move of a way leads to."""
    i = s.way[way, WAY_FROM] - 1
    while i > s.way[way, WAY_TO] and not (s.way[way, WAY_BY] >> i) & 1:
        i -= 1
    return int(i)


@part
def gaps(s: Space, v: int, kind: int, waits: Floats, is_free: bool) -> float:
    """Cycles between activations where a loop of this kind steps, around point v.

    waits: of the registers that have changed (see `WAITS`).
    is_free: what the weights need is charged already.
    """
    times = s.placed[-1] / s.placed[v] * (1.0 - 1.0 / s.prime[kind])
    others = max(waits[0], waits[1])
    between = max(others, waits[BETWEEN])
    if s.m.reduced[s.dim[kind]]:
        total = between
    else:
        left = s.reduced[v]
        total = max(others, waits[FIRST]) / left
        if left > 1.0:
            total += max(others, waits[AGAIN]) / left + between * (1.0 - 2.0 / left)
    return float(times * (total - (waits[1] if is_free else 0.0)))
