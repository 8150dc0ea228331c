"""Layers that run together band by band: the same values, and addresses where they fit."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest

from cimc.conformance.samples import Sketch, sample_inputs
from cimc.errors import UsageError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, Value
from cimc.ir.ops import Pool
from cimc.ir.program import Program
from cimc.ir.tiles import Fused, Keep, Layer, Nest, Tiles, parse_tiles
from cimc.kind import Options, load_kind
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.sample import random_nest
from cimc.passes.allocate import allocate, bytes_of
from cimc.passes.fuse_layers import fuse_layers
from cimc.passes.fuse_rows import fuse_rows
from cimc.passes.keep_resident import keep_resident
from cimc.passes.map import map as map_layers
from cimc.passes.tile import tile
from cimc.sim.energy import energy
from cimc.sim.estimate import estimate
from cimc.sim.execute import execute
from cimc.sim.simulate import simulate
from cimc.target import Target, load_target
from cimc.targets.sram_cim.homes import WEIGHTS, Homes
from cimc.targets.sram_cim.layers import Layers
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.network_cost import NetworkCost

KIND = load_kind("sram-cim")


def two(s: Sketch) -> Graph:
    """3 x 3 after 3 x 3."""
    x = s.input((1, 3, 11, 9))
    a = s.requant(s.conv(x, 5, (3, 3), pads=(1, 1, 1, 1)), relu=True)
    return s.graph(s.requant(s.conv(a, 4, (3, 3), pads=(1, 1, 1, 1))))


def inverted(s: Sketch) -> Graph:
    """1 x 1, depthwise with stride, 1 x 1."""
    x = s.input((1, 4, 12, 7))
    a = s.requant(s.conv(x, 8, (1, 1)), relu=True)
    b = s.requant(s.conv(a, 8, (3, 3), pads=(1, 1, 1, 1), strides=(2, 2), group=8), relu=True)
    return s.graph(s.requant(s.conv(b, 5, (1, 1))))


def shortcut(s: Sketch) -> Graph:
    """What goes in is added to what comes out."""
    x = s.input((1, 4, 10, 6))
    a = s.requant(s.conv(x, 7, (3, 3), pads=(1, 1, 1, 1)), relu=True)
    b = s.requant(s.conv(a, 4, (3, 3), pads=(1, 1, 1, 1)))
    return s.graph(s.add(b, x, relu=True))


def pooled(s: Sketch) -> Graph:
    """A padded maximum after a conv with uneven pads and a dilation."""
    x = s.input((1, 3, 13, 8))
    a = s.requant(
        s.conv(x, 6, (3, 3), pads=(2, 1, 1, 2), dilations=(2, 1), strides=(1, 1)), relu=True
    )
    out = dataclasses.replace(
        a.type, shape=(1, 6, (a.shape[2] + 2 - 3) // 2 + 1, (a.shape[3] + 2 - 3) // 2 + 1)
    )
    value = dataclasses.replace(a, name="pooled", type=out)
    b = s._add(Pool(value, a, "max", (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)))
    return s.graph(s.requant(s.conv(b, 4, (1, 3))))


NETWORKS = (two, inverted, shortcut, pooled)


def grouped(
    graph: Graph, target: Target, rng: random.Random, most: int = 4, first: int = 0
) -> Tiles:
    """Layers from `first` on fused into one group of random size and rows."""
    tiles = tile(fuse_layers(graph), target=target)
    for _ in range(200):
        end = first + rng.randint(2, min(most, len(tiles.layers) - first))
        last = tiles.graph.producers()[tiles.layers[end - 1].ops[-1]].out.shape[2]
        names = tuple(layer.name for layer in tiles.layers[first:end])
        fused = dataclasses.replace(
            tiles, fused=(Fused(names, rng.randint(1, last), rng.random() < 0.5),)
        )
        if not Layers(fused).obstacles:
            return fused
    raise AssertionError("no rows fit")


def twice(make: Callable[[Sketch], Graph]) -> Graph:
    """A network between two pointwise layers."""
    s = Sketch("twice")
    inner = s.input

    def before(shape: tuple[int, ...]) -> Value:
        return s.requant(s.conv(inner(shape), shape[1], (1, 1)))

    object.__setattr__(s, "input", before)
    end = make(s).outputs[0]
    return s.graph(s.requant(s.conv(end, 3, (1, 1))))


def randomly_mapped(tiles: Tiles, target: Target, rng: random.Random) -> Tiles:
    """Random legal nests on the machine as each layer finds it."""
    machine = machine_of(target)
    for place, layer in enumerate(tiles.layers):
        if layer.place != "macro":
            continue
        options = ((WEIGHTS, "gb"),) if rng.random() < 0.5 else ()
        bare = dataclasses.replace(layer, nest=Nest((), options=options))
        tiles = with_layer(tiles, place, bare)
        layers = Layers(tiles)
        homes = Homes(layers, machine)
        workload, view = layers.heavy(bare).workload, homes.view(place)
        while True:
            nest = random_nest(workload, view, rng)
            mapped = resolve(nest, workload, view)
            if not isinstance(mapped, Mapped) or any(capacity_faults(mapped)):
                continue
            if mapped.activations < 1000:
                break
        nest = dataclasses.replace(nest, options=options)
        tiles = with_layer(tiles, place, dataclasses.replace(layer, nest=nest))
    return tiles


def with_layer(tiles: Tiles, place: int, layer: Layer) -> Tiles:
    layers = (*tiles.layers[:place], layer, *tiles.layers[place + 1 :])
    return dataclasses.replace(tiles, layers=layers)


def check(tiles: Tiles, target: Target, engine: str = "fast") -> Program:
    program = allocate(KIND.lower(tiles, target), target=target)
    size = target.spec.memory["gb"].size_bits // 8
    for buffer in program.buffers:
        if buffer.memory == "gb.x1" and buffer.dtype != "i32":
            assert buffer.address is not None
            assert buffer.address + bytes_of(buffer) <= size
    inputs = sample_inputs(tiles.graph)
    found = execute(program, target, inputs, engine=engine)
    for name, array in evaluate(tiles.graph, inputs).items():
        assert (found[name] == array).all(), name
    return program


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["miredo-default", "edge-digital"])
def test_random_bands(make: Callable[[Sketch], Graph], name: str) -> None:
    target = load_target(name)
    rng = random.Random(f"{make} {name}".split(" at ")[0])
    for turn in range(3):
        tiles = randomly_mapped(grouped(make(Sketch("bands")), target, rng), target, rng)
        check(tiles, target, "fast" if turn else "plain")
        assert parse_tiles(str(tiles), tiles.graph.tensors) == tiles


def test_both_simulators_agree_on_bands() -> None:
    target = load_target("miredo-default")
    rng = random.Random(7)
    tiles = randomly_mapped(grouped(shortcut(Sketch("bands")), target, rng), target, rng)
    program = check(tiles, target)
    cycles = {
        simulate(program, target, samples=1, engine=engine).latency_cycles
        for engine in ("plain", "fast")
    }
    assert len(cycles) == 1


def test_kept_values_and_bands_go_together() -> None:
    target = load_target("miredo-default")
    rng = random.Random(3)
    tiles = grouped(inverted(Sketch("bands")), target, rng, most=2)
    (band,) = set(Layers(tiles).bands.values())
    result = Layers(tiles).leaving(band.whole_layers[-1])[0]
    tiles = dataclasses.replace(tiles, keeps=(Keep(result, "gb"),))
    program = check(randomly_mapped(tiles, target, rng), target)
    assert program.buffer_map()[result].memory == "gb.x1"


@pytest.mark.parametrize("name", ["miredo-default", "edge-digital"])
def test_values_beside_bands_stay_until_the_last_band(name: str) -> None:
    """What a group reads and makes is there for all its bands, whichever layer touches it."""
    target = load_target(name, {"memory.gb.size_bits": 100000})
    rng = random.Random(name)
    for make in NETWORKS:
        graph = fuse_layers(twice(make))
        for _turn in range(3):
            tiles = grouped(graph, target, rng, first=1)
            layers = Layers(tiles)
            homes = Homes(layers, machine_of(target))
            names = [
                name
                for layer in tiles.layers
                for name in layers.leaving(layer)
                if not homes.obstacle(name, 1)
                and not any(
                    name in y.ops for b in homes.layers.bands.values() for y in b.whole_layers[:-1]
                )
            ]
            tiles = dataclasses.replace(tiles, keeps=tuple(Keep(name, "gb") for name in names))
            check(randomly_mapped(tiles, target, rng), target)


def test_what_cannot_be_fused() -> None:
    target = load_target("miredo-default")
    s = Sketch("bands")
    x = s.input((1, 4, 10, 6))
    a = s.requant(s.conv(x, 4, (3, 3), pads=(1, 1, 1, 1)), relu=True)
    b = s.requant(s.conv(a, 4, (3, 3), pads=(1, 1, 1, 1)))
    tiles = tile(fuse_layers(s.graph(s.add(b, a), a)), target=target)
    names = tuple(layer.name for layer in tiles.layers[:2])
    fused = dataclasses.replace(tiles, fused=(Fused(names, 2),))
    with pytest.raises(UsageError, match="others read"):
        KIND.lower(fused, target)


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
@pytest.mark.parametrize("name", ["miredo-default", "edge-digital"])
def test_chosen_groups(name: str, objective: str) -> None:
    """With a small buffer, values do not fit as a whole, but their bands do."""
    target = load_target(name, {"memory.gb.size_bits": 3072})
    for make in NETWORKS:
        graph = fuse_layers(make(Sketch("chosen")))
        tiles = map_layers(tile(graph, target=target), target=target, objective=objective)
        kept = keep_resident(tiles, target=target, objective=objective)
        fused = fuse_rows(kept, target=target, objective=objective)
        check(fused, target)
        assert parse_tiles(str(fused), graph.tensors) == fused
        cost = NetworkCost(target, Options(objective=objective))
        scores = [cost.score(one)[0] for one in (tiles, kept, fused)]
        assert scores == sorted(scores, reverse=True)
        assert fuse_rows(fused, target=target) == fused


def wide(s: Sketch) -> Graph:
    """What lies between the layers is large."""
    x = s.input((1, 8, 24, 14))
    a = s.requant(s.conv(x, 48, (1, 1)), relu=True)
    b = s.requant(s.conv(a, 48, (3, 3), pads=(1, 1, 1, 1), group=48), relu=True)
    return s.graph(s.requant(s.conv(b, 8, (1, 1))))


@pytest.mark.parametrize("name", ["miredo-default", "edge-digital"])
def test_bands_save_energy_where_values_are_large(name: str) -> None:
    target = load_target(name, {"memory.gb.size_bits": 65536})
    tiles = map_layers(
        tile(fuse_layers(wide(Sketch("wide"))), target=target), target=target, objective="energy"
    )
    spent = []
    kept = keep_resident(tiles, target=target, objective="energy")
    fused = fuse_rows(kept, target=target, objective="energy")
    assert fused.fused
    for one in (tiles, kept, fused):
        program = check(one, target)
        cycles = simulate(program, target, samples=1).latency_cycles
        spent.append(energy(program, target, cycles).total_pj)
    assert spent[2] < 0.9 * spent[1] <= 0.9 * spent[0]


def test_fused_layers_have_estimates() -> None:
    """The events of all layers of a group are those of the program."""
    target = load_target("miredo-default", {"memory.gb.size_bits": 65536})
    graph = fuse_layers(wide(Sketch("wide")))
    tiles = map_layers(tile(graph, target=target), target=target, objective="energy")
    fused = fuse_rows(tiles, target=target, objective="energy")
    assert fused.fused
    program = check(fused, target)
    simulation = simulate(program, target, samples=1)
    spent = energy(program, target, simulation.latency_cycles)
    guess = estimate(fused, target, pipelined=False)
    assert guess.dynamic_pj == pytest.approx(spent.dynamic_pj)
    assert guess.latency_cycles <= simulation.latency_cycles
