"""Steps across layers: taken where the simulator says they gain, left out otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cimc.build import Clock, Milestones
from cimc.conformance.samples import SAMPLES, Sketch
from cimc.ir.graph import Graph
from cimc.ir.tiles import Tiles
from cimc.kind import Options, load_kind
from cimc.network import ALONE, Stage, build_network
from cimc.passes.fuse_layers import fuse_layers
from cimc.pipeline.levels import Effort
from cimc.pipeline.observe import Dump
from cimc.report.network import network_line, network_table
from cimc.target import load_target

TARGET = load_target("miredo-default")


def sample() -> Graph:
    return fuse_layers(SAMPLES[0](Sketch("network")))


def built(effort: Effort, folder: Path | None = None) -> tuple[Milestones, tuple[Stage, ...]]:
    kept = Milestones(Clock())
    kept.keep(sample())
    observers = () if folder is None else (Dump(folder),)
    stages = build_network(
        kept, effort.machine_steps(), TARGET, effort.objective, observers=observers
    )
    return kept, stages


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
def test_never_worse_than_the_layers_alone(objective: str) -> None:
    alone, *steps = built(Effort(objective=objective))[1]
    assert alone.step == ALONE
    taken = [alone, *(stage for stage in steps if stage.is_taken)]
    scores = [stage.score(objective) for stage in taken]
    assert scores == sorted(scores, reverse=True)
    assert len(taken) > 1


def test_a_step_that_does_harm_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = load_kind("sram-cim")

    def harm(
        self: object, tiles: Tiles, target: object, options: Options, *, weights: bool
    ) -> Tiles:
        bare = [
            dataclasses.replace(
                y, nest=dataclasses.replace(y.nest, spatial=(), loops=(), double=())
            )
            if y.nest
            else y
            for y in tiles.layers
        ]
        return kind.map(dataclasses.replace(tiles, layers=tuple(bare)), TARGET, Options(level=0))

    before, _ = built(Effort(without="keep-resident"))
    monkeypatch.setattr(type(kind), "keep_resident", harm)
    after, stages = built(Effort())
    assert [stage.is_taken for stage in stages] == [True, False]
    assert stages[1].latency_cycles > stages[0].latency_cycles
    assert after.program == before.program
    assert after.tiles == before.tiles


def test_steps_can_be_left_out() -> None:
    kept, stages = built(Effort(without="keep-resident"))
    assert stages == ()
    assert kept.tiles is not None
    assert not kept.tiles.keeps


def test_other_kinds_know_no_steps() -> None:
    target = load_target("isaac")
    kept = Milestones(Clock())
    kept.keep(sample())
    stages = build_network(kept, Effort().machine_steps(), target, "latency")
    assert stages == ()
    assert kept.tiles is not None
    assert not kept.tiles.keeps
    assert not kept.tiles.fused
    assert kept.program is not None


def test_dumps_are_numbered_through(tmp_path: Path) -> None:
    built(Effort(), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".safetensors")
    assert len({name[:2] for name in names}) == len(names)
    assert len(names) >= len(Effort().machine_steps())


def test_table_of_steps() -> None:
    stages = [
        dataclasses.asdict(Stage(ALONE, True, 1000, 2e9, 0, 0.0)),
        dataclasses.asdict(Stage("keep-resident", True, 900, 1e9, 50, 1e6)),
        dataclasses.asdict(Stage("fuse-rows", False, 950, 1e9, 0, 0.0)),
    ]
    table = network_table(stages, TARGET)
    second = table.records()[1]
    assert second["period_change"] is None
    assert second["latency_change"] == pytest.approx(-0.1)
    assert second["energy_change"] == pytest.approx(-0.5)
    assert second["energy_mj"] == 1.0
    assert second["setup_energy_mj"] == pytest.approx(1e-3)
    assert network_line(table) == (
        "keep-resident latency -10.0%, energy -50.0%; fuse-rows left out, brings nothing"
    )


def test_table_of_steps_with_periods() -> None:
    stages = [
        dataclasses.asdict(Stage(ALONE, True, 1000, 2e9, 0, 0.0, 1000.0)),
        dataclasses.asdict(Stage("pipeline-cores", True, 1500, 1e9, 50, 1e6, 600.0)),
    ]
    table = network_table(stages, TARGET)
    assert table.records()[1]["period_cycles"] == 600.0
    assert network_line(table) == ("pipeline-cores latency +50.0%, energy -50.0%, period -40.0%")
    assert Stage(**stages[1]).score("period") < Stage(**stages[0]).score("period")
    assert Stage(**stages[1]).score("latency") > Stage(**stages[0]).score("latency")
