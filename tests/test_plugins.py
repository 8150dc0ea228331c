"""A distribution of its own adds a machine and a pass, found by entry points like built-in ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "plugin"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`python -m cimc` with the plug-in installed: its package and metadata are on the path."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    site = tmp_path / "site"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"]
    (info / "METADATA").write_text("".join(lines))
    groups = []
    for group, entries in project["entry-points"].items():
        groups.append(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        )
    (info / "entry_points.txt").write_text("\n".join(groups))
    path = os.pathsep.join([str(site), str(PLUGIN)])

    def cimc(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cimc", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )

    return cimc


def test_the_machine_is_found(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("targets", "--json").stdout)}
    assert rows["demo-edge"]["summary"] == "a plug-in machine for tests: 2 cores"
    assert run("targets", "show", "demo-edge").returncode == 0


def test_the_pass_is_found(run: Run, tmp_path: Path) -> None:
    listed = json.loads(run("opt", "--list-passes", "--json").stdout)
    row = next(row for row in listed if row["pass"] == "demo-rename")
    assert row["options"] == {"to": '"renamed"'}
    (tmp_path / "g.cir").write_text('graph "a"\n%x : f32[2] = input\nreturn %x\n')
    done = run("opt", "g.cir", "-p", 'demo-rename{to="b"},simplify', "--verify-each")
    assert done.stdout.startswith('graph "b"\n'), done.stderr


@pytest.mark.slow
def test_the_machine_passes_the_suite(run: Run) -> None:
    done = run("targets", "test", "demo-edge", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == 0
