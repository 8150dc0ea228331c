"""The README's list of operators is what the tool prints, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from cimc.cli import VERBS, cli

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> list[str]:
    """Table rows of operators; the newest opset is that of the installed onnx package."""
    found = re.findall(r"^\| (\w[\w.]*) \| (\d+)-\d+ \| (.*) \|$", text, re.MULTILINE)
    return [" | ".join(row) for row in found]


@pytest.mark.parametrize("target", ["isaac", "miredo-default", "rtm-ap"])
def test_the_operators_are_those_of_every_kind(target: str) -> None:
    printed = CliRunner().invoke(cli, ["ops", "--target", target, "--format", "md"]).output
    assert len(rows(printed)) > 100
    assert rows(README) == rows(printed)


def test_every_command_exists() -> None:
    named = re.findall(r"^\$ cimc (\w+)", README, re.MULTILINE)
    assert len(named) > 5
    assert set(named) <= set(VERBS)
