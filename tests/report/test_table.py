"""Tables as text, Markdown, CSV and JSON."""

from __future__ import annotations

import json

import pytest

from cimc.errors import UsageError
from cimc.report.table import Table, shown

TABLE = Table(
    "layers",
    ("layer", "cycles", "share", "note"),
    (("conv|1", 1234567, 0.123456, None), ("pool", 8, 2.0, "x")),
    brief=("layer", "cycles"),
)


def test_csv_has_full_precision() -> None:
    assert TABLE.csv() == "layer,cycles,share,note\nconv|1,1234567,0.123456,\npool,8,2.0,x\n"


def test_json_keeps_types() -> None:
    assert json.loads(TABLE.format("json"))[0] == {
        "layer": "conv|1",
        "cycles": 1234567,
        "share": 0.123456,
        "note": None,
    }


def test_markdown_aligns_numbers_and_escapes_bars() -> None:
    assert TABLE.format("md") == (
        "| layer | cycles | share | note |\n"
        "| --- | ---: | ---: | --- |\n"
        "| conv\\|1 | 1234567 | 0.1235 | - |\n"
        "| pool | 8 | 2 | x |\n"
    )


def test_text_shows_the_brief_columns() -> None:
    assert TABLE.format("table") == "layers\nlayer    cycles\nconv|1  1234567\npool          8\n"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="table, json, csv, md"):
        TABLE.format("xml")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "yes"), (12, "12"), (0.0001234, "0.0001234"), (1e20, "1e+20")],
)
def test_shown(value: float | None, text: str) -> None:
    assert shown(value) == text
