"""From an ONNX file to outputs: levels, dumps and machines agree with each other and the graph."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest

import cimc
from cimc.dataset import random_dataset
from cimc.ir.evaluate import evaluate
from cimc.ir.types import Array
from cimc.passes.allocate import allocate
from cimc.pipeline.observe import Dump
from cimc.pipeline.run import run_pipeline
from cimc.pipeline.spec import parse_pipeline
from cimc.pipeline.state import load_state, next_steps
from cimc.runs import References, Run, input_ranges, run_samples
from cimc.sim.estimate import macs_of
from cimc.target import load_target

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
TARGETS = ("isaac", "reram-128", "edge-digital", "miredo-default", "rtm-ap")
DATA = os.environ.get("CIMC_DATA")
DATA_MODELS = sorted((Path(DATA) / "models").glob("*.onnx")) if DATA else []


def images(count: int) -> Array:
    with np.load(MODELS / "shapes_test.npz") as data:
        return np.asarray(data["x"][:count], np.float32)


def outputs(model: Path, target: str, level: int) -> tuple[Array, Array]:
    """The program's and the graph evaluator's result for one image."""
    program = cimc.compile(model, target, level=level)
    x = images(1)
    (name, _), *_ = program.compiled.program.outputs
    return program.run(x)[name], evaluate(program.compiled.graph, {"x": x})[name]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["shapes_int8", "shapes_ternary"])
def test_all_levels_agree_bit_for_bit(name: str, target: str) -> None:
    found = [outputs(MODELS / f"{name}.onnx", target, level) for level in (0, 1, 2, 3)]
    for program, graph in found:
        assert (program == graph).all()
        assert (program == found[0][0]).all()


@pytest.mark.parametrize("target", ["isaac", "edge-digital", "rtm-ap"])
def test_every_dump_continues_to_the_same_program(target: str, tmp_path: Path) -> None:
    model, machine = MODELS / "shapes_ternary.onnx", load_target(target)
    whole = cimc.compile(model, target, observers=[Dump(tmp_path)]).compiled.program
    dumps = sorted(tmp_path.glob("*.cir"))
    assert len(dumps) > 10
    for path in dumps:
        state, rest = load_state(path), next_steps(path)
        assert rest is not None
        assert str(run_pipeline(state, parse_pipeline(rest), target=machine)) == str(whole), (
            path.name
        )


@pytest.mark.parametrize("name", ["shapes_int8", "shapes_ternary"])
def test_the_shipped_models_keep_their_accuracy_on_every_kind(name: str) -> None:
    with np.load(MODELS / "shapes_test.npz") as data:
        x, labels = data["x"][:100].astype(np.float32), data["labels"][:100]
    right = {
        target: int(
            (
                cimc.compile(MODELS / f"{name}.onnx", target).run(x)["scores"].argmax(1) == labels
            ).sum()
        )
        for target in ("isaac", "miredo-default", "rtm-ap")
    }
    assert len(set(right.values())) == 1
    assert min(right.values()) >= 95


@pytest.mark.skipif(not DATA, reason="CIMC_DATA does not name a folder with models")
@pytest.mark.parametrize("target", ["isaac-4chip", "miredo-default", "rtm-ap"])
@pytest.mark.parametrize("path", DATA_MODELS, ids=lambda path: path.stem)
def test_real_models_are_exact_and_near_onnxruntime(
    path: Path, target: str, tmp_path: Path
) -> None:
    compiled = cimc.compile(path, target, calibrate="random", samples=1).compiled
    reference = path
    if compiled.quantized is not None:
        reference = tmp_path / "reference.onnx"
        reference.write_bytes(compiled.quantized)
    inputs = random_dataset(compiled.program.inputs, 1, 0, input_ranges(compiled.graph))
    run = Run()
    references = References(compiled.graph, reference)
    assert list(run_samples(run, compiled.program, compiled.target, inputs, references))
    assert {row.against for row in run.comparisons} >= {"evaluator", "op by op"}
    assert [row for row in run.comparisons if not row.passed] == []
    assert len(compiled.rows) == compiled.history.nodes


@pytest.mark.parametrize(
    ("name", "macs"),
    [  # convolutions and the classifier at 224 x 224, from the layers' shapes in the papers
        ("resnet18", 1_814_073_344),
        ("mobilenet_v2", 300_774_272),
    ],
)
def test_macs_equal_the_closed_form(name: str, macs: int, tmp_path: Path) -> None:
    networks = runpy.run_path(str(MODELS / "networks.py"))
    path = tmp_path / f"{name}.onnx"
    onnx.save(networks["build"](name), path)
    compiled = cimc.compile(path, "isaac-4chip", calibrate="random", samples=1).compiled
    assert sum(macs_of(compiled.graph).values()) == macs
    again = allocate(compiled.program, target=compiled.target)
    assert str(again) == str(compiled.program)
