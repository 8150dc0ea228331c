"""The machine kind: plans, programs, what they cost, and that mutants are found."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cimc.conformance.samples import Sketch, sample_inputs
from cimc.errors import FitError, VerifyError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, digest_of
from cimc.ir.program import Instr, Program, walk
from cimc.ir.tiles import Tiles, parse_tiles
from cimc.kind import Options
from cimc.passes.allocate import allocate
from cimc.passes.tile import tile
from cimc.sim.execute import Executor, execute
from cimc.target import Target, load_target
from cimc.targets.rtm_ap import KIND, ApLoad, ApRead, ApRun, isa
from cimc.targets.rtm_ap.codegen import Style
from cimc.targets.rtm_ap.plan import Plan, Tile, plan_of
from cimc.targets.rtm_ap.probe import PROBE, probe_of
from cimc.targets.rtm_ap.work import spec_of, work_of


@cache
def machine() -> Target:
    return load_target("rtm-ap")


@cache
def small() -> Target:
    """Two cores of one small array each, so that every loop runs."""
    changes = {"cores": 2, "ap.arrays": 1, "ap.rows": 64, "ap.columns": 128, "ap.domains": 16}
    return load_target("rtm-ap", changes)


def conv_graph(ternary: bool = True, group: int = 1, samples: int = 1) -> Graph:
    sketch = Sketch("conv", ternary)
    x = sketch.input((samples, 8, 9, 7))
    sums = sketch.conv(x, 12, (3, 3), pads=(1, 1, 1, 1), strides=(1, 2), group=group)
    return sketch.graph(sketch.requant(sums, relu=True))


def matmul_graph(rows: int = 1) -> Graph:
    sketch = Sketch("matmul")
    return sketch.graph(sketch.requant(sketch.matmul(sketch.input((rows, 50)), 20)))


def tiled(graph: Graph, target: Target, level: int = 2) -> Tiles:
    return KIND.map(tile(graph, target=target), target, Options(level=level))


def with_plan(tiles: Tiles, target: Target, plan: Plan) -> Tiles:
    """The tiles with another plan for every macro layer."""
    layers = []
    for layer in tiles.layers:
        if layer.nest is not None:
            shape = work_of(layer, tiles).shape
            layer = replace(layer, nest=plan.nest(layer.nest, target, shape))
        layers.append(layer)
    return replace(tiles, layers=tuple(layers))


def lowered(tiles: Tiles, target: Target) -> Program:
    return allocate(KIND.lower(tiles, target), target=target)


def is_exact(program: Program, graph: Graph, target: Target, engine: str = "fast") -> bool:
    inputs = sample_inputs(graph)
    wanted = evaluate(graph, inputs)
    found = execute(program, target, inputs, engine)
    return all((found[name] == array).all() for name, array in wanted.items())


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize(
    "graph",
    [conv_graph(), conv_graph(False), conv_graph(group=4), conv_graph(samples=3), matmul_graph()],
    ids=["ternary", "int8", "grouped", "batch", "matmul"],
)
def test_programs_equal_the_evaluator(graph: Graph, engine: str) -> None:
    program = lowered(tiled(graph, machine()), machine())
    assert is_exact(program, graph, machine(), engine)


@pytest.mark.parametrize("kind", ["program", "multiply"])
@pytest.mark.parametrize("graph", [conv_graph(), conv_graph(group=2, samples=2), matmul_graph(5)],
                         ids=["conv", "grouped", "matmul"])  # fmt: skip
def test_tails_in_every_dimension(kind: str, graph: Graph) -> None:
    """Tiles that do not divide their dimensions, in time and in space."""
    target, tiles = small(), tiled(graph, small())
    shape = work_of(tiles.layers[0], tiles).shape
    p, q = min(4, shape.p), min(3, shape.q)
    if kind == "program":
        plan = Plan("program", Tile(1, p, q), 5, 1, Style(18 if shape.r > 1 else 7))
    else:
        tile_ = Tile(1, min(2, shape.p), min(2, shape.q), 1, 5, parts=2)
        plan = Plan("multiply", tile_, 1, 1, Style(9 if shape.r > 1 else 8))
    planned = with_plan(tiles, target, plan)
    assert is_exact(lowered(planned, target), graph, target)


@pytest.mark.parametrize(("k_groups", "c_groups"), [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_groups_of_arrays_share_a_layer(k_groups: int, c_groups: int) -> None:
    graph, target = conv_graph(), machine()
    plan = Plan("program", Tile(1, 9, 4), k_groups, c_groups, Style(18))
    tiles = with_plan(tiled(graph, target), target, plan)
    program = lowered(tiles, target)
    runs = [instr for instr in _instrs(program) if isinstance(instr, ApRun)]
    assert len({run.array for run in runs}) == k_groups * c_groups
    assert is_exact(program, graph, target)


def test_loads_are_shared_by_output_channels() -> None:
    graph, target = conv_graph(), machine()
    plan = Plan("program", Tile(1, 9, 4), 3, 1, Style(36))
    program = lowered(with_plan(tiled(graph, target), target, plan), target)
    loads = [instr for instr in _instrs(program) if isinstance(instr, ApLoad)]
    assert [load.copies for load in loads] == [3, 3]
    assert [load.fresh for load in loads] == [True, False]


def test_plans_survive_their_text() -> None:
    tiles = tiled(conv_graph(), machine())
    again = parse_tiles(str(tiles), dict(tiles.graph.tensors))
    assert again == tiles
    nests = [layer.nest for held in (tiles, again) for layer in held.layers if layer.nest]
    assert plan_of(nests[0]) == plan_of(nests[1])


def test_all_levels_compute_the_same() -> None:
    graph = conv_graph(False)
    for level in range(4):
        program = lowered(tiled(graph, machine(), level), machine())
        assert is_exact(program, graph, machine())


def test_a_layer_too_large_for_its_arrays_is_refused() -> None:
    target = load_target("rtm-ap", {"ap.columns": 40, "ap.domains": 1, "ap.carries": 4})
    with pytest.raises(FitError) as problem:
        tiled(conv_graph(False), target)
    (fault,) = problem.value.faults
    assert "does not fit the arrays" in fault.where
    assert fault.need
    assert "40 columns of 1 domains" in fault.have


@pytest.mark.parametrize("policy", ["lazy", "eager"])
@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_counts_in_instructions_are_those_of_the_machine(engine: str, policy: str) -> None:
    """Searched cells, shift steps and checks are exact in every array; others are expected."""
    changes = {"ap.realign_steps": 3, "ap.shift_policy": policy}
    graph, target = conv_graph(), load_target("rtm-ap", changes)
    style = Style(18, input_layout=isa.ALONG, temp_layout=isa.ALONG)  # so that tracks move
    plan = Plan("program", Tile(1, 9, 4), 3, 2, style)
    program = lowered(with_plan(tiled(graph, target), target, plan), target)
    probe = probe_of(spec_of(target))
    executor = Executor(program, target, engine, {PROBE: probe})
    found = executor.run(sample_inputs(graph))
    probe.close_all()
    executor.run(sample_inputs(graph))
    probe.close_all()  # the second run counts the same again
    searched, moves, checks, changed = dict[int, int](), 0, 0, 0.0
    rows = spec_of(target).ap.rows
    for instr in _instrs(program):
        if isinstance(instr, ApLoad | ApRun | ApRead):
            moves += rows * instr.arrays * instr.moves
            checks += rows * instr.arrays * instr.checks
        if isinstance(instr, ApRun):
            changed += instr.changed * instr.arrays * rows
            for array in range(instr.array, instr.array + instr.arrays):
                searched[array] = searched.get(array, 0) + rows * instr.searched
    wanted = execute(program, target, sample_inputs(graph))
    assert all((found[name] == array).all() for name, array in wanted.items())
    total = probe.total()
    assert {array: counts.searched // 2 for array, counts in probe.counts.items()} == searched
    assert (total.moves, total.checks) == (2 * moves, 2 * checks)
    assert checks > 0
    assert 0.2 * changed < total.changed / 2 < 1.5 * changed


def test_costs_hold_the_arrays_that_run() -> None:
    graph, target = conv_graph(), machine()
    program = lowered(tiled(graph, target), target)
    buffers = program.buffer_map()
    for instr in _instrs(program):
        cost = KIND.cost(instr, buffers, target)
        units = {unit for unit, _ in cost.holds}
        if isinstance(instr, ApLoad | ApRun | ApRead):
            assert any(unit.endswith(".ap") for unit in units)
        assert {event for event, _ in cost.events} <= KIND.energies(target).keys()


def test_mutated_column_programs_are_found() -> None:
    """An operand complemented, or another operand taken."""
    graph, target = conv_graph(), machine()
    plan = Plan("program", Tile(1, 9, 4), 1, 1, Style(18))
    program = lowered(with_plan(tiled(graph, target), target, plan), target)
    run = next(instr for instr in _instrs(program) if isinstance(instr, ApRun))
    init = program.buffer_map()[run.code.buffer].init
    assert init is not None
    words, random = program.tensors[init].astype(np.uint32), np.random.default_rng(0)
    places = [p for p, word in enumerate(words.tolist()) if word & 0x1F in (isa.PUT, isa.ADD)]
    for place in random.choice(places, 12, replace=False):
        for bit in (16, 19):
            mutant = words.copy()
            mutant[place] ^= np.uint32(1 << bit)
            digest = digest_of(mutant)
            buffers = tuple(
                replace(held, init=digest) if held.name == run.code.buffer else held
                for held in program.buffers
            )
            tensors = {**program.tensors, digest: mutant}
            with contextlib.suppress(VerifyError):
                changed = replace(program, buffers=buffers, tensors=tensors)
                assert not is_exact(changed, graph, target), str(isa.word_of(int(words[place])))


def _instrs(program: Program) -> list[Instr]:
    items: list[Instr] = []
    for stream in program.streams:
        items += [instr for instr, _ in walk(stream.body)]
    return items
