"""What nests around an outline cost at least: bounds for the search over outlines, compiled.

Arrays of the search: `kinds` rows (dim, prime); `most` how many of each the iterations have;
`steps` rows (dim, bound, primes of each kind), all loops that can be placed; `aim` what is
minimized: weight of cycles, weight of pJ, 1.0 for their product, leakage in pJ per cycle, pJ of the
activations; see `Terms`.

`bounded` is the bound of an outline. `hurried` is a lower one that needs no outline, just a row of
numbers (`summed`) for what each operand does at the next loop: most ways to go on end there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cimc import jit
from cimc.targets.sram_cim import search_kernel as shared
from cimc.targets.sram_cim.exact import outline_kernel as outline
from cimc.targets.sram_cim.exact.outline_kernel import (
    FIRED,
    LEAST,
    NEXT,
    PJ,
    POS,
    POSITIONS,
    SUMS,
    TAU,
    D,
    E,
    F,
    Q,
    R,
    T,
    silent,
    tile_bits,
)
from cimc.targets.sram_cim.private_ports import batch
from cimc.targets.sram_cim.search_kernel import READ, SIZE, Floats, Ints, Machine

njit = jit.compiler(__file__, batch.__file__, shared.__file__, outline.__file__)

CYCLES, PJS, PRODUCT, LEAKAGE, FIXED = range(5)  # of `aim`
LATER_PJ, FILL, FIRST, SHARE, WAIT, TILES, EVERY = range(7)  # of `foreseen`
FORESEEN = 7
COST, DELAY, AGAIN, WAITS, VISITS, FILLED, BUSY, ENDS = range(8)  # of `summed`
SUMMED = 8


class Terms(NamedTuple):
    """What does not change in the search of one spatial choice."""

    m: Machine
    limits: Ints  # rows and columns of the input
    spread: Ints
    instances: Ints
    kinds: Ints
    most: Ints
    steps: Ints
    boots: Floats
    boot_pj: Floats
    aim: Floats
    outer_pj: Floats  # [kinds of I, W, O, set of factors left] see `outer_kernel`
    outer_cycles: Floats  # [3] cycles of moving all of an operand from or to outermost once


@njit
def score(aim: Floats, cycles: float, pj: float) -> float:
    """What is minimized, of cycles and pJ without leakage and activations."""
    total = pj + aim[FIXED] + aim[LEAKAGE] * cycles
    if aim[PRODUCT] > 0.0:
        return float(cycles * total)
    return float(aim[CYCLES] * cycles + aim[PJS] * total)


@njit
def foreseen(
    terms: Terms,
    label: Ints,
    x: Floats,
    o: int,
    inside: Ints,
    whole: Ints,
    rest: Ints,
    tile: Ints,
    found: Floats,
) -> None:
    """What an operand still needs at least, whatever the other two do: a row of `found`.

    inside, rest, whole: by dim, iterations that are placed, that are not, and all of them
    """
    m = terms.m
    position, last = label[POS + o], m.length[o] - 1
    ways = 2.0 if o == 2 else 1.0
    own = 1.0
    for d in range(8):
        if m.relevant[o, d]:
            own *= rest[d]
    still = silent(m, label, o)
    is_open = not label[FIRED + o] and not still
    found[:] = 0.0
    if is_open:
        found[LATER_PJ] = own * x[PJ + o]
        found[FILL] = x[TAU + o]
        if label[NEXT + o] == m.length[o]:
            found[SHARE], found[WAIT], found[TILES] = 1.0, ways * x[TAU + o], own
    if position == 0:
        return
    outer, level = m.chain[o, 0], m.chain[o, position]
    sums = label[SUMS] if o == 2 else 0
    stored = tile_bits(m, terms.limits, o, level, whole, terms.spread, sums, tile)
    found[LATER_PJ] += stored * m.pj[level, 1] * terms.instances[level]
    moved = tile_bits(m, terms.limits, o, outer, inside, terms.spread, 0, tile)
    found[FIRST] = moved / m.level[outer, READ]
    if position < last or m.may_double[o, last] or is_open:
        return
    widest = 1
    for other in range(last):
        widest = max(widest, m.level[m.chain[o, other], READ])
    source = m.chain[o, last - 1]
    moved = tile_bits(m, terms.limits, o, source, inside, terms.spread, 0, tile)
    stored = tile_bits(m, terms.limits, o, level, inside, terms.spread, sums, tile)
    if stored * 2 > m.level[level, SIZE]:
        found[SHARE], found[WAIT], found[TILES] = 1.0, ways * max(1.0, moved / widest), own
    elif o == 1:
        room = min(own, np.floor(m.level[level, SIZE] / stored))
        found[WAIT], found[TILES], found[EVERY] = moved / widest, own - room + 1.0, own


@njit
def bounded(
    terms: Terms,
    label: Ints,
    x: Floats,
    ahead: Floats,
    left: float,
    row: int,
    delay: Floats,
    tiles: Floats,
    fill: Floats,
) -> float:
    """The score that no nest around the outline goes below; raises the least cycles and pJ in x.

    ahead: rows of `foreseen` for I, W, O; left: runs of the outline; row: what is left in
    `outer_pj`. Each tile that an operand still has to bring to the macro is brought at a boundary
    of its own; the boundaries of operands may coincide. Results that are not outermost yet either
    go there tile by tile, or all of them come before the first loop and go after the last.
    """
    now = max(x[D], x[D + 1], x[D + 2])
    pj, busiest = left * x[E], x[LEAST]
    for o in range(3):
        pj += ahead[o, LATER_PJ]
        busiest = max(busiest, terms.outer_cycles[o])
        delay[o] = ahead[o, SHARE] * x[D + o] + ahead[o, WAIT]
        tiles[o] = ahead[o, TILES]
        fill[o] = x[F + o] + ahead[o, FILL] + (ahead[o, FIRST] if o < 2 else 0.0)
    total = left * x[T] + layered(delay, tiles, now, left)
    later = total
    if ahead[1, EVERY] > 0.0:  # what the first weights take more, later ones take less
        tiles[1] = ahead[1, EVERY]
        later = left * x[T] + layered(delay, tiles, now, left) + delay[1]
    i, w, r = min(label[POS], 2), min(label[POS + 1], 2), min(label[POS + 2], 2)
    first = ahead[2, FIRST]
    cycles = max(ended(x, fill, first, total, later, left), busiest)
    tile_pj = max(pj + terms.outer_pj[i, w, r, row], x[LEAST + 1])
    found = score(terms.aim, cycles, tile_pj)
    if r > 0:
        whole = max(ended(x, fill, terms.boots[2], total, later, left), busiest)
        whole_pj = max(pj + terms.outer_pj[i, w, r + 2, row], x[LEAST + 1])
        found = min(found, score(terms.aim, whole, whole_pj))
        cycles, tile_pj = min(cycles, whole), min(tile_pj, whole_pj)
    x[LEAST], x[LEAST + 1] = cycles, tile_pj
    return found


@njit
def ended(x: Floats, fill: Floats, first: float, total: float, later: float, left: float) -> float:
    """When the last results are out; first: cycles that the first ones take to come in."""
    ends = 0.0
    for o in range(3):
        more = first if o == 2 else 0.0
        ends = max(ends, fill[o] + more + (later if o == 1 else total))
        for level in range(POSITIONS):
            at = 4 * o + level
            if x[Q + at] > 0.0:
                ends = max(ends, (left - 1.0) * x[R + at] + x[Q + at] + more)
    return float(ends + fill[2] + first)


@njit
def layered(delay: Floats, tiles: Floats, now: float, left: float) -> float:
    """Delay of all boundaries: tiles[o] - 1 of them take at least delay[o], all at least `now`."""
    total, covered = 0.0, 0.0
    for _ in range(3):
        worst, at = now, -1
        for o in range(3):
            if tiles[o] - 1.0 > covered and delay[o] > worst:
                worst, at = delay[o], o
        if at < 0:
            break
        total += (tiles[at] - 1.0 - covered) * worst
        covered = tiles[at] - 1.0
    return total + max(0.0, left - 1.0 - covered) * now


@njit
def summed(
    terms: Terms,
    label: Ints,
    own: Floats,
    before: Floats,
    o: int,
    ahead: Floats,
    bound: int,
    left: float,
    found: Floats,
) -> None:
    """What `hurried` needs of an operand that has done its part of a loop, all but `looped`.

    label, own: the outline with this operand's part done; before: without; ahead: `foreseen`
    """
    runs = left * bound
    found[COST] = runs * (own[E] - before[E]) + ahead[LATER_PJ]
    found[DELAY] = own[D + o]
    found[AGAIN] = 2.0 * own[F + 2] if o == 2 else own[D + o]
    found[WAITS] = ahead[SHARE] * found[AGAIN] + ahead[WAIT]
    found[VISITS] = max(0.0, ahead[TILES] - 1.0)
    found[FILLED] = own[F + o] + ahead[FILL] + (ahead[FIRST] if o < 2 else 0.0)
    found[BUSY] = 0.0
    for level in range(POSITIONS):
        at = 4 * o + level
        found[BUSY] = max(found[BUSY], (runs - 1.0) * own[R + at] + own[Q + at])
    found[ENDS] = 0.0
    if o == 2:  # results go out in the end; they were brought in, all of them or the first ones
        found[ENDS] = own[F + 2] + ahead[FILL]
        if label[POS + 2] > 0:
            found[ENDS] += min(ahead[FIRST], terms.boots[2])


@njit
def hurried(
    aim: Floats, x: Floats, bound: int, left: float, i: Floats, w: Floats, r: Floats, outer: float
) -> float:
    """A score that `bounded` of x with one loop more does not go below.

    x: the outline before the loop; i, w, r: rows of `summed`; outer: least pJ of outermost traffic.
    Grows with each of the numbers, so rows of least numbers stand for all ways of an operand.
    """
    delay, again = max(i[DELAY], w[DELAY], r[DELAY]), max(i[AGAIN], w[AGAIN], r[AGAIN])
    chain = left * (bound * x[T] + (bound - 1) * delay) + (left - 1.0) * again
    chain += max(
        0.0,
        i[VISITS] * (i[WAITS] - again),
        w[VISITS] * (w[WAITS] - again),
        r[VISITS] * (r[WAITS] - again),
    )
    chain += max(i[FILLED], w[FILLED], r[FILLED])
    cycles = max(chain, i[BUSY], w[BUSY], r[BUSY]) + r[ENDS]
    pj = left * bound * x[E] + i[COST] + w[COST] + r[COST] + outer
    return score(aim, max(cycles, x[LEAST]), max(pj, x[LEAST + 1]))


@njit
def least_of(rows: Floats, count: int, found: Floats) -> None:
    """The least of each column."""
    for column in range(SUMMED):
        found[column] = np.inf
        for at in range(count):
            found[column] = min(found[column], rows[at, column])
