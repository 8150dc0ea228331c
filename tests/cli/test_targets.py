"""`cimc targets`: lists, shows, and what is wrong with target files."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

EDGE = Path(str(resources.files("cimc.targets"))) / "edge-digital.toml"
Cimc = Callable[..., Any]  # the fixture of conftest


def test_the_list(cimc: Cimc) -> None:
    answer = cimc("targets")
    assert answer.code == 0
    assert answer.out.splitlines()[0].split() == ["target", "kind", "cores", "what", "it", "is"]
    assert any(line.startswith("edge-digital ") for line in answer.out.splitlines())
    assert answer.err == ""


def test_the_list_as_json(cimc: Cimc) -> None:
    rows = {row["name"]: row for row in cimc("targets", "--json").json}
    assert rows["edge-digital"]["kind"] == "sram-cim"
    assert rows["edge-digital"]["cores"] == 4
    assert cimc("targets", "list", "--json").json == list(rows.values())


def test_what_show_prints_is_the_machine(cimc: Cimc, tmp_path: Path) -> None:
    answer = cimc("targets", "show", "edge-digital")
    assert answer.code == 0
    assert "period_ns = 2.0   # assumed" in answer.out
    (tmp_path / "copy.toml").write_text(answer.out)
    copied = cimc("targets", "show", "./copy.toml", "--json").json
    shown = cimc("targets", "show", "edge-digital", "--json").json
    for key in ("name", "path"):
        del copied[key], shown[key]
    assert copied == shown


def test_one_value_replaced(cimc: Cimc) -> None:
    answer = cimc("targets", "show", "edge-digital", "--set", "clock.period_ns=1.5", "--json")
    assert answer.json["clock"]["period_ns"] == 1.5
    wrong = cimc("targets", "show", "edge-digital", "--set", "clock.perod_ns=1.5")
    assert wrong.code == 2
    assert "did you mean period_ns?" in wrong.err
    assert cimc("targets", "show", "edge-digital", "--set", "clock").code == 2


def test_an_unknown_name(cimc: Cimc) -> None:
    answer = cimc("targets", "show", "edge-digitl")
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("error CIM2003: no target is called 'edge-digitl'\n")
    assert answer.err.endswith("  help:    did you mean edge-digital?\n")


def test_an_unknown_name_as_json(cimc: Cimc) -> None:
    answer = cimc("targets", "show", "nothing-like-it", "--json")
    assert answer.code == 2
    assert answer.json["exit"] == 2
    assert [fault["code"] for fault in answer.json["faults"]] == ["CIM2003"]


BROKEN = [
    ("cores = 4", "cores = -4", "CIM2007", "cores"),
    ("cores = 4", "coers = 4", "CIM2007", "did you mean cores?"),
    ("cores = 4", 'cores = "four"', "CIM2007", "valid integer"),
    ("cores = 4", "cores = ", "CIM2001", "cannot read"),
    ('kind = "sram-cim"', 'kind = "dram"', "CIM2004", "unknown machine kind"),
    ("period_ns = 2.0", "period = 2.0", "CIM2007", "period"),
]


@pytest.mark.parametrize(("old", "new", "code", "message"), BROKEN)
def test_a_broken_file(
    cimc: Cimc, tmp_path: Path, old: str, new: str, code: str, message: str
) -> None:
    content = EDGE.read_text()
    assert old in content
    path = tmp_path / "broken.toml"
    path.write_text(content.replace(old, new, 1))
    answer = cimc("targets", "show", str(path))
    assert answer.code == 2
    assert f"error {code}: {path}" in answer.err
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_a_folder_of_ones_own(cimc: Cimc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "machines"
    folder.mkdir()
    (folder / "mine.toml").write_text(EDGE.read_text())
    (folder / "broken.toml").write_text("cores = ")
    monkeypatch.setenv("CIMC_TARGETS", os.pathsep.join([str(folder), str(tmp_path / "absent")]))
    answer = cimc("targets", "--json")
    assert answer.code == 0
    assert {"mine", "edge-digital"} <= {row["name"] for row in answer.json}
    assert answer.err.startswith(f"warning CIM2001: {folder / 'broken.toml'}: cannot read")
    assert cimc("targets", "-Werror").code == 2
    assert cimc("targets", "show", "mine").code == 0


def test_every_file_is_listed_and_loads(cimc: Cimc) -> None:
    names = {row["name"] for row in cimc("targets", "--json").json}
    assert names == {path.stem for path in EDGE.parent.glob("*.toml")}
    for name in names:
        shown = cimc("targets", "show", name)
        assert shown.code == 0
        assert tomllib.loads(shown.out)["kind"]
