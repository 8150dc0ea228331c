"""Arrays to try column operations on: both engines side by side, on the same values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.arrays import Arrays, PackedArrays
from cimc.targets.rtm_ap.isa import ACROSS, Slot, Word
from cimc.targets.rtm_ap.plain_arrays import PlainArrays
from cimc.targets.rtm_ap.probe import Probe, Shifting
from cimc.targets.rtm_ap.span import Span

Ints = NDArray[np.int64]
SPAN = Span(first=0, count=1, rows=256, columns=96, domains=16)


def engines(span: Span = SPAN) -> tuple[Arrays, Arrays]:
    """The specification and the fast engine."""
    return PlainArrays(span), PackedArrays(span)


def probes(ports: int = 1, eager: bool = False, rate: float = 0.0, seed: int = 0,
           period: int = 0) -> tuple[Probe, Probe]:  # fmt: skip
    """Two that note the same if the same happens."""
    shifting = Shifting(ports, eager, period, 1)
    one, other = (Probe(shifting, rate, seed, carries=3) for _ in range(2))
    return one, other


def assert_same(one: Probe, other: Probe) -> None:
    """Both noted the same in every array and cell."""
    for probe in (one, other):
        probe.close_all()
    assert one.counts == other.counts
    for array in one.counts:
        assert (one.wear(array) == other.wear(array)).all()
        rows = one.carry_wear(array)
        assert (rows == other.carry_wear(array)).all()
        words = one.wear(array).reshape(SPAN.columns, SPAN.domains, -1)[::-1, 0][: len(rows)]
        assert (rows.reshape(*words.shape, -1).sum(axis=2) == words).all()
    assert one.luck.state[0] == other.luck.state[0]


def run(
    words: Sequence[Word],
    slots: Sequence[Slot],
    values: Mapping[int, Ints],
    result: int,
    carries: int = 1,
) -> Ints:
    """Slot `result` after the words, the same on both engines; `values` by slot number.

    Without a probe and with one: what is noted is the same, too.
    """
    table = isa.slot_table(slots)
    found: list[Ints] = []
    noted = probes()
    for arrays in (*engines(), PlainArrays(SPAN, noted[0]), PackedArrays(SPAN, noted[1])):
        for place, numbers in values.items():
            lines = np.zeros((1, SPAN.lines), np.int64)
            lines[0, : len(numbers)] = numbers
            arrays.store(table[place : place + 1], lines)
        arrays.run(isa.encoded(words), table, carries)
        found.append(arrays.fetch(table[result : result + 1])[0])
    assert all(np.array_equal(found[0], other) for other in found[1:])
    assert_same(*noted)
    return found[0]


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
