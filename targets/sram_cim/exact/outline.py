"""What outlines are made of for one layer and one choice of spatial loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cimc.mapping.machine import OPERANDS, REDUCED, RELEVANT, WEIGHT, Machine
from cimc.mapping.nest import DIMS, Mapped
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim.anneal import packed
from cimc.targets.sram_cim.energy import activation_pj
from cimc.targets.sram_cim.exact import outline_kernel as kernel
from cimc.targets.sram_cim.exact.choices import remaining, used
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import Factors
from cimc.targets.sram_cim.private_ports.schedule import published_elements
from cimc.targets.sram_cim.search_kernel import Floats, Ints, instances_of, spread_of
from cimc.targets.sram_cim.search_kernel import Machine as Packed


@dataclass(frozen=True, slots=True)
class Ground:
    """Everything that all outlines of a spatial choice share."""

    m: Packed
    limits: Ints  # rows and columns of the input
    spread: Ints
    instances: Ints
    left: dict[str, int]  # iterations of loops in time
    boots: Floats  # cycles to fetch all of I, W, O from the outermost level
    boot_pj: Floats  # [partial sums, operand, position] pJ to bring all of it to a level
    fixed_pj: float  # activations


def ground_of(workload: Workload, target: Target, factors: Factors) -> Ground:
    """The ground of one spatial choice."""
    machine = machine_of(target)
    m = packed(workload, machine, spec_of(target), 1)
    table = np.ones((3, len(DIMS)), np.int64)
    for axis, choice in enumerate(factors):
        for dim, factor in choice:
            table[axis, DIMS.index(dim)] *= factor
    left = remaining(workload, factors)
    total = {dim: left[dim] * int(table[:, i].prod()) for i, dim in enumerate(DIMS)}
    spread, instances = spread_of(m, table), instances_of(m, table)
    boots, boot_pj = _boots(m, workload, machine, total, spread, instances, left)
    count = int(np.prod(list(left.values())))
    price = activation_pj(spec_of(target), workload.bits[0], workload.bits[1])
    return Ground(
        m,
        np.array([workload.shape.h, workload.shape.w], np.int64),
        spread,
        instances,
        left,
        boots,
        boot_pj,
        count * used(factors[0]) * price,
    )


def _boots(
    m: Packed,
    workload: Workload,
    machine: Machine,
    total: dict[str, int],
    spread: Ints,
    instances: Ints,
    left: dict[str, int],
) -> tuple[Floats, Floats]:
    """What it takes to bring all of an operand to a level before the first loop."""
    boots, pj = np.zeros(3), np.zeros((2, 3, kernel.POSITIONS + 1))
    for o in OPERANDS:
        chain = machine.chain(o)
        outer = machine.levels[chain[0]]
        bits = published_elements(workload, o, total) * workload.bits[o]
        boots[o] = bits / outer.read_bits
        for position in range(1, len(chain) + 1):
            pj[:, o, position] = bits * outer.read_pj * int(instances[chain[0]])
            if position == len(chain):
                continue
            level = chain[position]
            tile = {d: left[d] * int(spread[o, level, i]) for i, d in enumerate(DIMS)}
            stored = published_elements(workload, o, tile) * int(instances[level])
            for sums in (0, 1):
                width = kernel.bits_at(m, o, level, sums)
                pj[sums, o, position] += stored * width * machine.levels[level].write_pj
    return boots, pj


def outline_of(mapped: Mapped, ground: Ground) -> tuple[float, float] | None:
    """Least cycles, and pJ without leakage, of a whole nest; None if it has no loops.

    Loops of bound 1 must not be in it.
    """
    if not mapped.loops:
        return None
    m = ground.m
    label, x = np.zeros(kernel.COUNT, np.int64), np.zeros(kernel.FLOATS)
    kernel.root(m, 0, label, x)
    inside, tile = np.ones(8, np.int64), np.empty(8, np.int64)
    ever = int(any(ground.left[dim] > 1 for dim in REDUCED))
    count = len(mapped.loops)
    chains = [mapped.machine.chain(o) for o in OPERANDS]
    for place in range(count - 1, -1, -1):
        dim, bound = mapped.loops[place]
        reduces = int(any(d in REDUCED for d, _ in mapped.loops[: place + 1]))
        choice = np.zeros((3, 4), np.int64)
        for o in OPERANDS:
            choice[o] = _choice(mapped, chains[o], label, o, place, m)
        index = DIMS.index(dim)
        kernel.extended(
            m,
            ground.limits,
            ground.spread,
            ground.instances,
            label,
            x,
            index,
            bound,
            choice,
            inside,
            reduces,
            ever,
            tile,
        )
        inside[index] *= bound
    if not kernel.completed(m, label, x, ground.boots, ground.boot_pj):
        return None
    return float(x[kernel.T]), float(x[kernel.E]) + ground.fixed_pj


def _choice(
    mapped: Mapped, chain: tuple[int, ...], label: Ints, o: int, place: int, m: Packed
) -> tuple[int, int, int, int]:
    """Where the nest has the operand at a loop: position, second buffer inside it, fire, shut."""
    position = chain.index(mapped.levels[o][place])
    moves = int(mapped.loops[place][0] in RELEVANT[o])
    last, now = len(chain) - 1, int(label[kernel.POS + o])
    if now < len(chain) and not (o == WEIGHT and now == last):
        open_ = not label[kernel.FIRED + o]
        to_macro = label[kernel.NEXT + o] == len(chain)
        if open_ and not to_macro and not moves:
            position = now  # an anchor will carry the transfer: the loop is kept further in
    begins = place == 0 or chain.index(mapped.levels[o][place - 1]) != position
    if position == now:
        silent = o == WEIGHT and now == last
        fire = not silent and not label[kernel.FIRED + o] and moves
        to_macro = label[kernel.NEXT + o] == len(chain)
        shut = not silent and not label[kernel.FIRED + o] and not moves and to_macro and begins
        return position, int(label[kernel.TWO + o]), int(fire or shut), int(shut)
    two = int(now < len(chain) and (chain[now], o) in mapped.double)
    silent = o == WEIGHT and now == len(chain) and position == last
    shut = now == len(chain) and not silent and not moves and begins
    return position, two, int(shut or (moves and not silent)), int(shut)
