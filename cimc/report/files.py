"""Reports as files: each appears as a whole or not at all.

summary.json    the summary row, all tables, where each number comes from, assumed constants
summary.csv     the summary row
layers.csv      one row per layer
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TextIO

from cimc.errors import Fault, UsageError
from cimc.report.report import Report, Summary
from cimc.report.table import Table

SUMMARY_FILE, SUMMARY_CSV, LAYERS_CSV = "summary.json", "summary.csv", "layers.csv"


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file to write into; it becomes `path` at the end, and vanishes if that fails.

    raises  UsageError if it cannot be written there
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as problem:
        raise UsageError(
            Fault(f"{path} cannot be written", have=str(problem), code="CIM2062")
        ) from None
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _umask() -> int:
    """What the person's shell takes away from new files; a temporary one has 0600."""
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: Path, content: str) -> None:
    """Write a file as a whole."""
    with whole_file(path) as file:
        file.write(content)


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write all files of a report into a folder; returns their paths."""
    content = {
        "summary": report.summary_table().records()[0],
        "sources": dict(report.sources),
        "assumed": {group: list(keys) for group, keys in report.assumed.items()},
        "notes": list(report.notes),
        "tables": {name: _table_json(table) for name, table in report.tables.items()},
    }
    texts = {
        SUMMARY_FILE: json.dumps(content, indent=1, ensure_ascii=False) + "\n",
        SUMMARY_CSV: report.summary_table().csv(),
        LAYERS_CSV: report.table("layer").csv(),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return tuple(folder / name for name in texts)


def _table_json(table: Table) -> dict[str, object]:
    return {
        "title": table.title,
        "columns": table.columns,
        "brief": table.brief,
        "rows": table.rows,
    }


def read_report(folder: Path) -> Report:
    """Read what `write_report` wrote.

    raises  UsageError where there is no report, or one of another version of the tool
    """
    path = folder / SUMMARY_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        summary = content["summary"]
        _check_columns(path, summary)
        tables = {
            name: Table(
                item["title"],
                tuple(item["columns"]),
                tuple(tuple(row) for row in item["rows"]),
                tuple(item["brief"]),
            )
            for name, item in content["tables"].items()
        }
        assumed = {group: tuple(keys) for group, keys in content["assumed"].items()}
        notes = tuple(content["notes"])
        return Report(Summary(**summary), tables, content["sources"], assumed, notes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise UsageError(
            Fault(
                f"{folder} holds no report",
                have=f"{type(problem).__name__}: {problem}",
                help="`cimc report DIR` of a compiled program writes one",
                code="CIM2063",
            )
        ) from None


def _check_columns(path: Path, summary: Sequence[str]) -> None:
    ours = {item.name for item in fields(Summary)}
    if ours != set(summary):
        raise UsageError(
            Fault(
                f"{path} was written by another version of cimc",
                need=", ".join(sorted(ours - set(summary))) or "no further columns",
                have=", ".join(sorted(set(summary) - ours)) or "those columns missing",
                help="simulate the program again",
                code="CIM2064",
            )
        )
