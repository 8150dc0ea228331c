"""Private ports as a cost model of the exact search."""

from __future__ import annotations

import math

from cimc.errors import FitError
from cimc.ir.tiles import Nest
from cimc.mapping.machine import INPUT, OPERANDS, OUTPUT, WEIGHT
from cimc.mapping.objective import Objective
from cimc.target import Target
from cimc.targets.sram_cim.energy import activation_pj, leakage_pj
from cimc.targets.sram_cim.exact.choices import remaining, used
from cimc.targets.sram_cim.exact.outlines import Outlines
from cimc.targets.sram_cim.exact.problem import Exploration, Figures, Limits, Problem
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import Factors
from cimc.targets.sram_cim.private_ports import fast
from cimc.targets.sram_cim.private_ports.schedule import private_schedule, published_elements

WIDTHS = (0, 150, 3_000, 40_000, 300_000)  # outlines of each size, by effort
EXHAUSTIVE = 3  # effort from which on a search without slack judges every nest in question
ALLOWED = 0.3  # share of the slack that outlines may differ by and still stand for each other


class PrivatePorts:
    """The simulator of private ports as referee, and what its cycles and pJ cannot go below."""

    def __init__(self, problem: Problem, target: Target) -> None:
        self.workload, self.target = problem.workload, target
        self.machine, spec = machine_of(target), spec_of(target)
        bits = self.workload.bits
        self.cycles = self.machine.activation_cycles(bits[INPUT], bits[WEIGHT])
        self.activation_pj = activation_pj(spec, bits[INPUT], bits[WEIGHT])
        self.leakage_pj = leakage_pj(spec)
        self.outer = self._outer()
        self.known: dict[Factors, Outlines] = {}
        self.close: set[Factors] = set()  # bounds of whole nests stay below the cutoff: judge them

    def _outer(self) -> Figures:
        """Each operand once from or to the outermost level."""
        busiest, pj = 0.0, 0.0
        for operand in OPERANDS:
            level = self.machine.levels[self.machine.chain(operand)[0]]
            elements = published_elements(self.workload, operand, self.workload.dims)
            bits = elements * self.workload.bits[operand]
            ways = 2 if operand == OUTPUT else 1
            busiest = max(busiest, ways * bits / level.read_bits)
            pj += bits * level.read_pj  # results that never lie outermost are not charged
        return Figures(busiest, pj)

    def evaluate(self, nest: Nest) -> Figures | None:
        """The simulator's own figures of a mapping; None if it is not legal.

        Nests with loops of bound 1 are not: a level is in use where a loop runs.
        """
        if any(loop.bound == 1 for loop in nest.loops):
            return None
        try:
            schedule = private_schedule(nest, self.target, self.workload)
        except FitError:
            return None
        cycles = fast.latency(schedule)
        pj = sum(schedule.energy_pj.values()) + cycles * schedule.leakage_pj
        return Figures(cycles, pj)

    def floor(self, factors: Factors) -> Figures:
        """All activations one after the other; each operand once from or to outermost."""
        activations = math.prod(remaining(self.workload, factors).values())
        if activations == 1:
            cycles = 0.0  # without loops, what goes on after the last transfer is not counted
        else:
            cycles = max(self.outer.cycles, float(activations * self.cycles))
        pj = self.outer.energy_pj + activations * used(factors[0]) * self.activation_pj
        return Figures(cycles, pj + cycles * self.leakage_pj)

    def explore(self, factors: Factors, objective: Objective, limits: Limits) -> Exploration:
        """Search the outlines of the mappings with these spatial loops."""
        outlines = self.known.get(factors)
        if outlines is None:
            outlines = Outlines(self.workload, self.target, factors, objective)
        if not outlines.kinds:
            return self._without_loops(outlines, objective)
        if limits.effort == 0:  # most choices end here: nothing of them is kept
            least = outlines.least()
            return Exploration(least[2], (), 1, least[2] >= limits.cutoff)
        self.known[factors] = outlines
        effort = min(limits.effort, len(WIDTHS) - 1)
        least = outlines.least()
        before = outlines.nodes
        is_exhaustive = factors in self.close or (limits.slack == 0.0 and effort >= EXHAUSTIVE)
        found = outlines.run(
            WIDTHS[effort],
            limits.cutoff,
            ALLOWED * limits.slack,
            least[:2],
            limits.stop,
            is_exhaustive=is_exhaustive,
        )
        is_reached = limits.slack > 0.0 and found.bound >= limits.cutoff
        if found.is_complete and limits.slack > 0.0 and not is_reached:
            self.close.add(factors)
        is_final = found.is_complete and (is_reached or is_exhaustive)
        is_final = is_final or limits.effort >= len(WIDTHS) - 1
        if is_final:
            del self.known[factors]
        return Exploration(found.bound, found.nests, outlines.nodes - before, is_final)

    def _without_loops(self, outlines: Outlines, objective: Objective) -> Exploration:
        """The only mapping where nothing is left for loops in time."""
        nest = outlines.empty_nest()
        figures = self.evaluate(nest)
        if figures is None:
            return Exploration(math.inf, (), 1, True)
        return Exploration(objective.score(figures.cycles, figures.energy_pj), (nest,), 1, True)
