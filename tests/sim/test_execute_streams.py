"""Streams, setup and memories: who waits, what is forgotten, what is found to be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from cimc.errors import StallError, UsageError, VerifyError
from cimc.ir.program import Instr, Machine, Program, View, parse_program, register_instr
from cimc.ir.types import Array
from cimc.sim.execute import Executor, execute
from cimc.target import load_target

WEIGHTS = np.array([[1, -2], [3, 4]], np.int8)
# rows of %x times %w; the second stream rescales each row when it is there
SOURCE = """
program "two" on "edge-digital"
in %x : u8[4,2]
out %y : i8[4,2]
buffer %x : u8[8] in "dram" @ 0
buffer %y : i8[8] in "dram" @ 8
buffer %w : i8[4] in "dram" @ 16 = "w"
buffer %m : f32[1] in "dram" @ 32 = "m"
buffer %acc : i32[8] in "dram" @ 64
buffer %array : i8[4] in "array0" @ 0
setup {
  copy %array[0; 4:1], %w[0; 4:1]
}
stream "multiply" {
  loop p 4 {
    mvm %acc[0 + 2*p; 2:0, 2:1], %x[0 + 2*p; 2:1, 2:0], %array[0; 2:2, 2:1] {fresh=true} for %a
    signal {buffer="acc"}
  }
}
stream "rescale" {
  loop p 4 {
    wait {buffer="acc", count=<1 + 1*p>, limit=4}
    rescale %y[0 + 2*p; 2:1], %acc[0 + 2*p; 2:1], _, %m[0; 2:0], _ {zero=1, low=-128, high=127} for %b
    signal {buffer="y"}
  }
}
"""  # noqa: E501  # an instruction is one line
X = np.array([[1, 2], [3, 4], [0, 5], [255, 255]], np.uint8)
ENGINES = pytest.mark.parametrize("engine", ["plain", "fast"])


def two(source: str = SOURCE) -> Program:
    return parse_program(source, {"w": WEIGHTS, "m": np.array([0.125], np.float32)})


def expected(x: Array) -> Array:
    sums = x.astype(np.int64) @ WEIGHTS.astype(np.int64)
    rounded = np.rint(sums.astype(np.float32) * np.float32(0.125))
    return np.asarray(np.clip(rounded + 1, -128, 127))


def changed(old: str, new: str) -> Program:
    assert SOURCE.count(old) == 1
    return two(SOURCE.replace(old, new))


@ENGINES
def test_one_machine_takes_many_inputs(engine: str) -> None:
    machine = Executor(two(), load_target("edge-digital"), engine)
    for x in (X, X[::-1].copy(), X):
        assert (machine.run({"x": x})["y"] == expected(x)).all()


@ENGINES
def test_a_missing_wait_is_a_read_of_what_was_never_written(engine: str) -> None:
    program = changed('    wait {buffer="acc", count=<1 + 1*p>, limit=4}\n', "")
    machine = Executor(program, None, engine)
    for _ in range(2):  # what an earlier input wrote does not count
        with pytest.raises(VerifyError) as caught:
            machine.run({"x": X})
        assert str(caught.value) == (
            "error: reads element 0 of buffer acc\n"
            "  instr:   rescale\n"
            "  layer:   b\n"
            "  stream:  rescale\n"
            "  loops:   p = 0\n"
            "  memory:  dram, address 64\n"
            "  need:    a written i32\n"
            "  have:    never written"
        )


@ENGINES
def test_a_missing_signal_stalls_and_says_who_waits(engine: str) -> None:
    program = changed('    signal {buffer="acc"}\n', "")
    with pytest.raises(StallError) as caught:
        execute(program, None, {"x": X}, engine)
    assert str(caught.value) == (
        "error: stream rescale waits for buffer acc\n"
        "  signals: nobody\n"
        "  need:    progress 1\n"
        "  have:    progress 0"
    )


@ENGINES
def test_streams_that_wait_for_each_other_stall(engine: str) -> None:
    program = changed("    mvm", '    wait {buffer="y", count=<4>, limit=4}\n    mvm')
    with pytest.raises(StallError) as caught:
        execute(program, None, {"x": X}, engine)
    assert [fault.where for fault in caught.value.faults] == [
        "stream multiply waits for buffer y",
        "stream rescale waits for buffer acc",
    ]


@ENGINES
def test_inputs_and_constants_are_complete_from_the_start(engine: str) -> None:
    waits = "\n".join(f'  wait {{buffer="{name}", count=<9>, limit=99}}' for name in ("x", "w"))
    program = changed('stream "multiply" {', f'stream "multiply" {{\n{waits}')
    assert (execute(program, None, {"x": X}, engine)["y"] == expected(X)).all()


@ENGINES
def test_weights_that_streams_overwrite_are_there_again_for_the_next_input(engine: str) -> None:
    program = changed('stream "rescale" {', 'stream "rescale" {\n  fill %array[0; 1:1] {value=7}')
    machine = Executor(program, None, engine)
    first = machine.run({"x": X})["y"]
    assert (first != expected(X)).any()
    assert (machine.run({"x": X})["y"] == first).all()


@ENGINES
@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("@ 64", "@ 4", "cells written with another width"),  # overlapping buffers share cells
        ("@ 64", "@ 65", "buffer acc is misaligned"),
        ("@ 64", "@ 1099511627776", "buffer acc reaches beyond its memory"),
        (" @ 64", "", "buffer acc has no address"),
        (' = "m"', "", "reads element 0 of buffer m"),
        ("%acc[0 + 2*p; 2:0", "%acc[0 + 9*p; 2:0", "writes outside buffer acc"),
        ("high=127", "high=300", "writes buffer y"),
        ("copy %array[0; 4:1], %w[0; 4:1]", "", "reads element 0 of buffer array"),
        ("%x[0 + 2*p", "%x[0 + 2*z", "no loop z around it"),
        ("2:1, 2:0], %array", "2:1], %array", "x has axes (2,), others (2, 2)"),
        ("_, %m", "_, %n", "no buffer n"),
    ],
)
def test_wrong_programs_are_refused(engine: str, old: str, new: str, fault: str) -> None:
    with pytest.raises(VerifyError) as caught:
        execute(changed(old, new), load_target("edge-digital"), {"x": X}, engine)
    assert fault in str(caught.value)


@ENGINES
@pytest.mark.parametrize(
    ("inputs", "fault"),
    [
        ({}, "input x is missing"),
        ({"x": X, "z": X}, "input z is not one of the program's"),
        ({"x": X.astype(np.int8)}, "input x has another type"),
        ({"x": X[:2]}, "input x has another type"),
    ],
)
def test_wrong_inputs_are_refused(engine: str, inputs: dict[str, Array], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        execute(two(), None, inputs, engine)


@register_instr
@dataclass(frozen=True, slots=True)
class Tally(Instr):
    """A plug-in's instruction without a kernel: dst = how often it was executed in this input."""

    dst: View
    mnemonic: ClassVar[str] = "test-tally"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Count in a state of its own."""
        state = machine.state("tally", list)
        assert isinstance(state, list)
        state.append(loops["p"])
        machine.write(self.dst, loops, np.asarray(len(state)))


@ENGINES
def test_instructions_without_a_kernel_run_by_their_meaning(engine: str) -> None:
    tally = "    test-tally %y[0 + 2*p; 2:1] when not-first(p)"
    program = changed('    signal {buffer="y"}', tally)
    machine = Executor(program, None, engine)
    for _ in range(2):  # the state is a new one for each input
        found = machine.run({"x": X})["y"]
        assert (found[0] == expected(X)[0]).all()
        assert found[1:].tolist() == [[1, 1], [2, 2], [3, 3]]
