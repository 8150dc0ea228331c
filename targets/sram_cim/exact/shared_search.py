"""Search for mappings on shared ports: bounds by prices on units, and labels that they prune.

A state says what lies inside (a point of the grid), at which level each operand is, and whether the
results there are sums. Whatever lies inside a state, what is still to come costs the same: with a
price on each cost the cheapest completion of every state follows from those of larger points
(`completions`). Such a table bounds from below what a partial mapping can become.

`label` keeps, state by state, the partial mappings that no other one beats in every cost, as long
as all tables allow them to end below a cutoff. What is left where all loops are placed are mappings
with their costs; no other mapping's costs are better than one of theirs and below the cutoff.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.targets.sram_cim import search_kernel as packed
from cimc.targets.sram_cim.exact import shared_costs as costs
from cimc.targets.sram_cim.exact.shared_costs import (
    CHAIN,
    FIRST,
    WAITS,
    WAY_FROM,
    WAY_OPERAND,
    WAY_TO,
    Floats,
    Ints,
    Space,
    first_stop,
    fits,
    gaps,
    late,
    leave,
    no_waits,
    wait,
    way_costs,
)

njit = jit.compiler(__file__, costs.__file__, packed.__file__)
part = jit.compiler(__file__, costs.__file__, packed.__file__, inner=True)

Bools = NDArray[np.bool_]

INFINITE = np.inf
SLACK = 1e-9


class Rows(NamedTuple):
    """Costs of every way at every point, for tiles of sums (1) or of other data (0)."""

    cost: Floats  # [points, ways, 2, columns]
    gap: Floats  # [points, ways, 2, 5]
    legal: Bools  # [points, ways, 2]
    least: Floats  # [3, positions, 3] waits of each register, by the position it is filled from


class Prices(NamedTuple):
    """Prices of the columns; `constant` is added to every total."""

    price: Floats  # [columns]
    constant: float


@njit
def rows_of(s: Space, columns: int) -> Rows:
    """The costs of all ways."""
    points, ways = s.placed.shape[0], s.way.shape[0]
    cost = np.zeros((points, ways, 2, columns))
    gap = np.zeros((points, ways, 2, 5))
    legal = np.zeros((points, ways, 2), np.bool_)
    longest = max(s.m.length[0], s.m.length[1], s.m.length[2])
    least = np.full((3, longest, 3), INFINITE)
    for v in range(points):
        for way in range(ways):
            o, start = s.way[way, WAY_OPERAND], s.way[way, WAY_FROM]
            register = start == s.m.length[o] - 1
            for sums in range(2):
                if o < 2 and sums:
                    continue
                if o == 2 and register and not sums:
                    continue
                legal[v, way, sums] = way_costs(
                    s, way, v, bool(sums), v == points - 1, cost[v, way, sums], gap[v, way, sums]
                )
                if register and legal[v, way, sums] and v < points - 1:
                    near = first_stop(s, way)
                    least[o, near, 0] = min(least[o, near, 0], gap[v, way, sums, 0])
                    if o == 2 and s.reduced[v] > 1.0:
                        for case in range(1, 3):
                            least[o, near, case] = min(
                                least[o, near, case], gap[v, way, sums, case]
                            )
    for o in range(3):
        for j in range(longest):
            for case in range(3):
                if least[o, j, case] == INFINITE:
                    least[o, j, case] = 0.0
    return Rows(cost, gap, legal, least)


@njit
def state_of(s: Space, v: int, a: int, b: int, c: int, sums: int) -> int:
    """Number of a state."""
    n = s.places
    return int((((v * n[0] + a) * n[1] + b) * n[2] + c) * 2 + sums)


@part
def scalars(s: Space, rows: Rows, v: int, price: Floats, best: Floats, which: Ints) -> None:
    """best[o, sums, from, to]: the cheapest way between places at a point; which: its number.

    Of equal ways the one with most second buffers counts.
    """
    best[:] = INFINITE
    which[:] = -1
    for o in range(3):
        for j in range(s.places[o]):
            best[o, 0, j, j] = 0.0
            best[o, 1, j, j] = 0.0
    for way in range(s.way.shape[0]):
        o = s.way[way, WAY_OPERAND]
        for sums in range(2):
            if rows.legal[v, way, sums]:
                total = 0.0
                for column in range(price.shape[0]):
                    total += price[column] * rows.cost[v, way, sums, column]
                for j in range(s.places[o]):
                    i = s.leads[way, j]
                    if i >= 0 and total <= best[o, sums, j, i]:
                        best[o, sums, j, i] = total
                        which[o, sums, j, i] = way


@part
def least_waits(s: Space, rows: Rows, a: int, c: int, waits: Floats) -> None:
    """What the registers of I and O wait at least, as far as they have changed."""
    near, far = s.near[0, a], s.near[2, c]
    waits[0] = rows.least[0, near, 0] if near >= 0 else 0.0
    waits[1] = 0.0
    for case in range(3):
        waits[FIRST + case] = rows.least[2, far, case] if far >= 0 else 0.0
        waits[FIRST + case] = max(waits[FIRST], waits[FIRST + case])


@njit
def completions(s: Space, rows: Rows, price: Floats) -> Floats:
    """[states] the least priced cost of what is still to come."""
    n, at, m = s.places, s.position, s.m
    points = s.placed.shape[0]
    table = np.full(points * n[0] * n[1] * n[2] * 2, INFINITE)
    longest = max(n[0], n[1], n[2])
    best = np.empty((3, 2, longest, longest))
    which = np.empty((3, 2, longest, longest), np.int64)
    waits = np.zeros(WAITS)
    kinds = s.dim.shape[0]
    for v in range(points - 1, -1, -1):
        scalars(s, rows, v, price, best, which)
        for a in range(n[0]):
            if not fits(s, 0, at[0, a], v, False):
                continue
            for b in range(n[1]):
                if not fits(s, 1, at[1, b], v, False):
                    continue
                for c in range(n[2]):
                    for sums in range(2):
                        if (c == n[2] - 1 and not sums) or (sums == 0 and s.reduced[v] > 1.0):
                            continue
                        if not fits(s, 2, at[2, c], v, bool(sums)):
                            continue
                        state = state_of(s, v, a, b, c, sums)
                        if v == points - 1:
                            table[state] = last_step(s, best, a, b, c, sums)
                            continue
                        least = INFINITE
                        for k in range(kinds):
                            if (v // s.stride[k]) % (s.most[k] + 1) == s.most[k]:
                                continue
                            d, after = s.dim[k], v + s.stride[k]
                            for a2 in range(0 if m.relevant[0, d] else a, n[0]):
                                x = best[0, 0, a, a2]
                                if x == INFINITE or (a2 != a and not m.relevant[0, d]):
                                    continue
                                for b2 in range(0 if m.relevant[1, d] else b, b + 1):
                                    y = x + best[1, 0, b, b2]
                                    if y >= least:
                                        continue
                                    for c2 in range(0 if m.relevant[2, d] else c, n[2]):
                                        if c2 != c and not m.relevant[2, d]:
                                            break
                                        z = y + best[2, sums, c, c2]
                                        if z >= least:
                                            continue
                                        sums2 = sums if c2 == c else int(s.reduced[v] > 1.0)
                                        z += table[state_of(s, after, a2, b2, c2, sums2)]
                                        if z >= least:
                                            continue
                                        if b2 == n[1] - 1:
                                            least_waits(s, rows, a2, c2, waits)
                                            z += price[CHAIN] * gaps(s, v, k, waits, False)
                                        least = min(least, z)
                        table[state] = least
    return table


@part
def last_step(s: Space, best: Floats, a: int, b: int, c: int, sums: int) -> float:
    """The cheapest ways from these places to the outermost level."""
    total = 0.0
    for o in range(3):
        place = a if o == 0 else b if o == 1 else c
        own = sums if o == 2 else 0
        least = INFINITE
        for i in range(s.places[o]):
            if s.position[o, i] == 0:
                least = min(least, best[o, own, place, i])
        total += least
    return total


class Labels(NamedTuple):
    """Partial mappings."""

    state: Ints  # [most, 5] point, levels of I, W, O, sums
    cost: Floats  # [most, columns]
    waits: Floats  # [most, WAITS + levels]
    parent: Ints  # [most]
    step: Ints  # [most, 4] kind of loop, ways of I, W, O, -1 for none
    next: Ints  # [most] of the same state, -1
    dead: Bools  # [most]


@njit
def labels_for(most: int, columns: int, levels: int) -> Labels:
    """Room for so many."""
    return Labels(
        np.zeros((most, 5), np.int64),
        np.zeros((most, columns)),
        np.zeros((most, WAITS + levels)),
        np.full(most, -1, np.int64),
        np.full((most, 4), -1, np.int64),
        np.full(most, -1, np.int64),
        np.zeros(most, np.bool_),
    )


@njit
def score_bound(
    cost: Floats,
    to_go: Floats,
    prices: Floats,
    constants: Floats,
    weights: Floats,
    leak: float,
    product: bool,
    tables: int,
) -> float:
    """The least score of what a label can become.

    Each table bounds weights[0] * cycles + weights[1] * pj of moves from below.
    """
    cycles, pj, other = 0.0, 0.0, 0.0
    for t in range(tables):
        total = to_go[t] - constants[t]
        for column in range(cost.shape[0]):
            total += prices[t, column] * cost[column]
        if not product:
            other = max(other, total)
        elif weights[t, 1] == 0.0:
            cycles = max(cycles, total / weights[t, 0])
        elif weights[t, 0] == weights[t, 1] * leak:
            pj = max(pj, total / weights[t, 1])
    if not product:
        return other
    least = cycles * pj
    for t in range(tables):
        if weights[t, 1] > 0.0 and weights[t, 0] != weights[t, 1] * leak:
            total = to_go[t] - constants[t]
            for column in range(cost.shape[0]):
                total += prices[t, column] * cost[column]
            u, w = weights[t, 0] - weights[t, 1] * leak, weights[t, 1]
            if u * cycles + w * pj < total:
                least = max(
                    least,
                    min(cycles * (total - u * cycles) / w, pj * (total - w * pj) / u),
                )
    return least


@njit
def label(
    s: Space,
    rows: Rows,
    start: Floats,
    table: Floats,
    prices: Floats,
    constants: Floats,
    weights: Floats,
    capacity: Floats,
    used: Ints,
    leak: float,
    product: bool,
    cutoff: float,
    made: Labels,
    dominance: bool,
    work: int,
) -> tuple[int, int, int]:
    """Fill labels; the first and last of those with all loops placed, and how many were made.

    used: columns that decide, in which labels beat each other; work: extensions to look at. A
    negative end: no more room, or too much work.
    """
    m, n = s.m, s.places
    points, kinds, columns = s.placed.shape[0], s.dim.shape[0], start.shape[0]
    tables = prices.shape[0]
    room = made.parent.shape[0]
    head = np.full(points * n[0] * n[1] * n[2] * 2, -1, np.int64)
    to_go = np.empty(tables)
    cost, waits = np.empty(columns), np.empty(WAITS + m.level.shape[0])
    registers = n[0] - 1, n[1] - 1, n[2] - 1
    made.state[0] = 0
    made.state[0, 1], made.state[0, 2], made.state[0, 3] = registers
    made.state[0, 4] = 1
    made.cost[0] = start
    no_waits(s, made.waits[0])
    made.dead[0] = False
    first, end, total = 0, 1, 1
    levels = 0
    for k in range(kinds):
        levels += s.most[k]
    ways = s.way.shape[0]
    choice = np.full((3, ways + 1), -1, np.int64)
    number = np.zeros(3, np.int64)
    for _ in range(levels):
        fresh = end
        for x in range(first, end):
            if made.dead[x]:
                continue
            v, sums = made.state[x, 0], made.state[x, 4]
            for k in range(kinds):
                if (v // s.stride[k]) % (s.most[k] + 1) == s.most[k]:
                    continue
                d, after = s.dim[k], v + s.stride[k]
                for o in range(3):
                    number[o] = 1
                    choice[o, 0] = -1
                    if not m.relevant[o, d]:
                        continue
                    own = sums if o == 2 else 0
                    for way in range(ways):
                        if s.way[way, WAY_OPERAND] != o or not rows.legal[v, way, own]:
                            continue
                        richer = s.richer[way]
                        if dominance and richer >= 0 and rows.legal[v, richer, own]:
                            continue
                        if s.leads[way, made.state[x, 1 + o]] >= 0:
                            choice[o, number[o]] = way
                            number[o] += 1
                for p in range(number[0]):
                    for q in range(number[1]):
                        for r in range(number[2]):
                            picked = choice[0, p], choice[1, q], choice[2, r]
                            a = made.state[x, 1]
                            if picked[0] >= 0:
                                a = s.leads[picked[0], a]
                            b = made.state[x, 2]
                            if picked[1] >= 0:
                                b = s.leads[picked[1], b]
                            c = made.state[x, 3]
                            if picked[2] >= 0:
                                c = s.leads[picked[2], c]
                            sums2 = sums if picked[2] < 0 else int(s.reduced[v] > 1.0)
                            state = state_of(s, after, a, b, c, sums2)
                            if table[0, state] == INFINITE:
                                continue
                            work -= 1
                            if work < 0:
                                return first, -1, total
                            cost[:] = made.cost[x]
                            waits[:] = made.waits[x]
                            for o in range(3):
                                way = picked[o]
                                if way < 0:
                                    continue
                                own = sums if o == 2 else 0
                                cost += rows.cost[v, way, own]
                                longer = wait(
                                    s, o, way, v, made.state[x, 1 + o] == registers[o],
                                    rows.gap[v, way, own], waits,
                                )  # fmt: skip
                                cost[CHAIN] += longer
                            cost[CHAIN] += gaps(s, v, k, waits, b < registers[1])
                            cost[CHAIN] += late(s, v, k, c, waits)
                            if over(cost, capacity):
                                continue
                            for t in range(tables):
                                to_go[t] = table[t, state]
                            bound = score_bound(
                                cost, to_go, prices, constants, weights, leak, product, tables
                            )
                            if bound >= cutoff:
                                continue
                            if dominance and beaten(made, head[state], cost, waits, used):
                                continue
                            if fresh == room:
                                return first, -1, total
                            made.state[fresh, 0] = after
                            made.state[fresh, 1] = a
                            made.state[fresh, 2] = b
                            made.state[fresh, 3] = c
                            made.state[fresh, 4] = sums2
                            made.cost[fresh] = cost
                            made.waits[fresh] = waits
                            made.parent[fresh] = x
                            made.step[fresh, 0] = k
                            made.step[fresh, 1], made.step[fresh, 2], made.step[fresh, 3] = picked
                            made.dead[fresh] = False
                            made.next[fresh] = head[state]
                            head[state] = fresh
                            fresh += 1
                            total += 1
        first, end = end, fresh
        if first == end:
            break
    return first, end, total


@part
def over(cost: Floats, capacity: Floats) -> bool:
    """Whether levels that operands share hold more than they can."""
    return bool(np.any(cost > capacity))


@part
def beaten(made: Labels, other: int, cost: Floats, waits: Floats, used: Ints) -> bool:
    """Whether another label of the state is nowhere worse; kills those that are nowhere better."""
    while other >= 0:
        if not made.dead[other]:
            worse, better = False, False
            for column in used:
                x, y = made.cost[other, column], cost[column]
                if x > y * (1.0 + SLACK):
                    worse = True
                elif y > x * (1.0 + SLACK):
                    better = True
            for place in range(waits.shape[0]):
                if made.waits[other, place] > waits[place]:
                    worse = True
                elif made.waits[other, place] < waits[place]:
                    better = True
            if not worse:
                return True
            if not better:
                made.dead[other] = True
        other = made.next[other]
    return False


@njit
def ends_of(
    s: Space, rows: Rows, made: Labels, first: int, end: int, capacity: Floats, room: int
) -> tuple[Floats, Ints]:
    """Complete mappings: costs, and label with the last ways of I, W, O."""
    points, columns = s.placed.shape[0], made.cost.shape[1]
    v = points - 1
    found = np.empty((room, columns))
    choice = np.empty((room, 4), np.int64)
    count = 0
    ways = s.way.shape[0]
    options = np.full((3, ways + 1), -1, np.int64)
    waits = np.empty(made.waits.shape[1])
    number = np.zeros(3, np.int64)
    for x in range(first, end):
        if made.dead[x]:
            continue
        sums = made.state[x, 4]
        for o in range(3):
            number[o] = 0
            own = sums if o == 2 else 0
            if s.position[o, made.state[x, 1 + o]] == 0:
                options[o, 0] = -1
                number[o] = 1
            for way in range(ways):
                if (
                    s.way[way, WAY_OPERAND] == o
                    and s.leads[way, made.state[x, 1 + o]] >= 0
                    and s.way[way, WAY_TO] == 0
                    and rows.legal[v, way, own]
                ):
                    options[o, number[o]] = way
                    number[o] += 1
        for p in range(number[0]):
            for q in range(number[1]):
                for r in range(number[2]):
                    if count == room:
                        return found[:count], choice[:count]
                    found[count] = made.cost[x]
                    picked = options[0, p], options[1, q], options[2, r]
                    for o in range(3):
                        if picked[o] >= 0:
                            found[count] += rows.cost[v, picked[o], sums if o == 2 else 0]
                    if picked[2] >= 0 and made.state[x, 3] < s.places[2] - 1:
                        waits[:] = made.waits[x]
                        found[count, CHAIN] += leave(s, picked[2], v, waits)
                    if over(found[count], capacity):
                        continue
                    choice[count, 0] = x
                    choice[count, 1], choice[count, 2], choice[count, 3] = picked
                    count += 1
    return found[:count], choice[:count]


@njit
def descend(
    s: Space, rows: Rows, start: Floats, table: Floats, price: Floats
) -> tuple[Floats, Ints, Ints]:
    """The mapping that a table's bound stands for: its costs, steps and last ways."""
    n, m = s.places, s.m
    kinds = s.dim.shape[0]
    longest = max(n[0], n[1], n[2])
    best = np.empty((3, 2, longest, longest))
    which = np.empty((3, 2, longest, longest), np.int64)
    levels = 0
    for k in range(kinds):
        levels += s.most[k]
    steps = np.full((levels, 4), -1, np.int64)
    last = np.full(3, -1, np.int64)
    cost = start.copy()
    waits, lower = np.empty(WAITS + m.level.shape[0]), np.zeros(WAITS)
    no_waits(s, waits)
    at = np.array([n[0] - 1, n[1] - 1, n[2] - 1])
    sums, v = 1, 0
    pick = np.zeros(4, np.int64)
    for step in range(levels):
        scalars(s, rows, v, price, best, which)
        least = INFINITE
        for k in range(kinds):
            if (v // s.stride[k]) % (s.most[k] + 1) == s.most[k]:
                continue
            d, after = s.dim[k], v + s.stride[k]
            for a in range(n[0]):
                for b in range(n[1]):
                    for c in range(n[2]):
                        if (
                            (a != at[0] and not m.relevant[0, d])
                            or (b != at[1] and not m.relevant[1, d])
                            or (c != at[2] and not m.relevant[2, d])
                        ):
                            continue
                        sums2 = sums if c == at[2] else int(s.reduced[v] > 1.0)
                        z = best[0, 0, at[0], a] + best[1, 0, at[1], b] + best[2, sums, at[2], c]
                        z += table[state_of(s, after, a, b, c, sums2)]
                        if b == n[1] - 1:
                            least_waits(s, rows, a, c, lower)
                            z += price[CHAIN] * gaps(s, v, k, lower, False)
                        if z < least:
                            least = z
                            pick[0], pick[1], pick[2], pick[3] = k, a, b, c
        if least == INFINITE:
            return cost, steps[:0], last
        k = pick[0]
        steps[step, 0] = k
        changed = sums
        for o in range(3):
            to = pick[1 + o]
            if to != at[o]:
                own = sums if o == 2 else 0
                way = which[o, own, at[o], to]
                steps[step, 1 + o] = way
                cost += rows.cost[v, way, own]
                gap = rows.gap[v, way, own]
                longer = wait(s, o, way, v, at[o] == n[o] - 1, gap, waits)
                cost[CHAIN] += longer
                if o == 2:
                    changed = int(s.reduced[v] > 1.0)
                at[o] = to
        sums = changed
        cost[CHAIN] += gaps(s, v, k, waits, at[1] < n[1] - 1)
        cost[CHAIN] += late(s, v, k, at[2], waits)
        v += s.stride[k]
    scalars(s, rows, v, price, best, which)
    for o in range(3):
        own = sums if o == 2 else 0
        least = INFINITE
        for i in range(n[o]):
            if s.position[o, i] == 0 and best[o, own, at[o], i] < least:
                least = best[o, own, at[o], i]
                last[o] = which[o, own, at[o], i]
        if least == INFINITE:
            return cost, steps[:0], last
        if last[o] >= 0:
            cost += rows.cost[v, last[o], own]
    return cost, steps, last


@njit
def costs_of(s: Space, rows: Rows, start: Floats, steps: Ints, last: Ints) -> Floats:
    """The costs of one mapping."""
    n = s.places
    cost, waits = start.copy(), np.empty(WAITS + s.m.level.shape[0])
    no_waits(s, waits)
    at = np.array([n[0] - 1, n[1] - 1, n[2] - 1])
    sums, v = 1, 0
    for step in range(steps.shape[0] + 1):
        changed = sums
        for o in range(3):
            way = last[o] if step == steps.shape[0] else steps[step, 1 + o]
            if way < 0:
                continue
            own = sums if o == 2 else 0
            cost += rows.cost[v, way, own]
            gap = rows.gap[v, way, own]
            longer = wait(s, o, way, v, at[o] == n[o] - 1, gap, waits)
            cost[CHAIN] += longer
            if o == 2:
                changed = int(s.reduced[v] > 1.0)
            at[o] = s.leads[way, at[o]]
        sums = changed
        if step < steps.shape[0]:
            k = steps[step, 0]
            cost[CHAIN] += gaps(s, v, k, waits, at[1] < n[1] - 1)
            cost[CHAIN] += late(s, v, k, at[2], waits)
            v += s.stride[k]
    return cost
