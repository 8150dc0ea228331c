"""A solver that does what the number of output channels says; for tests of what is around it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from cimc.errors import Fault, FitError
from cimc.ir.tiles import Nest
from cimc.lowering import ConvShape
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim.exact import Problem, Progress, Solution
from cimc.targets.sram_cim.exact.solve import model_of
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.placing import nest_of
from cimc.targets.sram_cim.stationary import simple

QUICK, SLOW, DIES, DIES_ONCE, FITS_NOT, BREAKS, DEAF = range(1, 8)
SOLVER = "tests.targets.sram_cim.fake_solver:solve"
LOG = "CIMC_TEST_LOG"  # a file with one line for each search


def problem(behaviour: int, size: int = 4, objective: str = "latency") -> Problem:
    """A problem whose search behaves so."""
    shape = ConvShape(1, 1, behaviour, 3, size, size, 1, 1, size, size)
    return Problem(Workload(shape), 1, Objective.parse(objective))


def nest(given: Problem, target: Target) -> Nest:
    """The mapping that all searches find."""
    return nest_of(simple(given.workload, machine_of(target)))


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
    """Behave."""
    began = time.monotonic()
    behaviour = problem.workload.shape.k
    log = Path(os.environ[LOG])
    with log.open("a") as file:
        file.write(f"{behaviour} {time_limit} {incumbent is not None}\n")
    tries = sum(line.startswith(f"{behaviour} ") for line in log.read_text().splitlines())
    found = nest(problem, target)
    figures = model_of(problem, target).evaluate(found)
    assert figures is not None
    cost = problem.objective.score(figures.cycles, figures.energy_pj)
    bound = 0.5 * cost
    if on_progress is not None:
        on_progress(Progress(cost, bound, 1, 0.0, 1, 2, found))
    if behaviour == DIES or (behaviour == DIES_ONCE and tries == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == FITS_NOT:
        raise FitError(Fault("it fits nowhere", need="more", have="less"))
    if behaviour == BREAKS:
        raise ValueError("a bug")
    while behaviour == DEAF or (behaviour == SLOW and (stop is None or not stop())):
        time.sleep(0.01)
        late = time_limit is not None and time.monotonic() - began >= time_limit
        if late and behaviour == SLOW:
            break
    finished = behaviour in (QUICK, DIES_ONCE)
    spent = time.monotonic() - began
    return Solution(
        found,
        cost,
        cost if finished else bound,
        figures.cycles,
        figures.energy_pj,
        1,
        spent,
        finished,
    )
