"""From a weight matrix to column operations: chunks of inputs, shared sums, words.

A chunk of inputs is loaded, its sums are formed and added to the accumulators, then the next chunk
comes. Accumulators are visited in the order of their domains, forwards and backwards by turns, so a
visit costs one shift step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.errors import InternalError
from cimc.ir.sums import Sums
from cimc.passes._signed_sums import in_order, reduced, signed_sums, without
from cimc.targets.rtm_ap import emit_kernels as kernels
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.isa import ACROSS
from cimc.targets.rtm_ap.regions import Demand, Geometry, Regions, regions

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Style:
    """How code is generated: what optimization levels, objectives and costs decide."""

    chunk: int  # inputs at a time
    share: bool = True  # common subexpressions
    dead: bool = True  # operands may be destroyed where that saves passes
    input_layout: int = ACROSS
    temp_layout: int = ACROSS


@dataclass(frozen=True, slots=True)
class Straight:
    """Sums as code generation takes them: temporaries of two terms, made in order, and rows.

    A temporary is (value a, shift of a, value b, shift of b, sign of b): (a << s) + sign*(b << t).
    """

    inputs: int
    start: Ints  # [rows + 1]
    terms: Ints
    temps: Ints  # [temporaries, 5]

    @property
    def rows(self) -> int:
        """Number of results."""
        return len(self.start) - 1


def straight(sums: Sums) -> Straight:
    """Shared values become temporaries, each made just before its first use."""
    sums = in_order(sums)
    pairs = sums.terms[: 2 * sums.shared].reshape(-1, 2)
    temps = np.empty((sums.shared, 5), np.int64)
    temps[:, (0, 2)] = pairs >> 8
    temps[:, (1, 3)] = pairs >> 1 & 0x7F
    temps[:, 4] = 1 - 2 * (pairs[:, 1] & 1)
    taken = 2 * sums.shared
    return Straight(sums.inputs, sums.start[sums.shared :] - taken, sums.terms[taken:], temps)


@dataclass(frozen=True)
class Part:
    """The sums of one chunk, with offset and highest stored value of each, and of temporaries."""

    sums: Straight
    row_offset: Ints
    row_high: Ints
    temp_bits: int


@dataclass(frozen=True)
class ColumnCode:
    """The words for some output channels over some inputs.

    Chunk c is words[starts[c]:starts[c + 1]]. The read-out of accumulator k is
    offset[k] + weights[k] @ x, x being the stored inputs.
    """

    regions: Regions
    words: isa.Code
    starts: Ints
    offset: Ints  # [rows]
    high: Ints  # [rows] largest value of each accumulator; some input reaches it
    additions: int = 0  # one per temporary, one per term of a row

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self.starts) - 1

    def chunk(self, number: int) -> isa.Code:
        """The words of one chunk."""
        return self.words[self.starts[number] : self.starts[number + 1]]


def spans_of(inputs: int, chunk: int) -> tuple[tuple[int, int], ...]:
    """[begin, end) of each chunk."""
    return tuple((begin, min(begin + chunk, inputs)) for begin in range(0, inputs, chunk))


def chunks_of(weights: Ints, style: Style) -> list[Sums]:
    """The sums of weights[rows, inputs] @ x, chunk by chunk."""
    return [
        sums_of_chunk(weights[:, begin:end], style.share)
        for begin, end in spans_of(weights.shape[1], style.chunk)
    ]


def sums_of_chunk(weights: Ints, share: bool) -> Sums:
    """The sums of one chunk, as a layer without sums of its own has them."""
    sums = signed_sums(weights)
    return reduced(sums) if share else sums


def part_of(sums: Sums, input_bits: int) -> Part:
    """One chunk's sums; each input is 0 .. 2**input_bits - 1."""
    made = straight(sums)
    chunk = chunk_of(made, input_bits)
    found = (chunk.start, chunk.terms, chunk.top, chunk.weight, chunk.offset, chunk.high)
    row_offset, row_high = kernels.row_bounds(*found)
    highest = int(chunk.high[made.inputs :].max(initial=0))
    return Part(made, row_offset, row_high, highest.bit_length())


