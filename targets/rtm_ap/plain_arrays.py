"""The specification of the arrays: the rows of a cell are the bits of one Python integer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.arrays import clashing, unwritten
from cimc.targets.rtm_ap.pass_tables import NAMES, TABLES
from cimc.targets.rtm_ap.probe import (
    CHANGED,
    CHECKS,
    FAULTS,
    MENDED,
    MOVES,
    PADS,
    SEARCHED,
    WRITTEN,
    Probe,
    Watch,
    draw,
    random_word,
)
from cimc.targets.rtm_ap.span import Span

Ints = NDArray[np.int64]


@dataclass
class PlainArrays:
    """Arrays that follow the controller step by step."""

    span: Span
    probe: Probe | None = None
    cells: dict[isa.Cell, int] = field(default_factory=dict)  # those ever written, and pads
    held: set[isa.Cell] = field(default_factory=set)  # those that hold a value

    def __post_init__(self) -> None:
        self.every = (1 << self.span.lines) - 1
        self._watch: Watch | None = None if self.probe is None else self.probe.watch(self.span)

    def forget(self) -> None:
        """No cell holds a value."""
        self.held.clear()

    def store(self, slots: isa.Code, values: Ints) -> None:
        """Bit by bit."""
        for place, code in enumerate(slots.tolist()):
            slot = isa.slot_of(code)
            for bit in range(slot.bits):
                rows = np.packbits((values[place] >> bit & 1).astype(np.bool_), bitorder="little")
                ones = int.from_bytes(rows.tobytes(), "little")
                cell = slot.cell(bit)
                self._approach(cell)
                before = self.cells.get(cell, 0)
                self._note(cell, self.every, before ^ ones)
                self.cells[cell] = ones
                self.held.add(cell)

    def fetch(self, slots: isa.Code) -> Ints:
        """Bit by bit."""
        values = np.zeros((len(slots), self.span.lines), np.int64)
        for place, code in enumerate(slots.tolist()):
            slot = isa.slot_of(code)
            for bit in range(slot.bits):
                self._approach(slot.cell(bit))
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

    def home(self) -> None:
        """All columns shift back; their next check is a whole period away."""
        if self._watch is None:
            return
        for column in range(self.span.columns):
            steps = abs(int(self._watch.head[column]))
            self._watch.head[column] = 0
            self._shifted(column, steps)
            self._watch.since[column] = 0

    def _step(self, step: isa.Step, word: str) -> None:
        if step.table == isa.FORGET:
            self.held.discard(step.a)
            return
        cells = (step.a, step.b, step.c, step.r)
        used = [cell for cell in cells if cell[0] >= 0]
        for cell in used:
            self._approach(cell)
        if step.table in (isa.WRITE_0, isa.WRITE_1):
            self._write(step.r, self.every, step.table == isa.WRITE_1)
            return
        if len({column for column, _ in used}) < len(set(used)):
            raise clashing(word)
        for cell in used:
            self._read(word, cell)
        for one in TABLES[NAMES[step.table]].passes:
            tagged = self.every
            for role, key in enumerate(one.search):
                if key != "-":
                    rows = self.cells[cells[role]]
                    wanted = (key == "1") != bool(step.invert >> role & 1)
                    tagged &= rows if wanted else ~rows
                    if self._watch is not None:
                        self._watch.fixed[SEARCHED] += 1
            for role, key in enumerate(one.write):
                if key != "-":
                    self._write(cells[role], tagged, key == "1")

    def _read(self, word: str, cell: isa.Cell) -> int:
        if cell not in self.held:
            raise unwritten(word, cell)
        return self.cells[cell]

    def _write(self, cell: isa.Cell, tagged: int, bit: bool) -> None:
        before = self.cells.get(cell, 0)
        after = before | tagged if bit else before & ~tagged
        self._note(cell, tagged, before ^ after)
        self.cells[cell] = after
        self.held.add(cell)

    # --- what a probe notes ---

    def _note(self, cell: isa.Cell, driven: int, changed: int) -> None:
        """Count cells driven and changed, by array and in groups of 64 rows."""
        if self._watch is None:
            return
        rows, words = self.span.rows, self.span.lines // 64
        for array in range(self.span.count):
            part = ((1 << rows) - 1) << array * rows
            self._watch.each[array, WRITTEN] += (driven & part).bit_count()
            self._watch.each[array, CHANGED] += (changed & part).bit_count()
        worn = self._watch.wear[cell[0] * self.span.domains + cell[1]]
        for word in range(words):
            worn[word] += (changed >> 64 * word & (1 << 64) - 1).bit_count()
        carry = self.span.columns - 1 - cell[0]
        if cell[1] == 0 and carry < len(self._watch.planes):
            planes = self._watch.planes[carry]
            for line in range(changed.bit_length()):
                if changed >> line & 1:
                    _increment(planes[:, line // 64], line % 64)

    def _approach(self, cell: isa.Cell) -> None:
        """Bring a cell under its nearest port; eager tracks return."""
        if self._watch is None or self.probe is None:
            return
        column, domain = cell
        ports, eager = self.probe.shifting.ports, self.probe.shifting.eager
        wanted = [domain - port * self.span.domains // ports for port in range(ports)]
        here = int(self._watch.head[column])
        there = min(wanted, key=lambda place: abs(place - here))
        if not eager:
            self._watch.head[column] = there
        self._shifted(column, abs(there - here) * (2 if eager else 1))

    def _shifted(self, column: int, steps: int) -> None:
        """The tracks of a column made some steps, in turn: some slip; then they are checked."""
        watch, probe = self._watch, self.probe
        if watch is None or probe is None or steps == 0:
            return
        watch.fixed[MOVES] += steps
        left = self.span.lines * steps
        while probe.luck.until[0] < left:
            left -= int(probe.luck.until[0]) + 1
            line = (self.span.lines * steps - 1 - left) // steps
            watch.each[line // self.span.rows, FAULTS] += 1
            self._slip(watch, column, line, 1 if random_word(probe.luck) & 1 else -1)
            draw(probe.luck, probe.rate)
        probe.luck.until[0] -= left
        if probe.shifting.period == 0:
            return
        checks, watch.since[column] = divmod(
            int(watch.since[column]) + steps, probe.shifting.period
        )
        watch.fixed[CHECKS] += checks
        if checks:
            self._mend(watch, column, probe.shifting.reach)

    def _mend(self, watch: Watch, column: int, reach: int) -> None:
        for line in range(self.span.lines if watch.astray[column] else 0):
            off = int(watch.offset[column, line])
            if 0 < abs(off) <= reach:
                watch.each[line // self.span.rows, MENDED] += 1
                for _ in range(abs(off)):
                    self._slip(watch, column, line, -1 if off > 0 else 1)

    def _slip(self, watch: Watch, column: int, line: int, way: int) -> None:
        """Domain d of one track now holds what lay in d + way."""
        off = int(watch.offset[column, line]) + way
        if abs(off) > PADS:
            return
        watch.astray[column] += bool(off) - bool(watch.offset[column, line])
        watch.offset[column, line] = off
        track = range(-PADS, self.span.domains + PADS)
        bits = [self.cells.get((column, domain), 0) >> line & 1 for domain in track]
        moved = [*bits[1:], 0] if way > 0 else [0, *bits[:-1]]
        for domain, bit in zip(track, moved, strict=True):
            rest = self.cells.get((column, domain), 0) & ~(1 << line)
            self.cells[column, domain] = rest | bit << line


def _increment(planes: NDArray[np.uint64], line: int) -> None:
    """Add 1 to one of 64 counts whose bits lie in planes."""
    for place, word in enumerate(planes.tolist()):
        planes[place] = word ^ 1 << line
        if not word >> line & 1:
            return
