"""Many searches: equal ones once, killed ones again, interrupted ones kept and resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cimc.errors import CimcWarning, FitError, InternalError
from cimc.target import Target, load_target
from cimc.targets.sram_cim.exact import Problem, driver
from cimc.targets.sram_cim.exact.driver import Result, Standing, solve_all
from cimc.targets.sram_cim.exact.store import Store
from tests.targets.sram_cim import fake_solver as fake

ROOT = Path(__file__).parents[3]


@pytest.fixture
def target() -> Target:
    return load_target("miredo-default")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(fake.LOG, str(tmp_path / "log"))
    (tmp_path / "log").touch()
    return tmp_path / "log"


def run(
    problems: Sequence[Problem],
    target: Target,
    *,
    jobs: int = 1,
    time_limit: float | None = None,
    layer_time_limit: float | None = None,
    gap: float = 0.0,
    store: Store | None = None,
    seen: list[Sequence[Standing]] | None = None,
) -> tuple[Result, ...]:
    return solve_all(
        problems,
        target,
        jobs=jobs,
        time_limit=time_limit,
        layer_time_limit=layer_time_limit,
        gap=gap,
        store=store,
        on_progress=None if seen is None else seen.append,
        solver=fake.SOLVER,
    )


def test_equal_problems_are_solved_once(target: Target, log: Path) -> None:
    problems = [fake.problem(fake.QUICK, size) for size in (4, 5, 4, 5, 4)]
    found = run(problems, target)
    assert len(log.read_text().splitlines()) == 2
    assert found[0] == found[2] == found[4] != found[1] == found[3]
    assert all(result.outcome == "proven" and not result.is_stored for result in found)


def test_processes_find_what_one_thread_finds(target: Target, log: Path) -> None:
    problems = [fake.problem(fake.QUICK, size) for size in (4, 5, 6)]
    one, two = run(problems, target, jobs=1), run(problems, target, jobs=2)
    for first, second in zip(one, two, strict=True):
        solution = dataclasses.replace(second.solution, seconds=first.solution.seconds)
        assert solution == first.solution


def test_a_killed_search_is_tried_again(target: Target, log: Path) -> None:
    problems = [fake.problem(fake.DIES_ONCE), fake.problem(fake.QUICK)]
    found = run(problems, target, jobs=2)
    assert [result.outcome for result in found] == ["proven", "proven"]
    assert sorted(line.split()[0] for line in log.read_text().splitlines()) == ["1", "4", "4"]
    (again,) = [line for line in log.read_text().splitlines() if line.startswith("4")][1:]
    assert again.endswith("True"), "the mapping found before is where the second search begins"


def test_a_search_killed_twice_gives_its_best_mapping(target: Target, log: Path) -> None:
    problems = [fake.problem(fake.DIES), fake.problem(fake.QUICK)]
    with pytest.warns(CimcWarning, match=r"problem 0 was lost twice(.|\n)*status -9") as caught:
        found = run(problems, target, jobs=2)
    assert len(caught) == 1
    assert [result.outcome for result in found] == ["worker lost", "proven"]
    assert found[0].solution.gap <= 0.5, "the bound that it had told is kept"


def test_the_time_is_shared_and_what_is_left_is_used(target: Target, log: Path) -> None:
    problems = [fake.problem(fake.QUICK, 3), fake.problem(fake.SLOW, 5), fake.problem(fake.SLOW, 4)]
    began = time.monotonic()
    found = run(problems, target, time_limit=1.2)
    assert 1.1 < time.monotonic() - began < 2.5
    assert [result.outcome for result in found] == ["proven", "time limit", "time limit"]
    limits = [float(line.split()[1]) for line in log.read_text().splitlines()]
    assert limits[0] == pytest.approx(0.4, abs=0.05)  # a third each
    assert sum(limits) < 1.9  # the quick one's share came to the others
    assert all(result.solution.gap == 0.5 for result in found[1:])


def test_one_search_can_be_limited(target: Target, log: Path) -> None:
    began = time.monotonic()
    (found,) = run([fake.problem(fake.SLOW)], target, layer_time_limit=0.3)
    assert time.monotonic() - began < 2
    assert found.outcome == "time limit"
    assert len(log.read_text().splitlines()) == 1


def test_a_gap_that_is_good_enough(target: Target, log: Path) -> None:
    (found,) = run([fake.problem(fake.SLOW)], target, time_limit=0.2, gap=0.5)
    assert found.outcome == "proven"
    assert found.solution.gap == 0.5


@pytest.mark.slow
def test_a_search_that_does_not_listen_is_ended(
    target: Target, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "GRACE", 0.1)
    monkeypatch.setattr(driver, "PATIENCE", 8.0)
    problems = [fake.problem(fake.DEAF), fake.problem(fake.QUICK)]
    with pytest.warns(CimcWarning, match="problem 0 was lost twice"):
        found = run(problems, target, jobs=2, time_limit=0.5)
    assert [result.outcome for result in found] == ["worker lost", "proven"]


def test_problems_that_fit_nowhere_come_together_after_the_others(
    target: Target, log: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    problems = [fake.problem(fake.FITS_NOT, size) for size in (3, 4)] + [fake.problem(fake.QUICK)]
    with pytest.raises(FitError) as caught:
        run(problems, target, store=store)
    assert len(caught.value.faults) == 2
    assert store.get(problems[2], target) is not None


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_solver_that_breaks_is_an_error_of_ours(target: Target, log: Path, jobs: int) -> None:
    problems = [fake.problem(fake.BREAKS), fake.problem(fake.SLOW)]
    with pytest.raises(InternalError, match="problem 0 broke: ValueError: a bug"):
        run(problems, target, jobs=jobs, time_limit=5)


def test_what_is_proven_is_not_searched_again(target: Target, log: Path, tmp_path: Path) -> None:
    store, problems = Store(tmp_path / "store"), [fake.problem(fake.QUICK)]
    first = run(problems, target, store=store)
    second = run(problems, target, store=store)
    assert len(log.read_text().splitlines()) == 1
    assert second[0].is_stored
    assert second[0].solution == first[0].solution


def test_what_is_open_begins_where_it_stopped(target: Target, log: Path, tmp_path: Path) -> None:
    store, problems = Store(tmp_path / "store"), [fake.problem(fake.SLOW)]
    first = run(problems, target, store=store, time_limit=0.2)
    second = run(problems, target, store=store, time_limit=0.2)
    assert [line.split()[2] for line in log.read_text().splitlines()] == ["False", "True"]
    assert second[0].solution.seconds > first[0].solution.seconds > 0.1
    (third,) = run(problems, target, store=store, time_limit=0.0, gap=0.5)
    assert third.is_stored
    assert third.outcome == "proven"


def test_progress_is_told(target: Target, log: Path) -> None:
    seen: list[Sequence[Standing]] = []
    run([fake.problem(fake.QUICK), fake.problem(fake.SLOW)], target, time_limit=0.8, seen=seen)
    assert [standing.result is None for standing in seen[0]] == [True, True]
    assert any(one.is_running and one.bound for standings in seen for one in standings)
    assert all(standing.result is not None for standing in seen[-1])


SCRIPT = """
import sys
from pathlib import Path
from cimc.target import load_target
from cimc.targets.sram_cim.exact.driver import Interrupted, solve_all
from cimc.targets.sram_cim.exact.store import Store
from tests.targets.sram_cim import fake_solver as fake

