"""Latency and energy under private ports in closed form, without playing the loops.

Between two activations the transfers of the loops that step run: of loop i, and of all loops inside
it, which begin anew. Each operand's follow one another, the three operands' run side by side:

    run(i) = bound(i) run(i+1) + (bound(i) - 1) gap(i)        gap(i) = max over o of ready(i, o)

run: from the begin of the first activation inside loop i to the end of the last; run(N) is one
activation. ready: when operand o is there again, counted from the end of the last activation. A
level in between is free as soon as its last tile went on, so its transfers may begin earlier, while
that tile is used. Results go out and come in again.

Transfers of I and W into a second buffer wait for nothing: of such a chain all transfers but the
first run beside everything else, and the network takes at least as long as they do. Results in two
buffers are written back one iteration late: a loop cannot be faster than its transfers both ways,
ends with one of them, and begins with the other; where the level keeps loops further in, each
iteration waits for the write-back. Before the first activation everything is fetched once, after
the last one all results go out.

What is left out: operands that wait for each other in turns, and transfers into second buffers
that run ahead by less than what they are needed for.
"""

from __future__ import annotations

from dataclasses import dataclass

from cimc.mapping.machine import INPUT, OPERANDS, OUTPUT, WEIGHT
from cimc.targets.sram_cim.private_ports.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Figures:
    """Cycles and pJ of one layer."""

    latency: float
    energy_pj: float


def closed_form(schedule: Schedule) -> Figures:
    """The closed form of one schedule; its energy is exact but for leakage."""
    cycles = latency(schedule)
    return Figures(cycles, sum(schedule.energy_pj.values()) + cycles * schedule.leakage_pj)


@dataclass(slots=True)
class _Operand:
    """One operand, on the way from the innermost loop outwards; cycles."""

    level: int  # of the loop last seen
    moved: float = 0.0  # transfers between two activations
    ready: float = 0.0  # when these are done, after the last activation
    early: float = 0.0  # how long before the end of that activation they may begin
    next_early: float = 0.0  # the same for the next level further out
    once: float = 0.0  # every transfer once
    ahead: float = -1.0  # transfers into a second buffer and further out; -1: there is none
    rest: float = 0.0  # what runs after the last of these

    def enter(self, level: int, run: float, compute: int) -> None:
        """The first loop of a level; the innermost level is busy until an activation ends."""
        self.early = self.next_early
        self.next_early = 0.0 if self.level == compute else run + self.moved
        self.level = level

    def least(self) -> float:
        """What transfers into the second buffer take, beside the first one, with what follows."""
        return self.ahead + self.rest - self.once if self.ahead >= 0.0 else 0.0

    def move(self, cycles: float) -> None:
        """Transfers that an activation waits for."""
        self.moved += cycles
        self.ready = max(self.ready, self.moved - self.early)


def latency(schedule: Schedule) -> float:
    """Cycles of a schedule."""
    boots = [0.0 if boot is None else boot.cycles for boot in schedule.boots]
    if not schedule.bounds:
        return max(boots[INPUT], boots[WEIGHT], 2 * boots[OUTPUT])
    sides = [_Operand(schedule.levels) for _ in OPERANDS]
    inputs, weights, results = sides
    run, behind = float(schedule.activation), 0.0
    floor = 0.0  # of run, by transfers into second buffers further in
    for bound, moves in zip(reversed(schedule.bounds), reversed(schedule.moves), strict=True):
        for side, move in ((inputs, moves[INPUT]), (weights, moves[WEIGHT])):
            if move.source != side.level:
                side.enter(move.source, run, schedule.levels)
                if move.double:
                    floor = max(floor, side.ahead)
                    side.ahead = 0.0
            if side.ahead < 0.0:
                side.move(move.tau)
            elif move.tau:
                side.rest = side.rest if side.ahead else run
                side.ahead += move.tau
            side.once += move.tau
        move, late, closing = moves[OUTPUT], 0.0, 0.0
        if not move.double:
            results.move(2 * move.tau)
        elif move.tau:
            late = float(move.tau)
            closing = late if move.source == results.level else 2 * late
            results.move(2 * late - closing)
        results.level = move.source
        results.once += move.tau
        whole = bound * run + (bound - 1) * max(side.ready for side in sides)
        if late and bound > 1 and (2 * bound - 3) * late + run > whole:
            whole = (2 * bound - 3) * late + run
            behind = max(0.0, late - run)
            closing += behind
        results.move(closing)
        run, floor = whole, floor * bound
        for side in sides:
            side.ahead *= bound
    start = max(boots[o] + sides[o].once for o in OPERANDS)
    run = max(run, floor, inputs.least(), weights.least())
    return start + run + results.once + behind + boots[OUTPUT]
