"""Shared ports as a cost model of the exact search: judged by the closed form so far."""

from __future__ import annotations

import math

from cimc.ir.tiles import Nest
from cimc.mapping.machine import INPUT, WEIGHT
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.objective import Objective
from cimc.target import Target
from cimc.targets.sram_cim.energy import activation_pj, leakage_pj
from cimc.targets.sram_cim.exact.choices import remaining, used
from cimc.targets.sram_cim.exact.problem import Exploration, Figures, Limits, Problem
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import Factors
from cimc.targets.sram_cim.timing import evaluate


class SharedPorts:
    """The closed form of `timing`, and the activations alone as its floor."""

    def __init__(self, problem: Problem, target: Target) -> None:
        self.problem, self.spec, self.machine = problem, spec_of(target), machine_of(target)

    def evaluate(self, nest: Nest) -> Figures | None:
        """The closed form's figures of a mapping; None if it is not legal."""
        mapped = resolve(nest, self.problem.workload, self.machine)
        if not isinstance(mapped, Mapped) or any(capacity_faults(mapped)):
            return None
        figures = evaluate(mapped, self.spec, self.problem.epilogue)
        return Figures(figures.cycles, figures.energy_pj)

    def floor(self, factors: Factors) -> Figures:
        """All activations one after the other."""
        workload = self.problem.workload
        bits = workload.bits
        activations = math.prod(remaining(workload, factors).values())
        cycles = float(activations * self.machine.activation_cycles(bits[INPUT], bits[WEIGHT]))
        price = activation_pj(self.spec, bits[INPUT], bits[WEIGHT])
        pj = activations * used(factors[0]) * price + cycles * leakage_pj(self.spec)
        return Figures(cycles, pj)

    def explore(self, factors: Factors, objective: Objective, limits: Limits) -> Exploration:
        """Nothing beyond the floor."""
        floor = self.floor(factors)
        return Exploration(objective.score(floor.cycles, floor.energy_pj), (), 0, not limits.stop())
