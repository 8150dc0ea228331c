"""Shared ports as a cost model of the exact search: the cycle simulator, and bounds below it.

A choice of spatial loops is bounded by pricing: prices on the chain of activations and on the units
whose cycles the latency cannot go below add up to one, and the cheapest mapping at these prices
bounds all others. Prices move towards what the cheapest mapping holds longest. Where the bound
leaves room below the cutoff, labels list the mappings that may go below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cimc.ir.tiles import Nest
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.objective import Objective
from cimc.target import Target
from cimc.targets.sram_cim.energy import leakage_pj
from cimc.targets.sram_cim.exact import shared_search as kernel
from cimc.targets.sram_cim.exact.polish import polished
from cimc.targets.sram_cim.exact.problem import Exploration, Figures, Limits, Problem
from cimc.targets.sram_cim.exact.referee import Referee
from cimc.targets.sram_cim.exact.shared_costs import Floats, Ints
from cimc.targets.sram_cim.exact.shared_floor import floor_of
from cimc.targets.sram_cim.exact.shared_space import Choice, Columns
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import Factors

ROUNDS = 6  # of pricing
ROOM = 200_000  # labels
EXHAUSTED = 400  # mappings where every one is judged, four times as many with more effort
EFFORTS = 4
WORK = 4_000_000  # extensions of labels looked at: seconds
KEPT = 24  # choices whose tables are kept
TRIES, NEAR = 250, 1.02  # of changes to a mapping that is so near to the best
JUDGED = 20  # complete mappings of each kind, by the simulator


class SharedPorts:
    """The simulator's cycles and pJ of mappings, and what no mapping goes below."""

    def __init__(self, problem: Problem, target: Target) -> None:
        self.problem, self.target = problem, target
        self.machine, self.spec = machine_of(target), spec_of(target)
        self.columns = Columns(target)
        self.leak = leakage_pj(self.spec)
        self.referee = Referee(problem.workload, problem.epilogue, target)
        self.known: dict[Nest, Figures | None] = {}
        self.best = Figures(np.inf, np.inf)
        self.labels = kernel.labels_for(ROOM, self.columns.count, len(self.machine.levels))
        self.shares: dict[tuple[float, float], Floats] = {}  # of units, that were good last time
        self.polished_from = np.inf  # better mappings than this are worth polishing
        self.begun: dict[Factors, _Pricing] = {}

    def evaluate(self, nest: Nest) -> Figures | None:
        """The simulator's figures of a mapping; None if it is not legal."""
        if nest not in self.known:
            self.known[nest] = self._judged(nest)
            found = self.known[nest]
            if found is not None and self.score(found) < self.score(self.best):
                self.best = found
        return self.known[nest]

    def _judged(self, nest: Nest) -> Figures | None:
        mapped = resolve(nest, self.problem.workload, self.machine)
        if not isinstance(mapped, Mapped) or any(capacity_faults(mapped)):
            return None
        found = self.referee.judge(mapped)
        return Figures(found.cycles, found.energy_pj)

    def score(self, figures: Figures) -> float:
        return self.problem.objective.score(figures.cycles, figures.energy_pj)

    def floor(self, factors: Factors) -> Figures:
        """What activations, and everything once from or to the outermost memory, take."""
        problem = self.problem
        return floor_of(factors, problem.workload, problem.epilogue, self.machine, self.spec)

    def explore(self, factors: Factors, objective: Objective, limits: Limits) -> Exploration:
        """Bound the choice, and judge the mappings that may be better than the cutoff."""
        if factors not in self.begun:
            while len(self.begun) >= KEPT:
                del self.begun[next(iter(self.begun))]
            choice = Choice(
                self.problem.workload, self.problem.epilogue, factors, self.target, self.columns
            )
            self.begun[factors] = _Pricing(self, choice, objective)
        return self.begun[factors].explored(limits)


def _never() -> bool:
    return False


@dataclass(slots=True)
class _Table:
    """A table of completions with its prices."""

    weights: tuple[float, float]  # of a cycle, of a pJ of moves
    price: Floats
    constant: float
    values: Floats
    bound: float


