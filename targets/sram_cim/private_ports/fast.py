"""The compiled twins of `simulator` and of `closed_form`: schedules and mappings as arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cimc.mapping.machine import OPERANDS
from cimc.mapping.nest import DIMS, Mapped
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.private_ports import kernel
from cimc.targets.sram_cim.private_ports.schedule import Schedule


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


@dataclass(frozen=True, slots=True)
class Mappings:
    """Many mappings of one layer with one spatial choice, one in each row (`batch`).

    Loops stand from outside in; `at` is the position in the operand's chain of the level that keeps
    I, W, O at each loop; `double` by operand and position.
    """

    count: kernel.Ints  # [rows] loops
    dim: kernel.Ints  # [rows, loops] in the order g n k c p q r s
    bound: kernel.Ints  # [rows, loops]
    at: kernel.Ints  # [rows, 3, loops]
    double: kernel.Ints  # [rows, 3, positions]


def closed_forms(
    mappings: Mappings,
    workload: Workload,
    target: Target,
    factors: kernel.Ints,
    workers: int = 1,
) -> tuple[kernel.Floats, kernel.Floats]:
    """Latency (cycles) and energy (pJ) of all mappings.

    `factors`: [axes, dims] spatial factors; `workers`: threads that share the rows.
    """
    from cimc.targets.sram_cim.anneal import packed
    from cimc.targets.sram_cim.private_ports import batch

    m = packed(workload, machine_of(target), spec_of(target), 1)
    limits = np.array([workload.shape.h, workload.shape.w], np.int64)
    rows = len(mappings.count)
    latency, energy = np.empty(rows), np.empty(rows)

    def run(part: slice) -> None:
        batch.closed_forms(
            m,
            limits,
            factors,
            mappings.count[part],
            mappings.dim[part],
            mappings.bound[part],
            mappings.at[part],
            mappings.double[part],
            latency[part],
            energy[part],
        )

    edges = [rows * worker // workers for worker in range(workers + 1)]
    parts = [slice(low, high) for low, high in itertools.pairwise(edges)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, parts))
    return latency, energy


def closed_forms_of(nests: Sequence[Mapped], target: Target) -> tuple[kernel.Floats, kernel.Floats]:
    """Latency (cycles) and energy (pJ) of mappings of one layer with one spatial choice."""
    first = nests[0]
    longest = max(1, *(len(nest.loops) for nest in nests))
    chains = [first.machine.chain(o) for o in OPERANDS]
    positions = max(len(chain) for chain in chains)
    rows = len(nests)
    mappings = Mappings(
        np.array([len(nest.loops) for nest in nests], np.int64),
        np.zeros((rows, longest), np.int64),
        np.ones((rows, longest), np.int64),
        np.zeros((rows, 3, longest), np.int64),
        np.zeros((rows, 3, positions), np.int64),
    )
    for row, nest in enumerate(nests):
        for place, (dim, bound) in enumerate(nest.loops):
            mappings.dim[row, place], mappings.bound[row, place] = DIMS.index(dim), bound
            for o in OPERANDS:
                mappings.at[row, o, place] = chains[o].index(nest.levels[o][place])
        for level, o in nest.double:
            mappings.double[row, o, chains[o].index(level)] = 1
    factors = np.ones((len(first.spatial), len(DIMS)), np.int64)
    for axis, own in enumerate(first.spatial):
        for dim, factor in own:
            factors[axis, DIMS.index(dim)] *= factor
    return closed_forms(mappings, first.workload, target, factors)
