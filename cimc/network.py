"""Optimization across layers: each step is tried, simulated, and taken only where that says gain.

    tile, map                    layers alone
    keep-resident                + values that stay on the chip        taken, or left out
    pipeline-cores               + several samples at once             taken, or left out
    lower, allocate              of what was taken

The passes choose by closed forms, which can be wrong; the program that comes out is never worse
than that of the layers alone, by the simulator's own numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from cimc.build import Milestones
from cimc.ir.program import Program
from cimc.ir.tiles import Tiles
from cimc.kind import NetworkKind, load_kind
from cimc.mapping.objective import Objective
from cimc.pipeline.phases import NETWORK_STEPS
from cimc.pipeline.run import Observer, Verify, run_pipeline
from cimc.pipeline.spec import Step
from cimc.sim.energy import energy
from cimc.sim.simulate import simulate
from cimc.target import Target

ALONE = "layers alone"
SAMPLES = 64  # to find the period


@dataclass(frozen=True, slots=True)
class Stage:
    """What the network takes with one more step; a step that was not taken brought no gain."""

    step: str
    is_taken: bool
    latency_cycles: int
    energy_pj: float  # of one sample
    setup_cycles: int
    setup_pj: float
    period_cycles: float | None = None  # known where the objective asks for it

    def score(self, objective: str) -> tuple[float, float]:
        """What is minimized, and what decides where that is equal."""
        asked, cycles, pj = Objective.parse(objective), float(self.latency_cycles), self.energy_pj
        if asked.is_periodic:
            assert self.period_cycles is not None
            cycles = self.period_cycles
        return asked.score(cycles, pj), cycles * pj


def build_network(
    kept: Milestones,
    steps: Sequence[Step],
    target: Target,
    objective: str,
    *,
    verify: Verify = "final",
    observers: Sequence[Observer] = (),
) -> tuple[Stage, ...]:
    """Run the passes on the latest state; the first stage is that of the layers alone.

    Without network steps, on kinds that have none, and where no program is asked for, all passes
    simply run.
    """
    assert kept.latest is not None
    watchers = [kept, *observers]
    places = [place for place, step in enumerate(steps) if step.name in NETWORK_STEPS]
    is_program = any(step.name == "allocate" for step in steps)
    if not places or not is_program or not isinstance(load_kind(target.kind), NetworkKind):
        run_pipeline(kept.latest, steps, target=target, verify=verify, observers=watchers)
        return ()
    first, last = places[0], places[-1] + 1
    state = run_pipeline(
        kept.latest,
        steps[:first],
        target=target,
        verify=verify,
        observers=watchers,
        later=steps[first:],
    )
    assert isinstance(state, Tiles)
    judge = _Judge(state, tuple(steps[last:]), target, objective)
    for place in range(first, last):
        found = run_pipeline(
            judge.tiles,
            steps[place : place + 1],
            target=target,
            verify=verify,
            observers=watchers,
            done=place,
            later=steps[place + 1 :],
        )
        assert isinstance(found, Tiles)
        judge.consider(found, steps[place].name)
    kept.keep(judge.tiles)
    run_pipeline(
        judge.tiles,
        steps[last:],
        target=target,
        verify=verify,
        observers=watchers,
        done=last,
    )
    return tuple(judge.stages)


class _Judge:
    """The best tiles so far, and what each step brought."""

    def __init__(
        self, tiles: Tiles, lowering: tuple[Step, ...], target: Target, objective: str
    ) -> None:
        self.tiles, self.lowering, self.target, self.objective = tiles, lowering, target, objective
        self.stages: list[Stage] = []
        self.least: Stage | None = None

    def consider(self, tiles: Tiles, step: str) -> None:
        """Take the tiles that a step made, if their program is better."""
        if tiles == self.tiles:
            return
        if self.least is None:
            self.least = self.simulated(self.tiles, ALONE)
            self.stages.append(self.least)
        found = self.simulated(tiles, step)
        if found.score(self.objective) < self.least.score(self.objective):
            self.tiles, self.least = tiles, found
        self.stages.append(found if found is self.least else _left_out(found))

    def simulated(self, tiles: Tiles, step: str) -> Stage:
        """The numbers of the tiles' program."""
        program = run_pipeline(tiles, self.lowering, target=self.target, verify="none")
        assert isinstance(program, Program)
        is_periodic = Objective.parse(self.objective).is_periodic
        simulation = simulate(program, self.target, samples=SAMPLES if is_periodic else 1)
        spent = energy(program, self.target, simulation.latency_cycles, plan=simulation.plan)
        return Stage(
            step,
            True,
            simulation.latency_cycles,
            spent.total_pj,
            simulation.setup_cycles,
            spent.setup_pj,
            simulation.period_cycles,
        )


def _left_out(stage: Stage) -> Stage:
    return dataclasses.replace(stage, is_taken=False)
