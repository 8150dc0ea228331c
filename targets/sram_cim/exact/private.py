"""Private ports as a cost model of the exact search."""

from __future__ import annotations

import math

from cimc.errors import FitError
from cimc.ir.tiles import Nest
from cimc.mapping.machine import INPUT, OPERANDS, OUTPUT, WEIGHT
from cimc.mapping.objective import Objective
from cimc.sim import private_ports_fast as fast
from cimc.sim.private_ports_schedule import private_schedule, published_elements
from cimc.target import Target
from cimc.targets.sram_cim.energy import activation_pj, leakage_pj
from cimc.targets.sram_cim.exact.choices import remaining, used
from cimc.targets.sram_cim.exact.problem import Exploration, Figures, Limits, Problem
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import Factors


class PrivatePorts:
    """The simulator of private ports as referee, and what its cycles and pJ cannot go below."""

    def __init__(self, problem: Problem, target: Target) -> None:
        self.workload, self.target = problem.workload, target
        self.machine, spec = machine_of(target), spec_of(target)
        bits = self.workload.bits
        self.cycles = self.machine.activation_cycles(bits[INPUT], bits[WEIGHT])
        self.activation_pj = activation_pj(spec, bits[INPUT], bits[WEIGHT])
        self.leakage_pj = leakage_pj(spec)

    def evaluate(self, nest: Nest) -> Figures | None:
        """The simulator's own figures of a mapping; None if it is not legal."""
        try:
            schedule = private_schedule(nest, self.target, self.workload)
        except FitError:
            return None
        cycles = fast.latency(schedule)
        pj = sum(schedule.energy_pj.values()) + cycles * schedule.leakage_pj
        return Figures(cycles, pj)

    def floor(self, factors: Factors) -> Figures:
        """All activations one after the other; each operand once from or to the outermost level."""
        activations = math.prod(remaining(self.workload, factors).values())
        busiest, pj = 0.0, 0.0
        for operand in OPERANDS:
            level = self.machine.levels[self.machine.chain(operand)[0]]
            elements = published_elements(self.workload, operand, self.workload.dims)
            bits = elements * self.workload.bits[operand]
            ways = 2 if operand == OUTPUT else 1
            busiest = max(busiest, ways * bits / level.read_bits)
            pj += bits * level.read_pj  # results that never lie outermost are not charged
        cycles = max(busiest, float(activations * self.cycles))
        pj += activations * used(factors[0]) * self.activation_pj
        return Figures(cycles, pj + cycles * self.leakage_pj)

    def explore(self, factors: Factors, objective: Objective, limits: Limits) -> Exploration:
        """Nothing yet: the floor is what is proven."""
        floor = self.floor(factors)
        bound = objective.score(floor.cycles, floor.energy_pj)
        return Exploration(bound, (), 0, not limits.stop())
