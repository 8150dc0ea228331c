"""A layer alone: the same cycles and pJ in a network's program and by the referee."""

from __future__ import annotations

import dataclasses

import pytest

from cimc.conformance.samples import Sketch, sample_inputs
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.tiles import Nest, Spatial, TemporalLoop, Tiles
from cimc.kind import Kind, Options, load_kind
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.passes.allocate import allocate
from cimc.passes.fuse_layers import fuse_layers
from cimc.passes.tile import tile
from cimc.sim.energy import energy
from cimc.sim.execute import execute
from cimc.sim.simulate.plan import plan_streams
from cimc.target import Target, load_target
from cimc.targets.sram_cim.exact import Problem, solve
from cimc.targets.sram_cim.exact.referee import Referee, alone, referee, simulated_cycles
from cimc.targets.sram_cim.layers import Layers, mapped_nest
from cimc.targets.sram_cim.machine import machine_of

KIND: Kind = load_kind("sram-cim")


def bottleneck() -> Graph:
    """A block of MobileNetV2 and its end: 1x1, depthwise, 1x1 with a sum, a classifier."""
    s = Sketch("bottleneck")
    x = s.requant(s.conv(s.input((1, 3, 18, 18)), 16, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1)))
    wide = s.requant(s.conv(x, 48, (1, 1)), relu=True)
    deep = s.requant(s.conv(wide, 48, (3, 3), group=48, pads=(1, 1, 1, 1)), relu=True)
    y = s.add(s.requant(s.conv(deep, 16, (1, 1))), x)
    flat = s.reshape(s.pool(y, "average", (9, 9), (1, 1)), (1, 16))
    return fuse_layers(s.graph(s.requant(s.matmul(flat, 40), axis=1)))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("name", ["miredo-default", "edge-digital"])
def test_layers_cost_what_the_referee_says(name: str, level: int) -> None:
    target = load_target(name)
    graph = bottleneck()
    tiles = KIND.map(tile(graph, target=target), target, Options(level=level))
    program = allocate(KIND.lower(tiles, target), target=target)
    layers, compared = Layers(tiles), 0
    for layer in tiles.layers:
        if layer.place != "macro":
            continue
        heavy = layers.heavy(layer)
        mapped = mapped_nest(layer, heavy, machine_of(target))
        part = alone(program, layer.name)
        plan = plan_streams(part, target)
        cycles = simulated_cycles(plan)
        found = Referee(heavy.workload, max(1, len(layer.ops) - 1), target).judge(mapped)
        assert found.cycles == cycles
        whole = energy(part, target, cycles, plan=plan).total_pj
        assert found.energy_pj == pytest.approx(whole, rel=1e-12)
        compared += 1
    assert compared == 5
    inputs = sample_inputs(graph)
    made = execute(program, target, inputs)
    for value, array in evaluate(graph, inputs).items():
        assert (made[value] == array).all(), value


def test_optimal_mappings_execute_bit_exactly() -> None:
    """With second buffers filled in pieces, and sums that pass their level."""
    target = load_target("miredo-default", {"memory.macro.size_bits": 128, "cores": 2})
    s = Sketch("optimal")
    x = s.input((1, 16, 16, 16))
    sums = s.conv(x, 64, (3, 3), pads=(1, 1, 1, 1))
    graph = fuse_layers(s.graph(s.requant(sums)))
    tiles = tile(graph, target=target)
    layers = Layers(tiles)
    (layer,) = tiles.layers
    workload = layers.heavy(layer).workload
    problem = Problem(workload, 1, Objective.parse("latency"))
    seen = ""
    for bound, by in (("dram", "c"), ("gb", "r")):
        nest = _by_hand(workload, bound, by)
        mapped = dataclasses.replace(tiles, layers=(dataclasses.replace(layer, nest=nest),))
        seen += _executed(graph, mapped, target)
    assert ".done" in seen
    solution = solve(problem, target, time_limit=None, gap=0.1)
    found = dataclasses.replace(tiles, layers=(dataclasses.replace(layer, nest=solution.nest),))
    _executed(graph, found, target)
    assert solution.latency == referee(solution.nest, workload, 1, target)[0]


def _by_hand(workload: Workload, results: str, reduced: str) -> Nest:
    """Partial sums in ob, finished from there into `results`; weights and inputs loaded ahead."""
    outer, inner = ("c", 2), ("r", 3)
    if reduced == "r":
        outer, inner = inner, outer
    rows = [
        ("p", 4, "dram", "dram", results if results == "dram" else "dram"),
        ("k", 2, "dram", "dram", results),
        (*outer, "gb", "gb", "ob"),
        ("p", 4, "gb", "gb", "ob"),
        ("q", 8, "gb", "macro", "ob"),
        ("s", 3, "ib", "macro", "oreg"),
        (*inner, "ib", "macro", "oreg"),
    ]
    loops = tuple(TemporalLoop(dim, bound, (i, w, o)) for dim, bound, i, w, o in rows)
    spatial = (
        Spatial("cores", (("q", 2),)),
        Spatial("rows", (("c", 8),)),
        Spatial("columns", (("k", 16),)),
    )
    left = {"k": 2}  # 64 = 16 columns * 2 * 2
    loops = (TemporalLoop("k", left["k"], ("dram", "dram", "dram")), *loops)
    double = (("gb", "I"), ("gb", "W"), ("ib", "I"))
    return Nest(tuple(workload.dims.items()), spatial, loops, double)


def _executed(graph: Graph, tiles: Tiles, target: Target) -> str:
    """Run the program, compare all values; its text."""
    program = allocate(KIND.lower(tiles, target), target=target)
    inputs = sample_inputs(graph)
    made = execute(program, target, inputs)
    for value, array in evaluate(graph, inputs).items():
        assert (made[value] == array).all(), value
    return str(program)
