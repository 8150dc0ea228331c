"""Arithmetic of a mapped nest: what lies where, what moves when, and whether it fits.

A `Nest` names its levels; `resolve` checks it against a machine and a workload and gives `Mapped`,
which answers with numbers; `capacity_faults` says what does not fit. Loops count from 0, the
outermost; a tile "inside loop i" is what the loops after i cover. Sizes of one instance of a level
hold the spatial loops of those axes that fan out at that level or further in; the union over all
instances holds all spatial loops.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from cimc.errors import Fault
from cimc.ir.tiles import Nest
from cimc.mapping.machine import INPUT, NAMES, OUTPUT, REDUCED, RELEVANT, WEIGHT, Machine
from cimc.mapping.workload import Workload

DIMS = "gnkcpqrs"
WORD = 32  # bits of an exact sum in the outermost memory


@dataclass(frozen=True, slots=True)
class Block:
    """The loops `begin` .. `end`-1 that keep an operand at `level`."""

    level: int
    begin: int
    end: int


@dataclass(frozen=True)
class Mapped:
    """A nest with its names resolved; only `resolve` and searches make one."""

    workload: Workload
    machine: Machine
    loops: tuple[tuple[str, int], ...]  # (dim, bound), outermost first
    levels: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # of I, W, O for each loop
    spatial: tuple[tuple[tuple[str, int], ...], ...]  # (dim, factor) for each axis of the machine
    double: frozenset[tuple[int, int]]  # (level, operand)

    # --- blocks ---

    def blocks(self, operand: int) -> tuple[Block, ...]:
        """The levels that the operand's loops name, outermost first."""
        found: list[Block] = []
        for place, level in enumerate(self.levels[operand]):
            if found and found[-1].level == level:
                found[-1] = Block(level, found[-1].begin, place + 1)
            else:
                found.append(Block(level, place, place + 1))
        return tuple(found)

    def chain(self, operand: int) -> tuple[Block, ...]:
        """`blocks` with the outermost level and the register added where no loop names them."""
        chain = self.machine.chain(operand)
        found = list(self.blocks(operand))
        if not found or found[0].level != chain[0]:
            found.insert(0, Block(chain[0], 0, 0))
        if found[-1].level != chain[-1]:
            found.append(Block(chain[-1], len(self.loops), len(self.loops)))
        return tuple(found)

    def filled_in(self, operand: int, block: Block) -> int:
        """The loop each of whose iterations brings `block` a new tile; -1: filled once.

        It is the innermost loop outside the block that moves the tile; loops of bound 1 move none.
        """
        for place in range(block.begin - 1, -1, -1):
            dim, bound = self.loops[place]
            if bound > 1 and dim in RELEVANT[operand]:
                return place
        return -1

    # --- extents ---

    @cached_property
    def spread(self) -> dict[str, int]:
        """Product of the spatial factors of each dim."""
        found = dict.fromkeys(DIMS, 1)
        for factors in self.spatial:
            for dim, factor in factors:
                found[dim] *= factor
        return found

    def extents(self, begin: int, operand: int, level: int) -> dict[str, int]:
        """Loop extents of an operand's tile inside loop `begin`-1, in one instance of `level`."""
        found = dict.fromkeys(DIMS, 1)
        for axis, factors in zip(self.machine.axes, self.spatial, strict=True):
            if axis.source[operand] >= level:
                for dim, factor in factors:
                    found[dim] *= factor
        for dim, bound in self.loops[begin:]:
            found[dim] *= bound
        return found

    def union(self, begin: int) -> dict[str, int]:
        """Loop extents inside loop `begin`-1, over all instances."""
        found = dict(self.spread)
        for dim, bound in self.loops[begin:]:
            found[dim] *= bound
        return found

    def step(self, place: int) -> int:
        """How far one iteration of a loop moves its dim."""
        dim = self.loops[place][0]
        inner = math.prod(bound for other, bound in self.loops[place + 1 :] if other == dim)
        return inner * self.spread[dim]

    @cached_property
    def total(self) -> dict[str, int]:
        """Padded extent of each dim: the product of all its bounds and factors."""
        return self.union(0)

    def used(self, axis: int) -> int:
        """Positions in use along an axis."""
        return math.prod(factor for _, factor in self.spatial[axis])

    def instances(self, level: int) -> int:
        """Instances of a level in use."""
        along = self.machine.levels[level].along
        axes = enumerate(self.machine.axes)
        return math.prod(self.used(place) for place, axis in axes if axis.name in along)

    @property
    def activations(self) -> int:
        """Activations of the macros, all cores at once."""
        return math.prod(bound for _, bound in self.loops)

    # --- bits ---

    @cached_property
    def sum_level(self) -> int:
        """Outermost level that holds partial sums, further out only complete results move.

        The number of levels where no loop in time reduces: one activation completes its sums.
        """
        for (dim, bound), level in zip(self.loops, self.levels[OUTPUT], strict=True):
            if dim in REDUCED and bound > 1:
                return level
        return len(self.machine.levels)

    def bits(self, operand: int, level: int) -> int:
        """Bits of one element of an operand at a level; the macro itself makes sums.

        In the outermost memory partial sums take a whole word.
        """
        if operand == OUTPUT and level >= min(self.sum_level, self.machine.chain(OUTPUT)[-1]):
            return self.machine.psum_bits if level else WORD
        if operand == WEIGHT and level == self.machine.chain(WEIGHT)[-1]:
            width = self.machine.weight_bits
            return -(-self.workload.bits[WEIGHT] // width) * width
        return self.workload.bits[operand]

    def resident_bits(self, operand: int, block: Block) -> int:
        """Bits that an operand takes in one instance of a block's level, with its second buffer."""
        tile = self.extents(block.begin, operand, block.level)
        copies = 2 if (block.level, operand) in self.double else 1
        size = self.workload.elements(operand, tile)
        return size * copies * self.bits(operand, block.level)

    def occupied(self) -> dict[int, dict[int, int]]:
        """Bits by level and operand in one instance of each level but the operand's home.

        A home in registers or cells counts, too: it holds tiles as the loops want them.
        """
        found: dict[int, dict[int, int]] = {}
        for operand in (INPUT, WEIGHT, OUTPUT):
            is_single = len(self.machine.chain(operand)) == 1
            for block in self.chain(operand)[0 if is_single else 1 :]:
                size = self.resident_bits(operand, block)
                found.setdefault(block.level, {})[operand] = size
        return found


# --- checking ---------------------------------------------------------------------------------


def resolve(nest: Nest, workload: Workload, machine: Machine) -> Mapped | list[Fault]:
    """The nest with its names resolved, or what is wrong with it whatever the levels' sizes."""
    faults = [
        *_name_faults(nest, machine),
        *_order_faults(nest, machine),
        *_cover_faults(nest, workload),
    ]
    return faults or _named(nest, workload, machine)


def nest_faults(nest: Nest, workload: Workload, machine: Machine) -> list[Fault]:
    """Everything that is wrong with a nest; sizes, too, where names say what lies where."""
    found = resolve(nest, workload, machine)
    if isinstance(found, Mapped):
        return list(capacity_faults(found))
    if any(fault.code not in _STILL_SIZED for fault in found):
        return found
    return [*found, *capacity_faults(_named(nest, workload, machine))]


_STILL_SIZED = frozenset(
    {"CIM4002", "CIM4003", "CIM4007", "CIM4009"}
)  # tiles are defined all the same


def _named(nest: Nest, workload: Workload, machine: Machine) -> Mapped:
    positions = {level.name: place for place, level in enumerate(machine.levels)}
    given = {axis.axis: axis.factors for axis in nest.spatial}
    return Mapped(
        workload,
        machine,
        tuple((loop.dim, loop.bound) for loop in nest.loops),
        (
            tuple(positions[loop.levels[INPUT]] for loop in nest.loops),
            tuple(positions[loop.levels[WEIGHT]] for loop in nest.loops),
            tuple(positions[loop.levels[OUTPUT]] for loop in nest.loops),
        ),
        tuple(given.get(axis.name, ()) for axis in machine.axes),
        frozenset((positions[level], NAMES.index(operand)) for level, operand in nest.double),
    )


def _name_faults(nest: Nest, machine: Machine) -> Iterator[Fault]:
    yield from _axis_faults(nest, machine)
    levels = {level.name: level for level in machine.levels}
    for loop in nest.loops:
        for place, name in enumerate(loop.levels):
            if name not in levels:
                where = f"`{loop}`: no level is called {name}"
                yield Fault(where, have=", ".join(levels), code="CIM4004")
            elif not levels[name].holds[place]:
                where = f"`{loop}`: {name} does not hold {NAMES[place]}"
                yield Fault(where, have=_holders(machine, place), code="CIM4005")
        if loop.dim not in DIMS or loop.bound < 1:
            yield Fault(f"`{loop}`: no such loop", need=" ".join(DIMS), code="CIM4006")
    for name, operand in nest.double:
        where = f"{operand} cannot have two buffers in {name}"
        if name not in levels:
            have = f"no level is called {name}: {', '.join(levels)}"
            yield Fault(where, have=have, code="CIM4004")
        elif not levels[name].double[NAMES.index(operand)]:
            found = [lv.name for lv in machine.levels if lv.double[NAMES.index(operand)]]
            have = f"two buffers in {', '.join(found) or 'no level'}"
            yield Fault(where, have=have, code="CIM4007")


def _axis_faults(nest: Nest, machine: Machine) -> Iterator[Fault]:
    axes = {axis.name: axis for axis in machine.axes}
    names = [spatial.axis for spatial in nest.spatial]
    for spatial in nest.spatial:
        axis = axes.get(spatial.axis)
        if axis is None:
            yield Fault(f"no axis is called {spatial.axis}", have=", ".join(axes), code="CIM4001")
            continue
        used = math.prod(factor for _, factor in spatial.factors)
        if used > axis.size:
            need, have = f"{used} positions", f"{axis.size} ({axis.key})"
            yield Fault(f"{spatial} is too wide", need, have, code="CIM4002")
        for dim, factor in spatial.factors:
            if dim not in axis.dims:
                have = f"{spatial.axis} runs {', '.join(sorted(axis.dims))}"
                yield Fault(f"{spatial} cannot run {dim}", have=have, code="CIM4003")
            if dim not in DIMS or factor < 1:
                yield Fault(f"{spatial}: no such loop", need=" ".join(DIMS), code="CIM4006")
        if names.count(spatial.axis) > 1:
            yield Fault(f"{spatial}: the axis is named twice", code="CIM4001")


def _holders(machine: Machine, operand: int) -> str:
    names = [machine.levels[level].name for level in machine.chain(operand)]
    return f"{NAMES[operand]} in {', '.join(names)}"


def _order_faults(nest: Nest, machine: Machine) -> Iterator[Fault]:
    names = [level.name for level in machine.levels]
    for operand in (INPUT, WEIGHT, OUTPUT):
        loops = [loop for loop in nest.loops if loop.levels[operand] in names]
        for around, loop in itertools.pairwise(loops):
            outer, inner = around.levels[operand], loop.levels[operand]
            if names.index(inner) < names.index(outer):
                yield Fault(
                    f"`for {loop.dim} {loop.bound}` keeps {NAMES[operand]} in {inner}, "
                    f"outside the {outer} of the loop around it",
                    need="levels from the outermost memory inwards",
                    have=" ".join(names),
                    code="CIM4008",
                )


def _cover_faults(nest: Nest, workload: Workload) -> Iterator[Fault]:
    if dict(nest.dims) != workload.dims:
        yield Fault(
            "`dims` is not the op's",
            need=" ".join(f"{dim}={extent}" for dim, extent in workload.dims.items()),
            have=" ".join(f"{dim}={extent}" for dim, extent in nest.dims),
            code="CIM4011",
        )
    spatial = [pair for axis in nest.spatial for pair in axis.factors]
    for dim, extent in workload.dims.items():
        pairs = [*spatial, *((loop.dim, loop.bound) for loop in nest.loops)]
        total = math.prod(bound for other, bound in pairs if other == dim)
        if 0 < total < extent:
            yield Fault(
                f"loops over {dim} do not cover it",
                need=f"{extent} iterations",
                have=f"{total}",
                help=f"add a loop `for {dim} {-(-extent // total)}`",
                code="CIM4009",
            )


def capacity_faults(mapped: Mapped) -> Iterator[Fault]:
    """Levels that cannot hold what the mapping keeps there."""
    home = mapped.machine.chain(OUTPUT)[0]
    if home and mapped.sum_level <= home:
        yield Fault(
            f"partial sums would go to {mapped.machine.levels[home].name}, where O is kept",
            need="loops over c, r, s at levels further in",
            code="CIM4033",
        )
    for place, parts in mapped.occupied().items():
        level = mapped.machine.levels[place]
        if sum(parts.values()) <= level.size_bits:
            continue
        largest = max(parts, key=lambda operand: parts[operand])
        shown = " + ".join(f"{NAMES[operand]} {bits}" for operand, bits in parts.items())
        yield Fault(
            f"tiles do not fit in {level.name}",
            need=f"{sum(parts.values())} bits ({shown})",
            have=f"{level.size_bits} bits ({mapped.machine.name}: {level.key})",
            help=_relief(mapped, place, largest),
            code="CIM4010",
        )


def _relief(mapped: Mapped, level: int, operand: int) -> str:
    if (level, operand) in mapped.double:
        return f"keep one buffer of {NAMES[operand]} in {mapped.machine.levels[level].name}"
    loops: Mapping[int, tuple[str, int]] = dict(enumerate(mapped.loops))
    for block in mapped.chain(operand):
        if block.level == level and block.begin < block.end:
            dim, bound = loops[block.begin]
            outer = [place for place in mapped.machine.chain(operand) if place < level]
            if not outer:
                return f"give {NAMES[operand]} another home, or more positions of the axes"
            name = mapped.machine.levels[outer[-1]].name
            return f"keep {NAMES[operand]} of `for {dim} {bound}` in {name}"
    (found,) = [block for block in mapped.chain(operand) if block.level == level]
    if mapped.workload.elements(operand, mapped.extents(found.begin, operand, level)) == 1:
        return f"a single element does not fit: raise {mapped.machine.levels[level].key}"
    return "use fewer positions of the axes"
