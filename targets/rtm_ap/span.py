"""Arrays that run in lockstep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Arrays first .. first + count - 1 of the chip, which run in lockstep, and their size."""

    first: int
    count: int
    rows: int
    columns: int
    domains: int

    @property
    def lines(self) -> int:
        """Rows of all arrays."""
        return self.count * self.rows
