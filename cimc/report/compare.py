"""Two reports beside each other: what changed, and by how much."""

from __future__ import annotations

from collections.abc import Sequence

from cimc.report.report import Report
from cimc.report.table import Scalar, Table

LAYER_COLUMNS = ("cycles", "energy_pj")


def compare_summaries(first: Report, second: Report, names: Sequence[str] = ("a", "b")) -> Table:
    """One row for each column of the summary that differs: both values, and the relative change."""
    one = first.summary_table().records()[0]
    other = second.summary_table().records()[0]
    rows = tuple(
        (column, one[column], other[column], change(one[column], other[column]))
        for column in one
        if one[column] != other[column]
    )
    return Table("summary", ("quantity", names[0], names[1], "change"), rows)


def compare_layers(first: Report, second: Report, names: Sequence[str] = ("a", "b")) -> Table:
    """One row for each layer of either report: cycles and energy of both, and the changes."""
    one = {str(row["layer"]): row for row in first.table("layer").records()}
    other = {str(row["layer"]): row for row in second.table("layer").records()}
    columns = ["layer"]
    for column in LAYER_COLUMNS:
        columns += [f"{column}_{names[0]}", f"{column}_{names[1]}", f"{column}_change"]
    rows = []
    for layer in (*one, *(name for name in other if name not in one)):
        row: list[Scalar] = [layer]
        for column in LAYER_COLUMNS:
            before = one[layer][column] if layer in one else None
            after = other[layer][column] if layer in other else None
            row += [before, after, change(before, after)]
        rows.append(tuple(row))
    return Table("layers", tuple(columns), tuple(rows))


def change(before: Scalar, after: Scalar) -> float | None:
    """after / before - 1; None where that means nothing."""
    if isinstance(before, bool) or isinstance(after, bool):
        return None
    if not isinstance(before, int | float) or not isinstance(after, int | float) or not before:
        return None
    return after / before - 1
