"""Programs of mapped nests: any legal mapping computes the same integers."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest

from cimc.conformance.samples import SAMPLES, Drawing, Sketch, sample_inputs
from cimc.errors import FitError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.program import Program, executions, walk
from cimc.ir.tiles import Nest, Spatial, TemporalLoop, Tiles
from cimc.kind import Kind, Options, load_kind
from cimc.mapping.nest import Mapped, resolve
from cimc.mapping.sample import random_nest
from cimc.passes.allocate import allocate
from cimc.passes.fuse_layers import fuse_layers
from cimc.passes.tile import tile
from cimc.sim.execute import execute
from cimc.target import Target, load_target
from cimc.targets.sram_cim.layers import Layers
from cimc.targets.sram_cim.machine import machine_of
from tests.conftest import Golden

KIND: Kind = load_kind("sram-cim")


def sample(draw: Drawing) -> Graph:
    return draw(Sketch(draw.__name__))


def randomly_mapped(tiles: Tiles, target: Target, rng: random.Random) -> Tiles:
    """Every macro layer with a random legal nest of not too many activations."""
    layers, machine = Layers(tiles), machine_of(target)
    found = []
    for layer in tiles.layers:
        if layer.place == "macro":
            workload = layers.heavy(layer).workload
            while True:
                nest = random_nest(workload, machine, rng)
                mapped = resolve(nest, workload, machine)
                if isinstance(mapped, Mapped) and mapped.activations < 3000:
                    break
            layer = dataclasses.replace(layer, nest=nest)
        found.append(layer)
    return dataclasses.replace(tiles, layers=tuple(found))


def check_values(graph: Graph, tiles: Tiles, target: Target, engine: str) -> None:
    inputs = sample_inputs(graph)
    program = allocate(KIND.lower(tiles, target), target=target)
    found = execute(program, target, inputs, engine=engine)
    for name, array in evaluate(graph, inputs).items():
        assert (found[name] == array).all(), name


@pytest.mark.parametrize("draw", SAMPLES, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("name", ["miredo-default", "edge-digital"])
def test_random_mappings(draw: Drawing, name: str) -> None:
    target = load_target(name)
    rng = random.Random(f"{draw.__name__} {name}")
    for _ in range(3):
        graph = fuse_layers(sample(draw)) if rng.random() < 0.7 else sample(draw)
        tiles = randomly_mapped(tile(graph, target=target), target, rng)
        check_values(graph, tiles, target, "fast")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels(level: int) -> None:
    target = load_target("miredo-transformer")
    for draw in SAMPLES:
        graph = fuse_layers(sample(draw))
        tiles = KIND.map(tile(graph, target=target), target, Options(level=level))
        check_values(graph, tiles, target, "plain" if level else "fast")


def test_estimates_count_the_program_s_events() -> None:
    target = load_target("edge-digital")
    for draw in SAMPLES:
        tiles = KIND.map(tile(sample(draw), target=target), target, Options(level=1))
        estimated: Counter[str] = Counter()
        for layer in tiles.layers:
            estimated.update(dict(KIND.estimate(layer, tiles, target).events))
        assert events(KIND.lower(tiles, target), target) == estimated
        assert set(estimated) <= set(KIND.energies(target))


def events(program: Program, target: Target) -> Counter[str]:
    """Events of one sample."""
    buffers, found = program.buffer_map(), Counter[str]()
    for stream in program.streams:
        for instr, loops in walk(stream.body):
            for event, times in KIND.cost(instr, buffers, target).events:
                found[event] += times * executions(instr, loops)
    return found


def by_hand(graph: Graph, target: Target) -> Tiles:
    """A 3 x 3 conv with every kind of transfer: loaded ahead, waited for, coming and going."""
    tiles = tile(graph, target=target)
    levels = ["dram gb dram", "gb gb ob", "gb macro ob", "ib macro oreg"]
    loops = [
        TemporalLoop(dim, bound, (i, w, o))
        for (dim, bound), (i, w, o) in zip(
            [("r", 3), ("p", 4), ("q", 2), ("c", 2)],
            [(word.split()[0], word.split()[1], word.split()[2]) for word in levels],
            strict=True,
        )
    ]
    heavy, *others = tiles.layers
    nest = Nest(
        tuple(Layers(tiles).heavy(heavy).workload.dims.items()),
        (
            Spatial("cores", (("p", 2), ("q", 3))),
            Spatial("rows", (("s", 3), ("c", 3))),
            Spatial("columns", (("k", 9),)),
        ),
        tuple(loops),
        (("gb", "I"), ("ob", "O")),
    )
    return dataclasses.replace(tiles, layers=(dataclasses.replace(heavy, nest=nest), *others))


def test_program_text(golden: Golden) -> None:
    target = load_target("miredo-default")
    graph = fuse_layers(sample(SAMPLES[0]))
    tiles = by_hand(graph, target)
    golden.check(KIND.lower(tiles, target))
    check_values(graph, tiles, target, "plain")


def test_an_illegal_mapping_names_layer_and_node() -> None:
    target = load_target("miredo-default", {"memory.ob.size_bits": 64})
    graph = fuse_layers(sample(SAMPLES[0]))
    with pytest.raises(FitError) as caught:
        KIND.lower(by_hand(graph, target), target)
    assert str(caught.value) == (
        "error CIM4010: layer %v3: tiles do not fit in ob\n"
        "  node:    conv_3\n"
        "  need:    2304 bits (O 2304)\n"
        "  have:    64 bits (miredo-default: memory.ob.size_bits)\n"
        "  help:    keep one buffer of O in ob"
    )
