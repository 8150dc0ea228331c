"""What each optimization across layers brought, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cimc.report.table import Scalar, Table
from cimc.target import Target

COLUMNS = (
    *("step", "is_taken", "latency_cycles", "latency_ms", "energy_mj"),
    *("latency_change", "energy_change", "setup_cycles", "setup_energy_mj"),
    *("period_cycles", "period_change"),
)


def network_table(stages: Sequence[Mapping[str, Scalar]], target: Target) -> Table:
    """One row per step, changes relative to the layers alone; no row where nothing was tried."""
    rows: list[tuple[Scalar, ...]] = []
    for stage in stages:
        cycles, pj = _number(stage, "latency_cycles"), _number(stage, "energy_pj")
        before = _number(stages[0], "latency_cycles"), _number(stages[0], "energy_pj")
        rows.append(
            (
                stage["step"],
                stage["is_taken"],
                int(cycles),
                target.cycles_to_ms(cycles),
                pj * 1e-9,
                cycles / before[0] - 1 if before[0] else None,
                pj / before[1] - 1 if before[1] else None,
                int(_number(stage, "setup_cycles")),
                _number(stage, "setup_pj") * 1e-9,
                stage.get("period_cycles"),
                _change(stage, stages[0], "period_cycles"),
            )
        )
    return Table("network", COLUMNS, tuple(rows))


def network_line(table: Table) -> str:
    """The steps in one line: what was taken, and the changes it brought."""
    shown = []
    for row in table.records()[1:]:
        if row["is_taken"]:
            names = ("latency", "energy", "period")
            changes = {name: row[f"{name}_change"] for name in names}
            told = [f"{n} {c or 0:+.1%}" for n, c in changes.items() if c is not None]
            shown.append(f"{row['step']} {', '.join(told)}")
        else:
            shown.append(f"{row['step']} left out, brings nothing")
    return "; ".join(shown)


def _change(stage: Mapping[str, Scalar], first: Mapping[str, Scalar], name: str) -> float | None:
    now, before = stage.get(name), first.get(name)
    if isinstance(now, int | float) and isinstance(before, int | float) and before:
        return now / before - 1
    return None


def _number(stage: Mapping[str, Scalar], name: str) -> float:
    value = stage[name]
    assert isinstance(value, int | float)
    return value
