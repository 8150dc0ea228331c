"""The closed form of `closed_form` for many mappings at once, compiled.

All mappings share workload, machine and spatial choice; each row of the arrays is one mapping:
`count` its loops, `dim` and `bound` of each loop (dims in the order g n k c p q r s), `at` the
position of the level that keeps I, W, O in the operand's chain, `double` by operand and position.
Plain twins: `closed_form` of a `schedule`; anchors, its loops of bound 1, are kept in a list here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cimc import jit
from cimc.targets.sram_cim import search_kernel as shared
from cimc.targets.sram_cim.search_kernel import (
    ACTIVATION,
    ACTIVATION_PJ,
    INPUT_BITS,
    LEAKAGE_PJ,
    PSUM_BITS,
    READ,
    RESULT_BITS,
    Floats,
    Ints,
    Machine,
    instances_of,
    spread_of,
)

njit = jit.compiler(__file__, shared.__file__)

G, N, K, C, P, Q, R, S = range(8)
MOST_LOOPS = 64

# columns of `anchors`: before which loop, operand, position in its chain, cycles of its transfer
PLACE, OPERAND, POSITION, CYCLES = range(4)

# columns of `sides`, by operand: as in `closed_form`
MOVED, READY, EARLY, NEXT_EARLY, ONCE, AHEAD, REST = range(7)


class Room(NamedTuple):
    """What one mapping's transfers are, and the state of the recurrence."""

    tau: Floats  # [3, loops] cycles of a transfer, 0 where none goes on
    source: Ints  # [3, loops] positions
    feeds: Ints  # [3, positions] 1 where the next position in use has two buffers
    anchors: Floats  # [count, 4] from inside out for each operand
    seeking: Floats  # [positions, 2] position and cycles of moves whose level has no loop for them
    prefix: Floats  # [loops + 1] product of the bounds outside
    inside: Ints  # [8] product of the bounds inside
    tile: Ints  # [8]
    boot: Floats  # [3]
    sides: Floats  # [3, 7]
    now: Ints  # [3] positions of the loop last seen


@njit
def room(m: Machine) -> Room:
    """Space for any mapping."""
    positions = m.chain.shape[1]
    return Room(
        np.empty((3, MOST_LOOPS)),
        np.empty((3, MOST_LOOPS), np.int64),
        np.empty((3, positions), np.int64),
        np.empty((3 * positions, 4)),
        np.empty((positions, 2)),
        np.empty(MOST_LOOPS + 1),
        np.empty(8, np.int64),
        np.empty(8, np.int64),
        np.empty(3),
        np.empty((3, REST + 1)),
        np.empty(3, np.int64),
    )


@njit
def published(o: int, tile: Ints, steps: Ints, limits: Ints) -> int:
    """Elements of operand o's tile as MIREDO counts them: of I no more rows than there are."""
    if o == 1:
        return int(tile[G] * tile[K] * tile[C] * tile[R] * tile[S])
    if o == 2:
        return int(tile[G] * tile[N] * tile[K] * tile[P] * tile[Q])
    rows = min((tile[P] - 1) * steps[0] + (tile[R] - 1) * steps[1] + 1, tile[P] * tile[R])
    columns = min((tile[Q] - 1) * steps[2] + (tile[S] - 1) * steps[3] + 1, tile[Q] * tile[S])
    return int(tile[G] * tile[N] * tile[C] * min(rows, limits[0]) * min(columns, limits[1]))


@njit
def bits_of(m: Machine, o: int, level: int, sum_level: int) -> int:
    """Bits of one element of an operand at a level."""
    if o == 1:
        return shared.bits_at(m, o, level, sum_level)
    if o == 2:
        return int(m.numbers[PSUM_BITS] if level >= sum_level else m.numbers[RESULT_BITS])
    return int(m.numbers[INPUT_BITS])


