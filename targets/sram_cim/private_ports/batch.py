"""The closed form of `recurrence` for many mappings at once, compiled.

All mappings share workload, machine and spatial choice; each row of the arrays is one mapping:
`count` its loops, `dim` and `bound` of each loop (dims in the order g n k c p q r s), `at` the
position of the level that keeps I, W, O in the operand's chain, `double` by operand and position.
Plain twin: `recurrence`.
"""

from __future__ import annotations

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
def recurrences(
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
    moves, feeds = np.empty((3, MOST_LOOPS)), np.empty((3, MOST_LOOPS), np.bool_)
    prefix = np.empty(MOST_LOOPS + 1)
    inside, tile = np.empty(8, np.int64), np.empty(8, np.int64)
    boot, sums, process = np.empty(3), np.empty(3), np.empty(3)
    for row in range(len(count)):
        n = count[row]
        levels = m.level.shape[0]
        sum_level = levels
        prefix[0] = 1.0
        for i in range(n):
            prefix[i + 1] = prefix[i] * bound[row, i]
            if sum_level == levels and m.reduced[dim[row, i]] and bound[row, i] > 1:
                sum_level = m.chain[2, at[row, 2, i]]
        pj = 0.0
        for o in range(3):
            inside[:] = 1
            sums[o], boot[o] = 0.0, 0.0
            last = m.length[o] - 1
            sink, sink_at = -1, m.length[o]  # of the block further in
            pending, waiting, trans, feed = 0.0, False, 0.0, False
            ways = 2 if o == 2 else 1
            for i in range(n - 1, -1, -1):
                here = at[row, o, i]
                level = m.chain[o, here]
                if i == n - 1 or at[row, o, i + 1] != here:  # the innermost loop of a block
                    waiting = not (o == 1 and i == n - 1 and here == last)
                    feed = sink >= 0 and double[row, o, sink_at] == 1
                    compute_pj = 0.0
                    if waiting:
                        for d in range(8):
                            tile[d] = inside[d] * spread[o, level, d]
                        size = published(o, tile, m.steps, limits)
                        size *= bits_of(m, o, level, sum_level)
                        passed = sink < 0 and here != last
                        trans = max(size / m.level[level, READ], 1.0) + passed
                        move_pj = m.pj[level, 0] + (m.pj[level, 1] if o == 2 else 0.0)
                        own = size * move_pj * instances[level]
                        into = sink if sink >= 0 else (m.chain[o, last] if passed else -1)
                        if into >= 0:
                            for d in range(8):
                                tile[d] = inside[d] * spread[o, into, d]
                            size = published(o, tile, m.steps, limits)
                            bits = size * bits_of(m, o, into, sum_level) * instances[into]
                            if passed:
                                own += ways * bits * (m.pj[into, 0] + m.pj[into, 1])
                            else:
                                own += bits * (m.pj[into, 1] + (m.pj[into, 0] if o == 2 else 0.0))
                        if sink >= 0:
                            pending += own
                        else:
                            compute_pj = own
                    sink, sink_at = level, here
                feeds[o, i] = feed
                moves[o, i] = 0.0
                moving = m.relevant[o, dim[row, i]] == 1
                first = i == 0 or at[row, o, i - 1] != here
                if waiting and (moving or first):
                    moves[o, i] = trans
                    sums[o] += trans
                    pj += prefix[i + 1] * compute_pj
                    compute_pj = 0.0
                    waiting = False
                if moving and bound[row, i] > 1:
                    pj += prefix[i + 1] * pending
                    pending = 0.0
                inside[dim[row, i]] *= bound[row, i]
            pj += pending
            if n > 0 and at[row, o, 0] > 0:  # all of it is fetched before the first loop
                outer, level = m.chain[o, 0], m.chain[o, at[row, o, 0]]
                for d in range(8):
                    tile[d] = inside[d] * spread[o, 0, d]
                size = published(o, tile, m.steps, limits) * bits_of(m, o, outer, sum_level)
                boot[o] = size / m.level[outer, READ]
                pj += size * m.pj[outer, 0]
                for d in range(8):
                    tile[d] = inside[d] * spread[o, level, d]
                size = published(o, tile, m.steps, limits) * bits_of(m, o, level, sum_level)
                pj += size * m.pj[level, 1] * instances[level]
        body = float(m.numbers[ACTIVATION])
        process[:] = body
        for i in range(n - 1, -1, -1):
            critical = body
            for o in range(3):
                move = moves[o, i] * (2.0 if o == 2 else 1.0)
                critical = max(critical, move if feeds[o, i] else move + body)
            body = 0.0
            for o in range(3):
                move = moves[o, i] * (2.0 if o == 2 else 1.0)
                process[o] += move + (bound[row, i] - 1) * critical
                overlapped = moves[o, i] if o < 2 and feeds[o, i] else 0.0
                body = max(body, process[o] - overlapped)
        start = max(boot[0] + sums[0], boot[1] + sums[1], boot[2] + sums[2])
        found = start - sums[0] + process[0]
        found = max(found, start - sums[1] + process[1])
        found = max(found, start - sums[2] + process[2] + boot[2])
        latency[row] = found
        pj += prefix[n] * cores * m.prices[ACTIVATION_PJ]
        energy[row] = pj + found * m.prices[LEAKAGE_PJ]
