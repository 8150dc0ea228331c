"""`cimc compile -O3`: what it proves, keeps, and says when it is interrupted."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Cimc = Callable[..., Any]  # the fixture of conftest
TARGET = "miredo-default"
LIMIT = ("-O3", "--time-limit", "1", "--jobs", "1")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of solved mappings of this test's own."""
    monkeypatch.setenv("CIMC_MAPPINGS", str(tmp_path / "mappings"))
    return tmp_path / "mappings"


def layers(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "layers.csv").open() as file:
        return {row["layer"]: row for row in csv.DictReader(file)}


def test_reports_say_what_is_proven(cimc: Cimc, model: Path, tmp_path: Path, kept: Path) -> None:
    answer = cimc("compile", str(model), "-t", TARGET, "-o", "out", *LIMIT)
    assert answer.code == 0, answer.err
    assert "mapping   latency: " in answer.out
    row = layers(tmp_path / "out")["a.sum"]
    assert row["mapping_objective"] == "latency"
    assert 0 < float(row["mapping_bound"]) <= float(row["mapping_cost"])
    gap = 1 - float(row["mapping_bound"]) / float(row["mapping_cost"])
    assert float(row["mapping_gap"]) == pytest.approx(gap)
    assert float(row["mapping_seconds"]) > 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["summary"]
    assert 0 <= summary["mapping_gap"] < 1
    assert len(list(kept.rglob("*.json"))) == 2
    found = json.loads((tmp_path / "out" / "mapping.json").read_text())
    assert sorted(layer for item in found for layer in item["layers"]) == ["a.sum", "g.sum"]
    (tmp_path / "out" / "summary.json").unlink()
    again = cimc("report", "out", "--by", "layer", "--json").json
    assert {row["layer"]: row for row in again}["a.sum"]["mapping_gap"] == pytest.approx(gap)


def test_exact_takes_no_more_than_search(cimc: Cimc, model: Path) -> None:
    """Energy adds up over layers; cycles do not quite, as one layer begins while another ends."""
    answers = [
        cimc("compile", str(model), "-t", TARGET, "-o", "out", "--json", *effort).json
        for effort in (("-O2", "--objective", "energy"), (*LIMIT, "--objective", "energy"))
    ]
    energy = [answer["summary"]["energy_mj_per_inference"] for answer in answers]
    assert energy[1] <= energy[0]


def test_no_time_at_all_gives_a_mapping_and_its_gap(cimc: Cimc, model: Path) -> None:
    args = ("-O3", "--time-limit", "0", "--objective", "edp", "-v")
    answer = cimc("compile", str(model), "-t", TARGET, "-o", "out", *args)
    assert answer.code == 0, answer.err
    assert "edp: " in answer.out
    assert "%a.sum" in answer.err


def test_a_second_run_begins_where_the_first_stopped(cimc: Cimc, model: Path) -> None:
    args = ("compile", str(model), "-t", TARGET, "-o", "out", *LIMIT, "--gap", "0.9")
    assert "stored" not in cimc(*args).out
    assert "; 2 of 2 were stored" in cimc(*args).out