problems = [fake.problem(fake.QUICK), fake.problem(fake.SLOW), fake.problem(fake.SLOW, 9)]
def watch(standings):
    if standings[0].result is not None and standings[1].bound:
        print("now", flush=True)
try:
    solve_all(problems, load_target("miredo-default"), jobs=int(sys.argv[2]),
              store=Store(Path(sys.argv[1])), on_progress=watch, solver=fake.SOLVER)
except Interrupted as interrupted:
    print([None if r is None else r.outcome for r in interrupted.results])
    sys.exit(130)
"""


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_an_interrupted_run_keeps_what_it_found(
    target: Target, log: Path, tmp_path: Path, jobs: int
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), str(jobs)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        shown = process.stdout.read().splitlines()[-1]
        assert process.wait() == 130
    assert shown.startswith("['proven', 'interrupted', ")
    store = Store(tmp_path / "store")
    proven = store.get(fake.problem(fake.QUICK), target)
    begun = store.get(fake.problem(fake.SLOW), target)
    assert proven is not None
    assert proven.solution.gap == 0.0
    assert begun is not None
    assert begun.solution.gap == 0.5
    log.write_text("")
    found = run([fake.problem(fake.QUICK), fake.problem(fake.SLOW)], target, store=store, gap=0.5)
    assert [result.is_stored for result in found] == [True, True]
    assert log.read_text() == "", "nothing is searched again"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes in /proc")
def test_no_worker_outlives_its_parent(log: Path, tmp_path: Path) -> None:
    def processes() -> set[int]:
        """Those that were started with this test's log."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if str(log).encode() in path.read_bytes():
                    found.add(int(path.parent.name))
        return found

    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), "2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        assert len(processes()) == 3
        process.kill()
        assert process.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 30.0
    while processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes()
