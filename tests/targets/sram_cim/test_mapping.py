"""Mappings: what the closed form says, that the kernels say the same, that searches do well."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from cimc.conformance.samples import Sketch
from cimc.ir.graph import Graph
from cimc.ir.tiles import Tiles
from cimc.kind import Kind, Options, load_kind
from cimc.lowering import ConvShape
from cimc.mapping.nest import DIMS, Mapped, capacity_faults, resolve
from cimc.mapping.sample import random_nest
from cimc.mapping.workload import Workload
from cimc.passes.allocate import allocate
from cimc.passes.fuse_layers import fuse_layers
from cimc.passes.tile import tile
from cimc.sim.simulate import simulate
from cimc.target import Target, load_target
from cimc.targets.sram_cim import timing_kernel as kernel
from cimc.targets.sram_cim.anneal import packed
from cimc.targets.sram_cim.exact.referee import Referee
from cimc.targets.sram_cim.layers import Layers, mapped_nest
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.search import best_mapping
from cimc.targets.sram_cim.search_kernel import Machine
from cimc.targets.sram_cim.stationary import simple, weight_stationary
from cimc.targets.sram_cim.timing import evaluate
from cimc.targets.sram_cim.timing_batch import figures, mappings_of

KIND: Kind = load_kind("sram-cim")

SHAPES = {
    "first": ConvShape(1, 1, 64, 3, 112, 112, 7, 7, 224, 224, (2, 2), (3, 3)),
    "middle": ConvShape(1, 1, 128, 128, 28, 28, 3, 3, 28, 28, (1, 1), (1, 1)),
    "last": ConvShape(1, 1, 512, 512, 7, 7, 3, 3, 7, 7, (1, 1), (1, 1)),
    "pointwise": ConvShape(1, 1, 256, 64, 56, 56, 1, 1, 56, 56),
    "depthwise": ConvShape(1, 96, 1, 1, 56, 56, 3, 3, 56, 56, (1, 1), (1, 1)),
    "dilated": ConvShape(2, 2, 24, 20, 13, 11, 3, 3, 17, 15, (1, 1), (0, 0), (2, 2)),
    "classifier": ConvShape(1, 1, 1000, 512, 1, 1, 1, 1, 1, 1, matmul=True),
    "attention": ConvShape(1, 12, 197, 64, 197, 1, 1, 1, 197, 1, matmul=True),
}


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
@pytest.mark.parametrize("name", ["miredo-default", "miredo-transformer", "edge-digital"])
def test_searched_is_legal_and_no_worse_than_the_rule(name: str, objective: str) -> None:
    target = load_target(name)
    machine, spec = machine_of(target), spec_of(target)
    for shape in SHAPES.values():
        workload = Workload(shape)
        found = best_mapping(workload, 1, machine, target, Options(objective=objective))
        assert not list(capacity_faults(found))
        score = evaluate(found, spec).score(objective)
        for rule in weight_stationary(workload, machine):
            assert score <= evaluate(rule, spec).score(objective)


@pytest.mark.parametrize(("shape", "gain"), [("middle", 4.0), ("pointwise", 7.5), ("first", 16.0)])
def test_searched_beats_the_rule(shape: str, gain: float) -> None:
    """By the simulator."""
    target = load_target("miredo-default")
    machine, workload = machine_of(target), Workload(SHAPES[shape])
    judge = Referee(workload, 1, target)
    rule = min(judge.judge(mapped).cycles for mapped in weight_stationary(workload, machine))
    found = best_mapping(workload, 1, machine, target, Options())
    assert rule / judge.judge(found).cycles > gain


def test_the_simple_mapping_always_fits() -> None:
    for name in ("miredo-default", "miredo-transformer", "edge-digital"):
        machine = machine_of(load_target(name))
        for shape in SHAPES.values():
            assert not list(capacity_faults(simple(Workload(shape), machine)))


@pytest.mark.parametrize("seed", range(60))
def test_kernel_equals_the_closed_form(seed: int) -> None:
    rng = random.Random(seed)
    names = ("miredo-default", "edge-digital", "miredo-transformer")
    target = load_target(names[seed % 3])
    machine, spec = machine_of(target), spec_of(target)
    bits = rng.choice([(8, 8, 8), (8, 16, 8), (4, 8, 16)])
    workload = Workload(rng.choice(list(SHAPES.values())), bits)
    mapped = resolve(random_nest(workload, machine, rng), workload, machine)
    assert isinstance(mapped, Mapped)
    cycles, pj = kernel_figures(mapped, packed(workload, machine, spec, 2))
    expected = evaluate(mapped, spec, 2)
    assert cycles == pytest.approx(expected.cycles, rel=1e-12)
    assert pj == pytest.approx(expected.energy_pj, rel=1e-12)


def kernel_figures(mapped: Mapped, m: Machine) -> tuple[float, float]:
    """What the kernel says of a mapping."""
    count = len(mapped.loops)
    dim = np.array([DIMS.index(d) for d, _ in mapped.loops], np.int64)
    bound = np.array([b for _, b in mapped.loops], np.int64)
    cut, use, double = (np.zeros(m.chain.shape, np.int64) for _ in range(3))
    for o in range(3):
        for block in mapped.chain(o):
            j = m.chain[o].tolist().index(block.level)
            use[o, j], cut[o, j] = 1, block.begin
            double[o, j] = (block.level, o) in mapped.double
    factors = np.ones((3, len(DIMS)), np.int64)
    for axis, own in enumerate(mapped.spatial):
        for d, factor in own:
            factors[axis, DIMS.index(d)] *= factor
    t, (cover, work) = kernel.tables_of(m, factors), kernel.room_for(m, count)
    kernel.measure(t.relevant, count, dim, bound, cover)
    assert kernel.fits(
        t.kept, t.chip, t.relevant, t.length, count, dim, bound, cut, use, double, cover, work
    )
    return kernel.evaluate(
        t.ways, t.kept, t.chip, t.relevant, t.length,
        count, dim, bound, cut, use, double, cover, work,
    )  # fmt: skip


def conv(c: int, k: int, size: int, kernel_size: int, stride: int = 1) -> Graph:
    sketch = Sketch("conv")
    x = sketch.input((1, c, size, size))
    pad = kernel_size // 2
    sums = sketch.conv(x, k, (kernel_size,) * 2, strides=(stride, stride), pads=(pad,) * 4)
    return fuse_layers(sketch.graph(sketch.requant(sums)))


@pytest.mark.parametrize("name", ["miredo-default", "edge-digital"])
@pytest.mark.parametrize(
    "graph",
    [conv(64, 64, 56, 3), conv(64, 128, 56, 3, 2), conv(256, 64, 56, 1), conv(128, 128, 14, 5)],
)
def test_the_closed_form_follows_the_simulator(graph: Graph, name: str) -> None:
    target = load_target(name)
    tiles = KIND.map(tile(graph, target=target), target, Options(level=2))
    simulated = simulated_cycles(tiles, target)
    (layer,) = tiles.layers
    bound = KIND.estimate(layer, tiles, target).cycles
    mapped = mapped_nest(layer, Layers(tiles).heavy(layer), machine_of(target))
    cycles = evaluate(mapped, spec_of(target)).cycles
    assert bound <= simulated
    assert 0.9 < cycles / simulated < 1.1


def simulated_cycles(tiles: Tiles, target: Target) -> int:
    program = allocate(KIND.lower(tiles, target), target=target)
    return simulate(program, target, samples=1).latency_cycles


def test_many_mappings_at_once_equal_the_closed_form() -> None:
    rng, target = random.Random(7), load_target("edge-digital")
    machine, spec = machine_of(target), spec_of(target)
    workload = Workload(SHAPES["dilated"])
    axes = tuple(dataclasses.replace(axis, size=1) for axis in machine.axes)
    narrow = dataclasses.replace(machine, axes=axes)
    found = [resolve(random_nest(workload, narrow, rng), workload, machine) for _ in range(40)]
    nests = [mapped for mapped in found if isinstance(mapped, Mapped)]
    m = packed(workload, machine, spec, 2)
    cycles, pj = figures(mappings_of(nests, m), m, workers=2)
    expected = [evaluate(mapped, spec, 2) for mapped in nests]
    assert cycles == pytest.approx([item.cycles for item in expected], rel=1e-12)
    assert pj == pytest.approx([item.energy_pj for item in expected], rel=1e-12)
