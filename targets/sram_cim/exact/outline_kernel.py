"""Outlines: nests from the innermost loop outwards, and what they cost at least, compiled.

An outline is the inner part of a nest: which prime factors of the iterations are placed, where each
operand's outermost level stands, and lower bounds of its times. Under private ports let

    T     cycles from the start of the first to the end of the last activation of the part
    D_o   cycles between two activations, at a boundary of any loop further out, that operand o
          needs to bring its next tiles to the macro (and the last results back)
    F_o   cycles from the first transfer of o to the first activation
    R, Q  by operand and level: cycles that one run of the part occupies the level's timer; cycles
          from the timer's start to the end of the last activation

A loop of bound f around the part makes T' = f T + (f-1) max_o D_o, Q' = (f-1) R + Q, R' = f R. A
transfer of tau cycles that moves at this loop adds to D_o what no second buffer hides: all of it
into registers and cells that are in use until the activation ends; of a single buffer further out,
what exceeds the life of the tile inside it. Results go back once a loop ends, even from second
buffers, so at loops further out nothing of their way is hidden. Every transfer adds tau to F_o. In
the end
latency >= max(F_o + T, Q) + the way back of the results. Energy is exact.

All of these only grow with each other, so of two outlines that agree in the rest, one that is
nowhere worse stands for both. Of two that nearly agree, too, if the difference is remembered as
the first one's debt: no nest around the second costs less than the same around the first, less the
debt.
"""

from __future__ import annotations

import numpy as np

from cimc import jit
from cimc.targets.sram_cim import search_kernel as shared
from cimc.targets.sram_cim.private_ports import batch
from cimc.targets.sram_cim.private_ports.batch import published
from cimc.targets.sram_cim.search_kernel import (
    ACTIVATION,
    PSUM_BITS,
    READ,
    RESULT_BITS,
    SHARED,
    Floats,
    Ints,
    Machine,
)

njit = jit.compiler(__file__, batch.__file__, shared.__file__)

# integer columns of an outline; three in a row for I, W, O
POS, NEXT, FIRED, SHUT, TWO, TIGHT = 0, 3, 6, 9, 12, 15
SUMS, DIM, FACTOR, PARENT, COUNT = 18, 19, 20, 21, 22
# float columns
T, E, DEBT, FLOOR = 0, 1, 2, 3
D, F, TAU, PJ, LIFE, BITS = 4, 7, 10, 13, 16, 19
R, Q = 22, 34  # four levels for each operand
LATER = 46  # becomes LIFE when the operand moves outwards
LEAST = 49  # cycles and pJ (without leakage and activations) that no nest around it goes below
FLOATS = 51
POSITIONS = 4
ENDLESS = 1e18


@njit
def bits_at(m: Machine, o: int, level: int, sums: int) -> int:
    """Bits of an element; of O, of a sum where `sums`."""
    if o == 2:
        return int(m.numbers[PSUM_BITS] if sums else m.numbers[RESULT_BITS])
    return shared.bits_at(m, o, level, 0)


@njit
def tile_bits(
    m: Machine, limits: Ints, o: int, level: int, inside: Ints, spread: Ints, sums: int, tile: Ints
) -> int:
    """Bits of the tile of loop extents `inside` in one instance of a level."""
    for d in range(8):
        tile[d] = inside[d] * spread[o, level, d]
    return published(o, tile, m.steps, limits) * bits_at(m, o, level, sums)


@njit
def options(m: Machine, label: Ints, o: int, moves: int, found: Ints) -> int:
    """Where an operand can stand with one more loop: rows (position, second buffer, fire, shut).

    The second buffer is that of the level inside the new one. A part that has not moved its tile
    stays where it is until a loop changes the tile: loops before that one are kept further in.
    """
    count, position, last = 0, label[POS + o], m.length[o] - 1
    if position == m.length[o]:  # no loop is placed yet
        for to in range(position):
            silent = o == 1 and to == last
            found[count, 0], found[count, 1] = to, 0
            found[count, 2], found[count, 3] = 0 if silent else moves, 0
            count += 1
            if not silent and not moves:
                found[count, 0], found[count, 1] = to, 0
                found[count, 2], found[count, 3] = 1, 1
                count += 1
        return count
    silent = o == 1 and position == last  # weights in the macro never move on
    is_open = not silent and not label[FIRED + o]
    to_macro = label[NEXT + o] == m.length[o]
    if not label[SHUT + o]:
        found[count, 0], found[count, 1] = position, label[TWO + o]
        found[count, 2], found[count, 3] = moves if is_open else 0, 0
        count += 1
        if is_open and to_macro and not moves:  # the block ends with this loop
            found[count, 0], found[count, 1] = position, label[TWO + o]
            found[count, 2], found[count, 3] = 1, 1
            count += 1
    if is_open and (to_macro or not moves):
        return count
    for to in range(position):
        for two in range(2 if m.may_double[o, position] else 1):
            found[count, 0], found[count, 1] = to, two
            found[count, 2], found[count, 3] = moves, 0
            count += 1
    return count


