"""Annealing under private ports: the search of `anneal`, scored by their closed form.

The closed form errs by a little against the simulator, so several mappings come out, for the
simulator to choose from.
"""

from __future__ import annotations

import numpy as np

from cimc import jit
from cimc.mapping.nest import DIMS, Mapped
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim import anneal_kernel, search_kernel, timing_kernel
from cimc.targets.sram_cim.anneal import OBJECTIVES, ROUNDS, packed, starts_of, with_levels
from cimc.targets.sram_cim.anneal_kernel import TRIES, Words, change, copy, draw, place, score_of
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.private_ports import batch
from cimc.targets.sram_cim.search_kernel import HUGE, Floats, Ints, Machine
from cimc.targets.sram_cim.stationary import weight_stationary
from cimc.targets.sram_cim.timing_kernel import fits, measure, room_for, tables_of

njit = jit.compiler(
    __file__,
    anneal_kernel.__file__,
    search_kernel.__file__,
    timing_kernel.__file__,
    batch.__file__,
)

KEPT = 16  # mappings that are annealed to the end and come out


def annealed_private(workload: Workload, target: Target, objective: str) -> list[Mapped]:
    """The best mappings found, the one that it likes most first; last, the rule's."""
    machine, spec = machine_of(target), spec_of(target)
    m = packed(workload, machine, spec, 1)
    starts, tables = starts_of(workload, machine, m)
    cuts = np.zeros(tables.use.shape, np.int64)
    scores = search(
        m,
        np.array([workload.shape.h, workload.shape.w], np.int64),
        tables.factors,
        tables.count,
        tables.dim,
        tables.bound,
        tables.wish,
        tables.use,
        tables.double,
        OBJECTIVES[objective],
        np.array([[kept, steps] for kept, steps, _ in ROUNDS], np.int64),
        np.array([heat for _, _, heat in ROUNDS]),
        1,
        cuts,
    )
    found = []
    for start in np.argsort(scores)[:KEPT]:
        if scores[start] >= HUGE:
            break
        count = tables.count[start]
        loops = [
            (DIMS[d], int(b))
            for d, b in zip(tables.dim[start, :count], tables.bound[start, :count], strict=True)
        ]
        use, double = tables.use[start], tables.double[start]
        factors = starts[start][0]
        found.append(with_levels(workload, machine, factors, loops, cuts[start], use, double))
    return [*found, *weight_stationary(workload, machine)]


@njit
def settle(m: Machine, count: int, cut: Ints, use: Ints, double: Ints, at: Ints) -> None:
    """Levels that keep no loop are not used; at[0, o, i]: the position that keeps o at loop i."""
    for o in range(3):
        inner = count
        for j in range(m.length[o] - 1, 0, -1):
            if use[o, j] and cut[o, j] == inner and j + 1 < m.length[o]:
                use[o, j] = 0
            if use[o, j]:
                inner = cut[o, j]
            else:
                double[o, j] = 0
        held = 0
        for i in range(count):
            for j in range(held + 1, m.length[o]):
                if use[o, j] and cut[o, j] <= i:
                    held = j
            at[0, o, i] = held


@njit
def anneal(
    m: Machine,
    limits: Ints,
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
    """`anneal_kernel.anneal` by the closed form."""
    _, space, chip, relevant, length = tables_of(m, factors)
    may_double = m.may_double
    cut, two = np.zeros(use.shape, np.int64), np.zeros((1, *use.shape), np.int64)
    used = np.zeros(use.shape, np.int64)
    at, loops = np.zeros((1, 3, count), np.int64), np.array([count])
    latency, energy = np.empty(1), np.empty(1)
    best, now = known, known
    tried = dim, bound, wish, use, double
    state = dim.copy(), bound.copy(), wish.copy(), use.copy(), double.copy()
    kept = dim.copy(), bound.copy(), wish.copy(), use.copy(), double.copy()
    for step in range(steps):
        copy(state, tried)
        tries = 0 if step or known < HUGE else TRIES
        while tries < TRIES and not change(
            length, may_double, count, dim, bound, wish, use, double, random
        ):
            tries += 1
        measure(relevant, count, dim, bound, cover)
        place(space, chip, length, count, wish, use, double, cut, cover)
        for o in range(3):
            for j in range(use.shape[1]):
                used[o, j], two[0, o, j] = use[o, j], double[o, j]
        settle(m, count, cut, used, two[0], at)
        if not fits(
            space, chip, relevant, length, count, dim, bound, cut, used, two[0], cover, work
        ):
            continue
        batch.closed_forms(
            m,
            limits,
            factors,
            loops,
            dim.reshape(1, count),
            bound.reshape(1, count),
            at,
            two,
            latency,
            energy,
        )
        score = score_of(objective, latency[0], energy[0])
        slack = 1.0 + heat * (1.0 - step / steps) * (draw(random) % 1024) / 1024.0
        if score <= now * slack:
            now = score
            copy(tried, state)
        if score < best:
            best = score
            copy(tried, kept)
    copy(kept, tried)
    return best


@njit
def search(
    m: Machine,
    limits: Ints,
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
    cuts: Ints,
) -> Floats:
    """`anneal_kernel.search` by the closed form; fills `cuts` and returns the scores of all."""
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
                limits,
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
    for start in range(starts):
        n = count[start]
        at = np.zeros((1, 3, n), np.int64)
        _, space, chip, relevant, length = tables_of(m, factors[start])
        measure(relevant, n, dim[start, :n], bound[start, :n], cover)
        place(space, chip, length, n, wish[start], use[start], double[start], cuts[start], cover)
        settle(m, n, cuts[start], use[start], double[start], at)
    return scores
