"""The mapper to compare with, replayed mappings, and the totals of a network."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cimc.lowering import ConvShape
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.target import load_target
from cimc.targets.sram_cim.exact.problem import Problem, Timing
from cimc.targets.sram_cim.exact.solve import model_of

TOOLS = Path(__file__).parent.parent.parent / "tools"
SHAPE = ConvShape(1, 1, 32, 16, 14, 14, 3, 3, 14, 14, (1, 1), (1, 1))


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("dataflow_tables")


@pytest.mark.parametrize("timing", ["private", "shared"])
def test_every_mapper_has_a_legal_mapping(tables: ModuleType, timing: Timing) -> None:
    target = load_target("miredo-default")
    problem = Problem(Workload(SHAPE), 1, Objective.parse("edp"), timing)
    solved = tables.mapped_by_rules(problem, target, None)
    assert set(solved.figures) == {"ws", "zigzag", "heuristic"}
    assert solved.cost("heuristic") <= solved.cost("ws")
    names = {SHAPE: ["a", "b", "c"]}
    total = tables.totals({SHAPE: solved}, names, "ws")
    found = solved.figures["ws"]
    assert total.score(problem.objective) == 9 * found.cycles * found.energy_pj
    assert total.edps == 3 * found.cycles * found.energy_pj


def test_replayed_mappings_keep_the_second_buffers_that_fit(tables: ModuleType) -> None:
    target = load_target("miredo-default")
    problem = Problem(Workload(SHAPE), 1, Objective.parse("latency"), "private")
    model = model_of(problem, target)
    style: Callable[..., object] = tables.zigzag_style
    nest = tables.nest_of(style(Workload(SHAPE), target, "latency", "private"))
    every = (("gb", "I"), ("gb", "O"), ("gb", "W"), ("ib", "I"), ("ob", "O"))
    (kept,) = tables.with_buffers(dataclasses.replace(nest, double=every), model)
    assert model.evaluate(kept) is not None
    assert set(kept.double) <= set(every)
