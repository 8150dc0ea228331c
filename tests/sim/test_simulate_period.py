"""Latency of one sample alone, and the period of many."""

from __future__ import annotations

from typing import Literal

import pytest

from cimc.ir.program import Loop, Program, Signal, Wait, var
from cimc.sim.simulate import Simulation, simulate
from tests.sim.toy_machine import Toy, program, toy_target, work

EngineName = Literal["plain", "fast"]
ENGINES: tuple[EngineName, ...] = ("plain", "fast")


def run(made: Program, engine: EngineName, samples: int = 16) -> Simulation:
    """Simulate on the toy machine."""
    return simulate(made, toy_target(), engine=engine, kind=Toy(), samples=samples)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_stream_on_one_unit_has_the_latency_as_period(engine: EngineName) -> None:
    result = run(program({}, (Loop("i", 7, (work("u", 3),)),)), engine)
    assert (result.latency_cycles, result.period_cycles, result.is_periodic) == (21, 21.0, True)
    assert [unit.steady_utilisation for unit in result.units] == [1.0]


@pytest.mark.parametrize("engine", ENGINES)
def test_one_stream_overlaps_samples_as_far_as_buffers_allow(engine: EngineName) -> None:
    body = (work("bus", 4, to="x"), work("array", 10, of=["x"]))
    single, double = (run(program({"x": slots}, body), engine) for slots in (1, 2))
    assert (single.latency_cycles, single.period_cycles) == (14, 14.0)
    assert (double.latency_cycles, double.period_cycles) == (14, 10.0)


def stages(slots: int) -> Program:
    """Three streams, one after the other: 8, 10 and 6 cycles a row, four rows."""
    names = ["a", "b", "c"]
    streams = []
    for number, (unit, held) in enumerate(zip(names, (8, 10, 6), strict=True)):
        source = [f"y{number - 1}"] if number else []
        wait = (Wait(f"y{number - 1}", var("i") + 1, 4),) if number else ()
        body = (*wait, work(unit, held, of=source, to=f"y{number}"), Signal(f"y{number}"))
        streams.append((Loop("i", 4, body),))
    return program({"y0": slots, "y1": slots, "y2": 1}, *streams)


@pytest.mark.parametrize(("slots", "period"), [(1, 48.0), (2, 40.0)])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_pipeline_is_as_fast_as_its_slowest_stage(
    engine: EngineName, slots: int, period: float
) -> None:
    """With one slot, the first row of a sample waits until the last row before it was read."""
    result = run(stages(slots), engine)
    assert result.latency_cycles == 8 + 4 * 10 + 6
    assert (result.period_cycles, result.is_periodic) == (period, True)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_samples_may_make_one_period(engine: EngineName) -> None:
    """Thirteen cycles from a load to the end of its use, and two slots: 6.5 a sample."""
    made = program({"x": 2}, (work("a", 1, to="x", cycles=10), work("b", 3, of=["x"])))
    result = run(made, engine)
    assert (result.period_cycles, result.is_periodic) == (6.5, True)


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_that_drift_apart_have_an_average_period(engine: EngineName) -> None:
    result = run(program({}, (work("a", 3),), (work("b", 8),)), engine, samples=6)
    assert not result.is_periodic
    assert result.period_cycles == 8.0


def test_one_sample_has_no_period() -> None:
    result = run(stages(1), "fast", samples=1)
    assert (result.period_cycles, result.samples) == (None, 1)
    assert all(unit.steady_utilisation is None for unit in result.units)
