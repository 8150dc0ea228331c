"""The least energy of traffic with the outermost level, whatever the loops further in: a table.

Every nest has outermost loops at which an operand is still kept in the outermost level; let R_o be
the prime factors of those loops up to the one that moves operand o. It moves prod(R_o) tiles, each
what the other loops cover. Since all operands see one order of loops, of any two sets one contains
the other. The tiles that go to the level that operands share have to fit into it together. So over
chains of sets, the least sum of what the operands move is a bound for every nest: a front of (pJ,
bits in the shared level) for each set that the operands' sets lie in, built from smaller ones.

Where an operand stands (`kind`): 0 outermost already, 1 in the next level of its chain, 2 further
in; O as well 3 and 4: like 1 and 2, all of it brought there before the first loop. From further in
an operand goes by the next level, which costs its writes and reads, or past it if its tile fits
a level further in.
"""

from __future__ import annotations

import numpy as np

from cimc import jit
from cimc.targets.sram_cim import search_kernel as shared
from cimc.targets.sram_cim.exact import outline_kernel as outline
from cimc.targets.sram_cim.exact.outline_kernel import tile_bits
from cimc.targets.sram_cim.private_ports import batch
from cimc.targets.sram_cim.search_kernel import SHARED, SIZE, Floats, Ints, Machine

njit = jit.compiler(__file__, batch.__file__, shared.__file__, outline.__file__)

KINDS_OF = (3, 3, 5)  # of I, W, O
FRONT = 6  # entries of a front
NEVER = 1e300


@njit
def index_of(most: Ints, counts: Ints) -> int:
    """A set of prime factors as a row of the table."""
    found = 0
    for kind in range(most.shape[0]):
        found = found * (most[kind] + 1) + counts[kind]
    return int(found)


@njit
def inserted(front: Floats, size: int, pj: float, bits: float) -> int:
    """Add an entry to a front; a full one merges it with its neighbour, which lowers both."""
    for i in range(size):
        if front[i, 0] <= pj and front[i, 1] <= bits:
            return size
    kept = 0
    for i in range(size):
        if not (pj <= front[i, 0] and bits <= front[i, 1]):
            front[kept] = front[i]
            kept += 1
    if kept < front.shape[0]:
        front[kept, 0], front[kept, 1] = pj, bits
        return kept + 1
    nearest = 0
    for i in range(1, kept):
        if abs(front[i, 0] - pj) < abs(front[nearest, 0] - pj):
            nearest = i
    pj, bits = min(pj, front[nearest, 0]), min(bits, front[nearest, 1])
    front[nearest] = front[kept - 1]
    return inserted(front, kept - 1, pj, bits)


@njit
def moved(
    m: Machine,
    limits: Ints,
    spread: Ints,
    instances: Ints,
    o: int,
    kind: int,
    count: int,
    inside: Ints,
    whole: Ints,
    sums: int,
    is_empty: bool,
    found: Floats,
    tile: Ints,
) -> int:
    """Rows (pJ, bits in the shared level) of the ways that operand o can move at a set of loops.

    count: tiles; inside: loop extents of one; sums: O moves partial sums; is_empty: no loops
    """
    boots = kind > 2
    if boots and not is_empty:
        return 0
    outer = m.chain[o, 0]
    price = m.pj[outer, 0] + (m.pj[outer, 1] if o == 2 and not boots else 0.0)
    own = count * tile_bits(m, limits, o, outer, inside, spread, sums, tile) * price
    own *= instances[outer]
    made = 0
    next_level = m.chain[o, 1]
    bits = tile_bits(m, limits, o, next_level, inside, spread, sums, tile)
    if bits <= m.level[next_level, SIZE]:
        pj = own
        if kind == 2 or kind == 4:
            stores = m.pj[next_level, 1] + (m.pj[next_level, 0] if o == 2 and not boots else 0.0)
            reads = m.pj[next_level, 0] + (m.pj[next_level, 1] if o == 2 else 0.0)
            all_bits = tile_bits(m, limits, o, next_level, whole, spread, 0, tile)
            pj += (count * bits * stores + all_bits * reads) * instances[next_level]
        found[made, 0] = pj
        found[made, 1] = bits if m.level[next_level, SHARED] else 0
        made += 1
    if kind == 2 or kind == 4:
        for position in range(2, m.length[o]):
            level = m.chain[o, position]
            if tile_bits(m, limits, o, level, inside, spread, sums, tile) <= m.level[level, SIZE]:
                found[made, 0], found[made, 1] = own, 0.0
                made += 1
                break
    return made