@njit
def transfers(
    m: Machine,
    limits: Ints,
    spread: Ints,
    instances: Ints,
    count: int,
    dim: Ints,
    bound: Ints,
    at: Ints,
    double: Ints,
    space: Room,
) -> tuple[float, int]:
    """Where every operand moves on, and how long that takes; pJ, and the number of anchors."""
    tau, source, feeds, anchors, seeking, prefix, inside, tile, boot, _, _ = space
    levels = m.level.shape[0]
    sum_level = levels
    prefix[0] = 1.0
    for i in range(count):
        prefix[i + 1] = prefix[i] * bound[i]
        if sum_level == levels and m.reduced[dim[i]] and bound[i] > 1:
            sum_level = m.chain[2, at[2, i]]
    pj, anchored = 0.0, 0
    for o in range(3):
        inside[:] = 1
        boot[o] = 0.0
        last = m.length[o] - 1
        sink, sink_at = -1, -1  # of the block further in
        sought, taker = 0, -1  # moves that seek an anchor; the position that takes idle loops
        waiting, is_last, cycles, pending, own = False, False, 0.0, 0.0, 0.0
        ways = 2 if o == 2 else 1
        for i in range(count - 1, -1, -1):
            here = at[o, i]
            if i == count - 1 or at[o, i + 1] != here:  # the innermost loop of a block
                level, is_last = m.chain[o, here], i == count - 1
                waiting = not (o == 1 and is_last and here == last)
                feeds[o, here] = 0 if is_last else double[o, sink_at]
                if waiting:
                    for d in range(8):
                        tile[d] = inside[d] * spread[o, level, d]
                    size = published(o, tile, m.steps, limits) * bits_of(m, o, level, sum_level)
                    cycles = np.ceil(size / m.level[level, READ])
                    own = m.pj[level, 0] + (m.pj[level, 1] if o == 2 else 0.0)
                    own *= size * instances[level]
                    if not is_last:
                        for d in range(8):
                            tile[d] = inside[d] * spread[o, sink, d]
                        bits = published(o, tile, m.steps, limits) * bits_of(m, o, sink, sum_level)
                        price = m.pj[sink, 1] + (m.pj[sink, 0] if o == 2 else 0.0)
                        pending += own + bits * instances[sink] * price
                    elif here != last:  # passes through the register
                        cycles += 1.0
                        register = m.chain[o, last]
                        bits = ways * bits_of(m, o, register, sum_level)
                        price = m.pj[register, 0] + m.pj[register, 1]
                        own += bits * instances[register] * price
                sink, sink_at = level, here
            tau[o, i], source[o, i] = 0.0, here
            is_relevant = m.relevant[o, dim[i]] == 1
            is_outermost = i == 0 or at[o, i - 1] != here
            if is_relevant and bound[i] > 1:
                pj += prefix[i + 1] * pending
                pending = 0.0
                for k in range(sought):
                    anchors[anchored, PLACE], anchors[anchored, OPERAND] = i + 1, o
                    anchors[anchored, POSITION] = seeking[k, 0]
                    anchors[anchored, CYCLES] = seeking[k, 1]
                    anchored += 1
                sought, taker = 0, -1
            elif taker >= 0:
                source[o, i] = taker
            if waiting and is_last:
                if is_relevant or is_outermost:
                    tau[o, i] = cycles
                    pj += prefix[i + 1] * own
                    waiting = False
            elif waiting:
                if is_relevant and bound[i] > 1:
                    tau[o, i] = cycles
                    waiting = False
                elif is_outermost:
                    seeking[sought, 0], seeking[sought, 1] = here, cycles
                    sought += 1
                    taker = here if taker < 0 else taker
                    waiting = False
            inside[dim[i]] *= bound[i]
        pj += pending
        for k in range(sought):
            anchors[anchored, PLACE], anchors[anchored, OPERAND] = 0, o
            anchors[anchored, POSITION], anchors[anchored, CYCLES] = seeking[k, 0], seeking[k, 1]
            anchored += 1
        if count == 0 or at[o, 0] > 0:  # all of it is fetched before the first loop
            outer = m.chain[o, 0]
            for d in range(8):
                tile[d] = inside[d] * spread[o, 0, d]
            size = published(o, tile, m.steps, limits) * bits_of(m, o, outer, sum_level)
            boot[o] = size / m.level[outer, READ]
            pj += size * m.pj[outer, 0]
            if count:
                level = m.chain[o, at[o, 0]]
                for d in range(8):
                    tile[d] = inside[d] * spread[o, level, d]
                size = published(o, tile, m.steps, limits) * bits_of(m, o, level, sum_level)
                pj += size * m.pj[level, 1] * instances[level]
    return pj, anchored


@njit
def moved(sides: Floats, o: int, cycles: float) -> None:
    """Transfers that an activation waits for."""
    sides[o, MOVED] += cycles
    sides[o, READY] = max(sides[o, READY], sides[o, MOVED] - sides[o, EARLY])


