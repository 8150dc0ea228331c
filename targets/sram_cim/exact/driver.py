"""Many searches at the same time: each problem once, none lost, resumed from what is stored.

Equal problems are solved once. Each gets an equal share of the time that is left; what quick ones
leave goes to the others, which are searched again from where they stopped if they can get at least
half as much time again. A search whose process dies is tried once more, then its best mapping so
far is the result. Whoever interrupts keeps everything that was solved: it is in the store.
"""

from __future__ import annotations

import dataclasses
import math
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cimc.errors import CimcError, Fault, InternalError, warn
from cimc.ir.tiles import Nest
from cimc.lowering import ConvShape
from cimc.mapping.workload import Workload
from cimc.pipeline.tell import Outcome
from cimc.target import Target
from cimc.targets.sram_cim.exact.choices import all_choices
from cimc.targets.sram_cim.exact.problem import Limits, Problem, Progress, Solution, Timing
from cimc.targets.sram_cim.exact.solve import model_of, solve
from cimc.targets.sram_cim.exact.starts import starting_nests
from cimc.targets.sram_cim.exact.store import Store, merged, problem_key
from cimc.targets.sram_cim.exact.worker import (
    SOLVER,
    Advanced,
    Begun,
    Inbox,
    Lost,
    Message,
    ProcessWorker,
    Solved,
    Task,
    ThreadWorker,
    Worker,
)
from cimc.targets.sram_cim.machine import machine_of

GRACE = 3.0  # seconds for a search to end after it was told to
PATIENCE = 300.0  # seconds until one that does not is ended by force: it may be compiling kernels
AGAIN = 1.5  # a search begins again only with so many times the time it had
TICK = 0.2  # seconds between looks at the clock
EFFORTS = 4  # of a search, that call kernels of their own

_compiled: set[Timing] = set()  # timings whose kernels this process has


