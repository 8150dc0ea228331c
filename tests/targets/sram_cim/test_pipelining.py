"""Pipelines over cores: the same values, equal simulators, and never a longer period."""

from __future__ import annotations

import dataclasses
import random

import pytest

from cimc.build import Clock, Milestones
from cimc.conformance.samples import (
    Drawing,
    Sketch,
    branches,
    pooled,
    residual,
    sample_inputs,
    shortcut_conv,
)
from cimc.errors import CimcError, FitError, InternalError, UsageError, VerifyError
from cimc.ir.evaluate import evaluate
from cimc.ir.program import Program, Signal, Wait, walk
from cimc.ir.tiles import Fused, Keep, Staged, Tiles, parse_tiles
from cimc.kind import load_kind
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.sample import random_nest
from cimc.network import build_network
from cimc.passes.allocate import allocate, bytes_of
from cimc.passes.fuse_layers import fuse_layers
from cimc.passes.fuse_rows import fuse_rows
from cimc.passes.keep_resident import keep_resident
from cimc.passes.map import map as map_layers
from cimc.passes.pipeline_cores import pipeline_cores
from cimc.passes.tile import tile
from cimc.pipeline.levels import Effort
from cimc.sim.estimate import estimate
from cimc.sim.execute import Executor
from cimc.sim.simulate import Simulation, simulate
from cimc.target import Target, load_target
from cimc.targets.sram_cim.homes import Homes
from cimc.targets.sram_cim.instructions import Transfer
from cimc.targets.sram_cim.layers import Layers
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.stages import Stage, passed_on, stages_of

KIND = load_kind("sram-cim")
NAMES = ("miredo-default", "edge-digital")
DRAWINGS = (residual, shortcut_conv, pooled, branches)


def mapped(draw: Drawing, target: Target) -> Tiles:
    graph = fuse_layers(draw(Sketch(draw.__name__)))
    return map_layers(tile(graph, target=target), target=target)


def lowered(tiles: Tiles, target: Target) -> Program:
    return allocate(KIND.lower(tiles, target), target=target)


def check(tiles: Tiles, target: Target) -> Program:
    """Three samples in a row, by both engines; text that reads back; memories that suffice."""
    assert parse_tiles(str(tiles), tiles.graph.tensors) == tiles
    program = lowered(tiles, target)
    for engine in ("plain", "fast"):
        machine = Executor(program, target, engine)
        for seed in range(3):
            inputs = sample_inputs(tiles.graph, seed)
            found = machine.run(inputs)
            for name, array in evaluate(tiles.graph, inputs).items():
                assert (found[name] == array).all(), name
    check_places(program, stages_of(tiles, machine_of(target)))
    return program


