"""How long the machine lasts if it runs one program all the time.

lifetime = endurance / changes of the hottest cell per inference         [inferences]
         * period (or latency, where no period is known)                 [time]
"""

from __future__ import annotations

from cimc.kind import Wear, Worn
from cimc.report.table import Scalar, Table

COLUMNS = ("layer", "cell", "holds", "changes_per_inference", "lifetime_inferences", "lifetime")
YEAR_S = 365.25 * 86400


def wear_table(wear: Wear | None, seconds: float) -> Table:
    """The hottest cell of all layers and of each, and whatever else the kind watches."""
    if wear is None:
        return Table("wear", COLUMNS, ())
    rows = tuple(_row(worn, wear.endurance, seconds) for worn in wear.worn)
    return Table(f"wear, {wear.model}", COLUMNS, rows)


def _row(worn: Worn, endurance: float, seconds: float) -> tuple[Scalar, ...]:
    named = (worn.layer or "all", worn.cell, worn.holds, worn.changes)
    if not worn.changes:
        return (*named, None, None)
    inferences = endurance / worn.changes
    return (*named, inferences, shown_time(inferences * seconds))


def shown_time(seconds: float) -> str:
    """Seconds in a unit that a person can read."""
    for unit, size in (("years", YEAR_S), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
