"""`cimc compile` and `cimc run`: folders, dumps, comparisons, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cimc = Callable[..., Any]  # the fixture of conftest
TARGET = "edge-digital"


@pytest.fixture
def out(cimc: Cimc, model: Path, tmp_path: Path) -> Path:
    answer = cimc("compile", str(model), "-t", TARGET, "-o", "out")
    assert answer.code == 0, answer.err
    return tmp_path / "out"


def test_the_folder(cimc: Cimc, out: Path) -> None:
    names = {path.name for path in out.iterdir()}
    assert {
        "manifest.json",
        "program.bin",
        "weights.safetensors",
        "graph.cir",
        "tiles.cir",
    } <= names
    assert {"target.toml", "coverage.json", "time_per_phase.json"} <= names
    assert {"summary.json", "summary.csv", "layers.csv"} <= names
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["target"] == TARGET
    assert manifest["status"] == "ok"
    phases = ["import", "graph", "tile", "map", "lower", "allocate", "program"]
    assert list(manifest["seconds"]) == phases
    assert list(json.loads((out / "time_per_phase.json").read_text())) == phases


def test_coverage_adds_up(out: Path) -> None:
    found = json.loads((out / "coverage.json").read_text())
    assert sum(found["places"].values()) == found["nodes"] == len(found["rows"])
    places = {row["node"]: row["place"] for row in found["rows"]}
    assert places["first"] == places["last"] == "macro"
    assert places["rectify"] == places["d_w1"] == "fused"


def test_run_compares_with_the_model(cimc: Cimc, out: Path, images: Path, model: Path) -> None:
    answer = cimc("run", "out", "--input", str(images), "--reference", str(model))
    assert answer.code == 0, answer.err
    assert answer.out.startswith("PASS  4 samples, every tensor of 4 of them compared\n")
    report = json.loads((out / "verify.json").read_text())
    against = {row["against"] for row in report["tensors"]}
    assert {"evaluator", "onnxruntime", "op by op"} <= against
    exact = [row for row in report["tensors"] if row["against"] == "evaluator"]
    assert {"x_q", "r_q", "p_q", "g_q", "y"} <= {row["tensor"] for row in exact}
    assert all(row["differing"] == 0 for row in exact)


def test_both_engines_agree(cimc: Cimc, out: Path, images: Path, tmp_path: Path) -> None:
    for engine in ("fast", "plain"):
        args = ("--input", str(images), "--count", "2", "--engine", engine)
        assert cimc("run", "out", *args, "-o", f"{engine}.npz").code == 0
    with np.load(tmp_path / "fast.npz") as fast, np.load(tmp_path / "plain.npz") as plain:
        assert fast["y"].shape == (2, 1, 5)
        assert (fast["y"] == plain["y"]).all()
        assert len(np.unique(fast["y"])) > 3


def test_expected_outputs(cimc: Cimc, out: Path, images: Path, tmp_path: Path) -> None:
    assert cimc("run", "out", "--input", str(images), "-o", "y.npz").code == 0
    with np.load(tmp_path / "y.npz") as held:
        right = held["y"]
    np.save(tmp_path / "right.npy", right)
    wrong = right.copy()
    wrong[2, 0, 1] += 1
    np.save(tmp_path / "wrong.npy", wrong)
    np.save(tmp_path / "few.npy", right[:2])
    assert cimc("run", "out", "--input", str(images), "--expect", "right.npy").code == 0
    answer = cimc("run", "out", "--input", str(images), "--expect", "wrong.npy")
    assert answer.code == 5
    assert answer.out.startswith("FAIL")
    assert "error CIM5001: y is not what expected says" in answer.err
    assert "1 of 20 elements differ" in answer.err
    assert cimc("run", "out", "--input", str(images), "--expect", "few.npy").code == 2


def test_another_model_as_reference_fails(
    cimc: Cimc, out: Path, images: Path, model: Path, tmp_path: Path
) -> None:
    """The check can fail: one weight of the reference is not the one that was compiled."""
    import onnx
    from onnx import numpy_helper

    other = onnx.load(str(model))
    (tensor,) = [item for item in other.graph.initializer if item.name == "w1_q"]
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] = -array[0, 0]
    tensor.CopyFrom(numpy_helper.from_array(array, "w1_q"))
    onnx.save(other, str(tmp_path / "other.onnx"))
    answer = cimc("run", "out", "--input", str(images), "--reference", "other.onnx", "--json")
    assert answer.code == 5
    assert answer.json["passed"] is False
    failed = [row for row in answer.json["tensors"] if not row["passed"]]
    assert [(row["tensor"], row["against"]) for row in failed] == [("r_q", "op by op")]


def test_random_samples_and_json(cimc: Cimc, out: Path) -> None:
    first = cimc("run", "out", "--random", "2", "--seed", "3", "--json")
    assert first.code == 0
    assert first.json["seed"] == 3
    assert first.json["checked"] == 2
    assert cimc("run", "out").code == 2
    assert cimc("run", "out", "--random", "1", "--input", "x.npy").code == 2


@pytest.mark.parametrize("level", "0123")
def test_all_levels_agree(
    cimc: Cimc, model: Path, images: Path, tmp_path: Path, level: str
) -> None:
    for name in ("2", level):
        args = ("-t", TARGET, f"-O{name}", "-o", f"out{name}", "--verify", "each")
        assert cimc("compile", str(model), *args, "--time-limit", "2").code == 0
        assert cimc("run", f"out{name}", "--input", str(images), "-o", f"{name}.npz").code == 0
    with np.load(tmp_path / "2.npz") as default, np.load(tmp_path / f"{level}.npz") as chosen:
        assert (default["y"] == chosen["y"]).all()


def test_dumps_and_going_on_from_one(cimc: Cimc, model: Path, tmp_path: Path) -> None:
    args = ("compile", str(model), "-t", TARGET)
    assert cimc(*args, "--dump-ir", "-o", "out", "--timing").code == 0
    dumps = sorted((tmp_path / "out" / "ir").glob("*.cir"))
    names = [path.stem.split("-", 1)[1] for path in dumps]
    tile = names.index("tile")
    assert (names[tile + 1], names[-2:]) == ("map", ["lower", "allocate"])
    assert all(name.startswith("map-") for name in names[tile + 2 : -2])
    whole = (tmp_path / "out" / "program.bin").read_bytes()
    for dump in dumps:
        assert cimc("opt", str(dump)).out == cimc("opt", str(dump), "--verify", "each").out
        answer = cimc(*args, "--from", str(dump), "-o", "again")
        assert answer.code == 0, answer.err
        assert (tmp_path / "again" / "program.bin").read_bytes() == whole, dump.name
    last = cimc("opt", str(dumps[tile]), "-p", "map,lower,allocate")
    assert last.code == 0
    assert last.out.startswith('program "model" on "edge-digital"\n')


def test_stopping_early(cimc: Cimc, model: Path, tmp_path: Path) -> None:
    for phase, form in (
        ("import", "graph"),
        ("graph", "graph"),
        ("map", "tiles"),
        ("lower", "program"),
    ):
        answer = cimc("compile", str(model), "-t", TARGET, "--to", phase)
        assert answer.code == 0
        assert answer.out.startswith(form)
    assert cimc("compile", str(model), "-t", TARGET, "--to", "tile", "-o", "t.cir").out == ""
    assert cimc("opt", "t.cir", "-p", "map", "-o", "m.cir").code == 0
    assert (tmp_path / "m.cir").read_text().startswith('tiles on "edge-digital"')


def test_printing_states(cimc: Cimc, model: Path) -> None:
    args = ("compile", str(model), "-t", TARGET, "-o", "out", "-q")
    answer = cimc(*args, "--print-ir-after", "tile")
    assert answer.err.startswith("# ----- after tile -----\ntiles on")
    assert answer.err.count("# -----") == 1
    answer = cimc(*args, "--print-ir-after-change")
    assert "# ----- after fold-batch-norm: no change -----" in answer.err


def test_a_float_model_needs_calibration_to_be_accurate(
    cimc: Cimc, float_model: Path, images: Path, tmp_path: Path
) -> None:
    answer = cimc("compile", str(float_model), "-t", TARGET, "-o", "out")
    assert answer.code == 0
    assert "warning CIM1304" in answer.err
    assert "accuracy means nothing" in answer.err
    assert cimc("compile", str(float_model), "-t", TARGET, "-o", "bad", "-Werror").code == 2
    assert not (tmp_path / "bad").exists()
    args = ("--calibrate", str(images), "-o", "good", "-Werror")
    answer = cimc("compile", str(float_model), "-t", TARGET, *args)
    assert answer.code == 0, answer.err
    args = ("--input", str(images), "--reference", str(float_model), "--json")
    report = cimc("run", "good", *args).json
    assert report["passed"]
    assert report["float_sqnr_db"] > 25
    coverage = json.loads((tmp_path / "good" / "coverage.json").read_text())
    assert {row["node"]: row["place"] for row in coverage["rows"]}["first"] == "macro"
    assert sum(coverage["places"].values()) == coverage["nodes"] == 5


def test_ternary_weights_are_lossy_and_said_to_be(
    cimc: Cimc, float_model: Path, images: Path, tmp_path: Path
) -> None:
    samples = np.load(images)
    data = tmp_path / "labelled.npz"
    np.savez(data, x=samples, labels=np.zeros(len(samples), np.uint8))
    options = ("--ternarize", "inner", "--activation-bits", "4", "--calibrate", str(data))
    args = ("compile", str(float_model), "-t", TARGET, *options)
    answer = cimc(*args, "-o", "out", "--dump-ir")
    assert answer.code == 0, answer.err
    assert "warning CIM1305" in answer.err
    assert "weights made ternary (lossy): inner layers, per channel" in answer.err
    assert "labelled samples: " in answer.err
    assert " before (onnxruntime), " in answer.err
    assert [path.name for path in (tmp_path / "out" / "ir").glob("*ternarize*")]
    assert cimc(*args, "-o", "bad", "-Werror").code == 2
    run = cimc("run", "out", "--input", str(data), "--reference", str(float_model), "--json").json
    assert run["passed"]
    assert {"accuracy", "reference_accuracy", "float_accuracy"} <= set(run)


def test_a_quantized_model_has_its_bits_already(cimc: Cimc, model: Path) -> None:
    answer = cimc("compile", str(model), "-t", TARGET, "-o", "out", "--activation-bits", "4")
    assert answer.code == 2
    assert "error CIM1303" in answer.err
    assert "is quantized already" in answer.err


def test_cycles_and_reports(cimc: Cimc, model: Path, tmp_path: Path) -> None:
    args = ("compile", str(model), "-t", TARGET)
    whole = cimc(*args, "-o", "a", "--json").json
    assert whole["ok"]
    assert whole["summary"]["latency_cycles"] > 0
    assert cimc(*args, "-o", "b", "--no-simulate", "--set", "clock.period_ns=4").code == 0
    assert not (tmp_path / "b" / "summary.json").exists()
    later = cimc("run", "b", "--mode", "cycle", "--json").json
    assert later["latency_cycles"] == whole["summary"]["latency_cycles"]
    assert later["latency_ms"] == pytest.approx(2 * whole["summary"]["latency_ms"])
    layers = cimc("report", "a", "--by", "layer", "--json").json
    assert {"a.sum", "g.sum"} <= {row["layer"] for row in layers}
    changed = {row["quantity"]: row["change"] for row in cimc("report", "a", "b", "--json").json}
    assert changed["latency_ms"] == pytest.approx(1.0)
    assert "latency_cycles" not in changed
    head = cimc("report", "a", "b", "a", "--format", "csv").out.splitlines()[0]
    assert head == "quantity,a,b,a"
    for by in ("core", "component", "op", "unit", "stall"):
        assert cimc("report", "a", "--by", by, "--format", "md").out.startswith("| ")


def test_timeline_and_sweep(cimc: Cimc, model: Path, tmp_path: Path) -> None:
    assert cimc("compile", str(model), "-t", TARGET, "-o", "a").code == 0
    assert cimc("report", "a", "--trace", "t.json").code == 0
    assert len(json.loads((tmp_path / "t.json").read_text())["traceEvents"]) > 10
    rows = cimc("report", "a", "--sweep", "memory.dram.read_pj_per_bit=1:3:3", "--json").json
    first, second, third = (row["energy_dynamic_mj"] for row in rows)
    assert second - first == pytest.approx(third - second)
    assert second > first
    rows = cimc("report", "a", "--sweep", "memory.dram.latency_cycles=0,400", "--json").json
    assert rows[0]["latency_ms"] < rows[1]["latency_ms"]
    for wrong in ("x=1", "clock.period_ns", "clock.period_ns=a", "clock.period_ns=1:2:1"):
        assert cimc("report", "a", "--sweep", wrong).code == 2
    assert cimc("report", "a", "a", "--trace", "t.json").code == 2
