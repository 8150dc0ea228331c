"""Which cells wear fastest: closed form, plain follower, and what a probe measures."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from cimc.ir.program import Program
from cimc.kind import Wearing
from cimc.sim.execute import Executor
from cimc.target import Target, load_target
from cimc.targets.rtm_ap import KIND, ApLoad, ApRun, isa
from cimc.targets.rtm_ap.codegen import Style
from cimc.targets.rtm_ap.isa import Controller
from cimc.targets.rtm_ap.pass_tables import NAMES, TABLES, work
from cimc.targets.rtm_ap.plan import Plan, Tile
from cimc.targets.rtm_ap.probe import PROBE, probe_of
from cimc.targets.rtm_ap.wear import expected_wear, measured_wear, wear_of
from cimc.targets.rtm_ap.work import spec_of
from tests.targets.rtm_ap.test_rtm_ap import (
    _instrs,
    conv_graph,
    lowered,
    machine,
    matmul_graph,
    tiled,
    with_plan,
)

PLAN = Plan("program", Tile(1, 5, 4), 3, 2, Style(18))


def program_of(target: Target) -> Program:
    return lowered(with_plan(tiled(conv_graph(), target), target, PLAN), target)


def test_expected_changes_equal_a_plain_follower() -> None:
    target = machine()
    program, ap = program_of(target), spec_of(target).ap
    wanted: dict[tuple[int, int, int], float] = defaultdict(float)
    for instr in _instrs(program):
        if isinstance(instr, ApLoad):
            for code in instr.slots().tolist():
                slot = isa.slot_of(code)
                for copy in range(instr.copies):
                    first = instr.array + copy * instr.apart
                    for array in range(first, first + instr.arrays):
                        for bit in range(slot.bits):
                            wanted[array, *slot.cell(bit)] += 0.5
        if isinstance(instr, ApRun):
            tables = [
                program.tensors[program.buffer_map()[view.buffer].init or ""].astype(np.uint32)
                for view in (instr.code, instr.slots)
            ]
            begin = instr.code.offset.const
            controller = Controller(tables[1], ap.columns, ap.carries)
            for word in tables[0][begin : begin + instr.code.elements].tolist():
                for step in controller.steps(word):
                    if step.table >= len(NAMES):
                        parts = [0.0, 0.0, 0.0, 0.5 * (step.table != isa.FORGET)]
                    else:
                        parts = list(work(TABLES[NAMES[step.table]]).changed_by_role)
                    for cell, part in zip((step.a, step.b, step.c, step.r), parts, strict=True):
                        for array in range(instr.array, instr.array + instr.arrays):
                            if cell[0] >= 0 and part:
                                wanted[array, *cell] += part
    whole = expected_wear(program, target)[0]
    trips = 2  # the plan's tile covers half of the result
    for array, changes in whole.changes.items():
        for place in np.flatnonzero(changes).tolist():
            column, domain = divmod(place, ap.domains)
            assert changes[place] == pytest.approx(trips * wanted.pop((array, column, domain)))
    assert not wanted


def test_measured_changes_are_near_the_expected_ones() -> None:
    target = machine()
    graph = conv_graph()
    program = lowered(with_plan(tiled(graph, target), target, PLAN), target)
    probe, random, runs = probe_of(spec_of(target)), np.random.default_rng(3), 4
    executor = Executor(program, target, "fast", {PROBE: probe})
    (value,) = graph.inputs
    low, high = (-128, 128) if value.type.dtype == "i8" else (0, 256)
    dtype = np.int8 if low else np.uint8
    for _ in range(runs):
        executor.run({value.name: random.integers(low, high, value.shape).astype(dtype)})
    probe.close_all()
    found = measured_wear(probe, spec_of(target).ap, runs)
    expected = expected_wear(program, target)[0]
    assert found.changes.keys() == expected.changes.keys()
    hottest, cell, changes = expected.hottest()
    assert cell // spec_of(target).ap.domains >= spec_of(target).ap.columns - 4  # a carry
    assert found.changes[hottest][cell] == pytest.approx(changes, rel=0.35)


@pytest.mark.parametrize("carries", [1, 2, 4])
def test_carry_columns_take_turns(carries: int) -> None:
    target = load_target("rtm-ap", {"ap.carries": carries})
    wear = wear_of(expected_wear(program_of(target), target), spec_of(target).ap)
    turns = [worn.changes for worn in wear.worn if worn.layer == "" and worn.holds == "carry"]
    turns = turns[-carries:]
    assert len(turns) == carries
    assert max(turns) < 1.25 * min(turns)


def test_lifetime_is_endurance_by_changes() -> None:
    assert isinstance(KIND, Wearing)
    for endurance in (1e8, 1e16):
        target = load_target("rtm-ap", {"ap.endurance": endurance})
        wear = KIND.wear(lowered(tiled(matmul_graph(), target), target), target)
        assert wear.inferences == pytest.approx(endurance / wear.worn[0].changes)
        assert wear.worn[0].changes == max(worn.changes for worn in wear.worn)
