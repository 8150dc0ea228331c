"""What a mapping fixes before time runs under private ports: who moves what at which loop.

An operand's levels are those that its loops name. It moves a tile on to its next level at the
innermost loop of a level that changes the tile; where a level has no such loop, an anchor, a loop
of bound 1, carries the move, right after the innermost loop further out that changes it. Towards
the macro itself it moves at the innermost loop of the last level that is relevant, whatever its
bound, or else at that level's outermost loop. Weights in the macro never move on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cimc.errors import Fault, FitError, raise_if
from cimc.ir.tiles import Nest
from cimc.mapping.machine import INPUT, NAMES, OUTPUT, RELEVANT, WEIGHT
from cimc.mapping.nest import DIMS, Mapped, resolve
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim.energy import activation_pj, leakage_pj
from cimc.targets.sram_cim.machine import machine_of, spec_of

OPERANDS = (INPUT, WEIGHT, OUTPUT)


@dataclass(frozen=True, slots=True)
class Move:
    """An operand at one loop: from `source` on to `sink`; no tile moves where tau is 0."""

    source: int
    sink: int  # number of levels: the macro itself
    double: bool  # the sink has two buffers
    tau: int  # cycles


@dataclass(frozen=True, slots=True)
class Boot:
    """An operand that starts further in than the outermost level: `cycles` to fetch all of it."""

    level: int
    cycles: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Loops outermost first, each with the moves of I, W and O; energy by level in pJ."""

    levels: int
    chains: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # that may hold I, W, O
    bounds: tuple[int, ...]
    moves: tuple[tuple[Move, Move, Move], ...]
    boots: tuple[Boot | None, Boot | None, Boot | None]
    busy: tuple[int | None, int | None, int | None]  # levels that an activation keeps busy
    activation: int  # cycles
    energy_pj: dict[str, float]
    leakage_pj: float  # per cycle


@dataclass(slots=True)
class _Loop:
    dim: str
    bound: int
    levels: list[int]
    fires: list[bool]


def private_schedule(nest: Nest, target: Target, workload: Workload) -> Schedule:
    """The schedule of a mapped layer; raises FitError with all reasons why it is not legal."""
    machine = machine_of(target)
    mapped = resolve(nest, workload, machine)
    if not isinstance(mapped, Mapped):
        raise FitError(mapped)
    return _Scheduler(mapped, target).schedule()


