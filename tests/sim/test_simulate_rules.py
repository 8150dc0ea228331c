"""The rules of time, on programs small enough to work out by hand."""

from __future__ import annotations

from typing import Literal

import pytest

from cimc.errors import StallError, UsageError, VerifyError
from cimc.ir.program import Affine, Buffer, Loop, Program, Signal, Stream, Wait, var
from cimc.sim.simulate import Simulation, Stall, simulate
from tests.sim.toy_machine import Toy, program, toy_target, work

EngineName = Literal["plain", "fast"]
ENGINES: tuple[EngineName, ...] = ("plain", "fast")


def run(made: Program, engine: EngineName, samples: int = 1) -> Simulation:
    """Simulate on the toy machine."""
    return simulate(made, toy_target(), engine=engine, kind=Toy(), samples=samples)


def starts(made: Program, engine: EngineName) -> list[int]:
    """First start of each instruction."""
    return run(made, engine).outcome.first_start


@pytest.mark.parametrize("engine", ENGINES)
def test_a_unit_holds_one_instruction_at_a_time(engine: EngineName) -> None:
    result = run(program({}, (work("u", 5), work("u", 3), work("v", 2))), engine)
    assert result.outcome.first_start == [0, 5, 0]
    assert result.latency_cycles == 8
    assert result.stalls == (Stall("", "unit", "u", 5),)
    busy = {unit.name: (unit.busy_cycles, unit.utilisation) for unit in result.units}
    assert busy == {"u": (8, 1.0), "v": (2, 0.25)}


@pytest.mark.parametrize("engine", ENGINES)
def test_results_are_ready_after_their_cycles_not_when_units_are_free(engine: EngineName) -> None:
    made = program({"x": 1}, (work("u", 2, to="x", cycles=9), work("v", 1, of=["x"])))
    result = run(made, engine)
    assert result.outcome.first_start == [0, 9]
    assert result.stalls == (Stall("", "data", "x", 9),)


@pytest.mark.parametrize("engine", ENGINES)
def test_sources_may_be_overwritten_once_their_units_are_free(engine: EngineName) -> None:
    made = program(
        {"x": 1},
        (work("u", 1, to="x"), work("v", 4, of=["x"], cycles=20), work("u", 1, to="x")),
    )
    assert starts(made, engine) == [0, 1, 5]


