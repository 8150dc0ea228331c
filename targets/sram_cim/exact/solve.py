"""Branch and bound over the choices of spatial loops: the one with the lowest bound goes first.

The timing (`CostModel`) bounds a choice, searches it with more and more effort, and judges what was
found. The lowest bound of all choices is that of the whole; it never exceeds the best mapping's own
cost.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable

from cimc.errors import FitError, InternalError
from cimc.ir.tiles import Nest
from cimc.mapping.objective import Objective
from cimc.target import Target
from cimc.targets.sram_cim.exact.choices import all_choices, factors_of
from cimc.targets.sram_cim.exact.problem import (
    CostModel,
    Figures,
    Limits,
    Problem,
    Progress,
    Solution,
)
from cimc.targets.sram_cim.exact.starts import starting_nests, without_idle_loops
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.placing import Factors

COARSE = 0.01  # share of the cost that bounds may be below it before any is made better
GLIMPSES = 16  # choices that get a narrow search before any gets a wide one


def solve(
    problem: Problem,
    target: Target,
    *,
    time_limit: float | None,
    gap: float = 0.0,
    incumbent: Nest | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Solution:
    """The best mapping of a layer and the bound proven for all others.

    time_limit  seconds, None for no limit; with 0 the best mapping by rule and the root's bound
    gap         a share of the cost that need not be proven
    raises      FitError if no mapping fits the machine
    """
    search = _Search(problem, target, time_limit, gap, on_progress, stop)
    search.offer([] if incumbent is None else [incumbent])
    search.offer(starting_nests(problem, target))
    search.run()
    return search.solution()


def model_of(problem: Problem, target: Target) -> CostModel:
    """The timing that the problem names."""
    if problem.timing == "shared":
        from cimc.targets.sram_cim.exact.shared import SharedPorts

        return SharedPorts(problem, target)
    from cimc.targets.sram_cim.exact.private import PrivatePorts

    return PrivatePorts(problem, target)


class _Search:
    def __init__(
        self,
        problem: Problem,
        target: Target,
        time_limit: float | None,
        gap: float,
        on_progress: Callable[[Progress], None] | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self.began = time.monotonic()
        self.problem, self.target, self.gap, self.share = problem, target, gap, gap
        self.time_limit, self.on_progress, self.stop = time_limit, on_progress, stop
        self.model = model_of(problem, target)
        self.nest: Nest | None = None
        self.figures = Figures(float("inf"), float("inf"))
        self.cost = float("inf")
        self.bound = 0.0
        self.nodes = 0
        self.finished = False

    def is_over(self) -> bool:
        """Whether the time is up, or somebody wants the search to stop."""
        if self.time_limit is not None and time.monotonic() - self.began >= self.time_limit:
            return True
        return self.stop is not None and self.stop()

    def offer(self, nests: Iterable[Nest]) -> None:
        """Keep the best of these, judged by the referee."""
        for nest in nests:
            if self.problem.timing == "private":
                nest = without_idle_loops(nest)
            figures = self.model.evaluate(nest)
            if figures is None:
                continue
            cost = self.problem.objective.score(figures.cycles, figures.energy_pj)
            if cost < self.cost:
                self.nest, self.figures, self.cost = nest, figures, cost

    def choices(self) -> list[tuple[float, Factors]]:
        """Choices of spatial loops and their lowest scores, the most promising first."""
        problem, machine = self.problem, machine_of(self.target)
        if problem.spatial is not None:
            found: Iterable[Factors] = [factors_of(problem.spatial, machine)]
        else:
            found = all_choices(problem.workload, machine)
        objective: Objective = problem.objective
        scored = []
        for factors in found:
            floor = self.model.floor(factors)
            scored.append((objective.score(floor.cycles, floor.energy_pj), factors))
        return sorted(scored, key=lambda item: item[0])

    def run(self) -> None:
        """Bring all choices' bounds near the best cost first, then as near as they are wanted."""
        choices = self.choices()
        floors, efforts = [floor for floor, _ in choices], [0] * len(choices)
        for share in sorted({max(COARSE, self.gap), self.gap}, reverse=True):
            self.share = share
            self.sweep([factors for _, factors in choices], floors, efforts)

    def sweep(self, choices: list[Factors], floors: list[float], efforts: list[int]) -> None:
        """Search the choice with the lowest bound, a little further each time, up to the cutoff.

        floors: bounds of the choices; efforts: how far to go with them next; both are updated
        """
        cutoff = self.cutoff()
        below = [place for place, floor in enumerate(floors) if floor < cutoff]
        open_ = [(floors[place], efforts[place], place) for place in below]
        closed = min((floor for floor in floors if floor >= cutoff), default=math.inf)
        heapq.heapify(open_)
        while open_ and open_[0][0] < self.cutoff() and not self.is_over():
            first = [item for item in heapq.nsmallest(GLIMPSES, open_) if item[1] < 2]
            item = min(first, key=lambda item: item[1]) if first else open_[0]
            open_.remove(item)
            heapq.heapify(open_)
            bound, effort, place = item
            limits = Limits(effort, self.cutoff(), self.cost - self.cutoff(), self.is_over)
            explored = self.model.explore(choices[place], self.problem.objective, limits)
            self.nodes += explored.nodes
            self.offer(explored.nests)
            floors[place] = bound = max(bound, explored.bound)
            if explored.is_final:
                closed = min(closed, bound)
            else:
                efforts[place] = effort + 1
                heapq.heappush(open_, (bound, effort + 1, place))
            self.bound = min([closed, *(item[0] for item in open_[:1])])
            self.report(len(choices) - len(open_), len(choices))
        self.bound = min([closed, *(item[0] for item in open_[:1])])
        self.finished = not open_ or open_[0][0] >= self.cutoff()

    def cutoff(self) -> float:
        """Bounds need not be higher."""
        return self.cost * (1.0 - self.share)

    def report(self, done: int, count: int) -> None:
        """Tell how far it has come."""
        if self.on_progress is not None:
            seconds = time.monotonic() - self.began
            bound = min(self.bound, self.cost)
            self.on_progress(
                Progress(self.cost, bound, self.nodes, seconds, done, count, self.nest)
            )

    def solution(self) -> Solution:
        """What was found."""
        if self.nest is None:
            raise FitError(f"no mapping of the layer fits {self.target.name}")
        if not self.cost < float("inf"):
            raise InternalError("a mapping without a cost")
        return Solution(
            self.nest,
            self.cost,
            min(self.bound, self.cost),
            self.figures.cycles,
            self.figures.energy_pj,
            self.nodes,
            time.monotonic() - self.began,
            self.finished,
        )
