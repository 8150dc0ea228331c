"""MIREDO's simulator: one mapped layer on a machine whose operands never contend for a port.

Each (level, operand) has a timer of its own, so I, W and O overlap freely even on one read-write
port. That is not what a machine with such ports can do (`cimc.sim.simulate` shares them); it serves
to compare mappings with published ones. Semantics restated from MIREDO's public code:

    at loop i, an operand kept at level c moves its tile on to x, the next level it uses (or the
    macro itself), if i is its firing loop; that takes tau = ceil(tile bits / width of c)
    x has two buffers    t[c] += tau; t[x] = max(t[x], t[c])
    x has one            t[c] = t[x] = max(t[c], t[x]) + tau
    an activation starts when the timers of all three operands at the macro allow
    O comes in like the others, even the first time, and goes back by the same way

Batches and dilations are unknown to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cimc.ir.tiles import Nest
from cimc.lowering import ConvShape
from cimc.mapping.machine import INPUT, OUTPUT, WEIGHT
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim.private_ports.schedule import Move, Schedule, private_schedule

OPERANDS = (INPUT, WEIGHT, OUTPUT)


@dataclass(frozen=True, slots=True)
class Stalls:
    """Cycles of one operand, added up over all its transfers."""

    transfer: int  # moving tiles towards the macro
    single_buffer: int  # of these: into single buffers, while the macro waits
    second_buffer: float  # how long second buffers waited for their data
    write_back: int  # moving results outwards


@dataclass(frozen=True, slots=True)
class PrivateRun:
    """What one layer takes: cycles; pJ by level, "activation", "leakage"; stalls of I, W, O."""

    latency: float
    energy_pj: dict[str, float]
    stalls: tuple[Stalls, Stalls, Stalls]

    @property
    def energy_nj(self) -> float:
        """Energy of the layer."""
        return sum(self.energy_pj.values()) * 1e-3


def simulate_private(
    nest: Nest, target: Target, shape: ConvShape, engine: Literal["fast", "plain"] = "fast"
) -> PrivateRun:
    """Latency, energy and stalls of a mapped layer under private ports.

    raises  FitError with all reasons why the mapping is not legal
    """
    schedule = private_schedule(nest, target, Workload(shape))
    if engine == "plain":
        run = _Run(schedule)
        latency = run.latency()
        waited = (run.waited[INPUT], run.waited[WEIGHT], run.waited[OUTPUT])
    else:
        from cimc.targets.sram_cim.private_ports.fast import stepped  # imports Numba

        latency, waited = stepped(schedule)
    energy = {**schedule.energy_pj, "leakage": latency * schedule.leakage_pj}
    stalls = [_stalls(schedule, operand, waited[operand]) for operand in OPERANDS]
    return PrivateRun(latency, energy, (stalls[INPUT], stalls[WEIGHT], stalls[OUTPUT]))


def _stalls(schedule: Schedule, operand: int, waited: float) -> Stalls:
    """Transfers are counted, only waiting needs time to run."""
    visits, transfer, single = 1, 0, 0
    for bound, moves in zip(schedule.bounds, schedule.moves, strict=True):
        visits *= bound
        move = moves[operand]
        transfer += visits * move.tau
        single += 0 if move.double else visits * move.tau
    return Stalls(transfer, single, waited, transfer if operand == OUTPUT else 0)


class _Run:
    """The timers while they run; t[level][operand], the last level is the macro itself."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.t = [[0.0, 0.0, 0.0] for _ in range(schedule.levels + 1)]
        self.waited = [0.0, 0.0, 0.0]

    def latency(self) -> float:
        """Run everything."""
        schedule, t = self.schedule, self.t
        for operand, boot in enumerate(schedule.boots):
            if boot is not None:
                t[0][operand] += boot.cycles
                t[boot.level][operand] += boot.cycles
        self.loop(0)
        boot = schedule.boots[OUTPUT]
        if boot is not None:
            t[0][OUTPUT] += boot.cycles
            t[boot.level][OUTPUT] += boot.cycles
        return max(max(timers) for timers in t[: schedule.levels])

    def loop(self, place: int) -> None:
        """All iterations of one loop."""
        if place == len(self.schedule.bounds):
            self.activate()
            return
        t, out = self.t, self.schedule.moves[place][OUTPUT]
        for iteration in range(self.schedule.bounds[place]):
            for operand, move in enumerate(self.schedule.moves[place]):
                self.fetch(operand, move)
            if iteration and out.double:
                self.late_write_back(out)
            self.loop(place + 1)
            if not out.double:
                t[out.sink][OUTPUT] = max(t[out.source][OUTPUT], t[out.sink][OUTPUT]) + out.tau
                t[out.source][OUTPUT] = t[out.sink][OUTPUT]
        if out.double:
            self.late_write_back(out)

    def fetch(self, operand: int, move: Move) -> None:
        """A tile on its way towards the macro."""
        t = self.t
        if move.double:
            t[move.source][operand] += move.tau
            if move.tau:
                self.waited[operand] += max(0.0, t[move.source][operand] - t[move.sink][operand])
            t[move.sink][operand] = max(t[move.sink][operand], t[move.source][operand])
        else:
            start = max(t[move.source][operand], t[move.sink][operand])
            t[move.source][operand] = t[move.sink][operand] = start + move.tau

    def late_write_back(self, out: Move) -> None:
        """The result of the iteration before goes back while this one runs."""
        if out.tau:
            t = self.t
            t[out.source][OUTPUT] = max(t[out.source][OUTPUT], t[out.sink][OUTPUT]) + out.tau

    def activate(self) -> None:
        """One activation of the macros."""
        t, schedule = self.t, self.schedule
        ready = max(t[schedule.levels]) + schedule.activation
        t[schedule.levels] = [ready, ready, ready]
        for operand, level in enumerate(schedule.busy):
            if level is not None:
                t[level][operand] = ready
