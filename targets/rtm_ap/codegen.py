"""From a weight matrix to column operations: chunks of inputs, shared sums, words.

A chunk of inputs is loaded, its sums are formed and added to the accumulators, then the next chunk
comes. Accumulators are visited in the order of their domains, forwards and backwards by turns, so a
visit costs one shift step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.errors import InternalError
from cimc.passes._signed_sums import Sums, reduced, signed_sums
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


@dataclass(frozen=True)
class ColumnCode:
    """The words for some output channels over all their inputs.

    Chunk c is words[starts[c]:starts[c + 1]]. The read-out of accumulator k is
    offset[k] + weights[k] @ x, x being the stored inputs.
    """

    regions: Regions
    words: isa.Code
    starts: Ints
    slots: isa.Code
    offset: Ints  # [rows]
    high: Ints  # [rows] largest value of each accumulator; some input reaches it
    additions: int
    temporaries: int
    chunks: tuple[tuple[int, int], ...]  # inputs [begin, end) of each

    def chunk(self, number: int) -> isa.Code:
        """The words of one chunk."""
        return self.words[self.starts[number] : self.starts[number + 1]]


@dataclass(frozen=True)
class Part:
    """A chunk's sums and the bounds of all values."""

    sums: Sums
    chunk: kernels.Chunk
    row_offset: Ints
    row_high: Ints

    @property
    def temp_bits(self) -> int:
        """Width of the widest temporary."""
        made = self.chunk.high[self.sums.inputs :]
        return int(made.max(initial=0)).bit_length()


def part_of(weights: Ints, input_bits: int, share: bool, max_values: int = 1 << 20) -> Part:
    """The sums of one chunk of inputs, each of which is 0 .. 2**input_bits - 1."""
    sums = signed_sums(weights)
    if share:
        sums = reduced(sums, max_values)
    top = np.full(sums.inputs, (1 << input_bits) - 1)
    weight, offset, high = kernels.value_bounds(top, sums.temps)
    chunk = kernels.Chunk(sums.start, sums.terms, sums.temps, top, weight, offset, high)
    row_offset, row_high = kernels.row_bounds(sums.start, sums.terms, top, weight, offset, high)
    return Part(sums, chunk, row_offset, row_high)


def spans_of(inputs: int, chunk: int) -> tuple[tuple[int, int], ...]:
    """[begin, end) of each chunk."""
    return tuple((begin, min(begin + chunk, inputs)) for begin in range(0, inputs, chunk))


def demand_of(parts: Sequence[Part], acc_bits: int, input_bits: int) -> Demand:
    """What places all chunks together need."""
    temps = max(len(part.sums.temps) for part in parts)
    temp_bits = max(part.temp_bits for part in parts)
    local = max(int(part.row_high.max(initial=0)).bit_length() for part in parts)
    return Demand(
        rows=parts[0].sums.rows,
        acc_bits=acc_bits,
        local_bits=max(1, local, temp_bits),
        chunk=max(part.sums.inputs for part in parts),
        input_bits=input_bits,
        temps=temps,
        temp_bits=temp_bits,
    )


def column_code(
    weights: Ints, input_bits: int, geometry: Geometry, style: Style
) -> ColumnCode | None:
    """Words for weights[rows, inputs] @ x with unsigned inputs of `input_bits`.

    None if accumulators, a chunk's inputs and temporaries do not fit the columns.
    """
    spans = spans_of(weights.shape[1], style.chunk)
    parts = [part_of(weights[:, b:e], input_bits, style.share) for b, e in spans]
    high = np.sum([part.row_high for part in parts], axis=0)
    offset = np.sum([part.row_offset for part in parts], axis=0)
    acc_bits = max(1, int(high.max(initial=0)).bit_length())
    demand = demand_of(parts, acc_bits, input_bits)
    room = regions(demand, geometry, style.input_layout, style.temp_layout)
    if room is None:
        return None
    words, starts = emitted(parts, room, style, high)
    return ColumnCode(
        room,
        words,
        starts,
        room.slots(),
        offset,
        high,
        additions=sum(part.sums.additions for part in parts),
        temporaries=sum(len(part.sums.temps) for part in parts),
        chunks=spans,
    )


def emitted(
    parts: Sequence[Part], room: Regions, style: Style, high: Ints
) -> tuple[isa.Code, Ints]:
    """The words of all chunks, and where each chunk starts."""
    places = room.places(np.array([int(value).bit_length() for value in high], np.int64))
    reached = np.zeros(room.rows, np.int64)
    size = sum(5 * len(p.sums.temps) + len(p.sums.terms) + 5 * room.rows for p in parts)
    words, count = np.empty(size, np.uint32), 0
    starts = [0]
    for number, part in enumerate(parts):
        wanted = reached + part.row_high
        count = kernels.emit_chunk(
            part.chunk, places, reached, number == 0, number % 2 == 1, style.dead, words, count
        )
        if count < 0 or (reached != wanted).any():
            raise InternalError(f"no code for chunk {number} ({count})")
        starts.append(count)
    return words[:count].copy(), np.array(starts)


def chunk_inputs(code: ColumnCode, x: Ints) -> Iterator[tuple[int, Ints]]:
    """The stored inputs x[inputs, positions] chunk by chunk, each with its number."""
    for number, (begin, end) in enumerate(code.chunks):
        yield number, x[begin:end]
