"""The arrays of a running machine: cells, and which of them hold a value.

Two engines, equal to the bit. `plain_arrays.PlainArrays` keeps the rows of a cell in one integer
and follows the controller step by step; `PackedArrays` keeps 64 rows in a word and runs kernels.
Both look at every cell read whether it was written before, and refuse two domains of one column at
once. With a `Probe` in the machine they note what they do, and tracks may slip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, VerifyError
from cimc.ir.program import Machine
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.pass_tables import packed_tables
from cimc.targets.rtm_ap.probe import PROBE, Probe
from cimc.targets.rtm_ap.span import Span

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Arrays(Protocol):
    """The content of one span of arrays."""

    span: Span

    def forget(self) -> None:
        """From now on no cell holds a value."""

    def store(self, slots: isa.Code, values: Ints) -> None:
        """Write values[slots, lines], in two's complement of each slot's width."""

    def run(self, code: isa.Code, slots: isa.Code, carries: int) -> None:
        """Execute column operations."""

    def fetch(self, slots: isa.Code) -> Ints:
        """The unsigned values [slots, lines]."""

    def home(self) -> None:
        """All columns shift back to where they started."""


@dataclass
class PackedArrays:
    """64 rows in a word; with a probe everything that happens is noted, at half the speed."""

    span: Span
    probe: Probe | None = None

    def __post_init__(self) -> None:
        from cimc.targets.rtm_ap import run_kernels  # imports Numba

        self._kernels = run_kernels
        self._tables = packed_tables()
        cells = self.span.columns * self.span.domains
        self.cells = np.zeros((cells, self.span.lines // 64), np.uint64)
        self.valid: Bools = np.zeros(cells, np.bool_)
        self._noted = None if self.probe is None else _Noted(self.probe, self.span)

    def forget(self) -> None:
        """No cell holds a value."""
        self.valid[:] = False

    def store(self, slots: isa.Code, values: Ints) -> None:
        """Transpose values into bits."""
        domains = self.span.domains
        if self._noted is not None:
            kernels, state = self._noted.kernels, self._noted.state
            kernels.store_probed(self.cells, self.valid, slots, values, domains, *state)
        else:
            self._kernels.store(self.cells, self.valid, slots, values, domains)

    def fetch(self, slots: isa.Code) -> Ints:
        """Transpose bits into values."""
        values, domains = np.zeros((len(slots), self.span.lines), np.int64), self.span.domains
        if self._noted is not None:
            kernels, state = self._noted.kernels, self._noted.state
            cell = kernels.fetch_probed(self.cells, self.valid, slots, values, domains, *state)
        else:
            cell = self._kernels.fetch(self.cells, self.valid, slots, values, domains)
        if cell >= 0:
            raise unwritten("read-out", divmod(int(cell), self.span.domains))
        return values

    def home(self) -> None:
        """All columns shift back."""
        if self._noted is not None:
            kernels, state = self._noted.kernels, self._noted.state
            kernels.shift_home(self.cells, self.span.domains, *state)

    def run(self, code: isa.Code, slots: isa.Code, carries: int) -> None:
        """Every pass of every word, on all rows."""
        span = self.span
        held = (self.cells, self.valid, span.columns, span.domains, carries, *self._tables)
        if self._noted is not None:
            kernels, state = self._noted.kernels, self._noted.state
            number, why = kernels.run_probed(code, slots, *held, *state)
        else:
            number, why = self._kernels.run_code(code, slots, *held)
        if number >= 0:
            word = f"word {number}: {isa.word_of(int(code[number]))}"
            if why >= 0:
                raise unwritten(word, divmod(why, span.domains))
            if why == isa.CLASH:
                raise clashing(word)
            if why == isa.OUTSIDE:
                raise VerifyError(Fault(f"column operation `{word}` needs cells outside the array"))
            raise VerifyError(Fault(f"column operation `{word}` cannot be decoded"))


class _Noted:
    """What kernels with a probe take beside cells."""

    def __init__(self, probe: Probe, span: Span) -> None:
        from cimc.targets.rtm_ap import probe_kernels  # imports Numba

        self.kernels = probe_kernels
        self.state = (probe.shifting, probe.watch(span), probe.luck)


def unwritten(word: str, cell: isa.Cell) -> VerifyError:
    """A cell that a word reads holds nothing."""
    where = f"column operation `{word}` reads a cell that was never written"
    return VerifyError(Fault(where, have=f"column {cell[0]}, domain {cell[1]}"))


def clashing(word: str) -> VerifyError:
    """A word needs two cells of one track at once."""
    where = f"column operation `{word}` needs two domains of one column at once"
    return VerifyError(Fault(where))


class Chip:
    """All arrays of a machine, as spans that instructions name."""

    def __init__(self, machine: Machine) -> None:
        self.plain = machine.is_plain
        probe = machine.state(PROBE, lambda: None)
        self._probe = probe if isinstance(probe, Probe) else None
        self._spans: dict[int, Arrays] = {}
        if self._probe is not None:
            self._probe.close_all()

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
                if self._probe is not None:
                    self._probe.close(first)
            held = self._made(span)
            self._spans[span.first] = held
        return held

    def _made(self, span: Span) -> Arrays:
        if self.plain:
            from cimc.targets.rtm_ap.plain_arrays import PlainArrays

            return PlainArrays(span, self._probe)
        return PackedArrays(span, self._probe)


def chip_of(machine: Machine) -> Chip:
    """The arrays of a machine that executes a program."""
    chip = machine.state("rtm-ap", lambda: Chip(machine))
    assert isinstance(chip, Chip)
    return chip
