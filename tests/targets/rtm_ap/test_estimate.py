"""The closed form of a layer beside what its program counts."""

from __future__ import annotations

from collections import Counter

import pytest

from cimc.conformance.samples import Sketch
from cimc.ir.graph import Graph
from cimc.sim.energy import energy
from cimc.sim.estimate import estimate
from cimc.sim.simulate import simulate
from cimc.target import load_target
from cimc.targets.rtm_ap import KIND
from cimc.targets.rtm_ap.codegen import Style
from cimc.targets.rtm_ap.plan import Plan, Tile
from tests.targets.rtm_ap.test_rtm_ap import lowered, machine, matmul_graph, tiled, with_plan

SAMPLED = {"ap.searched_bits", "ap.written_bits", "ap.shift_steps", "rtm.read_bits"}


def wide_graph() -> Graph:
    sketch = Sketch("wide", True)
    x = sketch.input((1, 48, 9, 7))
    sums = sketch.conv(x, 40, (3, 3), pads=(1, 1, 1, 1))
    return sketch.graph(sketch.requant(sums, relu=True))


def counts(plan: Plan | None, graph: Graph) -> tuple[Counter[str], Counter[str], float, float]:
    """Events of the program and of the estimate, and latency and energy of both as ratios."""
    target = machine()
    tiles = tiled(graph, target)
    if plan is not None:
        tiles = with_plan(tiles, target, plan)
    program = lowered(tiles, target)
    simulation = simulate(program, target, samples=1)
    spent = energy(program, target, simulation.latency_cycles, plan=simulation.plan, kind=KIND)
    guess = estimate(tiles, target, pipelined=False, kind=KIND)
    guessed: Counter[str] = Counter()
    for cost in guess.layers.values():
        guessed.update(dict(cost.events))
    counted = Counter({event: count for event, (count, _) in spent.by_event().items()})
    latency = guess.latency_cycles / simulation.latency_cycles
    return counted, guessed, latency, guess.total_pj / spent.total_pj


@pytest.mark.parametrize(("k_groups", "c_groups"), [(1, 1), (4, 1), (2, 3)])
def test_all_that_does_not_hang_on_the_column_program_is_exact(
    k_groups: int, c_groups: int
) -> None:
    plan = Plan("program", Tile(1, 9, 7), k_groups, c_groups, Style(36))
    counted, guessed, latency, total = counts(plan, wide_graph())
    assert counted.keys() == guessed.keys()
    for event in counted.keys() - SAMPLED:
        assert guessed[event] == counted[event], event
    for event in SAMPLED:
        tolerance = 0.001 if (k_groups, c_groups) == (1, 1) else 0.05
        assert guessed[event] == pytest.approx(counted[event], rel=tolerance), event
    assert latency == pytest.approx(1, abs=0.06)
    assert total == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("chunk", [64, 16])
def test_weights_as_data_are_exact(chunk: int) -> None:
    plan = Plan("multiply", Tile(3, 1, 1, 1, 20), 1, 1, Style(chunk))
    counted, guessed, latency, total = counts(plan, matmul_graph(3))
    assert guessed == counted
    assert latency == pytest.approx(1, abs=0.1)
    assert total == pytest.approx(1, abs=0.1)


def test_a_realignment_code_is_part_of_both() -> None:
    target = load_target("rtm-ap", {"ap.realign_steps": 4})
    plan = Plan("program", Tile(1, 9, 7), 1, 1, Style(144))
    tiles = with_plan(tiled(wide_graph(), target), target, plan)
    program = lowered(tiles, target)
    spent = energy(program, target, 0, kind=KIND).by_event()
    guess = dict(KIND.estimate(tiles.layers[0], tiles, target).events)
    assert guess["ap.checks"] == spent["ap.checks"][0] > 0
