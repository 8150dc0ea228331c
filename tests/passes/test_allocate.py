"""Buffers get places: apart while both are needed, together where they are not."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.errors import FitError
from cimc.ir.program import Buffer, Program, parse_program
from cimc.passes.allocate import allocate, bytes_of
from cimc.sim.execute import execute
from cimc.target import load_target

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


@pytest.mark.parametrize(("layer", "is_shared"), [("one", False), ("two", True)])
def test_buffers_of_one_layer_lie_apart_where_there_is_room(layer: str, is_shared: bool) -> None:
    """%a is over when %c begins; in one layer %c would wait for that."""
    text = PROGRAM.replace('in "dram"\n', 'in "gb.x1"\n').replace(' in "dram" x2', ' in "gb.x1" x2')
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  copy %a") or line.startswith("  copy %b"):
            lines[number] = f"{line} for %one"
        elif line.startswith("  copy"):
            lines[number] = f"{line} for %{layer}"
    program = allocate(parse_program("\n".join(lines)), target=load_target("edge-digital"))
    where = {b.name: range(b.address or 0, (b.address or 0) + bytes_of(b)) for b in program.buffers}
    both = range(max(where["a"].start, where["c"].start), min(where["a"].stop, where["c"].stop))
    assert bool(both) == is_shared


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


@st.composite
def chains(draw: st.DrawFn) -> Program:
    """Sums of earlier sums in buffers of many sizes; the last one is the output."""
    count = draw(st.integers(2, 12))
    lines = ['buffer %s0 : i32[8] in "m" = "c"']
    body = []
    for number in range(1, count + 1):
        elements = draw(st.integers(8, 40))
        lines.append(f'buffer %s{number} : i32[{elements}] in "m"')
        a, b = (draw(st.integers(max(number - 4, 0), number - 1)) for _ in range(2))
        body.append(f"accumulate %s{number}[0; 8:1], %s{a}[0; 8:1], %s{b}[0; 8:1]")
    head = f'program "p" on "t" out %s{count} : i32[8]'
    lines[-1] = f'buffer %s{count} : i32[8] in "m"'
    source = [head, *lines, "setup { }", 'stream "one" {', *body, "}"]
    return parse_program("\n".join(source), {"c": np.arange(8, dtype=np.int32)})


@given(chains())
@settings(max_examples=60, deadline=None)
def test_sharing_changes_no_value(program: Program) -> None:
    addresses = itertools.count(0, 64 * 4)
    apart = tuple(dataclasses.replace(b, address=next(addresses)) for b in program.buffers)
    expected = execute(dataclasses.replace(program, buffers=apart), None, {}, "plain")
    placed = allocate(program, target=load_target("edge-digital"))
    found = execute(placed, None, {}, "plain")
    assert all((found[name] == expected[name]).all() for name in expected)
    assert max(bytes_of(b) + (b.address or 0) for b in placed.buffers) <= sum(
        map(bytes_of, program.buffers)
    )


def test_addresses_that_are_there_stay() -> None:
    target = load_target("miredo-default")
    program = Program(
        "pinned",
        target.name,
        (),
        (),
        (
            Buffer("low", "gb.x1", "i8", 16, address=32),
            Buffer("first", "gb.x1", "i8", 24),
            Buffer("second", "gb.x1", "i32", 4),
        ),
        (),
        (),
    )
    placed = {buffer.name: buffer.address for buffer in allocate(program, target=target).buffers}
    assert placed == {"low": 32, "first": 0, "second": 48}
