"""Arrays to try column operations on: both engines side by side, on the same values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.arrays import Arrays, PackedArrays, PlainArrays, Span
from cimc.targets.rtm_ap.isa import ACROSS, Slot, Word

Ints = NDArray[np.int64]
SPAN = Span(first=0, count=1, rows=256, columns=96, domains=16)


def engines(span: Span = SPAN) -> tuple[Arrays, Arrays]:
    """The specification and the fast engine."""
    return PlainArrays(span), PackedArrays(span, counting=True)


def run(
    words: Sequence[Word],
    slots: Sequence[Slot],
    values: Mapping[int, Ints],
    result: int,
    carries: int = 1,
) -> Ints:
    """Slot `result` after the words, the same on both engines; `values` by slot number."""
    table = isa.slot_table(slots)
    found = []
    for arrays in engines():
        for place, numbers in values.items():
            lines = np.zeros((1, SPAN.lines), np.int64)
            lines[0, : len(numbers)] = numbers
            arrays.store(table[place : place + 1], lines)
        arrays.run(isa.encoded(words), table, carries)
        held: Ints = arrays.fetch(table[result : result + 1])[0]
        found.append((held, arrays.counts))
    (plain, plain_counts), (fast, fast_counts) = found
    assert np.array_equal(plain, fast)
    assert plain_counts == fast_counts
    return fast


def side_by_side(*widths: int) -> list[Slot]:
    """Slots of these widths, one beside the other."""
    columns = np.cumsum([0, *widths])
    return [
        Slot(int(column), 0, ACROSS, bits) for column, bits in zip(columns, widths, strict=False)
    ]


def signed(values: Ints, bits: int) -> Ints:
    """Two's complement of `bits` bits as numbers."""
    found: Ints = values - (values >> (bits - 1) << bits)
    return found
