"""The closed form of `timing` and an annealing search over it, compiled.

A mapping in search is an order of prime loops, and for each operand which levels of its chain it
uses, with how many buffers. Levels that one operand has for itself keep all loops whose tile fits;
for levels that operands share, the first loop they keep is searched, too. The spatial factors are
given. `evaluate` returns the numbers of `timing.evaluate` for the same mapping.

Arrays: dims in the order g n k c p q r s; `chain[o, j]` is the level at position j of operand o's
chain; `cut[o, j]` the first loop that it keeps; `use`, `double`, 0 or 1 by position.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc import jit

njit = jit.compiler(__file__)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

G, N, K, C, P, Q, R, S = range(8)
HUGE = 1e300
TRIES = 8  # to find a step that leads somewhere


class Machine(NamedTuple):
    """A machine and a workload as the kernels read them."""

    chain: Ints  # [3, positions], -1 behind the last
    length: Ints  # [3] positions in use
    level: Ints  # [levels, 7]: size, read and write width, latency, chip, shared port, shared
    along: Ints  # [levels, 3] whether it has an instance at each position of an axis
    pj: Floats  # [levels, 2] per bit read, written
    source: Ints  # [axes, 3]
    may_double: Ints  # [3, positions]
    relevant: Ints  # [3, 8]
    reduced: Ints  # [8]
    steps: Ints  # [4] stride and dilation of rows, of columns
    numbers: Ints  # see the constants below
    prices: Floats  # link bit, activation of one core, vector op, leakage per cycle


class Room(NamedTuple):
    """Arrays that evaluations use over and over."""

    tile: Ints  # [8]
    taken: Ints  # [levels]
    inside: Ints  # [loops + 1, 8]
    held: Floats  # [loops + 1, units] that the macro waits for
    bursts: Floats  # [loops + 1, units] that it does not wait for
    exposed: Floats  # [loops + 1, 3]
    ahead: Floats  # [loops + 1, 3]
    busy: Floats  # [units]
    slack: Floats  # [units]
    moves: Ints  # [loops + 1] whether a loop moves anything


SIZE, READ, WRITE, LATENCY, CHIP, ONE_PORT, SHARED = range(7)
INPUT_BITS, WEIGHT_BITS, RESULT_BITS, PSUM_BITS, CELL_BITS, WORD, ACTIVATION = range(7)
LINK_BITS, LINK_HOP, LANES, PER_CORE, EPILOGUE = range(7, 12)
LINK_PJ, ACTIVATION_PJ, VECTOR_PJ, LEAKAGE_PJ = range(4)
LATENCY_FIRST, ENERGY_FIRST, PRODUCT = range(3)


@njit
def room_for(m: Machine, loops: int) -> Room:
    """Room for mappings of up to so many loops."""
    levels = m.level.shape[0]
    units = 2 * levels + 5  # ports, vector, macro, link of each operand
    return Room(
        np.empty(8, np.int64),
        np.empty(levels, np.int64),
        np.empty((loops + 1, 8), np.int64),
        np.empty((loops + 1, units)),
        np.empty((loops + 1, units)),
        np.empty((loops + 1, 3)),
        np.empty((loops + 1, 3)),
        np.empty(units),
        np.empty(units),
        np.empty(loops + 1, np.int64),
    )


@njit
def elements(o: int, tile: Ints, steps: Ints) -> int:
    """Elements of operand o's tile with these loop extents."""
    if o == 1:
        return int(tile[G] * tile[K] * tile[C] * tile[R] * tile[S])
    if o == 2:
        return int(tile[G] * tile[N] * tile[K] * tile[P] * tile[Q])
    rows = min((tile[P] - 1) * steps[0] + (tile[R] - 1) * steps[1] + 1, tile[P] * tile[R])
    columns = min((tile[Q] - 1) * steps[2] + (tile[S] - 1) * steps[3] + 1, tile[Q] * tile[S])
    return int(tile[G] * tile[N] * tile[C] * rows * columns)


@njit
def spread_of(m: Machine, factors: Ints) -> Ints:
    """[3, levels, 8] spatial factors that a tile of each operand at each level holds."""
    levels = m.level.shape[0]
    spread = np.ones((3, levels, 8), np.int64)
    for o in range(3):
        for level in range(levels):
            for axis in range(3):
                if m.source[axis, o] >= level:
                    for d in range(8):
                        spread[o, level, d] *= factors[axis, d]
    return spread


