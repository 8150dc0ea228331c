"""Closed-form estimates of whole networks, beside the simulation of the same program."""

from __future__ import annotations

from pathlib import Path

import pytest

import cimc
from cimc.api import Program
from cimc.sim.energy import energy
from cimc.sim.estimate import Estimate, estimate, macs_of
from cimc.sim.simulate import Simulation, simulate

MODELS = Path(__file__).parents[2] / "models"
TARGETS = ("isaac", "miredo-default", "rtm-ap")
EXACT = ("crossbar", "sram-cim")  # kinds whose estimate counts every event


def compiled(target: str) -> Program:
    """A small network of ours on a machine."""
    model = "shapes_ternary.onnx" if target == "rtm-ap" else "shapes_int8.onnx"
    return cimc.compile(MODELS / model, target)


@pytest.fixture(scope="module", params=TARGETS)
def both(request: pytest.FixtureRequest) -> tuple[Program, Simulation, Estimate]:
    """A compiled network, simulated and estimated."""
    made = compiled(request.param)
    program, target, tiles = made.compiled.program, made.target, made.compiled.tiles
    pipelined = len(program.streams) > 1
    return made, simulate(program, target), estimate(tiles, target, pipelined=pipelined)


def test_estimated_energy_is_the_counted_one_or_less(
    both: tuple[Program, Simulation, Estimate],
) -> None:
    made, simulation, guess = both
    program, target = made.compiled.program, made.target
    spent = energy(program, target, simulation.latency_cycles, plan=simulation.plan)
    if target.kind in EXACT:
        assert guess.dynamic_pj == pytest.approx(spent.dynamic_pj, rel=1e-9)
    assert 0 < guess.dynamic_pj <= spent.dynamic_pj * (1 + 1e-9)


def test_the_period_is_of_the_right_size(both: tuple[Program, Simulation, Estimate]) -> None:
    _, simulation, guess = both
    assert simulation.period_cycles is not None
    assert 0.3 < guess.period_cycles / simulation.period_cycles < 1.1


def test_the_latency_is_of_the_right_size(both: tuple[Program, Simulation, Estimate]) -> None:
    _, simulation, guess = both
    assert 0.2 < guess.latency_cycles / simulation.latency_cycles < 1.2


def test_macs_are_those_of_the_graph() -> None:
    macs = macs_of(compiled("isaac").compiled.graph)
    assert all(count > 0 for count in macs.values())
    assert len(macs) >= 2
