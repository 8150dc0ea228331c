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
WAITS = 6  # of the registers of I and W, of O before a first and another visit; activations that
# the tile of I and of W inside lasts, negative


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
) -> tuple[float, float]:
    """Tiles of results from position j to i, partial ones back, too.

    Returns the cycles that the sums' register waits before a first visit, and before another one;
    further out, those that the latter takes longer.
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
        return (0.0 if later or not register else held), 0.0
    bits = bits_at(m, 2, j, sums)
    read, stored = s.tile[2, inner, v] * bits, s.tile[2, outer, v] * bits
    crossing = read if m.level[inner, CHIP] else stored
    again = times - times / left
    leaving = again if sums and i == 0 else times
    banks = 1 if later else 0
    held, cycles = passage(s, 2, inner, outer, read, stored, crossing, banks, leaving, pj, row)
    first, back, both = held, 0.0, 0.0
    if sums:
        width = float(m.numbers[WORD] if i == 0 else m.numbers[PSUM_BITS])
        down, into = s.tile[2, outer, v] * width, s.tile[2, inner, v] * width
        _, coming = passage(s, 2, outer, inner, down, into, down, 0, again, pj, row)
        if i == 0:
            done, cycles = finish(s, inner, outer, v, times / left, pj, row)
            first = min(first, done)
        both = (first if i == 0 else cycles) + coming
        back = first + coming  # complete sums leave elsewhere: nobody waits until they are there
    row[CHAIN] += cycles
    if not later and (not register or m.level[outer, CHIP]):
        row[row.shape[0] - 1] += (times - 1.0) * max(cycles, back)
    if later or not register:
        return 0.0, both if partial else 0.0
    return first, back


@part
def way_costs(
    s: Space, way: int, v: int, sums: bool, is_last: bool, row: Floats, gap: Floats
) -> bool:
    """Fill a row with what a way costs at point v, gap with what is waited for; False: no way.

    is_last: no loops are left, each tile moves once.
    gap:     cycles that registers wait, sums before a first visit and before another one; cycles
             that a level further in than the way's end waits longer, whatever it was filled from
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
    is_first, is_register = True, j == m.length[o] - 1
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
                gap[0 if is_register else 2] = waits
        else:
            partial = s.reduced[v] > 1.0
            if twice and (partial or i != end):
                return False
            waits, returns = outward(s, i, j, v, sums, twice, pj, row)
            if is_first and is_register:
                gap[0], gap[1] = waits, returns
            else:
                gap[1 if is_register else 2] += returns
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
def wait(
    s: Space, o: int, way: int, v: int, is_register: bool, gap: Floats, waits: Floats
) -> float:
    """Take a move of operand o into account in `waits`; cycles that each of its tiles takes longer.

    A tile in the only buffer of a level moves when all that was made of the one before is on its
    way further in. Sums come back when others are gone: nothing hides that. Others have as long as
    what is inside keeps the macro busy.
    """
    longer = 0.0
    if is_register:
        waits[o] = gap[0]
        if o == 2:
            waits[3] = max(waits[2], gap[1])
    elif o == 2:
        waits[3] += gap[2]
    else:
        longest = max(max(waits[0], waits[1]), max(waits[2], waits[3]))
        busy = -waits[4 + o] * (float(s.m.numbers[ACTIVATION]) + longest)
        longer = max(0.0, gap[2] - busy)
        waits[o] += longer
    if o < 2:
        twice = (s.way[way, WAY_DOUBLE] >> s.way[way, WAY_FROM]) & 1
        waits[4 + o] = -s.placed[v] * (2.0 if twice else 1.0)
    return longer if o == 1 else 0.0


@part
def gaps(s: Space, v: int, kind: int, waits: Floats, is_free: bool) -> float:
    """Cycles between activations where a loop of this kind steps, around point v.

    waits: of the registers of I and W, and of O before first and other visits, those that change.
    is_free: what the weights need is charged already.
    """
    times = s.placed[-1] / s.placed[v] * (1.0 - 1.0 / s.prime[kind])
    others = max(waits[0], waits[1])
    again = max(others, waits[3])
    if s.m.reduced[s.dim[kind]]:
        total = again
    else:
        left = s.reduced[v]
        total = max(others, waits[2]) / left + again * (1.0 - 1.0 / left)
    return float(times * (total - (waits[1] if is_free else 0.0)))
