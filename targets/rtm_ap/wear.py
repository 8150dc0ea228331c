"""Which cells of the arrays change most often, and how long they last.

    lifetime = endurance / changes of the hottest cell per inference         [inferences]

Two sources. `expected_wear` follows the program's words without data: every pass changes what it
changes for independent uniform bits (`pass_tables.work`), every loaded bit changes half the time.
`measured_wear` is what a probe saw. Only changes count, not writes of what is there already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.ir.program import Instr, Loop, Program, View, walk
from cimc.kind import Wear, Worn
from cimc.target import Target
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.expand_kernels import FRESH
from cimc.targets.rtm_ap.instructions import ApLoad, ApRun
from cimc.targets.rtm_ap.pass_tables import packed_work
from cimc.targets.rtm_ap.price_kernels import wear_code
from cimc.targets.rtm_ap.probe import Probe
from cimc.targets.rtm_ap.work import spec_of
from cimc.targets.rtm_ap_spec import Ap

Floats = NDArray[np.float64]
_EXPECTED = "expected for independent uniform bits"
_MEASURED = "measured: carries row by row, other cells as averages of 64 rows"


@dataclass(frozen=True)
class CellWear:
    """Changes per inference of every cell of every array: [array, column * domains + domain]."""

    layer: str  # "" for all layers together
    changes: dict[int, Floats]

    def hottest(self) -> tuple[int, int, float]:
        """Array, cell, changes."""
        found = (0, 0, 0.0)
        for array, changes in sorted(self.changes.items()):
            cell = int(changes.argmax())
            if changes[cell] > found[2]:
                found = array, cell, float(changes[cell])
        return found


def expected_wear(program: Program, target: Target) -> tuple[CellWear, ...]:
    """All layers together, then each layer."""
    ap, source = spec_of(target).ap, _Changes(program, spec_of(target).ap)
    spans: dict[str, dict[tuple[int, int], Floats]] = {}
    for stream in program.streams:
        for instr, loops in walk(stream.body):
            if not isinstance(instr, ApLoad | ApRun):
                continue
            times, held = _times(instr, loops), spans.setdefault(instr.layer, {})
            for span in _spans(instr):
                if span not in held:
                    held[span] = np.zeros(ap.columns * ap.domains)
                source.add(instr, times, held[span])
    layers = [CellWear(layer, _by_array(held)) for layer, held in spans.items()]
    total: dict[int, Floats] = {}
    for worn in layers:
        for array, changes in worn.changes.items():
            total[array] = total[array] + changes if array in total else changes
    return (CellWear("", total), *layers)


def _by_array(spans: dict[tuple[int, int], Floats]) -> dict[int, Floats]:
    found: dict[int, Floats] = {}
    for (first, count), changes in spans.items():
        for array in range(first, first + count):
            found[array] = found[array] + changes if array in found else changes
    return found


def _spans(instr: ApLoad | ApRun) -> Iterator[tuple[int, int]]:
    """First array and number of arrays of each span that the instruction works on."""
    copies = instr.copies if isinstance(instr, ApLoad) else 1
    for copy in range(copies):
        apart = instr.apart if isinstance(instr, ApLoad) else 0
        yield instr.array + copy * apart, instr.arrays


def _times(instr: Instr, loops: Sequence[Loop]) -> int:
    """How often an instruction runs; kinds of this machine have no condition but `first`."""
    first = {var for var, condition in instr.when if condition == "first"}
    return math.prod(loop.count for loop in loops if loop.var not in first)


class _Changes:
    """Expected changes of each cell by one execution of an instruction."""

    def __init__(self, program: Program, ap: Ap) -> None:
        self.program, self.ap = program, ap
        self.buffers, self.work = program.buffer_map(), packed_work()[1]

    def add(self, instr: ApLoad | ApRun, times: int, changes: Floats) -> None:
        """Add those of so many executions."""
        if isinstance(instr, ApLoad):
            slots: NDArray[np.int64] = instr.slots().astype(np.int64)
            for bit in range(instr.bits):
                np.add.at(changes, cells_of(slots, bit, self.ap.domains), 0.5 * times)
            return
        tables = self._table(instr.code), self._table(instr.slots)
        memory, ap = np.array(FRESH), self.ap
        found: Floats = np.zeros_like(changes)
        wear_code(*tables, memory, ap.columns, ap.domains, instr.carries, self.work, found)
        changes += times * found

    def _table(self, view: View) -> isa.Code:
        """The part of a constant that a view of one dense axis shows."""
        init, begin = self.buffers[view.buffer].init, view.offset.const
        assert init is not None
        table = np.asarray(self.program.tensors[init], np.uint32).reshape(-1)
        return table[begin : begin + view.elements]


def cells_of(slots: NDArray[np.int64], bit: int, domains: int) -> NDArray[np.int64]:
    """The cells of one bit of many slots of one layout."""
    column, domain, layout = slots & 0xFFF, slots >> 12 & 0xFF, slots >> 20 & 3
    across = layout == isa.ACROSS
    along = np.where(layout == isa.ALONG, bit, -bit)
    columns, domains_ = np.where(across, column + bit, column), np.where(across, 0, along)
    return np.asarray(columns * domains + domain + domains_, np.int64)


def measured_wear(probe: Probe, ap: Ap, runs: int) -> CellWear:
    """What a probe saw in so many runs, per run.

    Carries are watched row by row: it is their hottest row. Of other cells it is the average of the
    hottest 64 neighbouring rows, with and without data.
    """
    found = {}
    for array in probe.counts:
        changes = probe.wear(array).max(axis=1) / (min(ap.rows, 64) * runs)
        for place, rows in enumerate(probe.carry_wear(array)):
            changes[(ap.columns - 1 - place) * ap.domains] = rows.max() / runs
        found[array] = changes
    return CellWear("", found)


def wear_of(found: Sequence[CellWear], ap: Ap, measured: bool = False) -> Wear:
    """The hottest cell of all layers and of each, then each carry column's."""
    worn = [_worn(item.layer, *item.hottest(), ap) for item in found]
    whole = found[0]
    for place in range(ap.carries):
        cell = (ap.columns - 1 - place) * ap.domains
        array = max(whole.changes, key=lambda number: whole.changes[number][cell], default=0)
        changes = float(whole.changes[array][cell]) if whole.changes else 0.0
        worn.append(_worn("", array, cell, changes, ap))
    return Wear(tuple(worn), ap.endurance, _MEASURED if measured else _EXPECTED)


def _worn(layer: str, array: int, cell: int, changes: float, ap: Ap) -> Worn:
    column, domain = divmod(cell, ap.domains)
    holds = "carry" if column >= ap.columns - ap.carries else "value"
    return Worn(layer, f"array {array}, column {column}, domain {domain}", holds, changes)
