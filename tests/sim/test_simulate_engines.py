"""Plain engine, fast engine and fast-forward give the same numbers, cycle for cycle."""

from __future__ import annotations

import random
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cimc.errors import StallError
from cimc.ir.program import Program
from cimc.sim.simulate import Engine, Simulation, simulate
from cimc.sim.simulate.fast import FastEngine
from cimc.sim.simulate.outcome import Outcome
from cimc.sim.simulate.plain import PlainEngine
from cimc.sim.simulate.plan import plan_streams
from cimc.sim.simulate.rows import Rows
from tests.sim.toy_machine import Toy, random_program, random_programs, toy_target


def results(outcome: Outcome) -> dict[str, object]:
    """All that two runs must agree on."""
    return {
        "executed": outcome.executed,
        "first start": outcome.first_start,
        "last end": outcome.last_end,
        "sample ends": outcome.ends,
        "stalls": outcome.stalls,
    }


def check(program: Program, samples: int) -> tuple[int, int]:
    """Run all engines on a program; returns instructions in all, and those really executed."""
    plan = plan_streams(program, toy_target(), Toy())
    rows = Rows(plan)
    engines: list[Engine] = [
        PlainEngine(plan, samples=samples),
        FastEngine(rows, samples=samples, fast_forward=False),
        FastEngine(rows, samples=samples),
    ]
    faults = []
    for engine in engines:
        try:
            engine.run(samples)
            faults.append("")
        except StallError as problem:
            faults.append(str(problem))
    plain, fast, forwarded = (engine.outcome for engine in engines)
    assert faults[0] == faults[1] == faults[2]
    assert results(fast) == results(plain)
    assert results(forwarded) == results(plain)
    if not faults[0]:
        assert plain.executed == [samples * count for count in plan.executions]
    return sum(plain.executed), forwarded.simulated


@given(random_programs, st.sampled_from([1, 1, 2, 4]))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_engines_are_equal(program: Program, samples: int) -> None:
    check(program, samples)


def test_fast_forward_skips_a_good_part_of_random_programs() -> None:
    counts = [check(random_program(random.Random(seed)), 1) for seed in range(60)]
    assert sum(simulated for _, simulated in counts) < 0.6 * sum(total for total, _ in counts)


def simulated(program: Program, engine: Literal["plain", "fast"]) -> Simulation | str:
    """The simulation of a program, or why there is none."""
    try:
        return simulate(program, toy_target(), engine=engine, kind=Toy(), samples=8)
    except StallError as problem:
        return str(problem)


@pytest.mark.parametrize("seed", range(12))
def test_latency_period_and_tables_are_equal(seed: int) -> None:
    program = random_program(random.Random(seed), longest=300)
    plain, fast = simulated(program, "plain"), simulated(program, "fast")
    if isinstance(plain, str) or isinstance(fast, str):
        assert fast == plain
        return
    assert fast.latency_cycles == plain.latency_cycles
    assert (fast.layers, fast.stalls) == (plain.layers, plain.stalls)
    assert [unit.busy_cycles for unit in fast.units] == [unit.busy_cycles for unit in plain.units]
    if fast.is_periodic and plain.is_periodic:
        assert fast.period_cycles == plain.period_cycles


def test_traces_are_equal() -> None:
    program = random_program(random.Random(3), longest=300)
    plain = simulate(program, toy_target(), engine="plain", kind=Toy(), samples=1, trace=50)
    fast = simulate(program, toy_target(), kind=Toy(), samples=1, trace=50)
    assert plain.outcome.trace
    assert fast.outcome.trace == plain.outcome.trace