@njit
def outer_table(
    m: Machine,
    limits: Ints,
    spread: Ints,
    instances: Ints,
    kinds: Ints,
    most: Ints,
) -> Floats:
    """[kind of I, kind of W, kind of O, set that all loops in question are in] least pJ."""
    rows = 1
    for kind in range(most.shape[0]):
        rows *= most[kind] + 1
    table = np.full((3, 3, 5, rows), NEVER)
    fronts = np.empty((3, 3, 5, rows, FRONT, 2))
    sizes = np.zeros((3, 3, 5, rows), np.int64)
    room = 1e300
    for level in range(1, m.level.shape[0]):
        if m.level[level, SHARED]:
            room = min(room, float(m.level[level, SIZE]))
    whole, inside = np.ones(8, np.int64), np.empty(8, np.int64)
    for kind in range(most.shape[0]):
        for _ in range(most[kind]):
            whole[kinds[kind, 0]] *= kinds[kind, 1]
    counts, tile = np.zeros(most.shape[0], np.int64), np.empty(8, np.int64)
    ways, number = np.empty((3, 5, 8, 2)), np.empty((3, 5), np.int64)
    for row in range(rows):
        rest, count, sums = row, 1, 0
        inside[:] = whole
        for kind in range(most.shape[0] - 1, -1, -1):
            counts[kind] = rest % (most[kind] + 1)
            rest //= most[kind] + 1
            for _ in range(counts[kind]):
                inside[kinds[kind, 0]] //= kinds[kind, 1]
                count *= kinds[kind, 1]
            if counts[kind] and m.reduced[kinds[kind, 0]]:
                sums = 1
        for o in range(3):
            moves = row == 0
            for kind in range(most.shape[0]):
                if counts[kind] and m.relevant[o, kinds[kind, 0]]:
                    moves = True
            for stand in range(1, KINDS_OF[o]):
                number[o, stand] = 0
                if moves:
                    number[o, stand] = moved(
                        m,
                        limits,
                        spread,
                        instances,
                        o,
                        stand,
                        count,
                        inside,
                        whole,
                        sums,
                        row == 0,
                        ways[o, stand],
                        tile,
                    )
        for i in range(3):
            for w in range(3):
                for r in range(5):
                    front, size = fronts[i, w, r, row], 0
                    if i == 0 and w == 0 and r == 0:
                        front[0, 0], front[0, 1] = 0.0, 0.0
                        size = 1
                    stride = 1
                    for kind in range(most.shape[0] - 1, -1, -1):
                        if counts[kind]:
                            smaller = row - stride
                            for entry in range(sizes[i, w, r, smaller]):
                                pj, bits = fronts[i, w, r, smaller, entry]
                                size = inserted(front, size, pj, bits)
                        stride *= most[kind] + 1
                    for o in range(3):
                        stand = i if o == 0 else (w if o == 1 else r)
                        if stand == 0:
                            continue
                        others = (0 if o == 0 else i, 0 if o == 1 else w, 0 if o == 2 else r)
                        before = fronts[others[0], others[1], others[2], row]
                        for entry in range(sizes[others[0], others[1], others[2], row]):
                            for way in range(number[o, stand]):
                                bits = before[entry, 1] + ways[o, stand, way, 1]
                                if bits <= room:
                                    pj = before[entry, 0] + ways[o, stand, way, 0]
                                    size = inserted(front, size, pj, bits)
                    sizes[i, w, r, row] = size
                    for entry in range(size):
                        table[i, w, r, row] = min(table[i, w, r, row], front[entry, 0])
    return table
