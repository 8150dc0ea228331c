"""Fast-forward: loops cost what their structure costs, not their trip counts."""

from __future__ import annotations

import time

import pytest

from cimc.ir.program import Affine, Item, Loop, Program, Signal, Wait, var
from cimc.sim.simulate import Simulation, simulate
from tests.sim.toy_machine import Toy, program, toy_target, work


def run(made: Program, *, fast_forward: bool = True, samples: int = 1) -> Simulation:
    """Simulate on the toy machine with the fast engine."""
    return simulate(made, toy_target(), kind=Toy(), samples=samples, fast_forward=fast_forward)


def pipeline(count: int) -> tuple[Item, ...]:
    """Load, multiply, add, store, double-buffered: ten cycles an iteration."""
    body = (
        work("read", 2, to="x", cycles=4),
        work("array", 10, of=["x"], acc="s", fresh=True, cycles=13),
        work("vector", 4, of=["s"], to="y"),
        work("write", 3, of=["y"]),
    )
    return (Loop("i", count, body),)


BUFFERS = {"x": 2, "s": 2, "y": 2}


def test_a_billion_iterations_take_milliseconds() -> None:
    run(program(BUFFERS, pipeline(10)))  # compile the kernel
    started = time.perf_counter()
    result = run(program(BUFFERS, pipeline(10**9)))
    assert time.perf_counter() - started < 0.5
    assert result.instructions == 4 * 10**9
    assert result.simulated < 200
    small = run(program(BUFFERS, pipeline(1000)), fast_forward=False)
    assert result.latency_cycles == small.latency_cycles + 10 * (10**9 - 1000)


def test_nested_loops_are_skipped_at_every_level() -> None:
    inner = pipeline(1000)
    outer = (Loop("n", 10**6, (work("read", 7, to="x"), Loop("m", 50, inner))),)
    result = run(program(BUFFERS, outer))
    assert result.instructions == 10**6 * (1 + 50 * 4000)
    assert result.simulated < 20_000
    two, three = (
        run(program(BUFFERS, (Loop("n", n, outer[0].body),)), fast_forward=False).latency_cycles
        for n in (2, 3)
    )
    assert result.latency_cycles == three + (three - two) * (10**6 - 3)


@pytest.mark.parametrize("count", [5, 6, 7, 50, 51, 10_000])
def test_a_state_that_repeats_every_second_iteration(count: int) -> None:
    """Two accumulators in turn: the loop's period is two through buffers, not through code."""
    body = (
        work("a", 3, to="x", cycles=5),
        work("b", 4, of=["x"], to="y", cycles=11),
        work("c", 2, of=["y"], to="z"),
        work("a", 1, of=["z"]),
    )
    made = program({"x": 2, "y": 3, "z": 2}, (Loop("i", count, body),))
    plain, skipped = run(made, fast_forward=False), run(made)
    assert skipped.outcome.stalls == plain.outcome.stalls
    assert skipped.latency_cycles == plain.latency_cycles
    assert count < 50 or skipped.simulated < plain.simulated / 2


def test_first_and_last_iterations_are_executed() -> None:
    body = (
        work("u", 100, when=(("i", "first"),)),
        work("u", 1),
        work("v", 1000, when=(("i", "last"),)),
    )
    result = run(program({}, (Loop("i", 10**8, body),)))
    assert result.outcome.executed == [1, 10**8, 1]
    assert result.latency_cycles == 100 + 10**8
    plain = run(program({}, (Loop("i", 500, body),)), fast_forward=False)
    assert run(program({}, (Loop("i", 500, body),))).outcome.last_end == plain.outcome.last_end


def test_a_late_constant_input_is_not_skipped_over() -> None:
    """The loop first waits for %w, then runs freely: the first iterations decide nothing later."""
    made = program(
        {"w": 1, "x": 2},
        (
            work("slow", 1000, to="w"),
            Loop("i", 10**6, (work("bus", 3, to="x"), work("array", 4, of=["x", "w"]))),
        ),
    )
    result = run(made)
    assert result.latency_cycles == 1000 + 4 * 10**6
    assert result.simulated < 1000


def test_an_early_loop_behind_a_late_front() -> None:
    """Loads that run ahead of a long computation stall nobody until they pass it."""
    made = program(
        {"x": 1, "y": 1},
        (
            work("slow", 10_000, to="x"),
            work("array", 1, of=["x"]),
            Loop("i", 10_000, (work("bus", 3, to="y"),)),
        ),
    )
    plain, skipped = run(made, fast_forward=False), run(made)
    assert skipped.stalls == plain.stalls
    assert skipped.simulated < 100


def test_streams_apart_are_skipped_and_their_signals_arrive() -> None:
    rows = 10**5
    producer = Loop("i", rows, (work("a", 10, to="y"), Signal("y")))
    consumer = Loop("j", rows, (Wait("y", var("j") + 1, rows), work("b", 3, of=["y"])))
    made = program({"y": 1}, (producer,), (consumer,))
    plain, skipped = run(made, fast_forward=False), run(made)
    assert skipped.outcome.stalls == plain.outcome.stalls
    assert skipped.latency_cycles == plain.latency_cycles == 10 * rows + 3
    assert skipped.simulated < plain.simulated


def test_streams_on_one_bus_are_not_skipped_while_both_run() -> None:
    first = Loop("i", 1000, (work("bus", 3), work("a", 5)))
    second = Loop("j", 700, (work("bus", 4), work("b", 2)))
    made = program({}, (first,), (second,))
    plain, skipped = run(made, fast_forward=False), run(made)
    assert skipped.outcome.stalls == plain.outcome.stalls
    assert 2000 <= skipped.simulated < plain.simulated  # the tail of the longer one is skipped


def test_parts_of_a_loop_may_move_at_different_speeds() -> None:
    body = (
        work("a", 7, to="x"),
        work("b", 5, of=["x"]),
        work("c", 11, to="y"),
        work("d", 2, of=["y"]),
    )
    made = program({"x": 1, "y": 1}, (Loop("i", 3000, body),))
    plain, skipped = run(made, fast_forward=False), run(made)
    assert skipped.outcome.stalls == plain.outcome.stalls
    assert skipped.outcome.last_end == plain.outcome.last_end == [35995, 36000, 38998, 39000]
    assert skipped.simulated < 100


def test_a_wait_for_what_is_there_does_not_stop_skipping() -> None:
    made = program(
        {"y": 1, "x": 2},
        (work("a", 1, to="y"), Signal("y")),
        (
            Wait("y", Affine(1), 1),
            work("b", 50, of=["y"]),
            Loop("i", 10**6, (Wait("y", Affine(1), 1), work("b", 2, of=["y"], to="x"))),
        ),
    )
    result = run(made)
    assert result.latency_cycles == 1 + 50 + 2 * 10**6
    assert result.simulated < 100


def test_signals_of_what_was_written_before_do_not_move_on() -> None:
    """The second signal is later than the first, the third is not: nothing repeats there."""
    producer = Loop("i", 50, (Signal("y"), work("a", 2, to="y", when=(("i", "first"),))))
    made = program({"y": 1}, (producer,), (Wait("y", Affine(50), 50), work("b", 1, of=["y"])))
    assert run(made).latency_cycles == run(made, fast_forward=False).latency_cycles == 3
