"""From an ONNX file to outputs: levels, dumps and machines agree with each other and the graph."""

from __future__ import annotations

import gzip
import io
import os
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import cimc
from cimc.dataset import make_dataset, random_dataset
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
    program = cimc.compile(model, target, level=level, time_limit_s=1.0)
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
    text, dumps = str(whole), sorted(tmp_path.glob("*.cir"))
    assert len(dumps) > 10
    for path in dumps:
        state, rest = load_state(path), next_steps(path)
        assert rest is not None
        again = run_pipeline(state, parse_pipeline(rest), target=machine, verify="none")
        assert str(again) == text, path.name  # a text that has been verified


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


@pytest.mark.parametrize("target", ["isaac", "miredo-default", "rtm-ap"])
def test_the_ternary_qonnx_model_keeps_its_accuracy_to_the_digit(target: str, data: Path) -> None:
    """All 10,000 test images of MNIST, 250 at once; software is the definition in NumPy."""
    images = gzip.decompress((data / "mnist-t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((data / "mnist-t10k-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8)[16:].reshape(-1, 250, 1, 28, 28)
    wanted = np.frombuffer(labels, np.uint8)[8:]
    x = (pixels / np.float32(255)).astype(np.float32)
    path = data / "models" / "qonnx_TFC_2W2A.onnx"
    program = cimc.compile(path, target, shapes={"0": (250, 1, 28, 28)})
    chosen = program.run(x)["90"].argmax(axis=1)
    software = ternary_mlp(path, x.reshape(len(wanted), -1)).argmax(axis=1)
    assert (chosen == software).all()
    assert int((chosen == wanted).sum()) == 9660


def ternary_mlp(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's own arithmetic: three hidden layers, then a scaled product."""
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}

    def codes(y: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.clip(np.round(y), -1, 1), np.float32)

    x = codes(2 * x - 1)
    for weights, norm in (("41", "3"), ("53", "7"), ("65", "11")):
        scale, bias, mean, variance = (
            held[f"features.{norm}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = x @ codes(held[weights]).T
        x = codes(scale * (x - mean) / np.sqrt(variance + np.float32(1e-5)) + bias)
    return np.asarray(x @ codes(held["77"]).T)


@pytest.mark.parametrize("target", ["isaac", "miredo-default", "rtm-ap"])
def test_our_ternary_model_is_executed_exactly(target: str, data: Path) -> None:
    """Pixels of real images: program, integer graph and onnxruntime agree on every integer."""
    path = MODELS / "cifar10_ternary.onnx"
    compiled = cimc.compile(path, target).compiled
    with np.load(data / "cifar10_test.npz") as stored:
        jpeg, ends = stored["jpeg"], stored["offsets"]
    image = pytest.importorskip("PIL.Image")
    x = np.stack(
        [
            np.asarray(image.open(io.BytesIO(jpeg[ends[i] : ends[i + 1]].tobytes())), np.float32)
            for i in range(2)
        ]
    )
    samples = make_dataset({"x": x.transpose(0, 3, 1, 2)}, compiled.program.inputs, "images")
    run = Run()
    references = References(compiled.graph, path)
    assert list(run_samples(run, compiled.program, compiled.target, samples, references))
    assert {row.against for row in run.comparisons} == {"evaluator", "onnxruntime", "op by op"}
    integers = [row for row in run.comparisons if row.max_lsb is not None]
    assert len(integers) > 30
    assert [row for row in integers if row.differing] == []
    assert run.passed


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
