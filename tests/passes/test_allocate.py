"""Buffers get places: apart while both are needed, together where they are not."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.errors import FitError, VerifyError
from cimc.ir.program import Instr, Stream, parse_program
from cimc.passes.allocate import allocate, bytes_of
from cimc.sim.execute import execute
from cimc.target import load_target
from tests.sim.random_programs import instrs
from tests.sim.random_programs import program as random_program

PROGRAM = """
program "p" on "edge-digital"
in %x : i8[100]
out %y : i8[100]
buffer %x : i8[100] in "dram"
buffer %y : i8[100] in "dram"
buffer %a : i32[100] in "dram"
buffer %b : i32[100] in "dram"
buffer %c : i32[50] in "dram" x2
buffer %w : i8[7] in "dram" = "00"
setup {
}
stream "one" {
  copy %a[0; 100:1], %x[0; 100:1]
  copy %b[0; 100:1], %a[0; 100:1]
  copy %c[0; 50:1], %b[0; 50:1]
  copy %y[0; 50:1], %c[0; 50:1]
}
"""


def test_buffers_share_a_place_only_when_never_needed_together() -> None:
    program = allocate(parse_program(PROGRAM), target=load_target("edge-digital"))
    where = {b.name: range(b.address or 0, (b.address or 0) + bytes_of(b)) for b in program.buffers}

    def apart(one: str, two: str) -> bool:
        return where[one].stop <= where[two].start or where[two].stop <= where[one].start

    for one, two in (("x", "y"), ("x", "a"), ("y", "c"), ("w", "a"), ("a", "b"), ("b", "c")):
        assert apart(one, two), (one, two)
    assert not apart("a", "c")
    assert where["a"].start % 4 == where["c"].start % 4 == 0


def test_a_memory_too_small_is_a_fault_with_the_size_that_fits() -> None:
    target = load_target("edge-digital", {"memory.dram.size_bits": 800})
    with pytest.raises(FitError, match=r"memory dram is too small") as caught:
        allocate(parse_program(PROGRAM), target=target)
    fault = caught.value.faults[0]
    assert "memory.dram.size_bits = 800" in fault.have
    fits = int(fault.help.split(" = ")[1].split()[0])
    bigger = load_target("edge-digital", {"memory.dram.size_bits": fits})
    assert allocate(parse_program(PROGRAM), target=bigger)


def test_two_streams_keep_a_buffer_throughout() -> None:
    program = parse_program(PROGRAM)
    body = program.streams[0].body
    streams = tuple(
        dataclasses.replace(program.streams[0], name=str(i), body=(item,))
        for i, item in enumerate(body)
    )
    split = allocate(
        dataclasses.replace(program, streams=streams), target=load_target("edge-digital")
    )
    starts = sorted((b.address or 0, bytes_of(b)) for b in split.buffers)
    assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(starts))


@given(st.lists(instrs(), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_sharing_changes_no_value(items: list[Instr]) -> None:
    layers = [[item] for item in items]
    program = random_program(layers)
    one = Stream("one", tuple(item for stream in program.streams for item in stream.body))
    program = dataclasses.replace(program, streams=(one,))
    try:
        expected = execute(program, None, {}, "plain")
    except VerifyError:
        return
    placed = allocate(program, target=load_target("edge-digital"))
    found = execute(placed, None, {}, "plain")
    assert all((found[name] == expected[name]).all() for name in expected)
