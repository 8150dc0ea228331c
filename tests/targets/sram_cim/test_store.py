"""Solved layers between runs: keys, better and worse results, damage, many writers."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from cimc.cli.values import parse_overrides
from cimc.errors import CimcWarning
from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.lowering import ConvShape
from cimc.mapping.nest import nest_faults
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.target import Target, load_target
from cimc.targets.sram_cim.exact import Problem, Solution, solve
from cimc.targets.sram_cim.exact import store as module
from cimc.targets.sram_cim.exact.store import Store, default_store, problem_key
from cimc.targets.sram_cim.machine import machine_of
from tests.targets.sram_cim import fake_solver as fake

PROBLEM = fake.problem(fake.QUICK)


@pytest.fixture
def target() -> Target:
    return load_target("miredo-default")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def solution(target: Target) -> Solution:
    found = solve(PROBLEM, target, time_limit=0)
    return dataclasses.replace(found, cost=100.0, bound=50.0, finished=False)


def test_what_is_put_comes_back(store: Store, target: Target, solution: Solution) -> None:
    assert store.get(PROBLEM, target) is None
    assert store.put(PROBLEM, target, solution) == solution
    found = store.get(PROBLEM, target)
    assert found is not None
    assert found.solution == solution
    assert found.is_current
    assert not list(store.folder.rglob(".*")), "no temporary file is left"


def test_a_mapping_without_loops_comes_back(store: Store, target: Target) -> None:
    tiny = fake.problem(fake.SLOW, 1)  # all of it in space
    found = solve(tiny, target, time_limit=0)
    assert not found.nest.loops
    store.put(tiny, target, found)
    stored = store.get(tiny, target)
    assert stored is not None
    assert stored.solution == found


def test_a_mapping_that_only_private_ports_allow_comes_back(
    store: Store, target: Target, solution: Solution
) -> None:
    """Two results of 8 bits in a register of 16: MIREDO counts sums where loops reduce."""
    workload = Workload(ConvShape(1, 1, 1, 2, 2, 1, 1, 1, 2, 1))
    private = Problem(workload, 1, Objective.parse("latency"), "private")
    rows = (Spatial("rows", (("c", 2),)),)
    loop = TemporalLoop("p", 2, ("ib", "macro", "oreg"))
    nest = Nest(tuple(workload.dims.items()), rows, (loop,), ())
    assert nest_faults(nest, workload, machine_of(target))
    kept = store.put(private, target, dataclasses.replace(solution, nest=nest))
    found = store.get(private, target)
    assert found is not None
    assert found.solution == kept


def test_the_better_result_stays(store: Store, target: Target, solution: Solution) -> None:
    store.put(PROBLEM, target, solution)
    loops = (*solution.nest.loops, TemporalLoop("n", 1, ("dram", "dram", "dram")))
    other = dataclasses.replace(solution.nest, loops=tuple(reversed(loops)))
    worse = dataclasses.replace(solution, nest=other, cost=200.0, bound=60.0, latency=7.0)
    kept = store.put(PROBLEM, target, worse)
    assert (kept.nest, kept.cost, kept.bound) == (solution.nest, 100.0, 60.0)
    cheaper = dataclasses.replace(solution, nest=other, cost=59.0, bound=10.0)
    kept = store.put(PROBLEM, target, cheaper)
    assert (kept.nest, kept.cost, kept.bound) == (other, 59.0, 59.0)  # 60 was proven for all others


@pytest.mark.parametrize(
    ("override", "is_same"),
    [
        ("memory.gb.size_bits=1048576", False),
        ("memory.dram.read_pj_per_bit=1.0", False),
        ("cores=4", False),
        ("vector.lanes=8", False),
        ("memory.gb.area_mm2=5.0", True),
        ("clock.period_ns=1.0", True),
        ('summary="another"', True),
    ],
)
def test_the_key_is_what_costs_depend_on(target: Target, override: str, is_same: bool) -> None:
    changed = load_target("miredo-default", parse_overrides([override]))
    same = problem_key(PROBLEM, target) == problem_key(PROBLEM, changed)
    assert same == is_same


def test_the_key_tells_problems_apart(target: Target) -> None:
    first = fake.problem(fake.QUICK)
    others = [
        fake.problem(fake.SLOW),
        fake.problem(fake.QUICK, objective="edp"),
        fake.problem(fake.QUICK, objective="0.5*latency+0.5*energy"),
        dataclasses.replace(first, epilogue=2),
        dataclasses.replace(first, timing="private"),
        dataclasses.replace(first, spatial=()),
    ]
    keys = {problem_key(problem, target) for problem in (first, *others)}
    assert len(keys) == 1 + len(others)
    assert problem_key(fake.problem(fake.QUICK), target) == problem_key(first, target)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:40], "JSONDecodeError"),
        (lambda text: "", "JSONDecodeError"),
        (lambda text: "[]", "TypeError"),
        (lambda text: text.replace('"format": 1', '"format": 99'), "format 99 instead of 1"),
        (lambda text: text.replace('"bound"', '"bond"'), "KeyError: 'bound'"),
        (lambda text: text.replace('"bound": 50.0', '"bound": 500.0'), "bound 500.0 of cost"),
        (lambda text: text.replace('"cost": 100.0', '"cost": NaN'), "nan is no number"),
        (lambda text: text.replace("rows(c=3)", "rows(c=300)"), "rows(c=300) is too wide"),
        (lambda text: text.replace("I=dram", "I=l2"), "no level is called l2"),
        (lambda text: text.replace("for ", "form "), "TextError"),
    ],
)
def test_a_damaged_file_is_ignored_and_written_anew(
    store: Store, target: Target, solution: Solution, damage: object, reason: str
) -> None:
    assert callable(damage)
    store.put(PROBLEM, target, solution)
    path = store.path(PROBLEM, target)
    path.write_text(damage(path.read_text()))
    with pytest.warns(CimcWarning) as caught:
        assert store.get(PROBLEM, target) is None
    assert "is damaged and ignored" in str(caught[0].message)
    assert reason in str(caught[0].message)
    with pytest.warns(CimcWarning):
        store.put(PROBLEM, target, solution)
    found = store.get(PROBLEM, target)
    assert found is not None
    assert found.solution == solution


def test_bytes_that_are_no_text(store: Store, target: Target, solution: Solution) -> None:
    store.put(PROBLEM, target, solution)
    store.path(PROBLEM, target).write_bytes(b"\xff\xfe\x00")
    with pytest.warns(CimcWarning, match="is damaged and ignored"):
        assert store.get(PROBLEM, target) is None


def test_other_code_uses_the_mapping_alone(
    store: Store, target: Target, solution: Solution, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(PROBLEM, target, solution)
    monkeypatch.setattr(module, "judges_digest", lambda: "another")
    found = store.get(PROBLEM, target)
    assert found is not None
    assert not found.is_current
    worse = dataclasses.replace(solution, cost=300.0, bound=1.0)
    assert store.put(PROBLEM, target, worse) == worse, "numbers of other code count for nothing"


def test_many_writers_lose_nothing(store: Store, target: Target, solution: Solution) -> None:
    def write(number: int) -> None:
        cost, bound = 100.0 - number, 50.0 + number
        store.put(PROBLEM, target, dataclasses.replace(solution, cost=cost, bound=bound))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.get(PROBLEM, target)
    assert found is not None
    assert (found.solution.cost, found.solution.bound) == (81.0, 69.0)


def test_a_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, target: Target, solution: Solution
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(CimcWarning, match="cannot be written"):
        assert Store(tmp_path / "file").put(PROBLEM, target, solution) == solution


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CIMC_MAPPINGS", str(tmp_path))
    found = default_store()
    assert found is not None
    assert found.folder == tmp_path
    monkeypatch.setenv("CIMC_MAPPINGS", "off")
    assert default_store() is None
    monkeypatch.delenv("CIMC_MAPPINGS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = default_store()
    assert found is not None
    assert found.folder.parts[-2:] == ("cimc", "mappings")


def test_a_file_can_be_read_by_people(store: Store, target: Target, solution: Solution) -> None:
    store.put(PROBLEM, target, solution)
    content = json.loads(store.path(PROBLEM, target).read_text())
    assert content["problem"]["dims"]["c"] == 3
    assert content["problem"]["objective"] == "latency"
    assert any(line.startswith("for ") for line in content["nest"])