@pytest.mark.parametrize(
    ("slots", "latency", "stalls"),
    [
        (1, 52, {"data": 12, "space": 30, "unit": 0, "progress": 0}),
        (2, 43, {"data": 3, "space": 0, "unit": 30, "progress": 0}),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_double_buffers_hide_loads(
    engine: EngineName, slots: int, latency: int, stalls: dict[str, int]
) -> None:
    body = (work("bus", 3, to="x", layer="l"), work("array", 10, of=["x"], layer="l"))
    result = run(program({"x": slots}, (Loop("i", 4, body),)), engine)
    assert result.latency_cycles == latency
    (layer,) = result.layers
    assert dict(layer.stall_cycles) == stalls
    assert (layer.name, layer.start_cycle, layer.end_cycle) == ("l", 0, latency)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_fill_may_take_several_writes(engine: EngineName) -> None:
    fill = (work("bus", 2, to="x"), work("bus", 2, to="x"), work("array", 9, of=["x"]))
    # The second fill goes to the other slot as a whole, the third one waits for the first reader.
    made = program({"x": 2}, (*fill, *fill, *fill))
    assert starts(made, engine) == [0, 2, 4, 4, 6, 13, 13, 15, 22]


@pytest.mark.parametrize("engine", ENGINES)
def test_updates_follow_each_other_and_fresh_ones_start_anew(engine: EngineName) -> None:
    made = program(
        {"s": 2},
        (
            work("a", 3, acc="s", fresh=True),
            work("b", 3, acc="s"),  # needs the first sum
            work("c", 8, of=["s"]),
            work("d", 1, acc="s", fresh=True),  # goes to the other slot
            work("e", 1, acc="s"),
        ),
    )
    assert starts(made, engine) == [0, 3, 6, 0, 6]


@pytest.mark.parametrize("engine", ENGINES)
def test_conditions_choose_iterations(engine: EngineName) -> None:
    body = (
        work("u", 1, when=(("i", "first"),)),
        work("u", 10, when=(("i", "not-first"),)),
        work("u", 100, when=(("i", "last"),)),
        work("u", 1000, when=(("i", "not-last"), ("i", "not-first"))),
    )
    result = run(program({}, (Loop("i", 4, body),)), engine)
    assert result.outcome.executed == [1, 3, 1, 2]
    assert result.latency_cycles == 1 + 30 + 100 + 2000


@pytest.mark.parametrize("engine", ENGINES)
def test_buffers_that_take_over_cells_wait_for_those_before(engine: EngineName) -> None:
    buffers = (
        Buffer("x", "m", "i8", 4, address=0),
        Buffer("y", "m", "i8", 4, address=2),
        Buffer("z", "m", "i8", 4, address=6),
    )
    body = (
        work("a", 1, to="x"),
        work("b", 7, of=["x"]),
        work("c", 1, to="y"),  # overlaps x
        work("d", 1, to="z"),  # overlaps nothing
    )
    made = Program("cells", "toy", (), (), buffers, (), (Stream("s", body),))
    assert starts(made, engine) == [0, 1, 8, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_signals_let_a_reader_follow_row_by_row(engine: EngineName) -> None:
    producer = Loop("i", 4, (work("u", 10, to="y", cycles=12), Signal("y")))
    consumer = Loop("j", 2, (Wait("y", var("j") * 2 + 2, 4), work("v", 5, of=["y"])))
    made = program({"y": 1}, (producer,), (consumer,))
    result = run(made, engine)
    trace = simulate(made, toy_target(), engine=engine, kind=Toy(), samples=1, trace=True)
    assert [start for step, start in trace.outcome.trace if step == 1] == [22, 42]
    assert result.latency_cycles == 47
    assert Stall("", "progress", "y", 42) in result.stalls


@pytest.mark.parametrize("engine", ENGINES)
def test_only_what_was_waited_for_waits(engine: EngineName) -> None:
    made = program(
        {"y": 1},
        (work("u", 30, to="y"), Signal("y")),
        (Wait("y", Affine(1), 1), work("v", 5), work("v", 5, of=["y"])),
    )
    assert starts(made, engine) == [0, 0, 30]


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_take_turns_in_the_order_of_time_then_of_streams(engine: EngineName) -> None:
    made = program(
        {"x": 1},
        (work("a", 4, to="x"), work("bus", 5, of=["x"])),
        (work("bus", 5), work("bus", 5)),
        (work("bus", 1),),
    )
    # Time 0: stream 1 before stream 2. Time 5: all three want the bus. Then stream 1 before 2.
    assert starts(made, engine) == [0, 5, 0, 10, 15]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unsatisfied_wait_says_who_waits_for_what(engine: EngineName) -> None:
    made = program(
        {"y": 1, "z": 1},
        (Wait("z", Affine(1), 1), work("u", 1, of=["z"], to="y"), Signal("y")),
        (Wait("y", Affine(1), 1), work("u", 1, of=["y"], to="z"), Signal("z", 2)),
    )
    with pytest.raises(StallError) as caught:
        run(made, engine)
    assert str(caught.value) == (
        "error CIM6001: stream s0 waits forever for %z\n"
        "  need:    progress 1\n"
        "  have:    progress 0 (signalled by s1)\n"
        "error CIM6001: stream s1 waits forever for %y\n"
        "  need:    progress 1\n"
        "  have:    progress 0 (signalled by s0)"
    )


def test_reading_what_another_stream_writes_without_a_wait_is_refused() -> None:
    made = program({"y": 1}, (work("u", 1, to="y"), Signal("y")), (work("v", 1, of=["y"]),))
    with pytest.raises(VerifyError) as caught:
        run(made, "fast")
    assert str(caught.value) == (
        "error CIM6003: stream s1 reads %y without waiting for it\n"
        "  have:    stream s0 writes it\n"
        "  help:    streams meet only at wait and signal"
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_limits_are_kept(engine: EngineName) -> None:
    made = program({}, (Loop("i", 10, (work("u", 10),)),))
    with pytest.raises(StallError, match="simulation takes longer than allowed") as caught:
        simulate(made, toy_target(), engine=engine, kind=Toy(), max_cycles=49, samples=1)
    assert caught.value.faults[0].have == "5 of 10 instructions of a sample"
    assert simulate(made, toy_target(), engine=engine, kind=Toy(), max_cycles=99).samples > 1


def test_times_that_do_not_fit_are_refused() -> None:
    body = (work("u", 10**6),)
    for name in "abc":
        body = (Loop(name, 10**6, body),)  # type: ignore[assignment]  # loops of loops
    with pytest.raises(StallError, match="runs too long to be counted"):
        run(program({}, body), "fast")


def test_samples_must_be_positive() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        run(program({}, (work("u", 1),)), "fast", samples=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_program_takes_no_time(engine: EngineName) -> None:
    result = run(program({}, ()), engine, samples=3)
    assert (result.latency_cycles, result.instructions, result.layers) == (0, 0, ())


@pytest.mark.parametrize("engine", ENGINES)
def test_setup_is_reported_apart(engine: EngineName) -> None:
    made = program({"w": 1}, (work("u", 3, of=["w"]),))
    with_setup = Program(
        made.name, made.target, (), (), made.buffers, (work("u", 50, to="w"),), made.streams
    )
    result = run(with_setup, engine)
    assert (result.setup_cycles, result.latency_cycles) == (50, 3)
