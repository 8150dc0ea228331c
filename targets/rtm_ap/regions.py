"""Which columns and domains of an array hold what while a conv or matmul is computed.

The columns of an array, from the first to the last:

    accumulators   stacked: in `acc_bits` adjacent columns up to `domains` of them
    local sum      one, as wide as the widest sum of a chunk
    inputs         of one chunk
    temporaries    shared subexpressions of one chunk
    carries

Inputs and temporaries lie "across" (a value in adjacent columns of one domain, values stacked in
domains: no shift within a value, but all its columns shift between domains) or "along" (a value in
one column, bit after bit: it shifts while it is used, but only one column does).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.emit_kernels import Places
from cimc.targets.rtm_ap.isa import ACROSS, ALONG, Slot


@dataclass(frozen=True, slots=True)
class Geometry:
    """Columns and domains of one array; the last `carries` columns hold carries."""

    columns: int
    domains: int
    carries: int = 1


@dataclass(frozen=True, slots=True)
class Stack:
    """Values of equal width, `banks` side by side and `levels` on top of each other."""

    column: int
    bits: int
    layout: int
    banks: int
    levels: int

    @property
    def width(self) -> int:
        """Columns of a bank."""
        return columns_of(self.bits, self.layout)

    @property
    def end(self) -> int:
        """The column after the last one."""
        return self.column + self.banks * self.width

    @property
    def places(self) -> int:
        """Values that find room."""
        return self.banks * self.levels

    @property
    def pitch(self) -> int:
        """Domains from one value to the next."""
        return 1 if self.layout == ACROSS else self.bits

    def slot(self, place: int) -> Slot:
        """Place number p is bank p % banks, level p // banks."""
        level, bank = divmod(place, self.banks)
        return Slot(self.column + bank * self.width, level * self.pitch, self.layout, self.bits)

    def table(self, count: int, bits: int | None = None) -> isa.Code:
        """The first `count` slots as table entries, with another width if one is given."""
        level, bank = np.divmod(np.arange(count), max(1, self.banks))
        width = self.bits if bits is None else bits
        columns, domains = self.column + bank * self.width, level * self.pitch
        return isa.slot_codes(columns, domains, self.layout, width)


def stacked(place: int, column: int, bits: int, domains: int) -> Slot:
    """Accumulators: neighbours lie in neighbouring domains, `domains` of them on one another."""
    group, domain = divmod(place, domains)
    return Slot(column + group * bits, domain, ACROSS, bits)


def columns_of(bits: int, layout: int) -> int:
    """Columns that a value takes."""
    return bits if layout == ACROSS else 1


def levels_of(bits: int, layout: int, domains: int) -> int:
    """Values that lie on top of each other."""
    return domains if layout == ACROSS else domains // bits


