"""Values that stay on the chip: any legal choice computes the same, illegal ones say why."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.conformance.samples import SAMPLES, Drawing, Sketch, sample_inputs
from cimc.errors import FitError, UsageError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.program import Program, walk
from cimc.ir.tiles import Keep, Tiles, parse_tiles
from cimc.kind import Options, load_kind
from cimc.lowering import ConvShape
from cimc.mapping.machine import OUTPUT
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.sample import random_nest
from cimc.mapping.workload import Workload
from cimc.passes.allocate import allocate, bytes_of
from cimc.passes.fuse_layers import fuse_layers
from cimc.passes.keep_resident import keep_resident
from cimc.passes.map import map as map_layers
from cimc.passes.tile import tile
from cimc.sim.execute import execute
from cimc.target import Target, load_target
from cimc.targets.sram_cim.homes import Homes, Tenant, placed
from cimc.targets.sram_cim.layers import Layers
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.search import best_mapping

KIND = load_kind("sram-cim")
NAMES = ("miredo-default", "edge-digital")


def sample(draw: Drawing) -> Graph:
    return fuse_layers(draw(Sketch(draw.__name__)))


def lowered(tiles: Tiles, target: Target) -> Program:
    return allocate(KIND.lower(tiles, target), target=target)


def check_values(tiles: Tiles, target: Target, engine: str = "fast") -> Program:
    inputs = sample_inputs(tiles.graph)
    program = lowered(tiles, target)
    found = execute(program, target, inputs, engine=engine)
    for name, array in evaluate(tiles.graph, inputs).items():
        assert (found[name] == array).all(), name
    return program


def check_places(program: Program, target: Target) -> None:
    """All that lies in gb ends where gb ends; exact sums are stored wider than they are priced."""
    size = target.spec.memory["gb"].size_bits // 8
    for buffer in program.buffers:
        if buffer.memory == "gb.x1" and buffer.dtype != "i32":
            assert buffer.address is not None
            assert buffer.address + bytes_of(buffer) <= size


def randomly_kept(graph: Graph, target: Target, rng: random.Random) -> Tiles:
    """Random values at home in gb, and random legal mappings beside them."""
    tiles = tile(graph, target=target)
    layers, machine = Layers(tiles), machine_of(target)
    homes = Homes(layers, machine)
    groups = [layers.leaving(layer) for layer in tiles.layers]
    groups += [(layers.heavy(y).w.name,) for y in tiles.layers if y.place == "macro"]
    names: dict[str, None] = {}
    for group in groups:
        if rng.random() < 0.6 and not any(homes.obstacle(name, 1) for name in group):
            names.update(dict.fromkeys(group))
    tiles = dataclasses.replace(tiles, keeps=tuple(Keep(name, "gb") for name in names))
    homes = Homes(Layers(tiles), machine)
    found = []
    for place, layer in enumerate(tiles.layers):
        if layer.place == "macro":
            workload, view = layers.heavy(layer).workload, homes.view(place)
            while True:
                nest = random_nest(workload, view, rng)
                mapped = resolve(nest, workload, view)
                if not isinstance(mapped, Mapped) or any(capacity_faults(mapped)):
                    continue
                if mapped.activations < 3000:
                    break
            layer = dataclasses.replace(layer, nest=nest)
        found.append(layer)
    return dataclasses.replace(tiles, layers=tuple(found))


@pytest.mark.parametrize("draw", SAMPLES, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_random_homes(draw: Drawing, name: str) -> None:
    target = load_target(name)
    rng = random.Random(f"{draw.__name__} {name}")
    for _ in range(2):
        tiles = randomly_kept(sample(draw), target, rng)
        check_places(check_values(tiles, target), target)
        again = parse_tiles(str(tiles), tiles.graph.tensors)
        assert again == tiles


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 90))))
def test_values_of_one_time_lie_apart(drawn: list[tuple[int, int, int]]) -> None:
    machine = machine_of(load_target("miredo-default", {"memory.gb.size_bits": 8192}))
    found = [
        Tenant(f"v{number}", 1, min(a, b), max(a, b), size)
        for number, (a, b, size) in enumerate(drawn)
    ]
    tiles = [{1: 7 * place} for place in range(10)]
    addresses = placed(found, machine, tiles)
    if addresses is None:
        assert sum(size + 7 for *_, size in drawn) > 500
        return
    for one in found:
        assert addresses[one.value] + one.size <= 1024
        assert addresses[one.value] >= 7 * one.last
        for other in found:
            if one.value < other.value and one.meets(other):
                first, second = sorted((one, other), key=lambda tenant: addresses[tenant.value])
                assert addresses[first.value] + first.size <= addresses[second.value]


@pytest.mark.parametrize("kilobytes", [256, 3, 1])
def test_chosen_homes(kilobytes: int) -> None:
    target = load_target("miredo-default", {"memory.gb.size_bits": kilobytes * 8192})
    kept = 0
    for draw in SAMPLES:
        mapped = map_layers(tile(sample(draw), target=target), target=target)
        tiles = keep_resident(mapped, target=target, objective="energy")
        kept += len(tiles.keeps)
        check_places(check_values(tiles, target), target)
    assert kept > 0


def chain(target: Target) -> Tiles:
    """The first sample with a value between two macro layers, mapped."""
    for draw in SAMPLES:
        tiles = map_layers(tile(sample(draw), target=target), target=target, level=1)
        layers = Layers(tiles)
        macro = [layer for layer in tiles.layers if layer.place == "macro"]
        made = {name for layer in macro for name in layers.leaving(layer)}
        if any(layers.heavy(layer).x.name in made for layer in macro):
            return tiles
    raise AssertionError("no such sample")


def test_kept_values_never_meet_the_outermost_memory() -> None:
    target = load_target("miredo-default")
    tiles = keep_resident(chain(target), target=target, weights=False)
    program = check_values(tiles, target, "plain")
    assert tiles.keeps
    memories = {buffer.name: buffer.memory for buffer in program.buffers}
    assert all(memories[keep.value] == "gb.x1" for keep in tiles.keeps)
    assert not program.setup


def test_kept_weights_are_loaded_once() -> None:
    target = load_target("miredo-default")
    tiles = keep_resident(chain(target), target=target, objective="energy")
    program = check_values(tiles, target, "plain")
    constants = [
        k.value for k in tiles.keeps if tiles.graph.producers()[k.value].mnemonic == "constant"
    ]
    assert constants
    loads = [instr for instr, _ in walk(program.setup)]
    assert len(loads) == len(constants)
    text = "\n".join(str(instr) for stream in program.streams for instr, _ in walk(stream.body))
    assert not any(f"'{name}'" in text for name in constants)


def test_what_cannot_be_kept() -> None:
    target = load_target("miredo-default")
    tiles = chain(target)
    graph = tiles.graph
    cases = {
        Keep(graph.outputs[0].name, "gb"): "neither input nor output",
        Keep(tiles.layers[0].ops[-1], "moon"): "no level is called moon",
        Keep(tiles.layers[0].ops[-1], "ireg"): "that the chip has once",
    }
    for keep, words in cases.items():
        with pytest.raises(UsageError, match=words):
            KIND.lower(dataclasses.replace(tiles, keeps=(keep,)), target)


def test_tiles_and_values_must_fit_together() -> None:
    large = load_target("miredo-default")
    tiles = keep_resident(chain(large), target=large, weights=False)
    small = load_target("miredo-default", {"memory.gb.size_bits": 64})
    with pytest.raises(FitError, match="kept values do not fit in gb") as caught:
        KIND.lower(tiles, small)
    assert "8 bytes (miredo-default: memory.gb.size_bits" in str(caught.value)


def test_partial_sums_do_not_go_to_a_kept_result() -> None:
    target = load_target("miredo-default")
    tiles = keep_resident(chain(target), target=target, weights=False)
    layers = Layers(tiles)
    homes = Homes(layers, machine_of(target))
    checked = 0
    for place, layer in enumerate(tiles.layers):
        if layer.nest is None or not homes.operand_homes(layer)[OUTPUT]:
            continue
        reduced = [loop for loop in layer.nest.loops if loop.dim in "crs"]
        if not reduced:
            continue
        out = dataclasses.replace(
            reduced[0], levels=(reduced[0].levels[0], reduced[0].levels[1], "gb")
        )
        nest = dataclasses.replace(
            layer.nest, loops=(out, *(y for y in layer.nest.loops if y is not reduced[0]))
        )
        mapped = resolve(nest, layers.heavy(layer).workload, homes.view(place))
        if isinstance(mapped, Mapped):
            assert "partial sums would go to gb" in str(next(capacity_faults(mapped)))
            checked += 1
    assert checked or not tiles.keeps


@pytest.mark.parametrize("objective", ["latency", "energy"])
def test_searches_complete_sums_before_they_are_kept(objective: str) -> None:
    """Many channels, few cells: a search would like to keep partial sums further out."""
    machine = machine_of(load_target("edge-digital", {"macro.rows": 4, "macro.columns": 4}))
    levels = tuple(
        dataclasses.replace(level, holds=(*level.holds[:2], False)) if not place else level
        for place, level in enumerate(machine.levels)
    )
    view = dataclasses.replace(machine, levels=levels)
    target = load_target("edge-digital", {"macro.rows": 4, "macro.columns": 4})
    for c in (64, 512):
        shape = ConvShape(n=1, g=1, k=64, c=c, p=6, q=6, r=3, s=3, h=8, w=8)
        found = best_mapping(Workload(shape), 1, view, target, Options(objective=objective))
        assert not any(capacity_faults(found))
        assert found.sum_level > 1


def test_options_reach_the_choice() -> None:
    target = load_target("miredo-default")
    tiles = chain(target)
    for objective in ("latency", "energy", "edp"):
        found = KIND.keep_resident(tiles, target, Options(objective=objective), weights=False)  # type: ignore[attr-defined]  # this kind has it
        check_values(found, target)
