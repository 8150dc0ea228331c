"""Tables of results: stable column names with units, written as text, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cimc.errors import Fault, UsageError

Scalar: TypeAlias = "str | int | float | bool | None"
Format: TypeAlias = Literal["table", "json", "csv", "md"]
FORMATS: tuple[Format, ...] = ("table", "json", "csv", "md")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of scalars; CSV and JSON have full precision, text and Markdown four digits."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]
    brief: tuple[str, ...] = ()  # the columns that text shows; all, if empty

    def format(self, form: Format, width: int = 0) -> str:
        """The table as `form`; text fits into `width` columns if that is not 0."""
        match form:
            case "json":
                return json.dumps(self.records(), indent=2, ensure_ascii=False)
            case "csv":
                return self.csv()
            case "md":
                return self.markdown()
            case "table":
                return self.text(width)
        raise UsageError(
            Fault(f"no format is called {form!r}", need=", ".join(FORMATS), code="CIM2060")
        )

    def records(self) -> list[dict[str, Scalar]]:
        """One dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def csv(self) -> str:
        """Comma-separated values with a head line; an absent value is an empty field."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return buffer.getvalue()

    def markdown(self) -> str:
        """A Markdown table, numbers to the right."""
        places = range(len(self.columns))
        marks = ["---:" if self._is_numeric(place) else "---" for place in places]
        lines = [self.columns, marks, *([shown(cell) for cell in row] for row in self.rows)]
        joined = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
        return "\n".join(f"| {line} |" for line in joined) + "\n"

    def text(self, width: int = 0) -> str:
        """Columns for a terminal; too long cells are wrapped."""
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(title=self.title or None, box=None, pad_edge=False, title_justify="left")
        places = [
            place for place, name in enumerate(self.columns) if name in (self.brief or self.columns)
        ]
        for place in places:
            is_numeric = self._is_numeric(place)
            table.add_column(
                self.columns[place].replace("_", " "),
                justify="right" if is_numeric else "left",
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(shown(row[place]) for place in places))
        buffer = io.StringIO()
        console = Console(
            file=buffer, width=width or 10_000, color_system=None, highlight=False, markup=False
        )
        console.print(table)
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"

    def _is_numeric(self, place: int) -> bool:
        cells = [row[place] for row in self.rows if row[place] is not None]
        return bool(cells) and all(type(cell) in (int, float) for cell in cells)


def shown(value: Scalar) -> str:
    """A value for people: whole numbers whole, others with four digits."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value == int(value) and abs(value) < 1e15:
            return f"{int(value)}"
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return str(value)