@dataclass(frozen=True, slots=True)
class Regions:
    """All regions of an array."""

    geometry: Geometry
    rows: int  # accumulators
    acc_bits: int
    local_bits: int
    chunk: int  # inputs at a time
    inputs: Stack
    temps: Stack

    @property
    def acc_groups(self) -> int:
        """Stacks of accumulators."""
        return -(-self.rows // self.geometry.domains)

    @property
    def local(self) -> int:
        """First column of the local sum."""
        return self.acc_groups * self.acc_bits

    @property
    def used(self) -> int:
        """Columns taken, carries included."""
        return self.temps.end + self.geometry.carries

    def acc(self, row: int) -> Slot:
        """Where accumulator `row` lies: neighbours in neighbouring domains."""
        return stacked(row, 0, self.acc_bits, self.geometry.domains)

    def slots(self) -> isa.Code:
        """Slots: inputs, the local sum by width, accumulators, temporaries by place and width."""
        found = [Slot(self.local, 0, ACROSS, bits + 1) for bits in range(self.local_bits)]
        found += [self.acc(row) for row in range(self.rows)]
        widths = np.tile(np.arange(1, self.temps.bits + 1), self.temps.places)
        return np.concatenate(
            [
                self.inputs.table(self.chunk),
                isa.slot_table(found),
                np.repeat(self.temps.table(self.temps.places, 0), self.temps.bits)
                | (widths << isa.BITS_AT).astype(np.uint32),
            ]
        )

    def places(self) -> Places:
        """The slot numbers for code generation."""
        place = np.arange(self.chunk)
        acc = self.chunk + self.local_bits
        return Places(
            input=0,
            local=self.chunk,
            temp=acc + self.rows,
            acc=acc,
            input_bank=place % self.inputs.banks,
            input_level=place // self.inputs.banks,
            input_along=self.inputs.layout != ACROSS,
            temp_along=self.temps.layout != ACROSS,
            banks=self.temps.banks,
            levels=self.temps.levels,
            temp_bits=self.temps.bits,
            local_bits=self.local_bits,
            acc_bits=self.acc_bits,
        )


@dataclass(frozen=True, slots=True)
class Demand:
    """What a piece of work needs places for."""

    rows: int
    acc_bits: int
    local_bits: int
    chunk: int
    input_bits: int
    temps: int
    temp_bits: int


def regions(
    demand: Demand, geometry: Geometry, input_layout: int = ACROSS, temp_layout: int = ACROSS
) -> Regions | None:
    """Share the columns out; None if accumulators, inputs and three temporaries do not fit.

    Accumulators and the local sum come first. Inputs and temporaries get columns in proportion to
    their cells, and no more than they can use in one domain.
    """
    groups = -(-demand.rows // geometry.domains)
    first = groups * demand.acc_bits + demand.local_bits
    free = geometry.columns - geometry.carries - first
    width = columns_of(demand.input_bits, input_layout)
    temp_width = columns_of(demand.temp_bits, temp_layout) if demand.temps else 0
    if free < width + 3 * temp_width:
        return None
    cells = demand.chunk * demand.input_bits
    share = free * cells // (cells + demand.temps * demand.temp_bits)
    most = min(free - 3 * temp_width, demand.chunk * width)
    banks = max(width, min(most, share)) // width
    levels = -(-demand.chunk // banks)
    if levels > levels_of(demand.input_bits, input_layout, geometry.domains):
        levels = levels_of(demand.input_bits, input_layout, geometry.domains)
        if levels * (most // width) < demand.chunk:
            return None
    banks = -(-demand.chunk // levels)  # no fewer levels with fewer columns
    inputs = Stack(first, demand.input_bits, input_layout, banks, levels)
    if not demand.temps:
        temps = Stack(inputs.end, 1, ACROSS, 0, 0)
    else:
        banks = min(max(3, demand.temps), (free - banks * width) // temp_width)
        levels = levels_of(demand.temp_bits, temp_layout, geometry.domains)
        levels = min(levels, -(-demand.temps // banks) + 1, _slots_left(demand, banks))
        temps = Stack(inputs.end, demand.temp_bits, temp_layout, banks, levels)
    found = (demand.rows, demand.acc_bits, demand.local_bits, demand.chunk, inputs, temps)
    return Regions(geometry, *found)


def shortage(demand: Demand, geometry: Geometry, input_layout: int = ACROSS) -> tuple[str, str]:
    """Columns that a demand needs without any temporaries, as a sum, and what would help."""
    stacks = -(-demand.rows // geometry.domains)
    levels = max(1, levels_of(demand.input_bits, input_layout, geometry.domains))
    banks = -(-demand.chunk // levels)
    inputs = banks * columns_of(demand.input_bits, input_layout)
    most = stacks * demand.acc_bits + demand.local_bits + inputs + geometry.carries
    parts = (
        f"{stacks} x {demand.acc_bits} for {demand.rows} accumulators",
        f"{demand.local_bits} for a local sum",
        f"{inputs} for {demand.chunk} inputs of {demand.input_bits} bits",
        f"{geometry.carries} for carries",
    )
    help_ = f"raise ap.columns to {most}"
    if max(stacks, banks) > 1:
        help_ += f", or ap.domains: {geometry.domains} accumulators lie on top of each other"
    return f"{most} columns: {', '.join(parts)}", help_


def _slots_left(demand: Demand, banks: int) -> int:
    taken = demand.rows + demand.local_bits + demand.chunk
    return max(1, (isa.MAX_SLOTS - taken) // (banks * demand.temp_bits))


CHOICES = ((ACROSS, ACROSS), (ACROSS, ALONG), (ALONG, ACROSS), (ALONG, ALONG))
