"""-O3: never worse than -O2 by its referee, and told to observers; machines too small for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cimc.conformance.samples import Sketch
from cimc.errors import FitError
from cimc.ir.graph import Graph
from cimc.kind import Kind, Options, load_kind
from cimc.lowering import ConvShape
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.passes.fuse_layers import fuse_layers
from cimc.passes.tile import tile
from cimc.pipeline.tell import Searching, gap_of, listening, network
from cimc.target import load_target
from cimc.targets.sram_cim.exact import Problem
from cimc.targets.sram_cim.exact.driver import solve_all
from cimc.targets.sram_cim.exact.solve import model_of
from cimc.targets.sram_cim.layers import Layers

KIND: Kind = load_kind("sram-cim")
TARGET = load_target("miredo-default")


def block() -> Graph:
    """Three convs, two of them equal."""
    sketch = Sketch("block")
    x = sketch.input((1, 4, 6, 6))
    for channels in (4, 4, 3):
        x = sketch.requant(sketch.conv(x, channels, (3, 3), pads=(1, 1, 1, 1)))
    return fuse_layers(sketch.graph(x))


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIMC_MAPPINGS", str(tmp_path / "mappings"))


def options(objective: str, level: int = 3, limit: float = 2.0) -> Options:
    return Options(level=level, objective=objective, time_limit_s=limit, jobs=1)


@pytest.mark.parametrize("objective", ["latency", "energy", "edp", "1*latency+0.01*energy"])
def test_exact_is_never_worse(objective: str, own_store: None) -> None:
    tiles = tile(block(), target=TARGET)
    costs = {}
    for level in (2, 3):
        mapped = KIND.map(tiles, TARGET, options(objective, level))
        layers = Layers(mapped)
        for layer in mapped.layers:
            assert layer.nest is not None
            problem = Problem(layers.heavy(layer).workload, 1, Objective.parse(objective))
            figures = model_of(problem, TARGET).evaluate(layer.nest)
            assert figures is not None
            cost = problem.objective.score(figures.cycles, figures.energy_pj)
            costs[level, layer.name] = cost
    for (level, name), cost in costs.items():
        assert level == 2 or cost <= costs[2, name]


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_news_of_a_search(own_store: None, limit: float) -> None:
    news: list[Searching] = []
    tiles = tile(block(), target=TARGET)
    with listening(news.append):
        first = KIND.map(tiles, TARGET, options("edp", limit=limit))
        again = KIND.map(tiles, TARGET, options("edp", limit=limit))
    ends = [item for item in news if item.is_over]
    assert len(ends) == 2
    for end in ends:
        assert end.total == len(end.done) == 2, "equal layers are one problem"
        assert sorted(len(item.layers) for item in end.done) == [1, 2]
        for item in end.done:
            assert 0 <= item.bound <= item.cost == item.latency_cycles * item.energy_pj
            assert item.outcome in ("proven", "unproven", "time limit")
        cost, bound = network(end.done)
        assert 0 <= bound <= cost
    for one, other in zip(first.layers, again.layers, strict=True):
        if all(item.outcome == "proven" for item in ends[0].done):
            assert one == other
    for before, item in zip(ends[0].done, ends[1].done, strict=True):
        assert item.cost <= before.cost


def test_gaps() -> None:
    assert gap_of(100.0, 75.0) == 0.25
    assert gap_of(100.0, 100.0) == 0.0
    assert gap_of(float("inf"), 0.0) == 1.0


def test_a_machine_that_holds_no_element_is_refused_with_all_layers() -> None:
    tiles = tile(block(), target=TARGET)
    tiny = load_target("miredo-default", {"memory.macro.size_bits": 4, "memory.ireg.size_bits": 2})
    for level in (0, 1, 2, 3):
        with pytest.raises(FitError) as caught:
            KIND.map(tiles, tiny, options("latency", level))
        assert len(caught.value.faults) == 6, "three layers, two memories"
        fault = caught.value.faults[0]
        assert fault.where.endswith("tiles do not fit in ireg")
        assert (fault.need, fault.have) == (
            "8 bits (I 8)",
            "2 bits (miredo-default: memory.ireg.size_bits)",
        )
        assert fault.help == "a single element does not fit: raise memory.ireg.size_bits"


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing() -> None:
    shapes = (ConvShape(1, 1, 2, 3, 2, 2, 1, 1, 2, 2), ConvShape(1, 1, 3, 2, 2, 1, 1, 1, 2, 1))
    problems = [Problem(Workload(shape), 1, Objective.parse("edp")) for shape in shapes]
    one, two = (solve_all(problems, TARGET, jobs=jobs) for jobs in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert first.solution.finished
        seconds, nodes = first.solution.seconds, first.solution.nodes
        again = dataclasses.replace(second.solution, seconds=seconds, nodes=nodes)
        assert again == first.solution
