"""What ran when, on which unit: a simulation's trace with names.

trace = simulate(program, target, trace=True)
for run in timeline(trace): run.unit, run.start, run.cycles, run.instruction, run.layer
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cimc.sim.simulate import Simulation


@dataclass(frozen=True, slots=True)
class Run:
    """One instruction holding one unit once."""

    unit: str
    start: int  # cycle
    cycles: int
    instruction: str  # mnemonic
    layer: str
    stream: str


def timeline(simulation: Simulation) -> Iterator[Run]:
    """Every hold of a unit in the trace, in the order in which the instructions were handed out."""
    plan = simulation.plan
    for number, start in simulation.outcome.trace:
        step = plan.steps[number]
        stream = plan.names[step.stream]
        for unit, cycles in step.units:
            if plan.units[unit] and cycles:
                instr = step.instr
                yield Run(plan.units[unit], start, cycles, instr.mnemonic, instr.layer, stream)


def is_whole(simulation: Simulation) -> bool:
    """Whether the trace holds every instruction of the sample."""
    return len(simulation.outcome.trace) == simulation.instructions
