"""What one bit of each column operation is: passes of masked search and masked write.

A pass searches the columns of up to four roles for a key and writes into the rows that match:

    "1 1 0 -  ->  - 0 1 -"     rows with A = 1, B = 1, C = 0 get B = 0 and C = 1

    A   the addend's bit, or the value to copy
    B   the second addend's bit; the in-place result
    C   carry, or the outcome of a comparison
    R   the out-of-place result; in keyed tables the key

Passes run in the given order, so no written row may match a later pass by accident:
`PassTable.check` runs a table on all states that it is made for. All tables are as short as can be
(`cimc.targets.rtm_ap.minimal`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault

ROLES = "ABCR"
State = tuple[int, int, int, int]
Bits = Callable[[int, int, int, int], object]


@dataclass(frozen=True, slots=True)
class Pass:
    """One search and the write into its matches; a character per role: 0, 1, or - for none."""

    search: str
    write: str

    @property
    def searched(self) -> int:
        """Cells of a row that the search compares."""
        return 4 - self.search.count("-")

    @property
    def written(self) -> int:
        """Cells of a matching row that are driven."""
        return 4 - self.write.count("-")

    def matches(self, state: State) -> bool:
        """Whether a row in this state is tagged."""
        return all(key in ("-", str(bit)) for key, bit in zip(self.search, state, strict=True))

    def apply(self, state: State) -> State:
        """The row afterwards."""
        if not self.matches(state):
            return state
        a, b, c, r = (
            bit if key == "-" else int(key) for key, bit in zip(self.write, state, strict=True)
        )
        return a, b, c, r


@dataclass(frozen=True, slots=True)
class PassTable:
    """The passes of one bit of an operation, and what they must do.

    `given`: which states (a, b, c, r) can occur; `result`: the state wanted, None for a role whose
    content no longer matters; `roles`: those that take part.
    """

    name: str
    roles: str
    passes: tuple[Pass, ...]
    result: Callable[[int, int, int, int], tuple[int | None, int | None, int | None, int | None]]
    given: Bits

    def states(self) -> Iterator[State]:
        """Every state that can occur; roles that take no part are 0."""
        ranges = [(0, 1) if role in self.roles else (0,) for role in ROLES]
        for a, b, c, r in product(*ranges):
            if self.given(a, b, c, r):
                yield a, b, c, r

    def run(self, state: State) -> State:
        """The state after all passes."""
        for step in self.passes:
            state = step.apply(state)
        return state

    def check(self) -> Iterator[Fault]:
        """Each state that does not end as it must."""
        for state in self.states():
            want, have = self.result(*state), self.run(state)
            if any(w is not None and w != h for w, h in zip(want, have, strict=True)):
                shown = " ".join("-" if w is None else str(w) for w in want)
                start, end = (" ".join(map(str, s)) for s in (state, have))
                yield Fault(f"pass table {self.name}: A B C R = {start}", shown, end)


@dataclass(frozen=True, slots=True)
class Work:
    """What a table costs per row: searches and searched cells are certain, writes are expected."""

    passes: int
    searched: int
    written: float
    changed: float
    changed_by_role: tuple[float, float, float, float]


def work(table: PassTable) -> Work:
    """Cells searched, driven and changed per row, for independent uniform bits.

    "Uniform" is over the states that the table is made for. Real operands differ (carries are rarer
    in upper bits): the executor measures, this is the closed form.
    """
    states = list(table.states())
    written, changed = 0.0, [0.0] * 4
    for state in states:
        for step in table.passes:
            after = step.apply(state)
            written += step.written * step.matches(state)
            for role in range(4):
                changed[role] += after[role] != state[role]
            state = after
    by_role = tuple(count / len(states) for count in changed)
    return Work(
        passes=len(table.passes),
        searched=sum(step.searched for step in table.passes),
        written=written / len(states),
        changed=sum(by_role),
        changed_by_role=(by_role[0], by_role[1], by_role[2], by_role[3]),
    )


def _passes(lines: str) -> tuple[Pass, ...]:
    found = []
    for line in filter(None, (line.strip() for line in lines.splitlines())):
        search, write = (part.replace(" ", "") for part in line.split("->"))
        found.append(Pass(search, write))
    return tuple(found)


def _always(*_: int) -> bool:
    return True


def _no_carry(_a: int, _b: int, c: int, _r: int) -> bool:
    return c == 0


def _clear(_a: int, _b: int, _c: int, r: int) -> bool:
    return r == 0


def _borrow(minuend: int, subtrahend: int, c: int) -> int:
    return int(minuend - subtrahend - c < 0)


_TABLES = (
    # in place, A kept: B <- B + A, B <- B - A
    PassTable(
        "add",
        "ABC",
        _passes("""
            0 0 1 -  ->  - 1 0 -
            0 1 1 -  ->  - 0 - -
            1 1 0 -  ->  - 0 1 -
            1 0 0 -  ->  - 1 - -
        """),
        lambda a, b, c, r: (a, a ^ b ^ c, int(a + b + c > 1), r),
        _always,
    ),
    PassTable(
        "sub",
        "ABC",
        _passes("""
            0 1 1 -  ->  - 0 0 -
            0 0 1 -  ->  - 1 - -
            1 0 0 -  ->  - 1 1 -
            1 1 0 -  ->  - 0 - -
        """),
        lambda a, b, c, r: (a, a ^ b ^ c, _borrow(b, a, c), r),
        _always,
    ),
    # the lowest bit: no carry yet
    PassTable(
        "add-first",
        "ABC",
        _passes("""
            1 1 0 -  ->  - 0 1 -
            1 0 0 -  ->  - 1 - -
        """),
        lambda a, b, c, r: (a, a ^ b, a & b, r),
        _no_carry,
    ),
    PassTable(
        "sub-first",
        "ABC",
        _passes("""
            1 0 0 -  ->  - 1 1 -
            1 1 0 -  ->  - 0 - -
        """),
        lambda a, b, c, r: (a, a ^ b, int(b < a), r),
        _no_carry,
    ),
    # the highest bit of a sum that fits: at most one of the three is 1
    PassTable(
        "add-last",
        "ABC",
        _passes("""
            0 0 1 -  ->  - 1 0 -
            1 0 0 -  ->  - 1 - -
        """),
        lambda a, b, c, r: (a, a + b + c, 0, r),
        lambda a, b, c, _r: a + b + c < 2,
    ),
    # beyond the addend's highest bit: only the carry (borrow) runs on
    PassTable(
        "ripple",
        "BC",
        _passes("""
            - 0 1 -  ->  - 1 0 -
            - 1 1 -  ->  - 0 - -
        """),
        lambda a, b, c, r: (a, b ^ c, b & c, r),
        _always,
    ),
    PassTable(
        "ripple-sub",
        "BC",
        _passes("""
            - 1 1 -  ->  - 0 0 -
            - 0 1 -  ->  - 1 - -
        """),
        lambda a, b, c, r: (a, b ^ c, _borrow(b, 0, c), r),
        _always,
    ),
    PassTable(
        "ripple-last",
        "BC",
        _passes("- 0 1 -  ->  - 1 0 -"),
        lambda a, b, c, r: (a, b | c, 0, r),
        lambda _a, b, c, _r: not (b and c),
    ),
    PassTable(
        "ripple-sub-last",
        "BC",
        _passes("- 1 1 -  ->  - 0 0 -"),
        lambda a, b, c, r: (a, b ^ c, 0, r),
        lambda _a, b, c, _r: b or not c,
    ),
    # in place, A dead afterwards: A takes over the carry
    PassTable(
        "add-dead",
        "ABC",
        _passes("""
            0 - 1 -  ->  1 - 0 -
            1 0 0 -  ->  0 1 - -
            1 1 0 -  ->  - 0 1 -
        """),
        lambda a, b, c, r: (None, a ^ b ^ c, int(a + b + c > 1), r),
        _always,
    ),
    PassTable(
        "sub-dead",
        "ABC",
        _passes("""
            0 - 1 -  ->  1 - 0 -
            1 0 0 -  ->  0 1 1 -
            1 1 0 -  ->  - 0 - -
        """),
        lambda a, b, c, r: (None, a ^ b ^ c, _borrow(b, a, c), r),
        _always,
    ),
    # out of place, R cleared: R <- A + B, R <- A - B
    PassTable(
        "sum",
        "ABCR",
        _passes("""
            1 0 0 -  ->  - - - 1
            0 1 0 -  ->  - - - 1
            0 0 1 -  ->  - - 0 1
            1 1 1 -  ->  - - - 1
            1 1 0 -  ->  - - 1 -
        """),
        lambda a, b, c, _r: (a, b, int(a + b + c > 1), a ^ b ^ c),
        _clear,
    ),
    PassTable(
        "diff",
        "ABCR",
        _passes("""
            0 0 1 -  ->  - - - 1
            1 1 1 -  ->  - - - 1
            1 0 0 -  ->  - - - 1
            0 1 0 -  ->  - - 1 1
            1 0 1 -  ->  - - 0 -
        """),
        lambda a, b, c, _r: (a, b, _borrow(a, b, c), a ^ b ^ c),
        _clear,
    ),
    PassTable(
        "sum-first",
        "ABCR",
        _passes("""
            1 0 - -  ->  - - - 1
            0 1 - -  ->  - - - 1
            1 1 - -  ->  - - 1 -
        """),
        lambda a, b, _c, _r: (a, b, a & b, a ^ b),
        lambda _a, _b, c, r: c == 0 and r == 0,
    ),
    PassTable(
        "diff-first",
        "ABCR",
        _passes("""
            1 0 - -  ->  - - - 1
            0 1 - -  ->  - - 1 1
        """),
        lambda a, b, _c, _r: (a, b, int(a < b), a ^ b),
        lambda _a, _b, c, r: c == 0 and r == 0,
    ),
    # beyond one addend: R <- A + C; beyond both: R <- C
    PassTable(
        "sum-one",
        "ACR",
        _passes("""
            0 - 1 -  ->  - - 0 1
            1 - 0 -  ->  - - - 1
        """),
        lambda a, b, c, _r: (a, b, a & c, a ^ c),
        _clear,
    ),
    PassTable(
        "carry-out",
        "CR",
        _passes("- - 1 -  ->  - - 0 1"),
        lambda a, b, c, _r: (a, b, 0, c),
        _clear,
    ),
    PassTable(
        "copy",
        "AR",
        _passes("1 - - -  ->  - - - 1"),
        lambda a, b, c, _r: (a, b, c, a),
        _clear,
    ),
    # R <- -A with C preset to 1; B <- -B with C preset to 1
    PassTable(
        "negate",
        "ACR",
        _passes("""
            1 - 1 -  ->  - - 0 1
            0 - 0 -  ->  - - - 1
        """),
        lambda a, b, c, _r: (a, b, int(c and not a), (1 - a) ^ c),
        _clear,
    ),
    PassTable(
        "negate-in-place",
        "BC",
        _passes("""
            - 0 0 -  ->  - 1 1 -
            - 1 0 -  ->  - 0 0 -
            - 1 1 -  ->  - 1 0 -
        """),
        lambda a, b, c, r: (a, (1 - b) ^ c, int(c and not b), r),
        _always,
    ),
    # keyed by R: B <- B + A, B <- B - A in the rows with R = 1 (the carry stays 0 in the others)
    PassTable(
        "keyed-add",
        "ABCR",
        _passes("""
            0 0 1 1  ->  - 1 0 -
            0 1 1 1  ->  - 0 - -
            1 1 0 1  ->  - 0 1 -
            1 0 0 1  ->  - 1 - -
        """),
        lambda a, b, c, r: (a, a ^ b ^ c if r else b, int(a + b + c > 1) if r else c, r),
        lambda _a, _b, c, r: r or not c,
    ),
    PassTable(
        "keyed-add-first",
        "ABCR",
        _passes("""
            1 1 0 1  ->  - 0 1 -
            1 0 0 1  ->  - 1 - -
        """),
        lambda a, b, _c, r: (a, (a & r) ^ b, a & b & r, r),
        _no_carry,
    ),
    PassTable(
        "keyed-sub",
        "ABCR",
        _passes("""
            0 1 1 1  ->  - 0 0 -
            0 0 1 1  ->  - 1 - -
            1 0 0 1  ->  - 1 1 -
            1 1 0 1  ->  - 0 - -
        """),
        lambda a, b, c, r: (a, a ^ b ^ c if r else b, _borrow(b, a, c) if r else c, r),
        lambda _a, _b, c, r: r or not c,
    ),
    PassTable(
        "keyed-sub-first",
        "ABCR",
        _passes("""
            1 0 0 1  ->  - 1 1 -
            1 1 0 1  ->  - 0 - -
        """),
        lambda a, b, _c, r: (a, (a & r) ^ b, int(b < (a & r)), r),
        _no_carry,
    ),
    # set, clear B where the key is set: constants; ReLU, keyed on the sign
    PassTable(
        "set-keyed",
        "BR",
        _passes("- - - 1  ->  - 1 - -"),
        lambda a, b, c, r: (a, 1 if r else b, c, r),
        _always,
    ),
    PassTable(
        "clear-keyed",
        "BR",
        _passes("- - - 1  ->  - 0 - -"),
        lambda a, b, c, r: (a, 0 if r else b, c, r),
        _always,
    ),
    # C <- A < B, lowest bit first; C <- A < constant with a bit 1, with a bit 0
    PassTable(
        "less",
        "ABC",
        _passes("""
            0 1 - -  ->  - - 1 -
            1 0 - -  ->  - - 0 -
        """),
        lambda a, b, c, r: (a, b, int(a < b) if a != b else c, r),
        _always,
    ),
    PassTable(
        "less-than-1",
        "AC",
        _passes("0 - - -  ->  - - 1 -"),
        lambda a, b, c, r: (a, b, 1 if a == 0 else c, r),
        _always,
    ),
    PassTable(
        "less-than-0",
        "AC",
        _passes("1 - - -  ->  - - 0 -"),
        lambda a, b, c, r: (a, b, 0 if a == 1 else c, r),
        _always,
    ),
    # B <- A where C
    PassTable(
        "copy-keyed",
        "ABC",
        _passes("""
            1 0 1 -  ->  - 1 - -
            0 1 1 -  ->  - 0 - -
        """),
        lambda a, b, c, r: (a, a if c else b, c, r),
        _always,
    ),
)

TABLES = MappingProxyType({table.name: table for table in _TABLES})
NAMES: tuple[str, ...] = tuple(TABLES)


@cache
def packed_tables() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Passes per table; search and write keys [table, pass, role] with 2 for none."""
    codes = {"0": 0, "1": 1, "-": 2}
    longest = max(len(table.passes) for table in TABLES.values())
    counts = np.array([len(table.passes) for table in TABLES.values()])
    keys = np.full((2, len(TABLES), longest, 4), 2)
    for place, table in enumerate(TABLES.values()):
        for number, step in enumerate(table.passes):
            keys[0, place, number] = [codes[key] for key in step.search]
            keys[1, place, number] = [codes[key] for key in step.write]
    return counts, keys[0], keys[1]


@cache
def packed_work() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Per table (passes, searched cells), and (written, changed in A, B, C, R) per row."""
    found = [work(table) for table in TABLES.values()]
    fixed = np.array([(item.passes, item.searched) for item in found])
    return fixed, np.array([(item.written, *item.changed_by_role) for item in found])