class _Scheduler:
    """The loops with anchors added, and what follows from them."""

    def __init__(self, mapped: Mapped, target: Target) -> None:
        self.mapped, self.machine, self.workload = mapped, mapped.machine, mapped.workload
        self.spec = spec_of(target)
        self.compute = len(self.machine.levels)
        self.used = [[block.level for block in mapped.blocks(o)] for o in OPERANDS]
        self.loops = [
            _Loop(dim, bound, [mapped.levels[o][place] for o in OPERANDS], [False] * 3)
            for place, (dim, bound) in enumerate(mapped.loops)
        ]
        self.energy = {level.name: 0.0 for level in self.machine.levels}
        raise_if(self.capacity_faults(), FitError)
        for operand in OPERANDS:
            for level in self.used[operand]:
                self.fire(operand, level)

    # --- tiles ---

    def bits(self, operand: int, level: int) -> int:
        """Bits of an element; where nothing reduces in time, even the register holds results."""
        if operand == OUTPUT:
            is_sum = level >= self.mapped.sum_level
            return self.machine.psum_bits if is_sum else self.workload.bits[OUTPUT]
        return self.mapped.bits(operand, level)

    def elements(self, operand: int, level: int, inside: bool) -> int:
        """Elements of a tile in one instance of `level`, or of what is `inside` its loops."""
        if level == self.compute:
            return 1
        tile = dict.fromkeys(DIMS, 1)
        for axis, factors in zip(self.machine.axes, self.mapped.spatial, strict=True):
            if axis.source[operand] >= level:
                for dim, factor in factors:
                    tile[dim] *= factor
        for loop in self.loops:
            if loop.levels[operand] > level or (loop.levels[operand] == level and not inside):
                tile[loop.dim] *= loop.bound
        return published_elements(self.workload, operand, tile)

    def capacity_faults(self) -> Iterator[Fault]:
        """Levels whose tiles, with second buffers, are larger than the level."""
        for place, level in enumerate(self.machine.levels):
            parts = {
                NAMES[o]: self.elements(o, place, inside=False)
                * self.bits(o, place)
                * (2 if (place, o) in self.mapped.double else 1)
                for o in OPERANDS
                if place in self.used[o]
            }
            if sum(parts.values()) > level.size_bits:
                shown = " + ".join(f"{name} {bits}" for name, bits in parts.items())
                yield Fault(
                    f"tiles do not fit in {level.name}",
                    need=f"{sum(parts.values())} bits ({shown})",
                    have=f"{level.size_bits} bits ({self.machine.name}: {level.key})",
                    code="CIM4010",
                )

    # --- firing ---

    def following(self, operand: int, level: int) -> int:
        """The next level that the operand uses, or the macro itself."""
        inner = [used for used in self.used[operand] if used > level]
        return inner[0] if inner else self.compute

    def moving(self, operand: int, places: list[int]) -> list[int]:
        """Those of `places` whose loop changes the operand's tile."""
        relevant = RELEVANT[operand]
        return [i for i in places if self.loops[i].dim in relevant and self.loops[i].bound > 1]

    def fire(self, operand: int, level: int) -> None:
        """Mark the loop at which the operand moves on from `level`."""
        block = [i for i, loop in enumerate(self.loops) if loop.levels[operand] == level]
        if self.following(operand, level) == self.compute:
            if (operand, level) != (WEIGHT, self.machine.chain(WEIGHT)[-1]):
                relevant = [i for i in block if self.loops[i].dim in RELEVANT[operand]]
                self.loops[relevant[-1] if relevant else block[0]].fires[operand] = True
            return
        moving = self.moving(operand, block)
        if moving:
            self.loops[moving[-1]].fires[operand] = True
            return
        outside = self.moving(operand, list(range(block[0])))
        after = outside[-1] + 1 if outside else 0
        while after < len(self.loops) and self.loops[after].fires[operand]:
            after += 1  # another level's anchor
        for loop in self.loops[after : block[0]]:
            loop.levels[operand] = level
        levels = list(self.loops[after - 1].levels if after else self.loops[0].levels)
        levels[operand] = level
        fires = [False, False, False]
        fires[operand] = True
        self.loops.insert(after, _Loop("n", 1, levels, fires))

    # --- costs ---

    def move(self, operand: int, loop: _Loop) -> Move:
        """What the operand does at a loop."""
        source = loop.levels[operand]
        sink = self.following(operand, source)
        tau = 0
        if loop.fires[operand]:
            bits = self.elements(operand, source, inside=True) * self.bits(operand, source)
            tau = -(-bits // self.machine.levels[source].read_bits)
            tau += sink == self.compute and source != self.machine.chain(operand)[-1]
        return Move(source, sink, (sink, operand) in self.mapped.double, tau)

    def charge(self, level: int, pj: float) -> None:
        """Add the energy of one instance for all instances of a level."""
        name = self.machine.levels[level].name
        self.energy[name] += pj * self.mapped.instances(level)

    def charge_move(self, operand: int, loop: _Loop, count: int) -> None:
        """Energy of `count` firings, and of the way back for O."""
        source = loop.levels[operand]
        sink = self.following(operand, source)
        register = self.machine.chain(operand)[-1]
        ways = 2 if operand == OUTPUT else 1
        outer = self.machine.levels[source]
        moved = self.elements(operand, source, inside=True) * self.bits(operand, source)
        self.charge(source, count * moved * outer.read_pj)
        if operand == OUTPUT:
            self.charge(source, count * moved * outer.write_pj)
        if sink != self.compute:
            inner = self.machine.levels[sink]
            stored = self.elements(operand, sink, inside=False) * self.bits(operand, sink)
            self.charge(sink, count * stored * inner.write_pj)
            if operand == OUTPUT:
                self.charge(sink, count * stored * inner.read_pj)
        elif source != register:  # passes through the register, on each way written and read
            inner = self.machine.levels[register]
            passed = ways * self.bits(operand, register)
            self.charge(register, count * passed * (inner.write_pj + inner.read_pj))

    def boot(self, operand: int) -> Boot | None:
        """The operand's fetch before the first loop, where no loop keeps it outermost."""
        outermost = self.machine.chain(operand)[0]
        first = self.loops[0].levels[operand] if self.loops else self.compute
        if first == outermost:
            return None
        outer = self.machine.levels[outermost]
        elements = published_elements(self.workload, operand, self.mapped.total)
        bits = elements * self.bits(operand, outermost)
        self.charge(outermost, bits * outer.read_pj)
        if first != self.compute:
            stored = self.elements(operand, first, inside=False) * self.bits(operand, first)
            self.charge(first, stored * self.machine.levels[first].write_pj)
        return Boot(first, bits / outer.read_bits)

    def schedule(self) -> Schedule:
        """Everything put together."""
        boots = (self.boot(INPUT), self.boot(WEIGHT), self.boot(OUTPUT))
        moves = []
        count = 1
        for loop in self.loops:
            count *= loop.bound
            moves.append((self.move(INPUT, loop), self.move(WEIGHT, loop), self.move(OUTPUT, loop)))
            for operand in OPERANDS:
                if loop.fires[operand]:
                    self.charge_move(operand, loop, count)
        bits = self.workload.bits
        cores = self.mapped.used(0)
        self.energy["activation"] = (
            count * cores * activation_pj(self.spec, bits[INPUT], bits[WEIGHT])
        )
        busy = [self.used[o][-1] if self.used[o] else None for o in OPERANDS]
        for o in OPERANDS:
            if busy[o] is not None and (busy[o], o) in self.mapped.double:
                busy[o] = None
        chains = [self.machine.chain(o) for o in OPERANDS]
        return Schedule(
            self.compute,
            (chains[INPUT], chains[WEIGHT], chains[OUTPUT]),
            tuple(loop.bound for loop in self.loops),
            tuple(moves),
            boots,
            (busy[INPUT], busy[WEIGHT], busy[OUTPUT]),
            self.machine.activation_cycles(bits[INPUT], bits[WEIGHT]),
            self.energy,
            leakage_pj(self.spec),
        )


def published_elements(workload: Workload, operand: int, tile: dict[str, int]) -> int:
    """Elements of a tile as MIREDO counts them: no more than the input has."""
    return math.prod(
        axis.extent(tile) if len(axis.terms) == 1 else min(axis.limit, axis.extent(tile))
        for axis in workload.axes[operand]
    )
