"""What column operations cost, without executing them: passes, cells, shifts, wear.

    time    passes * (search + write) + writes * write + shifts * shift            [cycles]
            + shifts / realign_steps * realign
    energy  rows * (searched * search_pj + written * write_pj + moves * shift_pj
                    + checks * realign_pj)

All but `written` and `changed` are exact: they equal what the arrays count while they run. These
two are expected values for independent uniform bits (`pass_tables.work`), which is high: networks
write 0.5 to 0.85 of it, as carries are rarer in upper bits. `shifts` counts steps in
time (columns move side by side), `moves` those of all tracks of a row, `checks` how often the
alignment of those tracks is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from cimc.errors import InternalError
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.expand_kernels import FRESH
from cimc.targets.rtm_ap.pass_tables import packed_work
from cimc.targets.rtm_ap.price_kernels import price_code
from cimc.targets.rtm_ap_spec import Ap


@dataclass(frozen=True, slots=True)
class Price:
    """Counts per row, as instructions carry them."""

    passes: int = 0
    writes: int = 0
    searched: int = 0
    written: float = 0.0
    changed: float = 0.0
    shifts: int = 0
    moves: int = 0
    checks: int = 0
    words: int = 0  # that the controller reads

    def __add__(self, other: Price) -> Price:
        return Price(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Price)))

    def times(self, count: int) -> Price:
        """The same again and again."""
        return Price(*(getattr(self, f.name) * count for f in fields(Price)))

    def cycles(self, ap: Ap) -> int:
        """Time on the arrays."""
        searching = self.passes * (ap.search_cycles + ap.write_cycles)
        return searching + self.writes * ap.write_cycles + shift_cycles(self.shifts, ap)

    def energy_pj(self, ap: Ap) -> float:
        """Energy of one row."""
        cells = self.searched * ap.search_pj + self.written * ap.write_pj
        return cells + self.moves * ap.shift_pj + self.checks * ap.realign_pj


def shift_cycles(shifts: int, ap: Ap) -> int:
    """Time of shift steps, and of the checks that fall among them."""
    checked = shifts // ap.realign_steps if ap.realign_steps else 0
    return shifts * ap.shift_cycles + checked * ap.realign_cycles


class Pricer:
    """Follows one group of arrays: how far each column is shifted, how often each cell changed."""

    def __init__(self, ap: Ap) -> None:
        self.ap = ap
        self._work = packed_work()
        self.head = np.zeros(ap.columns, np.int64)
        self.since = np.zeros(ap.columns, np.int64)  # steps of a column since its last check
        self.wear: NDArray[np.float64] = np.zeros(ap.columns * ap.domains)

    def code(self, code: isa.Code, slots: isa.Code) -> Price:
        """Column operations that start with cleared carries."""
        found = self._priced(code, slots)
        carries = Price(writes=self.ap.carries, written=self.ap.carries, changed=0.0)
        return found + carries + Price(words=len(code))

    def touched(self, slots: isa.Code) -> Price:
        """Bits of values written from outside, or read out, one column after the other."""
        widths = slots >> isa.BITS_AT
        words = isa.INTO | widths << isa.WIDTH_AT | np.arange(len(slots)) << isa.SLOT_AT
        found, bits = self._priced(words.astype(np.uint32), slots), int(widths.sum())
        return replace(found, passes=0, writes=bits, searched=0)

    def home(self) -> Price:
        """All columns return to where they were at first, and are checked from the start."""
        moved = np.abs(self.head)
        self.head[:] = 0
        checks = 0
        if self.ap.realign_steps:
            checks = int(((self.since + moved) // self.ap.realign_steps).sum())
            self.since[:] = 0
        return Price(shifts=int(moved.max()), moves=int(moved.sum()), checks=checks)

    def _priced(self, code: isa.Code, slots: isa.Code) -> Price:
        ap, memory = self.ap, np.array(FRESH)
        totals = price_code(
            code,
            slots,
            memory,
            ap.columns,
            ap.domains,
            ap.carries,
            ap.ports,
            ap.shift_policy == "eager",
            ap.realign_steps,
            *self._work,
            self.head,
            self.since,
            self.wear,
        )
        if np.isnan(totals[0]):
            raise InternalError("column operations that cannot be decoded")
        passes, writes, searched, written, changed, shifts, moves, checks = totals.tolist()
        return Price(
            int(passes),
            int(writes),
            int(searched),
            round(written, 3),
            round(changed, 3),
            int(shifts),
            int(moves),
            int(checks),
        )
