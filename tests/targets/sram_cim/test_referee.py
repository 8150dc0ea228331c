"""A layer alone: the same cycles and pJ in a network's program and by the referee."""

from __future__ import annotations

import pytest

from cimc.conformance.samples import Sketch, sample_inputs
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.kind import Kind, Options, load_kind
from cimc.passes.allocate import allocate
from cimc.passes.fuse_layers import fuse_layers
from cimc.passes.tile import tile
from cimc.sim.energy import energy
from cimc.sim.execute import execute
from cimc.sim.simulate_plan import plan_streams
from cimc.target import load_target
from cimc.targets.sram_cim.exact.referee import Referee, alone, simulated_cycles
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