@dataclass(frozen=True, slots=True)
class Result:
    """The solution of a problem, how its search ended, and whether an earlier run had found it."""

    solution: Solution
    outcome: Outcome
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one problem now; `result` once its search is over."""

    name: str
    is_running: bool
    cost: float
    bound: float
    seconds: float
    result: Result | None


Watch = Callable[[Sequence[Standing]], None]


class Interrupted(KeyboardInterrupt):
    """Somebody stopped the searches; `results` of all problems, None where none was begun."""

    def __init__(self, results: tuple[Result | None, ...]) -> None:
        super().__init__("the search for mappings was interrupted")
        self.results = results


def solve_all(
    problems: Sequence[Problem],
    target: Target,
    *,
    incumbents: Sequence[Nest | None] = (),
    names: Sequence[str] = (),
    jobs: int | None = None,
    time_limit: float | None = None,
    layer_time_limit: float | None = None,
    gap: float = 0.0,
    store: Store | None = None,
    on_progress: Watch | None = None,
    solver: str = SOLVER,
) -> tuple[Result, ...]:
    """The best mapping and the proven bound of every problem, in their order.

    incumbents        a mapping to begin with for each problem, or None
    names             what messages call the problems
    jobs              searches at the same time, each in a process; 1: in this one; None: all cores
    time_limit        seconds for everything, layer_time_limit for one search at a time
    gap               a share of the cost that need not be proven
    raises            Interrupted with what was found; FitError of all problems that fit nowhere
    """
    starts = list(incumbents) or [None] * len(problems)
    called = list(names) or [f"problem {number}" for number in range(len(problems))]
    known: dict[str, _Item] = {}
    items: list[_Item] = []
    for problem, start, name in zip(problems, starts, called, strict=True):
        key = problem_key(problem, target)
        if key not in known:
            known[key] = _Item(len(known), problem, name, start)
        items.append(known[key])
    driver = _Driver(list(known.values()), target, gap, store, on_progress, solver)
    try:
        driver.begin()
        driver.run(jobs or cores(), time_limit, layer_time_limit)
    except KeyboardInterrupt:
        driver.interrupt()
        raise Interrupted(tuple(item.result for item in items)) from None
    except SystemExit:  # SIGTERM
        driver.interrupt()
        raise
    finally:
        driver.close()
    return tuple(item.final() for item in items)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compile_kernels(problem: Problem, target: Target) -> None:
    """Look at a tiny layer with every effort: what that compiles is then there for all processes.

    Once for each timing: kernels of this process stay compiled.
    """
    if problem.timing in _compiled:
        return
    workload = Workload(ConvShape(1, 1, 2, 2, 1, 1, 1, 1, 1, 1), problem.workload.bits)
    tiny = dataclasses.replace(problem, workload=workload, spatial=None)
    model = model_of(tiny, target)
    for nest in starting_nests(tiny, target):
        model.evaluate(nest)
    factors = next(iter(all_choices(workload, machine_of(target))))
    for effort in range(EFFORTS):
        model.explore(factors, tiny.objective, Limits(effort, math.inf, 0.0, lambda: False))
    _compiled.add(problem.timing)


@dataclass
class _Item:
    """One problem, and what became of it so far."""

    number: int
    problem: Problem
    name: str
    incumbent: Nest | None
    bound: float = 0.0  # proven by searches that did not end
    solution: Solution | None = None
    spent: float = 0.0  # seconds of all searches
    share: float = 0.0  # seconds that the last search was given
    is_running: bool = False
    running: Progress | None = None
    began: float | None = None  # when the search that runs now began
    told: float | None = None  # when it was told to stop
    losses: int = 0
    error: CimcError | None = None
    result: Result | None = None

    def advance(self, message: Advanced) -> None:
        """Its search goes on."""
        progress = self.running = message.progress
        self.bound = max(self.bound, progress.bound)
        if progress.nest is not None:
            self.incumbent = progress.nest

    def end(self) -> None:
        """Its search is over."""
        if self.began is not None:
            self.spent += time.monotonic() - self.began
        self.is_running, self.began, self.running = False, None, None

    def final(self) -> Result:
        """The result, after all searches."""
        if self.result is None:
            raise InternalError(f"{self.name} was not searched")
        return self.result

    def standing(self, now: float) -> Standing:
        """What is known of it now."""
        cost, bound = math.inf, 0.0
        if self.solution is not None:
            cost, bound = self.solution.cost, self.solution.bound
        if self.running is not None:
            cost = min(cost, self.running.cost)
            bound = min(cost, max(bound, self.bound))
        seconds = self.spent + (now - self.began if self.began is not None else 0.0)
        return Standing(self.name, self.is_running, cost, bound, seconds, self.result)


class _Driver:
    """The searches, the workers that do them, and the clock."""

    def __init__(
        self,
        items: list[_Item],
        target: Target,
        gap: float,
        store: Store | None,
        watch: Watch | None,
        solver: str,
    ) -> None:
        self.items, self.target, self.gap = items, target, gap
        self.store, self.watch, self.solver = store, watch, solver
        self.inbox: Inbox = queue.SimpleQueue()
        self.idle: list[Worker] = []
        self.busy: dict[int, tuple[Worker, _Item]] = {}  # by identity of the worker
        self.waiting: deque[_Item] = deque()
        self.deadline = math.inf
        self.layer_limit = math.inf
        self.jobs = 1
        self.in_process = True
        self.began = time.monotonic()

    # --- beginning ---

    def begin(self) -> None:
        """Take what is stored."""
        for item in self.items:
            stored = self.store.get(item.problem, self.target) if self.store else None
            if stored is None:
                continue
            if stored.is_current:
                item.solution, item.spent = stored.solution, stored.solution.seconds
                if stored.solution.is_proven(self.gap):
                    item.result = Result(stored.solution, "proven", True)
            item.incumbent = self._better(item, stored.solution.nest)
        self._report()

    def _better(self, item: _Item, other: Nest) -> Nest:
        """The better one of an item's incumbent and another mapping."""
        if item.incumbent is None or item.incumbent == other:
            return other
        model, objective = model_of(item.problem, self.target), item.problem.objective
        costs = [
            math.inf if figures is None else objective.score(figures.cycles, figures.energy_pj)
            for figures in (model.evaluate(item.incumbent), model.evaluate(other))
        ]
        return item.incumbent if costs[0] < costs[1] else other

    # --- running ---

    def run(self, jobs: int, time_limit: float | None, layer_limit: float | None) -> None:
        """Search until everything is proven or the time is up."""
        self.deadline = self.began + (math.inf if time_limit is None else time_limit)
        self.layer_limit = math.inf if layer_limit is None else layer_limit
        open_ = [item for item in self.items if item.result is None]
        if open_ and time_limit != 0 and layer_limit != 0 and self.solver == SOLVER:
            compile_kernels(open_[0].problem, self.target)
            self.began = time.monotonic()
            self.deadline = self.began + (math.inf if time_limit is None else time_limit)
        self.jobs = max(1, min(jobs, len(open_)))
        self.in_process = self.jobs == 1 or time_limit == 0 or layer_limit == 0
        if self.in_process:
            self.jobs = 1
        while open_:
            self.waiting = deque(sorted(open_, key=lambda item: item.problem.workload.shape.macs))
            while self.waiting or self.busy:
                self._assign()
                self._listen()
            open_ = [item for item in open_ if self._is_worth_more(item)]
        errors = [item.error for item in self.items if item.error is not None]
        if errors:
            raise type(errors[0])([fault for error in errors for fault in error.faults])

    def _share(self) -> float:
        """Seconds for the next search: all that is left, shared equally."""
        rounds = -(-len(self.waiting) // self.jobs)
        return min(self.layer_limit, max(0.0, self.deadline - time.monotonic()) / max(1, rounds))

    def _is_worth_more(self, item: _Item) -> bool:
        if item.result is None or item.result.outcome != "time limit":
            return False
        left = min(self.layer_limit, self.deadline - time.monotonic())
        return left > 0 and left >= AGAIN * item.share and math.isfinite(item.share)

    def _assign(self) -> None:
        while self.waiting and len(self.busy) < self.jobs:
            share = self._share()
            item = self.waiting.popleft()
            worker = self.idle.pop() if self.idle else self._worker()
            limit = None if math.isinf(share) else share
            item.share, item.told, item.is_running = share, None, True
            self.busy[id(worker)] = worker, item
            worker.start(
                Task(
                    item.number,
                    item.problem,
                    self.target,
                    limit,
                    self.gap,
                    item.incumbent,
                    self.solver,
                )
            )

    def _worker(self) -> Worker:
        return ThreadWorker(self.inbox) if self.in_process else ProcessWorker(self.inbox)

    def _listen(self) -> None:
        """Take the messages that are there, wait for one if there is none, look at the clock."""
        try:
            worker, message = self.inbox.get(timeout=TICK)
            self._take(worker, message)
        except queue.Empty:
            pass
        now = time.monotonic()
        for worker, item in list(self.busy.values()):
            if item.began is not None and now - item.began > item.share + GRACE:
                if item.told is None:
                    item.told = now
                    worker.stop()
                elif now - item.told > PATIENCE and not self.in_process:
                    item.losses += 1  # it does not listen: no second try
                    worker.close()
        self._report()

    def _take(self, worker: Worker, message: Message) -> None:
        if id(worker) not in self.busy:
            if isinstance(message, Lost) and worker in self.idle:
                self.idle.remove(worker)
                worker.close()
            return
        _, item = self.busy[id(worker)]
        if isinstance(message, Begun):
            item.began = time.monotonic()
            return
        if isinstance(message, Advanced):
            item.advance(message)
            return
        del self.busy[id(worker)]
        item.end()
        if isinstance(message, Lost):
            worker.close()
            self._lost(item, message)
            return
        self.idle.append(worker)
        if isinstance(message, Solved):
            ended: Outcome = "unproven" if message.solution.finished else "time limit"
            self._keep(item, message.solution, ended)
        elif message.error is not None:
            item.error = message.error
        else:
            raise InternalError(f"the search of {item.name} broke: {message.message}")

    def _keep(self, item: _Item, solution: Solution, otherwise: Outcome) -> None:
        """A search ended with `solution`: join it with what was known, store it."""
        if item.solution is not None:
            solution = merged(item.solution, solution)
        bound = min(solution.cost, max(solution.bound, item.bound))
        solution = dataclasses.replace(solution, bound=bound, seconds=item.spent)
        if self.store is not None:
            solution = self.store.put(item.problem, self.target, solution)
        item.solution, item.incumbent = solution, solution.nest
        outcome: Outcome = "proven" if solution.is_proven(self.gap) else otherwise
        item.result = Result(solution, outcome)

    def _lost(self, item: _Item, message: Lost) -> None:
        item.losses += 1
        if item.losses == 1:
            self.waiting.appendleft(item)
            return
        warn(
            Fault(
                f"the search for a mapping of {item.name} was lost twice",
                need="a process that is left alone",
                have=f"it ended with status {message.status}"
                + (" (killed; memory ran out?)" if message.status == -9 else ""),
                help="its best mapping so far is used; --jobs 1 needs less memory",
                code="CIM4022",
            )
        )
        known = solve(
            item.problem, self.target, time_limit=0, gap=self.gap, incumbent=item.incumbent
        )
        self._keep(item, known, "worker lost")

    def _best_known(self, item: _Item) -> Solution:
        """The best mapping that is known without a search."""
        nest, problem = item.incumbent, item.problem
        figures = model_of(problem, self.target).evaluate(nest) if nest is not None else None
        if nest is None or figures is None:
            return solve(problem, self.target, time_limit=0, gap=self.gap)
        cost = problem.objective.score(figures.cycles, figures.energy_pj)
        return Solution(
            nest, cost, 0.0, figures.cycles, figures.energy_pj, 0, item.spent, finished=False
        )

    # --- ending ---

    def interrupt(self) -> None:
        """Ask all searches for what they found, wait for it a moment, and keep it."""
        began = time.monotonic()
        for worker, _ in list(self.busy.values()):
            worker.stop()
        while self.busy and time.monotonic() - began < GRACE:
            try:
                worker, message = self.inbox.get(timeout=TICK)
            except queue.Empty:
                continue
            number = id(worker)
            if number not in self.busy or isinstance(message, Begun | Advanced):
                continue
            _, item = self.busy.pop(number)
            self.idle.append(worker)
            item.end()
            if isinstance(message, Solved):
                self._keep(item, message.solution, "interrupted")
        for item in self.items:
            if item.result is None and item.bound:  # it was searched, and does not answer
                item.end()
                self._keep(item, self._best_known(item), "interrupted")
            elif item.result is None and item.solution is not None:
                item.result = Result(item.solution, "interrupted", True)
        self._report()

    def close(self) -> None:
        """End all workers."""
        for worker in [*self.idle, *(worker for worker, _ in self.busy.values())]:
            worker.close()
        self.idle, self.busy = [], {}

    def _report(self) -> None:
        if self.watch is not None:
            now = time.monotonic()
            self.watch([item.standing(now) for item in self.items])