def test_the_store_can_be_switched_off(
    cimc: Cimc, model: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIMC_MAPPINGS", "off")
    assert cimc("compile", str(model), "-t", TARGET, "-o", "out", *LIMIT).code == 0
    assert not kept.exists()


def test_objectives(cimc: Cimc, model: Path) -> None:
    args = ("compile", str(model), "-t", TARGET, "-o", "out", "--objective")
    answer = cimc(*args, "0.5*latency + 0.5*energy")
    assert answer.code == 0, answer.err
    answer = cimc(*args, "speed")
    assert answer.code == 2
    assert answer.err.startswith("error CIM4015: `speed` is no objective\n")
    assert cimc(*args, "latency", "--gap", "2").code == 2
    assert cimc(*args, "latency", "--time-limit", "-1").code == 2


def test_hardware_without_room_for_one_element(cimc: Cimc, model: Path) -> None:
    args = ("-o", "out", "--set", "memory.macro.size_bits=4", "--json", "-O3")
    answer = cimc("compile", str(model), "-t", TARGET, *args)
    assert answer.code == 4
    faults = json.loads(answer.out)["faults"]
    assert [fault["node"].split(",")[0] for fault in faults] == ["first", "last"]
    assert faults[0]["where"] == "layer %a.sum: tiles do not fit in macro"
    assert faults[0]["need"] == "8 bits (W 8)"
    assert faults[0]["have"] == "4 bits (miredo-default: memory.macro.size_bits)"
    assert faults[0]["help"] == "a single element does not fit: raise memory.macro.size_bits"


def test_constraints_that_contradict_each_other(cimc: Cimc, model: Path) -> None:
    wishes = ('memory.gb.holds=["I"]', "memory.oreg.double=[]", 'axis.rows.sourced_at={I="ib"}')
    args = [word for wish in wishes for word in ("--set", wish)]
    answer = cimc("compile", str(model), "-t", TARGET, "-o", "out", "-O3", *args, "--json")
    assert answer.code == 2
    faults = json.loads(answer.out)["faults"]
    assert [fault["where"].partition(": ")[2] for fault in faults] == [
        "axis.rows.sourced_at names no level for W",
        "axis.rows.sourced_at names no level for O",
        "memory.gb.double has W, which it does not hold",
        "memory.gb.double has O, which it does not hold",
    ]
    assert {fault["code"] for fault in faults} == {"CIM2009"}


@pytest.mark.parametrize("effort", [("-O2",), LIMIT])
def test_constraints_hold(cimc: Cimc, model: Path, tmp_path: Path, effort: tuple[str, ...]) -> None:
    """What the axes may run and what has two buffers can be restricted for one compilation."""
    wishes = ('axis.cores.loops=["p"]', "memory.gb.double=[]", "axis.columns.loops=[]")
    args = [word for wish in wishes for word in ("--set", wish)]
    answer = cimc(
        "compile", str(model), "-t", TARGET, "-o", "tiles.cir", "--to", "map", *args, *effort
    )
    assert answer.code == 0, answer.err
    nests = (tmp_path / "tiles.cir").read_text().partition("layer ")[2]
    assert "cores(p=" in nests
    assert not re.search(r"cores\([^)]*[^p(]=|columns\(|gb/", nests)


def large(path: Path) -> None:
    """Two convolutions whose best mappings take a while."""
    random = np.random.default_rng(1)
    nodes = [
        helper.make_node("ConvInteger", ["x", f"w{i}"], [f"y{i}"], f"conv{i}", pads=[1, 1, 1, 1])
        for i in range(2)
    ]
    tensors = {
        f"w{i}": random.integers(-9, 9, (48 + i, 64, 3, 3)).astype(np.int8) for i in range(2)
    }
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.INT32, None) for i in range(2)]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.INT8, [1, 64, 28, 28])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def test_ctrl_c_keeps_what_was_found(tmp_path: Path, kept: Path) -> None:
    large(tmp_path / "large.onnx")
    script = (
        "import sys; import cimc.cli.searches as s; s.EVERY = 0.0;"
        "from cimc.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    args = ["compile", "large.onnx", "-t", TARGET, "-o", "out", "-O3", "--time-limit", "600"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *args, "--jobs", "2"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        assert process.stderr is not None
        shown = []
        for line in process.stderr:
            shown.append(line)
            if ", gap " in line:
                break
        process.send_signal(signal.SIGINT)
        shown += process.stderr
        assert process.wait() == 130, "".join(shown)
    said = "".join(shown)
    assert "latency: 0 of 2 layers proven best, gap " in said
    assert f"2 of 2 kept in {kept}; the same command goes on from there\n" in said
    assert said.endswith("interrupted\n")
    assert len(list(kept.rglob("*.json"))) == 2
    assert not (tmp_path / "out").exists()
