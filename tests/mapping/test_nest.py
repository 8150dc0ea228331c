"""Arithmetic of mapped nests, against numbers worked out by hand and against counting."""

from __future__ import annotations

import math
import random

import pytest

from cimc.errors import Fault
from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.lowering import ConvShape
from cimc.mapping.flows import flows
from cimc.mapping.machine import INPUT, OUTPUT, RELEVANT, WEIGHT, Machine
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.sample import random_nest
from cimc.mapping.workload import Workload
from cimc.target import load_target
from cimc.targets.sram_cim.machine import machine_of

CONV = Workload(ConvShape(1, 1, 32, 16, 14, 14, 3, 3, h=14, w=14, pads=(1, 1)))


@pytest.fixture(scope="module")
def machine() -> Machine:
    return machine_of(load_target("miredo-default"))


def nest(spatial: str, loops: str, double: str = "") -> Nest:
    """A nest of CONV: "rows c16", "k2 dram dram dram / p14 gb gb ob", "gb/I"."""
    axes = []
    for part in filter(None, spatial.split(" / ")):
        name, *factors = part.split()
        axes.append(Spatial(name, tuple((word[0], int(word[1:])) for word in factors)))
    found = []
    for part in filter(None, loops.split(" / ")):
        word, i, w, o = part.split()
        found.append(TemporalLoop(word[0], int(word[1:]), (i, w, o)))
    pairs = tuple((word.split("/")[0], word.split("/")[1]) for word in double.split())
    return Nest(CONV.shape.dims, tuple(axes), tuple(found), pairs)


GOOD = nest(
    "cores k2 p4 / rows c16 / columns k16",
    "r3 dram dram ob / q2 dram gb ob / p4 gb gb ob / s3 gb gb ob / q7 ib macro ob",
    "gb/I ob/O",
)


def mapped(given: Nest, machine: Machine) -> Mapped:
    found = resolve(given, CONV, machine)
    assert isinstance(found, Mapped)
    return found


def faults(given: Nest, machine: Machine) -> list[Fault]:
    found = resolve(given, CONV, machine)
    return list(capacity_faults(found)) if isinstance(found, Mapped) else found


def test_tiles(machine: Machine) -> None:
    m = mapped(GOOD, machine)
    gb, ob, ib, macro = (machine.level(name) for name in ("gb", "ob", "ib", "macro"))
    # inputs in gb: all c, 16 rows of p (4 cores x 4), one column and 7 positions, s 3
    tile = m.extents(2, INPUT, gb)
    assert (tile["p"], tile["q"], tile["s"], tile["c"]) == (16, 7, 3, 16)
    assert CONV.elements(INPUT, tile) == 16 * 16 * 9
    # one core's ib: one row of p, 7 positions
    tile = m.extents(4, INPUT, ib)
    assert CONV.elements(INPUT, tile) == 16 * 7
    # one core's ob: one of 4 row blocks, half of the k
    assert CONV.elements(OUTPUT, m.extents(0, OUTPUT, ob)) == 16 * 4 * 14
    # a cell holds one weight at a time
    assert CONV.elements(WEIGHT, m.extents(4, WEIGHT, macro)) == 1
    assert m.instances(gb) == 1
    assert m.instances(ob) == 8
    assert m.instances(macro) == 8 * 16 * 16
    assert m.activations == 3 * 2 * 4 * 3 * 7
    assert m.occupied()[ob] == {OUTPUT: 16 * 4 * 14 * 16 * 2}
    assert m.occupied()[gb] == {INPUT: 16 * 16 * 9 * 8 * 2, WEIGHT: 3 * 16 * 32 * 8}


def test_flows(machine: Machine) -> None:
    by_name = {
        (flow.operand, machine.levels[flow.inner.level].name): flow
        for flow in flows(mapped(GOOD, machine))
    }
    assert {key: flow.loop for key, flow in by_name.items()} == {
        (INPUT, "gb"): 1,
        (INPUT, "ib"): 3,
        (INPUT, "ireg"): 4,
        (WEIGHT, "gb"): 0,
        (WEIGHT, "macro"): 3,
        (OUTPUT, "ob"): -1,
        (OUTPUT, "oreg"): 4,
    }
    weights = by_name[WEIGHT, "macro"]
    assert (weights.inward, weights.outer_elements, weights.inner_elements) == (72, 512, 1)
    sums = by_name[OUTPUT, "oreg"]
    assert sums.partial
    assert (sums.outward, sums.inward) == (504, 504 - 504 // 9)
    assert not by_name[OUTPUT, "ob"].partial


def test_illegal_mappings_say_why(machine: Machine) -> None:
    wrong = nest("rows k8 / columns k64", "p14 gb ib dram", "ireg/I")
    found = faults(wrong, machine)
    assert [fault.where for fault in found] == [
        "rows(k=8) cannot run k",
        "columns(k=64) is too wide",
        "`for p 14 I=gb W=ib O=dram`: ib does not hold W",
        "I cannot have two buffers in ireg",
        "loops over c do not cover it",
        "loops over q do not cover it",
        "loops over r do not cover it",
        "loops over s do not cover it",
    ]
    assert found[1].need == "64 positions"
    assert found[1].have == "16 (macro.columns)"
    inside_out = nest("", "p14 gb dram dram / q14 dram dram dram")
    assert faults(inside_out, machine)[0].where == (
        "`for q 14` keeps I in dram, outside the gb of the loop around it"
    )
    uncovered = faults(nest("rows c16", "k32 dram dram dram"), machine)
    assert (uncovered[0].where, uncovered[0].help) == (
        "loops over p do not cover it",
        "add a loop `for p 14`",
    )


def test_a_tile_too_large_says_what_would_help(machine: Machine) -> None:
    big = nest(
        "rows c16 / columns k16",
        "r3 dram dram ob / s3 dram dram ob / k2 dram dram ob / p14 dram dram ob / q14 dram dram ob",
        "ob/O",
    )
    (fault,) = faults(big, machine)
    assert str(fault) == (
        "error CIM4010: tiles do not fit in ob\n"
        "  need:    200704 bits (O 200704)\n"
        "  have:    131072 bits (miredo-default: memory.ob.size_bits)\n"
        "  help:    keep one buffer of O in ob"
    )
    single = Nest(big.dims, big.spatial, (*big.loops[:3], *big.loops[3:]), ())
    assert faults(single, machine) == []


@pytest.mark.parametrize("seed", range(40))
def test_traffic_equals_counting(machine: Machine, seed: int) -> None:
    """Tiles that move: counted by running through all iterations and watching the tile change."""
    small = Workload(ConvShape(1, 2, 4, 6, 3, 3, 2, 1, h=4, w=3))
    found = resolve(random_nest(small, machine, random.Random(seed)), small, machine)
    assert isinstance(found, Mapped)
    bounds = [bound for _, bound in found.loops]
    if math.prod(bounds) > 3000:
        return
    for flow in flows(found):
        relevant = [
            place
            for place in range(flow.inner.begin)
            if found.loops[place][0] in RELEVANT[flow.operand]
        ]
        tiles = 0
        last: tuple[int, ...] | None = None
        for number in range(math.prod(bounds)):
            at = []
            for bound in reversed(bounds):
                number, index = divmod(number, bound)
                at.append(index)
            at.reverse()
            tile = tuple(at[place] for place in relevant)
            tiles += tile != last
            last = tile
        visits = flow.outward if flow.operand == OUTPUT else flow.inward
        assert visits == tiles
