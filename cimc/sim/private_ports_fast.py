"""The compiled twin of `private_ports`: a schedule as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cimc.mapping.machine import OPERANDS
from cimc.sim import private_ports_kernel as kernel
from cimc.sim.private_ports_schedule import Schedule


@dataclass(frozen=True, slots=True)
class Arrays:
    """A schedule as the kernels read it: timers by loop and operand."""

    bounds: kernel.Ints
    c: kernel.Ints
    x: kernel.Ints
    double: kernel.Ints
    tau: kernel.Ints
    base: kernel.Ints
    length: kernel.Ints
    busy: kernel.Ints
    activation: int
    boot_at: kernel.Ints
    boot: kernel.Floats


def latency(schedule: Schedule) -> float:
    """Latency by powers of max-plus matrices: the cost does not grow with trip counts."""
    a = arrays(schedule)
    return kernel.nest_latency(
        a.bounds,
        a.c,
        a.x,
        a.double,
        a.tau,
        a.base,
        a.length,
        a.busy,
        a.activation,
        a.boot_at,
        a.boot,
    )


def stepped(schedule: Schedule) -> tuple[float, tuple[float, float, float]]:
    """Latency step by step, and how long the second buffers of I, W, O waited."""
    a = arrays(schedule)
    found, waited = kernel.stepped(
        a.bounds,
        a.c,
        a.x,
        a.double,
        a.tau,
        a.base,
        a.length,
        a.busy,
        a.activation,
        a.boot_at,
        a.boot,
    )
    return found, (float(waited[0]), float(waited[1]), float(waited[2]))


def arrays(schedule: Schedule) -> Arrays:
    """The schedule with its levels as timers."""
    length = np.array([len(chain) for chain in schedule.chains], np.int64)
    base = np.concatenate([[0], np.cumsum(length + 1)[:2]]).astype(np.int64)
    positions = [
        {level: place for place, level in enumerate((*chain, schedule.levels))}
        for chain in schedule.chains
    ]
    count = len(schedule.bounds)
    c, x, double, tau = (np.zeros((count, 3), np.int64) for _ in range(4))
    for place, moves in enumerate(schedule.moves):
        for o, move in enumerate(moves):
            c[place, o] = base[o] + positions[o][move.source]
            x[place, o] = base[o] + positions[o][move.sink]
            double[place, o] = move.double
            tau[place, o] = move.tau
    busy, boot_at, boot = np.full(3, -1), np.full(3, -1), np.zeros(3)
    for o in OPERANDS:
        level, first = schedule.busy[o], schedule.boots[o]
        if level is not None:
            busy[o] = positions[o][level]
        if first is not None:
            boot_at[o], boot[o] = positions[o][first.level], first.cycles
    return Arrays(
        np.array(schedule.bounds, np.int64),
        c,
        x,
        double,
        tau,
        base,
        length,
        busy,
        schedule.activation,
        boot_at,
        boot,
    )