@njit
def fired(m: Machine, label: Ints, x: Floats, o: int) -> None:
    """The operand's pending transfer moves here: delays, fill and the timers of its levels."""
    tau, position, sink = x[TAU + o], label[POS + o], label[NEXT + o]
    ways = 2.0 if o == 2 else 1.0
    ends = x[F + o] + x[T]
    for level in range(m.length[o]):
        if x[Q + 4 * o + level] > 0.0:
            ends = max(ends, x[Q + 4 * o + level])
            x[Q + 4 * o + level] += tau
    x[R + 4 * o + position] = ways * tau
    x[Q + 4 * o + position] = ends + tau
    x[F + o] += tau
    label[FIRED + o] = 1
    if sink == m.length[o]:
        x[D + o] += ways * tau
    elif o == 2:
        if not label[TWO + o]:
            x[D + o] += ways * tau
    elif label[TWO + o]:
        label[TIGHT + o] = 0
    elif label[TIGHT + o] and x[LIFE + o] < tau:
        x[D + o] += tau - x[LIFE + o]


@njit
def begun(
    m: Machine,
    limits: Ints,
    spread: Ints,
    instances: Ints,
    label: Ints,
    x: Floats,
    o: int,
    position: int,
    two: int,
    inside: Ints,
    reduces: int,
    reduces_ever: int,
    tile: Ints,
) -> None:
    """A block at `position` begins around loop extents `inside`: its transfer and what that costs.

    reduces: loops that reduce are still to come, so what stands here are partial sums
    """
    sink, length = label[POS + o], m.length[o]
    source = m.chain[o, position]
    sums_inside = label[SUMS]
    if o == 2:
        label[SUMS] = reduces
    moved = tile_bits(m, limits, o, source, inside, spread, reduces, tile)
    tau = -(-moved // m.level[source, READ])
    move_pj = m.pj[source, 0] + (m.pj[source, 1] if o == 2 else 0.0)
    pj = moved * move_pj * instances[source]
    if sink < length:
        level = m.chain[o, sink]
        stored = tile_bits(m, limits, o, level, inside, spread, sums_inside, tile)
        store_pj = m.pj[level, 1] + (m.pj[level, 0] if o == 2 else 0.0)
        pj += stored * store_pj * instances[level]
        if m.level[level, SHARED] and sink > 0:
            x[BITS + o] = stored * (1 + two)
    elif position != length - 1:
        tau += 1
        level = m.chain[o, length - 1]
        passed = bits_at(m, o, level, reduces_ever) * (2 if o == 2 else 1)
        pj += passed * (m.pj[level, 0] + m.pj[level, 1]) * instances[level]
    x[TAU + o], x[PJ + o] = tau, pj
    label[NEXT + o], label[POS + o] = sink, position
    label[TWO + o], label[FIRED + o], label[SHUT + o] = two, 0, 0
    x[LIFE + o] = x[LATER + o]
    x[R + 4 * o + position], x[Q + 4 * o + position] = 0.0, 0.0


@njit
def silent(m: Machine, label: Ints, o: int) -> bool:
    """Weights in the macro never move on."""
    return o == 1 and label[POS + o] == m.length[o] - 1


@njit
def looped(m: Machine, label: Ints, x: Floats, bound: int, fires: Ints, begins: Ints) -> None:
    """The loop itself, once all that moves in it is marked; begins: it is a block's innermost.

    A level keeps up with the single buffer inside it: they meet at each iteration of the level's
    loops. So what the level holds lives no longer than the last iteration of its innermost loop.
    """
    delay = max(x[D], x[D + 1], x[D + 2])
    for o in range(3):
        if begins[o] and label[NEXT + o] < m.length[o]:
            x[LATER + o] = ENDLESS
            if label[TIGHT + o] and not label[TWO + o]:
                x[LATER + o] = x[T] + delay - (x[TAU + o] if fires[o] else 0.0)
        for level in range(POSITIONS):
            at = 4 * o + level
            x[Q + at] += (bound - 1) * x[R + at]
            x[R + at] *= bound
    x[E] *= bound
    inner, back = x[T], x[F + 2]
    x[T] = bound * inner + (bound - 1) * delay
    if fires[2] and label[TWO + 2]:  # the level's timer: in 1, in 2, out 1, in 3, out 2, ...
        tau = x[TAU + 2]
        deeper = x[F + 2] - tau
        x[T] = max(x[T], 2.0 * (inner + deeper) + (2 * bound - 4) * tau)
        back = max(back, 2.0 * tau - deeper - inner)
    x[D + 2] = x[F + 2] + back


@njit
def root(m: Machine, kinds: int, label: Ints, x: Floats) -> None:
    """The outline of one activation."""
    label[:] = 0
    x[:] = 0.0
    for o in range(3):
        label[POS + o], label[NEXT + o] = m.length[o], m.length[o]
        label[FIRED + o], label[TIGHT + o] = 1, 1
    label[PARENT], label[DIM] = -1, -1
    x[T] = float(m.numbers[ACTIVATION])


@njit
def completed(m: Machine, label: Ints, x: Floats, boots: Floats, boot_pj: Floats) -> bool:
    """All loops are placed: last transfers, and operands that start further in; x[T] and x[E].

    x[T] becomes the latency. False where a block towards the macro has not moved.
    boots: cycles to fetch all of an operand; boot_pj: [partial sums, operand,
    position it is brought to] pJ
    """
    for o in range(3):
        if label[POS + o] < m.length[o] and not label[FIRED + o] and not silent(m, label, o):
            if label[NEXT + o] == m.length[o]:
                return False
            x[E] += x[PJ + o]
            fired(m, label, x, o)
    latency, back = 0.0, 0.0
    for o in range(3):
        boot = 0.0
        if label[POS + o] > 0:
            boot = boots[o]
            x[E] += boot_pj[label[SUMS] if o == 2 else 0, o, label[POS + o]]
        ends = x[F + o] + x[T]
        for level in range(POSITIONS):
            ends = max(ends, x[Q + 4 * o + level])
        latency = max(latency, ends + boot)
        back = x[F + o] + boot  # that of O comes last
    x[T] = latency + back
    return True


@njit
def anchored(m: Machine, label: Ints, x: Floats, o: int) -> None:
    """An open block ends: a loop of bound 1 of its own moves its tile; x[E] counts it."""
    x[E] += x[PJ + o]
    fired(m, label, x, o)
    if o == 2:
        x[D + 2] = 2.0 * x[F + 2]


@njit
def extended(
    m: Machine,
    limits: Ints,
    spread: Ints,
    instances: Ints,
    label: Ints,
    x: Floats,
    dim: int,
    bound: int,
    choice: Ints,
    inside: Ints,
    reduces: int,
    reduces_ever: int,
    tile: Ints,
) -> None:
    """One more loop around the part, in place; choice: a row of `options` by operand."""
    for o in range(3):
        if choice[o, 0] != label[POS + o] and not label[FIRED + o] and not silent(m, label, o):
            anchored(m, label, x, o)
    fires, begins = choice[:, 2], np.zeros(3, np.int64)
    for o in range(3):
        if choice[o, 0] != label[POS + o]:
            begins[o] = 1
            begun(
                m,
                limits,
                spread,
                instances,
                label,
                x,
                o,
                choice[o, 0],
                choice[o, 1],
                inside,
                reduces,
                reduces_ever,
                tile,
            )
        if fires[o]:
            x[E] += x[PJ + o]
            fired(m, label, x, o)
        label[SHUT + o] = choice[o, 3]
    looped(m, label, x, bound, fires, begins)
    label[DIM], label[FACTOR] = dim, bound
