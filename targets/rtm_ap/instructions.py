"""The instructions of a racetrack associative processor: load columns, run, read sums out.

    ap-load %x[0; 28:112, 28:1, 4:3136, 3:56, 3:1] {array=0, arrays=4, ...}
    ap-run %conv1.ap[0; 412:1], %conv1.slots[0; 96:1] {array=0, arrays=4, passes=9120, ...}
    ap-read %conv1.acc[0; 64:784, 784:1], %conv1.offset[0; 64:1] {array=0, arrays=4, ...}

Arrays array .. array + arrays - 1 run in lockstep; their rows are numbered through. What an
instruction costs does not depend on data (but for written cells, whose expected number is given),
so its counts are part of it: the lowering has them from the same tables that the arrays run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cimc.ir.program import Bound, Instr, Machine, View, inside, register_instr, wrapped
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.arrays import chip_of
from cimc.targets.rtm_ap.regions import Stack, stacked
from cimc.targets.rtm_ap.span import Span

Ints = NDArray[np.int64]


@register_instr
@dataclass(frozen=True, slots=True)
class ApLoad(Instr):
    """Write a tile of integers into columns: value j of row i is src[i..., j...] + offset.

    The first `row_axes` axes of `src` run over the rows, the others over values; outside the bounds
    it is `fill` instead. Values are written in two's complement of `bits` bits, side by side in
    `banks`, then on top of each other. `copies` spans of arrays, `apart` arrays from each other,
    get the same. `fresh`: from now on the arrays hold nothing else.
    """

    src: View
    row_axes: int
    array: int
    arrays: int
    size: tuple[int, int, int]  # rows, columns and domains of an array
    column: int
    bits: int
    banks: int
    layout: int = isa.ACROSS
    offset: int = 0
    fill: int = 0
    read_bounds: tuple[Bound, ...] = ()
    copies: int = 1
    apart: int = 0
    fresh: bool = False
    fetched: int = 0  # elements that leave the memory; windows that overlap share them
    shifts: int = 0  # steps in time
    moves: int = 0  # steps of all tracks of a row, in all copies
    checks: int = 0  # of the alignment of tracks of a row, in all copies
    mnemonic: ClassVar[str] = "ap-load"

    @property
    def lines(self) -> int:
        """Rows that get data."""
        return math.prod(self.src.extents[: self.row_axes])

    @property
    def values(self) -> int:
        """Values in each row."""
        return math.prod(self.src.extents[self.row_axes :])

    def slots(self) -> isa.Code:
        """Where the values go."""
        levels = -(-self.values // self.banks)
        stack = Stack(self.column, self.bits, self.layout, self.banks, levels)
        return stack.table(self.values)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Read, transpose, write bit by bit."""
        within = inside(self.read_bounds, self.src, loops)
        read = machine.read(self.src, loops, within).astype(np.int64)
        if within is not None:
            read = np.where(within, read, self.fill)
        values = np.zeros((self.values, self.arrays * self.size[0]), np.int64)
        values[:, : self.lines] = read.reshape(self.lines, self.values).T + self.offset
        slots = self.slots()
        for copy in range(self.copies):
            span = Span(self.array + copy * self.apart, self.arrays, *self.size)
            arrays = chip_of(machine).arrays(span)
            if self.fresh:
                arrays.forget()
            arrays.store(slots, values)


@register_instr
@dataclass(frozen=True, slots=True)
class ApRun(Instr):
    """Execute column operations (`cimc.targets.rtm_ap.isa`) pass by pass on all rows of the arrays.

    `fresh`: the controller fetches the table of slots, too; it has it already otherwise.
    """

    code: View  # u32
    slots: View  # u32
    array: int
    arrays: int
    size: tuple[int, int, int]
    carries: int = 1
    fresh: bool = False
    passes: int = 0
    clears: int = 0  # writes of constants, without a search
    searched: int = 0  # cells of a row
    written: float = 0.0  # cells of a row, expected
    changed: float = 0.0  # cells of a row, expected
    shifts: int = 0  # steps in time
    moves: int = 0  # steps of all tracks of a row
    checks: int = 0  # of the alignment of tracks of a row
    mnemonic: ClassVar[str] = "ap-run"

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Run the words on the arrays' state."""
        span = Span(self.array, self.arrays, *self.size)
        code = machine.read(self.code, loops).astype(np.uint32).reshape(-1)
        slots = machine.read(self.slots, loops).astype(np.uint32).reshape(-1)
        chip_of(machine).arrays(span).run(code, slots, self.carries)


@register_instr
@dataclass(frozen=True, slots=True)
class ApRead(Instr):
    """Read accumulators out: acc[k, row...] (+)= value + offset[k].

    The accumulators lie stacked in domains from `column` on (`regions.stacked`). Each element of
    `acc` is the sum over `parts` neighbouring rows. `fresh`: nothing is added to what is there.
    Afterwards all columns shift back to where they started.
    """

    acc: View  # i32; the first axis runs over accumulators, the others over rows
    offset: View | None  # i32, one axis
    array: int
    arrays: int
    size: tuple[int, int, int]
    column: int
    bits: int
    parts: int = 1
    signed: bool = False
    fresh: bool = True
    shifts: int = 0
    moves: int = 0
    checks: int = 0
    mnemonic: ClassVar[str] = "ap-read"
    updates: ClassVar[tuple[str, ...]] = ("acc",)

    @property
    def rows(self) -> int:
        """Accumulators."""
        return self.acc.extents[0]

    @property
    def lines(self) -> int:
        """Array rows that are read."""
        return math.prod(self.acc.extents[1:]) * self.parts

    def slots(self) -> isa.Code:
        """Where the accumulators lie."""
        found = [stacked(row, self.column, self.bits, self.size[2]) for row in range(self.rows)]
        return isa.slot_table(found)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Unsigned or two's complement values, sums over parts, plus the offset."""
        span = Span(self.array, self.arrays, *self.size)
        arrays = chip_of(machine).arrays(span)
        values = arrays.fetch(self.slots())[:, : self.lines]
        arrays.home()
        if self.signed:
            values = values - (values >> (self.bits - 1) << self.bits)
        sums = values.reshape(self.rows, -1, self.parts).sum(axis=2)
        if self.offset is not None:
            sums = sums + machine.read(self.offset, loops).astype(np.int64)[:, None]
        sums = sums.reshape(self.acc.extents)
        if not self.fresh:
            sums = sums + machine.read(self.acc, loops).astype(np.int64)
        machine.write(self.acc, loops, wrapped(sums))