@njit
def fetched(
    sides: Floats, now: Ints, o: int, source: int, double: int, tau: float, run: float
) -> float:
    """I or W at one loop; what transfers into a second buffer further in take."""
    further_in = 0.0
    if now[o] != source:
        sides[o, EARLY] = sides[o, NEXT_EARLY]
        sides[o, NEXT_EARLY] = 0.0 if now[o] < 0 else run + sides[o, MOVED]
        now[o] = source
        if double:
            further_in = sides[o, AHEAD]
            sides[o, AHEAD] = 0.0
    if sides[o, AHEAD] < 0.0:
        moved(sides, o, tau)
    elif tau > 0.0:
        if sides[o, AHEAD] == 0.0:
            sides[o, REST] = run
        sides[o, AHEAD] += tau
    sides[o, ONCE] += tau
    return further_in


@njit
def returned(sides: Floats, now: Ints, source: int, double: int, tau: float) -> float:
    """O at one loop; what its last write-back and first fetch add where the loop ends."""
    closing = 0.0
    if not double:
        moved(sides, 2, 2.0 * tau)
    elif tau > 0.0:
        closing = tau if now[2] == source else 2.0 * tau
        moved(sides, 2, 2.0 * tau - closing)
    now[2] = source
    sides[2, ONCE] += tau
    return closing


@njit
def least(sides: Floats, o: int) -> float:
    """What transfers into the second buffer take, beside the first one, with what follows."""
    found: float = sides[o, AHEAD] + sides[o, REST] - sides[o, ONCE]
    return found if sides[o, AHEAD] >= 0.0 else 0.0


@njit
def latency_of(cycles: float, count: int, bound: Ints, anchored: int, space: Room) -> float:
    """The recurrence, with the transfers in `space`; `cycles` of one activation."""
    tau, source, feeds, anchors, _, _, _, _, boot, sides, now = space
    if count == 0:
        return float(max(boot[0], boot[1], 2.0 * boot[2]))
    for o in range(3):
        now[o] = -1
        for column in range(REST + 1):
            sides[o, column] = 0.0
    sides[0, AHEAD] = sides[1, AHEAD] = sides[2, AHEAD] = -1.0
    run, behind, floor = cycles, 0.0, 0.0
    for i in range(count - 1, -1, -1):
        for o in range(2):
            j = source[o, i]
            floor = max(floor, fetched(sides, now, o, j, feeds[o, j], tau[o, i], run))
        late, j = tau[2, i], source[2, i]
        closing = returned(sides, now, j, feeds[2, j], late)
        whole = bound[i] * run
        whole += (bound[i] - 1) * max(sides[0, READY], sides[1, READY], sides[2, READY])
        if closing > 0.0 and bound[i] > 1 and (2 * bound[i] - 3) * late + run > whole:
            whole = (2 * bound[i] - 3) * late + run
            behind = max(0.0, late - run)
            closing += behind
        moved(sides, 2, closing)
        run = whole
        floor *= bound[i]
        sides[0, AHEAD] *= bound[i]
        sides[1, AHEAD] *= bound[i]
        others, results = False, False
        for k in range(anchored):
            if anchors[k, PLACE] == i:
                o, j, own = int(anchors[k, OPERAND]), int(anchors[k, POSITION]), anchors[k, CYCLES]
                if o < 2:
                    floor = max(floor, fetched(sides, now, o, j, feeds[o, j], own, run))
                    others = True
                else:
                    moved(sides, 2, returned(sides, now, j, feeds[2, j], own))
                    results = True
        if i > 0 and others and not results:  # an anchor of others is a loop for results, too
            now[2] = source[2, i - 1]
    start = max(boot[0] + sides[0, ONCE], boot[1] + sides[1, ONCE], boot[2] + sides[2, ONCE])
    run = max(run, floor, least(sides, 0), least(sides, 1))
    return float(start + run + sides[2, ONCE] + behind + boot[2])


@njit
def closed_forms(
    m: Machine,
    limits: Ints,
    factors: Ints,
    count: Ints,
    dim: Ints,
    bound: Ints,
    at: Ints,
    double: Ints,
    latency: Floats,
    energy: Floats,
) -> None:
    """Fill `latency` (cycles) and `energy` (pJ) of all mappings."""
    spread, instances = spread_of(m, factors), instances_of(m, factors)
    cores = 1.0
    for d in range(8):
        cores *= factors[0, d]
    space = room(m)
    for row in range(len(count)):
        n = count[row]
        pj, anchored = transfers(
            m, limits, spread, instances, n, dim[row], bound[row], at[row], double[row], space
        )
        latency[row] = latency_of(float(m.numbers[ACTIVATION]), n, bound[row], anchored, space)
        activations = space.prefix[n] * cores
        energy[row] = pj + activations * m.prices[ACTIVATION_PJ]
        energy[row] += latency[row] * m.prices[LEAKAGE_PJ]
