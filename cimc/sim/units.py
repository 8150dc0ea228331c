"""Names of units: "link", "dram.port", "core3.ib.read", "core3.array12"."""

from __future__ import annotations

ARRAY_UNITS = frozenset({"array", "macro", "ap"})  # last names of units that multiply


def core_of_unit(unit: str) -> str:
    """The core of a unit: "core3.ib.read" -> "core3"; "" for one that all cores share."""
    first = unit.partition(".")[0]
    return first if first.startswith("core") and first[4:].isdigit() else ""


def is_array(unit: str) -> bool:
    """Whether a unit is one that multiplies: "core3.array12"."""
    return unit.rpartition(".")[2].rstrip("0123456789") in ARRAY_UNITS
