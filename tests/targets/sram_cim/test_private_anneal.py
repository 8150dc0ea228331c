"""Annealing under private ports: legal mappings, no worse than the rule by the simulator."""

from __future__ import annotations

import pytest

from cimc.lowering import ConvShape
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.target import load_target
from cimc.targets.sram_cim.exact.private import PrivatePorts
from cimc.targets.sram_cim.exact.private_anneal import annealed_private
from cimc.targets.sram_cim.exact.problem import Problem
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.placing import nest_of
from cimc.targets.sram_cim.stationary import weight_stationary

SHAPES = [
    ConvShape(1, 1, 128, 128, 28, 28, 3, 3, 28, 28, (1, 1), (1, 1)),
    ConvShape(1, 1, 480, 80, 14, 14, 1, 1, 14, 14),
    ConvShape(1, 192, 1, 1, 14, 14, 3, 3, 14, 14, (1, 1), (1, 1)),
    ConvShape(1, 1, 144, 6, 1, 1, 1, 1, 1, 1),
]


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
@pytest.mark.parametrize("shape", SHAPES)
def test_annealed_is_legal_and_no_worse_than_the_rule(shape: ConvShape, objective: str) -> None:
    target, workload = load_target("miredo-default"), Workload(shape)
    asked = Objective.parse(objective)
    model = PrivatePorts(Problem(workload, 1, asked, "private"), target)
    costs = []
    for mapped in annealed_private(workload, target, objective):
        figures = model.evaluate(nest_of(mapped))
        assert figures is not None
        costs.append(asked.score(figures.cycles, figures.energy_pj))
    for rule in weight_stationary(workload, machine_of(target)):
        figures = model.evaluate(nest_of(rule))
        assert figures is not None
        assert min(costs) <= asked.score(figures.cycles, figures.energy_pj)