def check_places(program: Program, stages: tuple[Stage, ...]) -> None:
    """What the chip has once is shared out, and each share holds what lies in it."""
    level = stages[0].machine.level("gb")
    ends: dict[str, int] = {}
    for buffer in program.buffers:
        if buffer.memory.startswith("gb.x1") and buffer.dtype != "i32":
            assert buffer.address is not None
            end = buffer.address + bytes_of(buffer)
            ends[buffer.memory] = max(ends.get(buffer.memory, 0), end)
    parts = {f"gb.x1.core{one.first}": one.machine.levels[level].size_bits // 8 for one in stages}
    whole = machine_of(load_target(program.target)).levels[level].size_bits // 8
    assert sum(parts.values()) + ends.get("gb.x1", 0) <= whole
    assert all(end <= parts[memory] for memory, end in ends.items() if memory != "gb.x1")


def both(program: Program, target: Target, samples: int) -> Simulation:
    """A simulation on which the engines agree."""
    plain = simulate(program, target, samples=samples, engine="plain")
    fast = simulate(program, target, samples=samples)
    assert plain.latency_cycles == fast.latency_cycles
    assert plain.period_cycles == fast.period_cycles
    return fast


@pytest.mark.parametrize("draw", DRAWINGS, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_two_stages_are_faster_than_one_stream(draw: Drawing, name: str) -> None:
    target = load_target(name)
    tiles = mapped(draw, target)
    staged = pipeline_cores(tiles, target=target, stages=2)
    assert len(staged.staged) == 2
    program = check(staged, target)
    assert [stream.name for stream in program.streams] == ["stage0", "stage1"]
    alone = simulate(lowered(tiles, target), target, samples=16).period_cycles
    period = both(program, target, 16).period_cycles
    assert period is not None
    assert alone is not None
    assert period < 0.9 * alone
    assert pipeline_cores(staged, target=target, stages=2) == staged


def randomly_staged(tiles: Tiles, target: Target, rng: random.Random) -> Tiles:
    """Random cuts, cores, homes of what stages pass on, weights in cells, and mappings."""
    count, total = len(tiles.layers), target.spec.cores
    stages = rng.randint(1, min(3, count, total))
    ends = [0, *sorted(rng.sample(range(1, count), stages - 1)), count]
    cores = [rng.randint(1, total // stages) for _ in range(stages)]
    names = [layer.name for layer in tiles.layers]
    staged = tuple(
        Staged(tuple(names[first:end]), own)
        for first, end, own in zip(ends, ends[1:], cores, strict=False)
    )
    tiles = dataclasses.replace(tiles, staged=staged)
    layers, machine = Layers(tiles), machine_of(target)
    homes = Homes(layers, machine)
    keeps = [
        Keep(name, "gb")
        for names in {layers.leaving(layer) for layer in tiles.layers}
        if rng.random() < 0.5 and not any(homes.obstacle(name, 1) for name in names)
        for name in names
    ]
    tiles = dataclasses.replace(tiles, keeps=tuple(keeps))
    for place, layer in enumerate(tiles.layers):
        if layer.place == "macro":
            tiles = with_random_nest(tiles, place, target, rng)
    return tiles


def with_random_nest(tiles: Tiles, place: int, target: Target, rng: random.Random) -> Tiles:
    """A random legal mapping of one layer, half of the time with its weights in the cells."""
    layer = tiles.layers[place]
    weights = Keep(Layers(tiles).heavy(layer).w.name, "macro")
    kept = dataclasses.replace(tiles, keeps=(*tiles.keeps, weights))
    for tried, turns in ((kept, rng.choice((0, 60))), (tiles, 4000)):
        stage = next(s for s in stages_of(tried, machine_of(target)) if layer in s.tiles.layers)
        homes = Homes(Layers(stage.tiles), stage.machine)
        workload = homes.layers.heavy(layer).workload
        view = homes.view(stage.tiles.layers.index(layer))
        if tried is kept:  # others want cells, too
            levels = list(view.levels)
            cells = dataclasses.replace(levels[homes.cells], size_bits=16)
            levels[homes.cells] = cells
            view = dataclasses.replace(view, levels=tuple(levels))
        for _ in range(turns):
            nest = random_nest(workload, view, rng)
            found = resolve(nest, workload, view)
            if not isinstance(found, Mapped) or any(capacity_faults(found)):
                continue
            if found.activations < 2000:
                new = dataclasses.replace(layer, nest=nest)
                layers = (*tried.layers[:place], new, *tried.layers[place + 1 :])
                return dataclasses.replace(tried, layers=layers)
    raise AssertionError("no mapping fits")


@pytest.mark.parametrize("draw", [residual, branches], ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_random_stages(draw: Drawing, name: str) -> None:
    target = load_target(name)
    rng = random.Random(f"{draw.__name__} {name}")
    bare = tile(fuse_layers(draw(Sketch(draw.__name__))), target=target)
    tiles = randomly_staged(bare, target, rng)
    both(check(tiles, target), target, 5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_in_cells_are_loaded_once(name: str) -> None:
    target = load_target(name)
    tiles = pipeline_cores(mapped(residual, target), target=target, stages=2)
    assert sum(keep.level == "macro" for keep in tiles.keeps) == 2
    program = lowered(tiles, target)
    loads = [i for i, _ in walk(program.setup) if isinstance(i, Transfer) and i.operand == "W"]
    assert len(loads) == 2
    moved = [i for stream in program.streams for i, _ in walk(stream.body)]
    assert not any(isinstance(i, Transfer) and i.operand == "W" for i in moved)
    simulation = simulate(program, target, samples=4)
    assert simulation.setup_cycles > 0
    guess = estimate(tiles, target, pipelined=True)
    assert guess.period_cycles < guess.latency_cycles
    counted = sum(count for step in simulation.plan.steps for _, count in step.cost.events)
    assert counted > 0


def test_stages_have_their_own_units_and_slots() -> None:
    target = load_target("miredo-default")
    tiles = pipeline_cores(mapped(residual, target), target=target, stages=2)
    program = lowered(tiles, target)
    units = {unit.name for unit in simulate(program, target, samples=4).units}
    assert {"core0.macro", "core4.macro", "dram.port"} <= units
    assert not {"macro", "ib.port", "vector"} & units
    slots = passed_on(tiles)
    assert 2 in slots.values()
    for name, count in slots.items():
        assert program.buffer_map()[name].slots == count


def test_streams_that_do_not_wait_are_found_out() -> None:
    target = load_target("miredo-default")
    program = lowered(pipeline_cores(mapped(residual, target), target=target, stages=2), target)

    def without(kind: type) -> Program:
        streams = tuple(
            dataclasses.replace(
                stream, body=tuple(item for item in stream.body if not isinstance(item, kind))
            )
            for stream in program.streams
        )
        return dataclasses.replace(program, streams=streams)

    with pytest.raises(VerifyError, match="without waiting"):
        simulate(without(Wait), target, samples=2)
    with pytest.raises(CimcError):
        Executor(without(Signal), target, "plain").run(sample_inputs(residual(Sketch("residual"))))


@pytest.mark.parametrize("name", NAMES)
def test_never_a_longer_period(name: str) -> None:
    target = load_target(name)
    for draw in (residual,):
        kept = Milestones(Clock())
        kept.keep(fuse_layers(draw(Sketch(draw.__name__))))
        effort = Effort(objective="period")
        steps = build_network(kept, effort.machine_steps(), target, effort.objective)
        taken = [step.period_cycles for step in steps if step.is_taken]
        assert taken == sorted(taken, key=lambda period: -(period or 0))
        assert "pipeline-cores" in {step.step for step in steps}
        assert kept.program is not None
        period = simulate(kept.program, target, samples=64).period_cycles
        assert period == taken[-1]


def test_only_where_the_objective_is_the_period() -> None:
    target = load_target("miredo-default")
    tiles = mapped(residual, target)
    assert pipeline_cores(tiles, target=target) == tiles
    assert pipeline_cores(tiles, target=target, objective="energy") == tiles
    assert pipeline_cores(tiles, target=target, objective="period").staged
    names = [step.name for step in Effort(without="pipeline-cores").machine_steps()]
    assert "pipeline-cores" not in names
    assert "fuse-rows" in names


@pytest.mark.parametrize("name", NAMES)
def test_with_kept_values_and_bands(name: str) -> None:
    """What was kept and fused before is chosen anew in each stage."""
    target = load_target(name, {"memory.gb.size_bits": 16384})
    for draw in (residual,):
        tiles = keep_resident(mapped(draw, target), target=target, objective="energy")
        tiles = fuse_rows(tiles, target=target, objective="energy")
        staged = pipeline_cores(tiles, target=target, objective="energy", stages=2)
        assert keep_resident(staged, target=target) == staged
        assert fuse_rows(staged, target=target) == staged
        lowered(staged, target)


# --- what is refused ---


def test_stages_that_cannot_be_had() -> None:
    target = load_target("miredo-default")
    tiles = mapped(residual, target)
    with pytest.raises(UsageError, match="there cannot be 9 stages") as caught:
        pipeline_cores(tiles, target=target, stages=9)
    (fault,) = caught.value.faults
    assert fault.code == "CIM4040"
    assert "8 cores" in fault.have
    single = load_target("miredo-default", {"cores": 1})
    alone = mapped(residual, single)
    assert pipeline_cores(alone, target=single, objective="period") == alone
    with pytest.raises(UsageError, match="1 cores"):
        pipeline_cores(alone, target=single, stages=2)


def test_stages_that_somebody_wrote() -> None:
    target = load_target("miredo-default")
    tiles = mapped(residual, target)
    first, second = (layer.name for layer in tiles.layers)

    def staged(*stages: Staged, fused: tuple[Fused, ...] = (), level: str = "") -> Tiles:
        keeps = tuple(Keep(name, level) for name in tiles.layers[0].ops[-1:] if level)
        return dataclasses.replace(tiles, staged=stages, fused=fused, keeps=keeps)

    with pytest.raises(FitError, match="the stages do not fit") as caught:
        KIND.lower(staged(Staged((first,), 6), Staged((second,), 3)), target)
    assert caught.value.faults[0].need == "9 cores"
    halves = Staged((first,), 4), Staged((second,), 4)
    with pytest.raises(InternalError, match="all layers in order"):
        staged(*halves[::-1]).verify()
    with pytest.raises(InternalError, match="is no stage"):
        staged(Staged((first, second), 0)).verify()
    with pytest.raises(InternalError, match="in two stages"):
        staged(*halves, fused=(Fused((first, second), 2),)).verify()
    with pytest.raises(FitError, match="too wide"):  # mapped for all cores
        KIND.lower(staged(*halves), target)
    small = load_target("miredo-default", {"memory.gb.size_bits": 2048})
    with pytest.raises(FitError, match="stages pass on do not fit in gb"):
        KIND.lower(staged(*halves, level="gb"), small)


def test_values_that_cannot_lie_in_cells() -> None:
    target = load_target("miredo-default")
    tiles = mapped(residual, target)
    value = tiles.layers[0].ops[-1]
    wrong = dataclasses.replace(tiles, keeps=(Keep(value, "macro"),))
    with pytest.raises(UsageError, match="cannot be kept in macro") as caught:
        KIND.lower(wrong, target)
    assert caught.value.faults[0].need == "the weights of a macro layer"
