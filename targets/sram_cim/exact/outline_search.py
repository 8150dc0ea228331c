"""Kernels of the search over outlines: one more loop in every way, and who stands for whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.targets.sram_cim import search_kernel as shared
from cimc.targets.sram_cim.exact import outline_bounds as bounds
from cimc.targets.sram_cim.exact import outline_kernel as outline
from cimc.targets.sram_cim.exact.outline_bounds import (
    FORESEEN,
    SUMMED,
    Terms,
    bounded,
    foreseen,
    hurried,
    least_of,
    score,
    summed,
)
from cimc.targets.sram_cim.exact.outline_kernel import (
    BITS,
    COUNT,
    DEBT,
    DIM,
    FACTOR,
    FIRED,
    FLOOR,
    LATER,
    LIFE,
    NEXT,
    PARENT,
    PJ,
    POS,
    POSITIONS,
    SHUT,
    SUMS,
    TAU,
    TIGHT,
    TWO,
    D,
    E,
    F,
    Q,
    R,
    T,
    anchored,
    begun,
    completed,
    fired,
    looped,
    options,
    silent,
    tile_bits,
)
from cimc.targets.sram_cim.private_ports import batch
from cimc.targets.sram_cim.search_kernel import SHARED, SIZE, Floats, Ints, Machine

njit = jit.compiler(__file__, batch.__file__, shared.__file__, outline.__file__, bounds.__file__)

COMPARED = 40  # outlines that another one of its group is compared with
ROUNDED = 1.0 + 1e-12  # sums in another order


@njit
def tried(
    terms: Terms,
    label: Ints,
    x: Floats,
    o: int,
    choice: Ints,
    inside: Ints,
    reduces: int,
    ever: int,
    tile: Ints,
) -> bool:
    """Do with one operand what `choice` says, in place, all but the loop itself.

    inside: loop extents before the loop. False where a level cannot hold its tile.
    """
    m = terms.m
    position, now = choice[0], label[POS + o]
    if position != now:
        if now < m.length[o]:
            held = m.chain[o, now]
            bits = tile_bits(m, terms.limits, o, held, inside, terms.spread, label[SUMS], tile)
            if bits * (1 + choice[1]) > m.level[held, SIZE]:
                return False
            if not label[FIRED + o] and not silent(m, label, o):
                anchored(m, label, x, o)
        begun(
            m,
            terms.limits,
            terms.spread,
            terms.instances,
            label,
            x,
            o,
            position,
            choice[1],
            inside,
            reduces,
            ever,
            tile,
        )
    if choice[2]:
        x[E] += x[PJ + o]
        fired(m, label, x, o)
    label[SHUT + o] = choice[3]
    return True


@njit
def tried_all(
    terms: Terms,
    label: Ints,
    x: Floats,
    inside: Ints,
    reduces: int,
    ever: int,
    rows: Ints,
    parts: Ints,
    owns: Floats,
    number: Ints,
    tile: Ints,
) -> None:
    """All that operands can do at loops that [1] move their tiles and [0] do not.

    Fills rows of `options`, outlines with one operand's part done, and by operand how many
    """
    for moves in range(2):
        for o in range(3):
            count = options(terms.m, label, o, moves, rows[moves, o])
            at = 0
            for option in range(count):
                part, own = parts[moves, o, at], owns[moves, o, at]
                part[:] = label
                own[:] = x
                choice = rows[moves, o, option]
                if tried(terms, part, own, o, choice, inside, reduces, ever, tile):
                    rows[moves, o, at] = choice
                    at += 1
            number[moves, o] = at


@njit
def kept_bits(terms: Terms, label: Ints, x: Floats, o: int, after: Ints, tile: Ints) -> float:
    """Bits that an operand takes in the level that operands share, with a loop more inside.

    -1 where a level of its own cannot hold its tile.
    """
    position = label[POS + o]
    level = terms.m.chain[o, position]
    bits = tile_bits(terms.m, terms.limits, o, level, after, terms.spread, label[SUMS], tile)
    if bits > terms.m.level[level, SIZE]:
        return -1.0
    common = x[BITS + o]
    if terms.m.level[level, SHARED] and position > 0:
        common += bits
    return float(common)


@njit
def shared_size(m: Machine) -> float:
    """Bits of the level inside the outermost one that operands share; no limit without one."""
    size = 1e300
    for level in range(1, m.level.shape[0]):
        if m.level[level, SHARED]:
            size = min(size, float(m.level[level, SIZE]))
    return size


@njit
def taken(label: Ints, x: Floats, part: Ints, own: Floats, o: int) -> None:
    """Copy what concerns one operand."""
    for column in (POS, NEXT, FIRED, SHUT, TWO, TIGHT):
        label[column + o] = part[column + o]
    if o == 2:
        label[SUMS] = part[SUMS]
    for column in (D, F, TAU, PJ, LIFE, BITS, LATER):
        x[column + o] = own[column + o]
    for level in range(POSITIONS):
        x[R + 4 * o + level] = own[R + 4 * o + level]
        x[Q + 4 * o + level] = own[Q + 4 * o + level]


@njit
def key_of(terms: Terms, label: Ints) -> int:
    """A number that two outlines share if and only if the same loops can be placed around them."""
    key = label[SUMS]
    for o in range(3):
        key = key * 8 + label[POS + o]
        key = key * 8 + label[NEXT + o]
        key = key * 2 + label[FIRED + o]
        key = key * 2 + label[SHUT + o]
        key = key * 2 + label[TWO + o]
        key = key * 2 + label[TIGHT + o]
    for kind in range(terms.kinds.shape[0]):
        key = key * (terms.most[kind] + 1) + label[COUNT + kind]
    return int(key)


@njit
def expand(
    terms: Terms,
    labels: Ints,
    floats: Floats,
    start: int,
    cutoff: float,
    out_labels: Ints,
    out_floats: Floats,
    out_keys: Ints,
) -> tuple[int, int]:
    """All outlines with one loop more than those from `start` on, until `out` is nearly full.

    A whole nest has its score in FLOOR, its cycles in T and its pJ in E. Returns the next one to
    expand, and how many were made.
    """
    m, kinds, most, steps = terms.m, terms.kinds, terms.most, terms.steps
    made, room = 0, out_labels.shape[0] - 1
    columns = labels.shape[1]
    before, after, whole = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(8, np.int64)
    rest, tile = np.empty(8, np.int64), np.empty(8, np.int64)
    rows, number = np.empty((2, 3, 64, 4), np.int64), np.empty((2, 3), np.int64)
    parts, owns = np.empty((2, 3, 64, columns), np.int64), np.empty((2, 3, 64, floats.shape[1]))
    which, counts = np.empty((3, 64), np.int64), np.empty(3, np.int64)
    common, views = np.empty((3, 64)), np.empty((3, 64, FORESEEN))
    sums, least = np.empty((3, 64, SUMMED)), np.empty((3, SUMMED))
    outer = np.zeros((4, 4, 4))
    ahead, fires, begins = np.empty((3, FORESEEN)), np.empty(3, np.int64), np.empty(3, np.int64)
    delay, tiles, fill = np.empty(3), np.empty(3), np.empty(3)
    picked = np.empty((3, 4), np.int64)
    size, ever = shared_size(m), 0
    for kind in range(kinds.shape[0]):
        if m.reduced[kinds[kind, 0]]:
            ever = 1
    for parent in range(start, labels.shape[0]):
        if made + 3000 > room:
            return parent, made
        label, x = labels[parent], floats[parent]
        before[:] = 1
        reduces = 0
        for kind in range(kinds.shape[0]):
            for _ in range(label[COUNT + kind]):
                before[kinds[kind, 0]] *= kinds[kind, 1]
            if m.reduced[kinds[kind, 0]] and label[COUNT + kind] < most[kind]:
                reduces = 1
        tried_all(terms, label, x, before, reduces, ever, rows, parts, owns, number, tile)
        for step in range(steps.shape[0]):
            dim, bound = steps[step, 0], steps[step, 1]
            possible = True
            rest[:] = 1
            left, row, runs = 0, 0, 1.0
            for kind in range(kinds.shape[0]):
                remaining = most[kind] - label[COUNT + kind] - steps[step, 2 + kind]
                if remaining < 0:
                    possible = False
                    break
                left += remaining
                row = row * (most[kind] + 1) + remaining
                for _ in range(remaining):
                    rest[kinds[kind, 0]] *= kinds[kind, 1]
                    runs *= kinds[kind, 1]
            if not possible:
                continue
            after[:] = before
            after[dim] *= bound
            whole[:] = after * rest
            for o in range(3):
                moves = m.relevant[o, dim]
                counts[o] = 0
                for option in range(number[moves, o]):
                    part, own = parts[moves, o, option], owns[moves, o, option]
                    bits = kept_bits(terms, part, own, o, after, tile)
                    if bits >= 0.0:
                        at = counts[o]
                        which[o, at], common[o, at] = option, bits
                        view = views[o, at]
                        foreseen(terms, part, own, o, after, whole, rest, tile, view)
                        summed(terms, part, own, x, o, view, bound, runs, sums[o, at])
                        counts[o] += 1
                least_of(sums[o], counts[o], least[o])
            if min(counts) == 0:
                continue
            outer[:] = 0.0
            if left > 0:
                outer_floors(terms.outer_pj, row, outer)
            limit = (cutoff + x[DEBT]) * ROUNDED
            aim = terms.aim
            if hurried(aim, x, bound, runs, least[0], least[1], least[2], outer[3, 3, 3]) >= limit:
                continue
            a, b, c = m.relevant[0, dim], m.relevant[1, dim], m.relevant[2, dim]
            for i in range(counts[0]):
                own_i = which[0, i]
                at_i = min(rows[a, 0, own_i, 0], 2)
                pj = outer[at_i, 3, 3]
                if hurried(aim, x, bound, runs, sums[0, i], least[1], least[2], pj) >= limit:
                    continue
                for w in range(counts[1]):
                    if common[0, i] + common[1, w] > size:
                        continue
                    own_w = which[1, w]
                    at_w = min(rows[b, 1, own_w, 0], 2)
                    pj = outer[at_i, at_w, 3]
                    if hurried(aim, x, bound, runs, sums[0, i], sums[1, w], least[2], pj) >= limit:
                        continue
                    for r in range(counts[2]):
                        if common[0, i] + common[1, w] + common[2, r] > size:
                            continue
                        own_r = which[2, r]
                        pj = outer[at_i, at_w, min(rows[c, 2, own_r, 0], 2)]
                        if (
                            hurried(aim, x, bound, runs, sums[0, i], sums[1, w], sums[2, r], pj)
                            >= limit
                        ):
                            continue
                        picked[0], picked[1] = rows[a, 0, own_i], rows[b, 1, own_w]
                        picked[2] = rows[c, 2, own_r]
                        if dim == label[DIM] and x[DEBT] == 0.0 and uneventful(label, picked):
                            continue  # the same as one loop of both bounds
                        new, y = out_labels[made], out_floats[made]
                        new[:] = label
                        y[:] = x
                        taken(new, y, parts[a, 0, own_i], owns[a, 0, own_i], 0)
                        taken(new, y, parts[b, 1, own_w], owns[b, 1, own_w], 1)
                        taken(new, y, parts[c, 2, own_r], owns[c, 2, own_r], 2)
                        y[E] = owns[a, 0, own_i, E] + owns[b, 1, own_w, E]
                        y[E] += owns[c, 2, own_r, E] - 2.0 * x[E]
                        for o in range(3):
                            fires[o] = picked[o, 2]
                            begins[o] = picked[o, 0] != label[POS + o]
                        looped(m, new, y, bound, fires, begins)
                        new[DIM], new[FACTOR] = dim, bound
                        if left == 0:
                            if not completed(m, new, y, terms.boots, terms.boot_pj):
                                continue
                            y[FLOOR] = score(terms.aim, y[T], y[E])
                        else:
                            ahead[0], ahead[1] = views[0, i], views[1, w]
                            ahead[2] = views[2, r]
                            floor = bounded(terms, new, y, ahead, runs, row, delay, tiles, fill)
                            y[FLOOR] = max(x[FLOOR], floor)
                        if y[FLOOR] - y[DEBT] >= cutoff:
                            continue
                        for kind in range(kinds.shape[0]):
                            new[COUNT + kind] += steps[step, 2 + kind]
                        new[PARENT] = parent
                        out_keys[made] = key_of(terms, new)
                        made += 1
    return labels.shape[0], made


@njit
def outer_floors(table: Floats, row: int, found: Floats) -> None:
    """The least of `outer_pj` by where I, W, O stand; at 3 the least of all."""
    found[:] = np.inf
    for i in range(3):
        for w in range(3):
            for r in range(3):
                pj = table[i, w, r, row]
                if r > 0:
                    pj = min(pj, table[i, w, r + 2, row])
                found[i, w, r] = pj
                found[i, w, 3] = min(found[i, w, 3], pj)
                found[i, 3, 3] = min(found[i, 3, 3], pj)
                found[3, 3, 3] = min(found[3, 3, 3], pj)


@njit
def uneventful(label: Ints, choice: Ints) -> bool:
    """Whether no operand changes its level or moves its tile at the next loop."""
    moved = 0
    for o in range(3):
        moved += choice[o, 0] != label[POS + o] or choice[o, 2] != 0
    return moved == 0


@njit
def excess(a: Floats, b: Floats, left: float, weights: Floats, label: Ints) -> float:
    """How much more than the same nest around b one around a can cost, at most.

    weights: of a cycle more, of a pJ more, of a pJ less; label: of both. What bounds the latency is
    a chain of activations and the delays between them, or a level's timer. A timer of a matters as
    far as it exceeds both the same timer of b and b's chain of activations.
    """
    delay, fill, timer = 0.0, 0.0, 0.0
    for o in range(3):
        later = 0.0
        if label[TIGHT + o] and o < 2:
            later = max(0.0, b[LIFE + o] - a[LIFE + o], b[LATER + o] - a[LATER + o])
        delay = max(delay, a[D + o] - b[D + o] + later)
        fill = max(fill, a[F + o] - b[F + o])
        for at in range(4 * o, 4 * o + POSITIONS):
            own = max(0.0, a[Q + at] - b[Q + at])
            own += (left - 1.0) * max(0.0, a[R + at] - b[R + at])
            chain = max(0.0, a[Q + at] - b[F + o] - b[T])
            chain += (left - 1.0) * max(0.0, a[R + at] - b[T])
            timer = max(timer, min(own, chain))
    chain = left * (a[T] - b[T]) + (left - 1.0) * delay + fill
    cycles = max(chain, timer + fill, 0.0) + max(0.0, a[F + 2] - b[F + 2])
    pj = left * (a[E] - b[E])
    return float(weights[0] * cycles + (weights[1] if pj > 0.0 else weights[2]) * pj)


@njit
def undominated(
    order: Ints,
    keys: Ints,
    labels: Ints,
    floats: Floats,
    lefts: Floats,
    weights: Floats,
    allowance: float,
) -> NDArray[np.bool_]:
    """Which outlines none of the others stands for; `order` sorts by key, then by FLOOR."""
    count = len(order)
    kept = np.ones(count, np.bool_)
    stand = np.empty(COMPARED, np.int64)
    begin = 0
    while begin < count:
        end, standing = begin, 0
        while end < count and keys[order[end]] == keys[order[begin]]:
            b = order[end]
            bits = floats[b, BITS] + floats[b, BITS + 1] + floats[b, BITS + 2]
            for place in range(standing):
                a = stand[place]
                if floats[a, BITS] + floats[a, BITS + 1] + floats[a, BITS + 2] > bits:
                    continue
                more = excess(floats[a], floats[b], lefts[b], weights, labels[b])
                debt = floats[b, DEBT] + max(0.0, more)
                if more <= 0.0 and floats[b, DEBT] == 0.0:
                    debt = 0.0
                if debt <= allowance:
                    floats[a, DEBT] = max(floats[a, DEBT], debt)
                    kept[b] = False
                    break
            if kept[b] and standing < COMPARED:
                stand[standing] = b
                standing += 1
            end += 1
        begin = end
    return kept