@njit
def instances_of(m: Machine, factors: Ints) -> Ints:
    """[levels] instances in use."""
    count = np.ones(m.level.shape[0], np.int64)
    for level in range(m.level.shape[0]):
        for axis in range(3):
            if m.along[level, axis]:
                for d in range(8):
                    count[level] *= factors[axis, d]
    return count


@njit
def suffixes(count: int, dim: Ints, bound: Ints, inside: Ints) -> None:
    """inside[i, d]: product of the bounds of dim d from loop i inwards."""
    for d in range(8):
        inside[count, d] = 1
    for i in range(count - 1, -1, -1):
        for d in range(8):
            inside[i, d] = inside[i + 1, d]
        inside[i, dim[i]] *= bound[i]


@njit
def tile_elements(m: Machine, o: int, level: int, inside: Ints, spread: Ints, tile: Ints) -> int:
    """Elements of the tile of `inside` (loop extents) in one instance of a level."""
    for d in range(8):
        tile[d] = inside[d] * spread[o, level, d]
    return elements(o, tile, m.steps)


@njit
def bits_at(m: Machine, o: int, level: int, sum_level: int) -> int:
    """Bits of one element of an operand at a level."""
    if o == 0:
        return int(m.numbers[INPUT_BITS])
    if o == 1:
        width = m.numbers[CELL_BITS]
        if level == m.chain[1, m.length[1] - 1]:
            return int(-(-m.numbers[WEIGHT_BITS] // width) * width)
        return int(m.numbers[WEIGHT_BITS])
    if level >= min(sum_level, m.chain[2, m.length[2] - 1]):
        return int(m.numbers[PSUM_BITS] if level else m.numbers[WORD])
    return int(m.numbers[RESULT_BITS])


@njit
def outermost_sum(m: Machine, count: int, dim: Ints, bound: Ints, cut: Ints, use: Ints) -> int:
    """Outermost level that holds partial sums; the number of levels where no loop reduces."""
    for i in range(count):
        if m.reduced[dim[i]] and bound[i] > 1:
            level = m.chain[2, 0]
            for j in range(m.length[2]):
                if use[2, j] and cut[2, j] <= i:
                    level = m.chain[2, j]
            return int(level)
    return int(m.level.shape[0])


@njit
def fits(
    m: Machine,
    count: int,
    dim: Ints,
    bound: Ints,
    cut: Ints,
    use: Ints,
    double: Ints,
    spread: Ints,
    room: Room,
) -> bool:
    """Whether all levels hold what the mapping keeps there."""
    inside, taken, tile = room.inside, room.taken, room.tile
    taken[:] = 0
    sum_level = outermost_sum(m, count, dim, bound, cut, use)
    if 0 < m.chain[2, 0] >= sum_level:  # results that are kept on the chip are complete there
        return False
    for o in range(3):
        for j in range(1, m.length[o]):
            if not use[o, j]:
                continue
            level = m.chain[o, j]
            size = tile_elements(m, o, level, inside[cut[o, j]], spread, tile)
            size *= bits_at(m, o, level, sum_level) * (1 + double[o, j])
            taken[level] += size
            if taken[level] > m.level[level, SIZE]:
                return False
    return True


@njit
def passage(
    m: Machine,
    o: int,
    source: int,
    sink: int,
    read: int,
    stored: int,
    banks: int,
    counts: Ints,
    held: Floats,
    share: float,
) -> tuple[float, float]:
    """Cycles and pJ of one transfer; adds `share` of what it holds to the units' cycles.

    banks: the source (1), the sink (2) or both (3) are second banks with ports of their own.
    """
    level, levels = m.level, m.level.shape[0]
    reading = 2 * source
    writing = 2 * sink + (0 if level[sink, ONE_PORT] else 1)
    r = -(-read // level[source, READ])
    w = -(-stored // level[sink, WRITE])
    if not banks & 1:
        held[reading] += share * r
    if not banks & 2:
        held[writing] += share * w
    cycles = max(r, w) if reading != writing or banks else r + w
    latency = max(level[source, LATENCY], level[sink, LATENCY])
    pj = read * counts[source] * m.pj[source, 0]
    pj += stored * counts[sink] * m.pj[sink, 1]
    if level[source, CHIP] != level[sink, CHIP]:
        crossing = read if level[source, CHIP] else stored
        link = -(-crossing // m.numbers[LINK_BITS])
        held[2 * levels + 2 + o] += share * link
        cycles = max(cycles, link)
        pj += crossing * m.prices[LINK_PJ]
        latency += m.numbers[LINK_HOP]
    last = m.length[1] - 1
    if sink == m.chain[1, last] and not m.may_double[1, last]:
        held[2 * levels + 1] += share * cycles
    return cycles + latency, pj


@njit
def evaluate(
    m: Machine,
    count: int,
    dim: Ints,
    bound: Ints,
    cut: Ints,
    use: Ints,
    double: Ints,
    spread: Ints,
    counts: Ints,
    factors: Ints,
    room: Room,
) -> tuple[float, float]:
    """Cycles and pJ of a mapping whose `suffixes` lie in room.inside."""
    levels = m.level.shape[0]
    units = 2 * levels + 5
    vector, macro = 2 * levels, 2 * levels + 1
    inside, tile, busy = room.inside, room.tile, room.busy
    held, bursts, exposed, ahead = room.held, room.bursts, room.exposed, room.ahead
    slack = room.slack
    moves = room.moves
    moves[: count + 1] = 0
    start, last, pj = 0.0, 0.0, 0.0
    sum_level = outermost_sum(m, count, dim, bound, cut, use)
    cores = np.int64(1)
    for d in range(8):
        cores *= factors[0, d]
    for o in range(3):
        finish_at, finish_inner, finish_share, finish_out = -2, np.int64(0), 0.0, 0.0
        finish_visits = 1.0
        finish_double = False
        outer, first, outside = 0, 0.0, -1
        outer_ahead = False
        for j in range(1, m.length[o]):
            if not use[o, j]:
                continue
            loop = -1
            for i in range(cut[o, j] - 1, -1, -1):
                if bound[i] > 1 and m.relevant[o, dim[i]]:
                    loop = i
                    break
            visits, reduction = 1.0, 1.0
            for i in range(loop + 1):
                visits *= bound[i]
                if o == 2 and m.reduced[dim[i]]:
                    reduction *= bound[i]
            source, sink = m.chain[o, outer], m.chain[o, j]
            read = tile_elements(m, o, source, inside[loop + 1], spread, tile)
            size = tile_elements(m, o, sink, inside[loop + 1], spread, tile)
            stored = size * bits_at(m, o, sink, sum_level)
            at = loop + 1
            if not moves[at]:
                moves[at] = 1
                for unit in range(units):
                    held[at, unit] = 0.0
                    bursts[at, unit] = 0.0
                for other in range(3):
                    exposed[at, other] = 0.0
                    ahead[at, other] = 0.0
            if o < 2:
                read *= m.numbers[o]
                loads_ahead = double[o, j] and loop >= 0
                banks = 0
                if loads_ahead:
                    banks = 3 if outer_ahead and outside == loop else 2
                ports = bursts[at] if loads_ahead else held[at]
                cycles, price = passage(m, o, source, sink, read, stored, banks, counts, ports, 1.0)
                pj += visits * price
                outer_ahead = loads_ahead
                if loads_ahead:
                    first += cycles
                    ahead[at, o] += cycles
                else:
                    exposed[at, o] += cycles
            else:
                read *= bits_at(m, o, source, sum_level)
                share = 1.0 - 1.0 / reduction
                back, price = passage(m, o, source, sink, read, stored, 0, counts, held[at], share)
                pj += visits * share * price
                later = double[o, j] and reduction == 1.0 and loop > outside
                ports = bursts[at] if later else held[at]
                out, price = passage(
                    m, o, sink, source, stored, read, 1 if later else 0, counts, ports, 1.0
                )
                pj += visits * price
                exposed[at, o] += share * back
                if reduction == 1.0 or finish_at == -2:
                    if finish_at != -2:
                        if finish_double:
                            last += finish_out
                        else:
                            exposed[finish_at, o] += finish_out
                    finish_at, finish_inner, finish_share = at, size * counts[sink], 1.0 - share
                    finish_out, finish_double, finish_visits = out, later, visits
                elif later:
                    last += out
                else:
                    exposed[at, o] += out
            outer, outside = j, loop
        start = max(start, first)
        if o == 2:
            results = finish_inner * m.numbers[EPILOGUE]
            lanes = m.numbers[LANES] * (cores if m.numbers[PER_CORE] else 1)
            cycles = finish_share * -(-results // lanes)
            held[finish_at, vector] += cycles
            pj += finish_visits * finish_share * results * m.prices[VECTOR_PJ]
            if finish_double:
                last += max(finish_out, cycles)
            else:
                exposed[finish_at, o] += max(finish_out, cycles)
    total = float(m.numbers[ACTIVATION])
    busy[:] = 0.0
    busy[macro] = total
    slack[:] = HUGE
    activations, scale = 1.0, 1.0
    for i in range(count, -1, -1):
        if moves[i]:
            blocked = 0.0
            for unit in range(units):
                if bursts[i, unit] > 0.0:
                    blocked = max(blocked, bursts[i, unit] - slack[unit])
                busy[unit] = busy[unit] * scale + held[i, unit] + bursts[i, unit]
            scale = 1.0
            total += max(exposed[i, 0], exposed[i, 1], exposed[i, 2]) + blocked
            total = max(total, ahead[i, 0], ahead[i, 1], ahead[i, 2])
            for unit in range(units):
                total = max(total, busy[unit])
            for unit in range(units):
                if bursts[i, unit] > 0.0:
                    slack[unit] = min(slack[unit], max(total - bursts[i, unit], 0.0))
                if held[i, unit] > 0.0:
                    slack[unit] = 0.0
        if i > 0:
            total *= bound[i - 1]
            activations *= bound[i - 1]
            scale *= bound[i - 1]
    total += start + last
    pj += activations * cores * m.prices[ACTIVATION_PJ] + total * m.prices[LEAKAGE_PJ]
    return total, pj


@njit
def place(
    m: Machine, count: int, wish: Ints, use: Ints, double: Ints, spread: Ints, cut: Ints, room: Room
) -> None:
    """Fill `cut`: own levels keep all loops that fit, shared ones begin at `wish`."""
    inside, tile = room.inside, room.tile
    for o in range(3):
        before = 0
        for j in range(m.length[o]):
            cut[o, j] = before
            if j == 0 or not use[o, j]:
                continue
            level = m.chain[o, j]
            bits = bits_at(m, o, level, 0)
            if o == 2:
                bits = max(m.numbers[PSUM_BITS], m.numbers[RESULT_BITS])
            begin = count
            lowest = max(before, wish[o]) if m.level[level, SHARED] else before
            while begin > lowest:
                size = tile_elements(m, o, level, inside[begin - 1], spread, tile)
                if size * bits * (1 + double[o, j]) > m.level[level, SIZE]:
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
    m: Machine,
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
    j = 1 + draw(random) % (m.length[o] - 1)
    state = draw(random) % 3  # unused, one buffer, two
    before = use[o, j] + 2 * double[o, j]
    if j < m.length[o] - 1:
        use[o, j] = state > 0
    double[o, j] = state == 2 and m.may_double[o, j]
    return bool(use[o, j] + 2 * double[o, j] != before)


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
    room: Room,
) -> float:
    """Improve a mapping of score `known` (HUGE: not known yet) in place.

    Returns its score, HUGE where no mapping that fits was met.
    """
    spread, counts = spread_of(m, factors), instances_of(m, factors)
    cut = np.zeros(use.shape, np.int64)
    best, now = known, known
    state = (dim.copy(), bound.copy(), wish.copy(), use.copy(), double.copy())
    kept = (dim.copy(), bound.copy(), wish.copy(), use.copy(), double.copy())
    for step in range(steps):
        t_dim, t_bound, t_wish, t_use, t_double = state
        dim[:], bound[:], wish[:] = t_dim, t_bound, t_wish
        use[:], double[:] = t_use, t_double
        tries = 0 if step or known < HUGE else TRIES
        while tries < TRIES and not change(m, count, dim, bound, wish, use, double, random):
            tries += 1
        suffixes(count, dim, bound, room.inside)
        place(m, count, wish, use, double, spread, cut, room)
        if not fits(m, count, dim, bound, cut, use, double, spread, room):
            continue
        cycles, pj = evaluate(m, count, dim, bound, cut, use, double, spread, counts, factors, room)
        score = score_of(objective, cycles, pj)
        slack = 1.0 + heat * (1.0 - step / steps) * (draw(random) % 1024) / 1024.0
        if score <= now * slack:
            now = score
            t_dim[:], t_bound[:], t_wish[:] = dim, bound, wish
            t_use[:], t_double[:] = use, double
        if score < best:
            best = score
            k_dim, k_bound, k_wish, k_use, k_double = kept
            k_dim[:], k_bound[:], k_wish[:] = dim, bound, wish
            k_use[:], k_double[:] = use, double
    dim[:], bound[:], wish[:], use[:], double[:] = kept
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
    room = room_for(m, dim.shape[1])
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
                room,
            )
        order = np.argsort(scores)
    best = order[0]
    n = count[best]
    suffixes(n, dim[best, :n], bound[best, :n], room.inside)
    spread = spread_of(m, factors[best])
    place(m, n, wish[best], use[best], double[best], spread, cut, room)
    return int(best), float(scores[best])