def chunk_of(sums: Straight, input_bits: int) -> kernels.Chunk:
    """What code generation needs of a chunk's sums."""
    top = np.full(sums.inputs, (1 << input_bits) - 1)
    bounds = kernels.value_bounds(top, sums.temps)
    return kernels.Chunk(sums.start, sums.terms, sums.temps, top, *bounds)


def demand_of(groups: Sequence[Sequence[Part]], input_bits: int) -> Demand:
    """What places several groups of arrays need that share their layout."""
    parts = [part for group in groups for part in group]
    high = max(int(high_of(group).max(initial=0)) for group in groups)
    temp_bits = max(part.temp_bits for part in parts)
    local = max(int(part.row_high.max(initial=0)).bit_length() for part in parts)
    return Demand(
        rows=max(part.sums.rows for part in parts),
        acc_bits=max(1, high.bit_length()),
        local_bits=max(1, local, temp_bits),
        chunk=max(part.sums.inputs for part in parts),
        input_bits=input_bits,
        temps=max(len(part.sums.temps) for part in parts),
        temp_bits=temp_bits,
    )


def high_of(parts: Sequence[Part]) -> Ints:
    """Highest value of each accumulator after all chunks."""
    return np.asarray(np.sum([part.row_high for part in parts], axis=0), np.int64)


def code_of(
    parts: Sequence[Part], room: Regions, input_bits: int, style: Style
) -> ColumnCode | None:
    """The words of all chunks; None if there are more live temporaries than places."""
    places, rows = room.places(), parts[0].sums.rows
    reached = np.zeros(rows, np.int64)
    size = sum(5 * len(p.sums.temps) + len(p.sums.terms) + 5 * rows for p in parts)
    words, count = np.empty(size, np.uint32), 0
    starts = [0]
    for number, part in enumerate(parts):
        wanted = reached + part.row_high
        chunk, backwards = chunk_of(part.sums, input_bits), number % 2 == 1
        count = kernels.emit_chunk(
            chunk, places, reached, number == 0, backwards, style.dead, words, count
        )
        if count == kernels.FULL:
            return None
        if count < 0 or (reached != wanted).any():
            raise InternalError(f"no code for chunk {number} ({count})")
        starts.append(count)
    offset = np.asarray(np.sum([part.row_offset for part in parts], axis=0), np.int64)
    added = sum(len(part.sums.temps) + len(part.sums.terms) for part in parts)
    return ColumnCode(room, words[:count].copy(), np.array(starts), offset, reached, added)


def column_codes(
    pieces: Sequence[Ints], input_bits: int, geometry: Geometry, style: Style
) -> list[ColumnCode] | None:
    """Words for several weight matrices whose groups of arrays share one layout."""
    groups = [chunks_of(weights, style) for weights in pieces]
    return codes_of_sums(groups, input_bits, geometry, style)


def codes_of_sums(
    groups: Sequence[Sequence[Sums]], input_bits: int, geometry: Geometry, style: Style
) -> list[ColumnCode] | None:
    """Words for several groups of arrays that share one layout; each brings its chunks' sums.

    Where shared values are more than places, some are computed again and again instead. None: it
    does not fit the columns.
    """
    most: int | None = None
    while most is None or most >= 0:
        parts = [[part_of(_at_most(sums, most), input_bits) for sums in group] for group in groups]
        demand = demand_of(parts, input_bits)
        limit = demand.temps if most is None else most
        room = regions(demand, geometry, style.input_layout, style.temp_layout)
        if room is None:
            most = limit // 2 if limit else -1
            continue
        codes = [code_of(group, room, input_bits, style) for group in parts]
        found = [code for code in codes if code is not None]
        if len(found) == len(codes):
            return found
        # a value that is left may take several places, link by link
        most = min(limit - 1 - limit // 8, max(0, room.temps.places))
    return None


def _at_most(sums: Sums, most: int | None) -> Sums:
    return sums if most is None or sums.shared <= most else without(sums, most)
