"""Annealing of mappings over the closed form of `timing_kernel`, compiled.

A mapping in search is an order of prime loops, and for each operand which levels of its chain it
uses, with how many buffers. Levels that one operand has for itself keep all loops whose tile fits;
for levels that operands share, the first loop they keep is searched, too (`wish`). The spatial
factors are given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.targets.sram_cim import search_kernel as base
from cimc.targets.sram_cim import timing_kernel as timing
from cimc.targets.sram_cim.search_kernel import HUGE, Floats, Ints, Machine
from cimc.targets.sram_cim.timing_kernel import (
    BITS,
    CAPACITY,
    SHARES,
    SUM_BITS,
    evaluate,
    fits,
    measure,
    room_for,
    size_of,
    tables_of,
)

njit = jit.compiler(__file__, base.__file__, timing.__file__)

Words = NDArray[np.uint64]
Mapping = tuple[Ints, Ints, Ints, Ints, Ints]  # dim, bound, wish, use, double

LATENCY_FIRST, ENERGY_FIRST, PRODUCT = range(3)
TRIES = 8  # to find a step that leads somewhere


@njit
def place(
    kept: Floats,
    chip: Floats,
    length: Ints,
    count: int,
    wish: Ints,
    use: Ints,
    double: Ints,
    cut: Ints,
    cover: Floats,
) -> None:
    """Fill `cut`: own levels keep all loops that fit, shared ones begin at `wish`."""
    for o in range(3):
        before = 0
        for j in range(length[o]):
            cut[o, j] = before
            if j == 0 or not use[o, j]:
                continue
            bits = max(kept[o, j, BITS], kept[o, j, SUM_BITS]) * (1.0 + double[o, j])
            begin = count
            lowest = max(before, wish[o]) if kept[o, j, SHARES] > 0.0 else before
            while begin > lowest:
                size = size_of(o, j, begin - 1, kept, chip, cover)
                if size * bits > kept[o, j, CAPACITY]:
                    break
                begin -= 1
            cut[o, j] = begin
            before = begin


@njit
def draw(state: Words) -> int:
    """The next random number of 31 bits (xorshift); `state` has one word."""
    x = state[0]
    x ^= (x << np.uint64(13)) & np.uint64(0xFFFFFFFFFFFFFFFF)
    x ^= x >> np.uint64(7)
    x ^= (x << np.uint64(17)) & np.uint64(0xFFFFFFFFFFFFFFFF)
    state[0] = x
    return int(x >> np.uint64(33))


@njit
def score_of(objective: int, cycles: float, pj: float) -> float:
    """What is minimized; the other quantity breaks ties."""
    if objective == LATENCY_FIRST:
        return cycles * (1.0 + 1e-12 * pj)
    if objective == ENERGY_FIRST:
        return pj * (1.0 + 1e-12 * cycles)
    return cycles * pj


@njit
def change(
    length: Ints,
    may_double: Ints,
    count: int,
    dim: Ints,
    bound: Ints,
    wish: Ints,
    use: Ints,
    double: Ints,
    random: Words,
) -> bool:
    """One random step to a neighbouring mapping, in place; False where it leads nowhere."""
    kind = draw(random) % 16
    if kind < 10 and count > 1:
        i, j = draw(random) % count, draw(random) % count
        if kind < 3:
            j = min(i + 1, count - 1)
        if i == j or (kind < 6 and dim[i] == dim[j] and bound[i] == bound[j]):
            return False
        if kind < 6:
            dim[i], dim[j] = dim[j], dim[i]
            bound[i], bound[j] = bound[j], bound[i]
        else:
            step = 1 if j > i else -1
            moved_dim, moved_bound = dim[i], bound[i]
            while i != j:
                dim[i], bound[i] = dim[i + step], bound[i + step]
                i += step
            dim[j], bound[j] = moved_dim, moved_bound
        return True
    o = draw(random) % 3
    if kind < 13:
        before = wish[o]
        wish[o] = draw(random) % (count + 1)
        return bool(wish[o] != before)
    j = 1 + draw(random) % (length[o] - 1)
    state = draw(random) % 3  # unused, one buffer, two
    before = use[o, j] + 2 * double[o, j]
    if j < length[o] - 1:
        use[o, j] = state > 0
    double[o, j] = state == 2 and may_double[o, j]
    return bool(use[o, j] + 2 * double[o, j] != before)


@njit
def copy(source: Mapping, into: Mapping) -> None:
    """Element by element: assignments of whole arrays take a second more to compile."""
    for i in range(len(source[0])):
        into[0][i], into[1][i] = source[0][i], source[1][i]
    for o in range(3):
        into[2][o] = source[2][o]
        for j in range(source[3].shape[1]):
            into[3][o, j], into[4][o, j] = source[3][o, j], source[4][o, j]


@njit
def anneal(
    m: Machine,
    factors: Ints,
    count: int,
    dim: Ints,
    bound: Ints,
    wish: Ints,
    use: Ints,
    double: Ints,
    known: float,
    objective: int,
    steps: int,
    heat: float,
    random: Words,
    cover: Floats,
    work: Floats,
) -> float:
    """Improve a mapping of score `known` (HUGE: not known yet) in place.

    Returns its score, HUGE where no mapping that fits was met.
    """
    ways, kept, chip, relevant, length = tables_of(m, factors)
    may_double = m.may_double
    cut = np.zeros(use.shape, np.int64)
    best, now = known, known
    tried = dim, bound, wish, use, double
    state = dim.copy(), bound.copy(), wish.copy(), use.copy(), double.copy()
    saved = dim.copy(), bound.copy(), wish.copy(), use.copy(), double.copy()  # the best so far
    for step in range(steps):
        copy(state, tried)
        tries = 0 if step or known < HUGE else TRIES
        while tries < TRIES and not change(
            length, may_double, count, dim, bound, wish, use, double, random
        ):
            tries += 1
        measure(relevant, count, dim, bound, cover)
        place(kept, chip, length, count, wish, use, double, cut, cover)
        if not fits(kept, chip, relevant, length, count, dim, bound, cut, use, double, cover, work):
            continue
        cycles, pj = evaluate(
            ways, kept, chip, relevant, length, count, dim, bound, cut, use, double, cover, work
        )
        score = score_of(objective, cycles, pj)
        slack = 1.0 + heat * (1.0 - step / steps) * (draw(random) % 1024) / 1024.0
        if score <= now * slack:
            now = score
            copy(tried, state)
        if score < best:
            best = score
            copy(tried, saved)
    copy(saved, tried)
    return best


@njit
def search(
    m: Machine,
    factors: Ints,
    count: Ints,
    dim: Ints,
    bound: Ints,
    wish: Ints,
    use: Ints,
    double: Ints,
    objective: int,
    rounds: Ints,
    heats: Floats,
    seed: int,
    cut: Ints,
) -> tuple[int, float]:
    """Anneal all starts, then ever fewer, the best ones, for longer: the best one and its score.

    shapes  rounds [rounds, 2] starts that go on, steps of each; heats [rounds]; of each start:
            factors, count, dim, bound, wish, use, double. The mappings are improved in place;
            `cut` is filled for the best one
    """
    starts = factors.shape[0]
    scores = np.full(starts, HUGE)
    random = np.array([seed], np.uint64)
    cover, work = room_for(m, dim.shape[1])
    order = np.arange(starts)
    for number in range(rounds.shape[0]):
        for rank in range(min(rounds[number, 0], starts)):
            start = order[rank]
            n = count[start]
            scores[start] = anneal(
                m,
                factors[start],
                n,
                dim[start, :n],
                bound[start, :n],
                wish[start],
                use[start],
                double[start],
                scores[start],
                objective,
                rounds[number, 1],
                heats[number],
                random,
                cover,
                work,
            )
        order = np.argsort(scores)
    best = order[0]
    n = count[best]
    _, kept, chip, relevant, length = tables_of(m, factors[best])
    measure(relevant, n, dim[best, :n], bound[best, :n], cover)
    place(kept, chip, length, n, wish[best], use[best], double[best], cut, cover)
    return int(best), float(scores[best])
