"""A distribution of its own adds a machine and a pass, found by entry points like built-in ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

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
@pytest.mark.parametrize("name", ["demo-edge", "demo-vector"])
def test_the_machines_pass_the_suite(run: Run, name: str) -> None:
    done = run("targets", "test", name, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == 0
    assert json.loads(done.stdout)["passed"] > 500


def test_a_kind_of_its_own(run: Run, tmp_path: Path) -> None:
    """Compile, run and reload a program of the plug-in's kind; its schema is checked, too."""
    model = str(PLUGIN.parent.parent / "models" / "shapes_int8.onnx")
    assert run("compile", model, "-t", "demo-vector", "-o", "out").returncode == 0
    done = run("run", "out", "--random", "2", "--reference", model)
    assert done.stdout.startswith("PASS"), done.stderr
    shown = run("targets", "show", "demo-vector", "--set", "product.mac_pj=-1")
    assert shown.returncode == 2
    assert "product.mac_pj" in shown.stderr


def test_an_op_that_a_kind_refuses(run: Run, tmp_path: Path) -> None:
    """It is an error with the node's name; with --host-fallback it runs on the host, priced."""
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["r"], "rectify"),
            helper.make_node("LRN", ["r"], ["n"], "normalize", size=3),
            helper.make_node("Relu", ["n"], ["y"], "again"),
        ],
        "lrn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "m.onnx"))
    refused = run("check", "m.onnx", "-t", "demo-vector")
    assert refused.returncode == 3
    assert refused.stderr.splitlines() == [
        "error CIM1203: LRN is not supported on demo-vector",
        "  node:    normalize   (lrn, input f32[1,4,3,3])",
        "  need:    a square root unit",
        "  help:    --host-fallback",
        "2 of 3 nodes are supported",
        "a clean cut is at r",
        "a clean cut is at n",
    ]
    assert run("compile", "m.onnx", "-t", "demo-vector", "-o", "out").returncode == 3
    args = ("-t", "demo-vector", "-o", "out", "--host-fallback")
    assert run("compile", "m.onnx", *args).returncode == 0
    rows = json.loads((tmp_path / "out" / "coverage.json").read_text())["rows"]
    assert [row["place"] for row in rows] == ["vector", "host", "vector"]
    done = run("run", "out", "--random", "2", "--reference", "m.onnx")
    assert done.stdout.startswith("PASS"), done.stderr
