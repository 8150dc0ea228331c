"""The arrays of a running machine: cells, and which of them hold a value.

Two engines, equal to the bit. `PlainArrays` keeps one row of booleans per cell of a column and
follows the controller step by step; `PackedArrays` keeps 64 rows in a word and runs kernels. Both
look at every cell read whether it was written before, and refuse two domains of one column at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, InternalError, VerifyError
from cimc.ir.program import Machine
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.pass_tables import NAMES, TABLES, packed_tables

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Span:
    """Arrays first .. first + count - 1 of the chip, which run in lockstep, and their size."""

    first: int
    count: int
    rows: int
    columns: int
    domains: int

    @property
    def lines(self) -> int:
        """Rows of all arrays."""
        return self.count * self.rows


@dataclass(slots=True)
class Counts:
    """Cells searched, driven and changed so far, in all rows."""

    searched: int = 0
    written: int = 0
    changed: int = 0


class Arrays(Protocol):
    """The content of one span of arrays."""

    span: Span
    counts: Counts

    def forget(self) -> None:
        """From now on no cell holds a value."""

    def store(self, slots: isa.Code, values: Ints) -> None:
        """Write values[slots, lines], in two's complement of each slot's width."""

    def run(self, code: isa.Code, slots: isa.Code, carries: int) -> None:
        """Execute column operations."""

    def fetch(self, slots: isa.Code) -> Ints:
        """The unsigned values [slots, lines]."""


@dataclass
class PlainArrays:
    """The specification: the rows of a cell are the bits of one Python integer."""

    span: Span
    counts: Counts = field(default_factory=Counts)
    cells: dict[isa.Cell, int] = field(default_factory=dict)  # those that hold a value

    def __post_init__(self) -> None:
        self.every = (1 << self.span.lines) - 1

    def forget(self) -> None:
        """No cell holds a value."""
        self.cells.clear()

    def store(self, slots: isa.Code, values: Ints) -> None:
        """Bit by bit."""
        for place, code in enumerate(slots.tolist()):
            slot = isa.slot_of(code)
            for bit in range(slot.bits):
                rows = np.packbits((values[place] >> bit & 1).astype(np.bool_), bitorder="little")
                self.cells[slot.cell(bit)] = int.from_bytes(rows.tobytes(), "little")

    def fetch(self, slots: isa.Code) -> Ints:
        """Bit by bit."""
        values = np.zeros((len(slots), self.span.lines), np.int64)
        for place, code in enumerate(slots.tolist()):
            slot = isa.slot_of(code)
            for bit in range(slot.bits):
                rows = self._read("read-out", slot.cell(bit))
                packed = np.frombuffer(rows.to_bytes(self.span.lines // 8, "little"), np.uint8)
                values[place] |= np.unpackbits(packed, bitorder="little").astype(np.int64) << bit
        return values

    def run(self, code: isa.Code, slots: isa.Code, carries: int) -> None:
        """Every step of every word: a search of all rows, then a write into those tagged."""
        controller = isa.Controller(slots, self.span.columns, carries)
        for cell in controller.carries:
            self._write(cell, self.every, False)
        for word in code.tolist():
            for step in controller.steps(word):
                self._step(step, str(isa.word_of(word)))

    def _step(self, step: isa.Step, word: str) -> None:
        if step.table == isa.FORGET:
            self.cells.pop(step.a, None)
            return
        if step.table in (isa.WRITE_0, isa.WRITE_1):
            self._write(step.r, self.every, step.table == isa.WRITE_1)
            return
        cells = (step.a, step.b, step.c, step.r)
        used = [cell for cell in cells if cell[0] >= 0]
        if len({column for column, _ in used}) < len(set(used)):
            raise _clashing(word)
        for cell in used:
            self._read(word, cell)
        for one in TABLES[NAMES[step.table]].passes:
            tagged = self.every
            for role, key in enumerate(one.search):
                if key != "-":
                    rows = self.cells[cells[role]]
                    wanted = (key == "1") != bool(step.invert >> role & 1)
                    tagged &= rows if wanted else ~rows
                    self.counts.searched += self.span.lines
            for role, key in enumerate(one.write):
                if key != "-":
                    self._write(cells[role], tagged, key == "1")

    def _read(self, word: str, cell: isa.Cell) -> int:
        if cell not in self.cells:
            raise _unwritten(word, cell)
        return self.cells[cell]

    def _write(self, cell: isa.Cell, tagged: int, bit: bool) -> None:
        before = self.cells.get(cell, 0)
        after = before | tagged if bit else before & ~tagged
        self.counts.written += tagged.bit_count()
        self.counts.changed += (before ^ after).bit_count()
        self.cells[cell] = after


@dataclass
class PackedArrays:
    """64 rows in a word; `counting` also counts cells, which takes about half as long again."""

    span: Span
    counting: bool = False
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        from cimc.targets.rtm_ap import run_kernels  # imports Numba

        self._kernels = run_kernels
        self._tables = packed_tables()
        cells = self.span.columns * self.span.domains
        self.cells = np.zeros((cells, self.span.lines // 64), np.uint64)
        self.valid: Bools = np.zeros(cells, np.bool_)

    def forget(self) -> None:
        """No cell holds a value."""
        self.valid[:] = False

    def store(self, slots: isa.Code, values: Ints) -> None:
        """Transpose values into bits."""
        self._kernels.store(self.cells, self.valid, slots, values, self.span.domains)

    def fetch(self, slots: isa.Code) -> Ints:
        """Transpose bits into values."""
        values = np.zeros((len(slots), self.span.lines), np.int64)
        cell = self._kernels.fetch(self.cells, self.valid, slots, values, self.span.domains)
        if cell >= 0:
            raise _unwritten("read-out", divmod(int(cell), self.span.domains))
        return values

    def run(self, code: isa.Code, slots: isa.Code, carries: int) -> None:
        """Every pass of every word, on all rows."""
        counts, span = np.zeros(3, np.int64), self.span
        number, why = self._kernels.run_code(
            code,
            slots,
            self.cells,
            self.valid,
            span.columns,
            span.domains,
            carries,
            *self._tables,
            counts,
            self.counting,
        )
        self.counts.searched += int(counts[0])
        self.counts.written += int(counts[1])
        self.counts.changed += int(counts[2])
        if number >= 0:
            word = f"word {number}: {isa.word_of(int(code[number]))}"
            if why >= 0:
                raise _unwritten(word, divmod(why, span.domains))
            if why == isa.CLASH:
                raise _clashing(word)
            raise InternalError(Fault(f"{word} cannot be decoded", have=str(why)))


def _unwritten(word: str, cell: isa.Cell) -> VerifyError:
    where = f"column operation `{word}` reads a cell that was never written"
    return VerifyError(Fault(where, have=f"column {cell[0]}, domain {cell[1]}"))


def _clashing(word: str) -> VerifyError:
    where = f"column operation `{word}` needs two domains of one column at once"
    return VerifyError(Fault(where))


class Chip:
    """All arrays of a machine, as spans that instructions name."""

    def __init__(self, machine: Machine) -> None:
        self.plain = machine.is_plain
        self.counting = bool(machine.state("rtm-ap.counting", lambda: False))
        self._spans: dict[int, Arrays] = {}

    def arrays(self, span: Span) -> Arrays:
        """The content of a span; spans of earlier layers that overlap it are given up."""
        held = self._spans.get(span.first)
        if held is None or held.span != span:
            end = span.first + span.count
            overlapping = [
                first
                for first, other in self._spans.items()
                if first < end and span.first < first + other.span.count
            ]
            for first in overlapping:
                del self._spans[first]
            held = PlainArrays(span) if self.plain else PackedArrays(span, self.counting)
            self._spans[span.first] = held
        return held

    def held(self) -> Iterator[Arrays]:
        """All spans in use."""
        yield from self._spans.values()


def chip_of(machine: Machine) -> Chip:
    """The arrays of a machine that executes a program."""
    chip = machine.state("rtm-ap", lambda: Chip(machine))
    assert isinstance(chip, Chip)
    return chip