class _Pricing:
    """The exploration of one choice of spatial loops."""

    def __init__(self, model: SharedPorts, choice: Choice, objective: Objective) -> None:
        self.model, self.choice, self.objective = model, choice, objective
        self.rows = kernel.rows_of(choice.space, model.columns.count)
        self.tables: list[_Table] = []
        self.cutoff, self.stop = np.inf, _never
        self.nodes = 0

    def explored(self, limits: Limits) -> Exploration:
        """Effort 0: one table of each kind;  1: good prices;  2: labels;  3 and more: mappings."""
        self.cutoff, self.stop, self.nodes = limits.cutoff, limits.stop, 0
        nests: list[Nest] = []
        least = 0.0
        if limits.effort < 2 or not self.tables:
            self.tables = []
            for weights in self.weights():
                if self.tables and self.stop():
                    break
                nests += self.price(weights, 1 if limits.effort == 0 else ROUNDS)
        if limits.effort == 2 and self.bound() < limits.cutoff:
            least, found = self.list_labels()
            nests += found
        if limits.effort > 2:
            return self.judge_all(limits)
        bound = max(least, self.bound())
        judged = [
            (self.model.score(figures), number)
            for number, nest in enumerate(nests if limits.effort else [])
            if not limits.stop() and (figures := self.model.evaluate(nest)) is not None
        ]
        best: tuple[Nest, ...] = ()
        if judged:
            least, number = min(judged)
            best = (nests[number],)
            if limits.effort >= 2 and least < self.model.polished_from:
                best = (self.polish(nests[number], limits),)
        return Exploration(bound, best, self.nodes, bound >= limits.cutoff)

    def judge_all(self, limits: Limits) -> Exploration:
        """Judge all mappings that the bounds leave below the cutoff, the best if these are many."""
        model, most = self.model, EXHAUSTED * 4 ** (limits.effort - 3)
        is_last = limits.effort == EFFORTS
        found = self.labelled(dominance=False)
        is_whole = found is not None
        if found is None:
            found = self.labelled(dominance=True)
        if found is None:
            return Exploration(0.0, (), self.nodes, is_last)
        below = np.flatnonzero(found[2] < limits.cutoff)
        if len(below) > most:
            is_whole = False
            below = below[np.argsort(self.hidden(found[0][below]))[:most]]
        least, best = limits.cutoff, list[Nest]()
        for nest in [self.nest(found[1][number]) for number in below.tolist()]:
            if limits.stop():
                return Exploration(0.0, tuple(best), self.nodes, False)
            figures = model.evaluate(nest)
            if figures is not None and model.score(figures) < least:
                least, best = model.score(figures), [nest]
        if best and least < model.polished_from:
            best = [self.polish(best[0], limits)]
        return Exploration(least if is_whole else 0.0, tuple(best), self.nodes, is_whole or is_last)

    def hidden(self, cost: Floats) -> Floats:
        """Cycles, as if what nothing is sure to hide were not."""
        units = cost[:, : self.model.columns.pj]
        found: Floats = np.maximum(
            units.max(axis=1), units[:, 0] + cost[:, self.model.columns.risk]
        )
        return found

    def polish(self, nest: Nest, limits: Limits) -> Nest:
        """The best of a mapping's neighbours, step by step."""
        model = self.model

        def score(candidate: Nest) -> float:
            figures = None if limits.stop() else model.evaluate(candidate)
            return np.inf if figures is None else model.score(figures)

        found, least = polished(nest, model.machine, score, TRIES)
        model.polished_from = least * NEAR
        return found

    def weights(self) -> Iterator[tuple[float, float]]:
        """What tables bound: weights of a cycle and of a pJ of moves."""
        leak = self.model.leak
        if not self.objective.is_product:
            yield self.objective.latency + self.objective.energy * leak, self.objective.energy
            return
        yield 1.0, 0.0
        yield leak, 1.0
        best = self.model.best
        if best.cycles < np.inf:
            yield best.energy_pj / best.cycles + leak, 1.0

    def start(self) -> int:
        """The state in which nothing is placed."""
        i, w, o = (int(number) - 1 for number in self.choice.space.places)
        return kernel.state_of(self.choice.space, 0, i, w, o, 1)

    def price(self, weights: tuple[float, float], rounds: int) -> list[Nest]:
        """Tables for good prices; mappings that are cheapest at them."""
        model, columns, choice = self.model, self.model.columns, self.choice
        units = columns.pj
        share = model.shares.get(weights)
        if share is None:
            share = np.full(units, 0.05 / (units - 1))
            share[0] = 0.95
        drift = np.log(np.maximum(share, 1e-9))
        room = np.zeros(columns.count)
        found: list[_Table] = []
        nests = []
        for number in range(rounds):
            price = np.zeros(columns.count)
            price[:units] = weights[0] * share
            price[columns.pj] = weights[1]
            price[columns.pj + 1 : columns.risk] = room[columns.pj + 1 : columns.risk]
            constant = float(
                price[columns.pj + 1 : columns.risk]
                @ columns.capacity[columns.pj + 1 : columns.risk]
            )
            values = kernel.completions(choice.space, self.rows, price)
            self.nodes += len(values)
            bound = values[self.start()] + price @ choice.start - constant
            found.append(_Table(weights, price, constant, values, bound))
            if bound == np.inf:
                break
            cost, steps, last = kernel.descend(choice.space, self.rows, choice.start, values, price)
            over = (
                cost[columns.pj + 1 : columns.risk]
                / columns.capacity[columns.pj + 1 : columns.risk]
                - 1.0
            )
            if len(steps) and (over <= 0).all():
                nests.append(choice.nest(steps, last))
            held = cost[:units] / cost[:units].max()
            drift = drift + 8.0 / (number + 1) ** 0.5 * (held - 1.0)
            share = np.exp(drift - drift.max())
            share /= share.sum()
            step = 0.1 * abs(bound) / (number + 1) ** 0.5
            room[columns.pj + 1 : columns.risk] = np.maximum(
                0.0,
                room[columns.pj + 1 : columns.risk]
                + step * over / columns.capacity[columns.pj + 1 : columns.risk],
            )
            self.tables.append(found[-1])
            if self.bound() >= self.cutoff or self.stop():
                break
            self.tables.pop()
        found.sort(key=lambda table: -table.bound)
        self.tables += found[:2]
        model.shares[weights] = found[0].price[:units] / weights[0] if weights[0] else share
        return nests

    def bound(self) -> float:
        """What the tables prove for all mappings."""
        to_go = np.array([table.values[self.start()] for table in self.tables])
        return self.score(self.choice.start, to_go)

    def score(self, cost: Floats, to_go: Floats) -> float:
        """The least score of a label with these completions."""
        return float(
            kernel.score_bound(
                cost, to_go, self.prices, self.constants, self.table_weights,
                self.model.leak, self.objective.is_product, len(self.tables),
            )
        )  # fmt: skip

    @property
    def prices(self) -> Floats:
        return np.array([table.price for table in self.tables])

    @property
    def constants(self) -> Floats:
        return np.array([table.constant for table in self.tables])

    @property
    def table_weights(self) -> Floats:
        return np.array([table.weights for table in self.tables])

    def list_labels(self) -> tuple[float, list[Nest]]:
        """The least score of the mappings that are left, and those to judge first."""
        found = self.labelled(dominance=True)
        if found is None:
            return 0.0, []
        cost, chosen, scores = found
        below = np.flatnonzero(scores < self.cutoff)
        if not len(below):
            return self.cutoff, []
        units = cost[below, : self.model.columns.pj]
        hidden = self.hidden(cost[below])
        crowded = units.max(axis=1) + 0.1 * units.sum(axis=1)
        picked: dict[int, None] = {}
        for rank in (scores[below] + 1e-9 * hidden, hidden, crowded):
            picked.update(dict.fromkeys(below[np.argsort(rank)[:JUDGED]].tolist()))
        return float(scores[below].min()), [self.nest(chosen[number]) for number in picked]

    def labelled(self, *, dominance: bool) -> tuple[Floats, Ints, Floats] | None:
        """Mappings that may stay below the cutoff: costs, choices, least scores; None: too many.

        dominance: only those that no other one beats in every cost.
        """
        model, columns, choice = self.model, self.model.columns, self.choice
        counts_pj = self.objective.energy > 0 or self.objective.is_product
        used = [c for c in range(columns.count) if counts_pj or c != columns.pj]
        labels = model.labels
        first, end, made = kernel.label(
            choice.space, self.rows, choice.start,
            np.array([table.values for table in self.tables]),
            self.prices, self.constants, self.table_weights, columns.capacity,
            np.array(used, np.int64), model.leak, self.objective.is_product, self.cutoff,
            labels, dominance, WORK,
        )  # fmt: skip
        self.nodes += made
        if end < 0:
            return None
        cost, chosen = kernel.ends_of(
            choice.space, self.rows, labels, first, end, columns.capacity, ROOM
        )
        if len(cost) == ROOM:
            return None
        cycles = cost[:, : columns.pj].max(axis=1, initial=0.0)
        pj = cost[:, columns.pj] + model.leak * cycles
        scores = [self.objective.score(c, e) for c, e in zip(cycles, pj, strict=True)]
        return cost, chosen, np.array(scores)

    def nest(self, chosen: Ints) -> Nest:
        """The mapping of a label and its last ways."""
        labels = self.model.labels
        found, label = list[Ints](), int(chosen[0])
        while label > 0:
            found.append(labels.step[label])
            label = int(labels.parent[label])
        return self.choice.nest(np.array(found[::-1], np.int64).reshape(-1, 4), chosen[1:])
