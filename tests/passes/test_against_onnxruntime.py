"""The integer graph against onnxruntime running the model itself, tensor by tensor.

With unsigned activations onnxruntime runs integer kernels, and every tensor is equal. With signed
ones it computes most convolutions in float32 on x86 (unless told `session.qdqisint8allowed`), so
that a sum within float32 rounding of a tie may fall to the other side: one step, and what grows
out of it further on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from cimc.frontend import import_onnx
from cimc.frontend.calibration import random_calibration
from cimc.frontend.quantizer import quantize_float
from cimc.ir import ops
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.types import Array
from cimc.verify import Reference, compare, from_reference, merge, quantized_values
from tests.passes.texts import passed

LEGAL = ("canonicalize", "fold-constants", "fold-batch-norm", "simplify", "integerize", "simplify")
QUANTIZED = ("ad", "dscnn", "mbv1_vww", "resnet8")
FLOAT = ("cifar10_resnet20", "cntk_mnist", "mlperftiny_dscnn", "imagenet_mobilenetv1_025_224")


def samples(graph: Graph, count: int = 3) -> list[dict[str, Array]]:
    """Inputs in the range of the model: images of 0..255, or standard normal numbers."""
    found: list[dict[str, Array]] = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        found.append(
            {
                value.name: rng.standard_normal(value.shape, np.float32)
                * np.float32(60 if value.shape[1:] in ((32, 32, 3), (3, 32, 32)) else 1)
                for value in graph.inputs
            }
        )
    return found


def distance_to_ties(graph: Graph, op: ops.Requant, sums: Array) -> NDArray[np.float64]:
    """How far each result is from a half before it is rounded."""
    factor = graph.tensor(op.multiplier)
    assert factor is not None
    shape = [-1 if axis == op.axis % sums.ndim else 1 for axis in range(sums.ndim)]
    exact = sums.astype(np.float64) * factor.astype(np.float64).reshape(shape)
    return np.asarray(np.abs(exact - np.floor(exact) - 0.5))


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_models(data: Path, name: str) -> None:
    path = data / "models" / f"mlperftiny_{name}_qdq.onnx"
    graph = passed(import_onnx(path).graph, *LEGAL)
    values = quantized_values(graph)
    reference, plain = Reference(path, values), Reference(path)
    makers = graph.producers()
    rows = []
    for inputs in samples(graph):
        want, outputs = reference.run(inputs), plain.run(inputs)
        got = evaluate(graph, inputs)
        for value in graph.outputs:
            rows.append(compare(value, got[value.name], outputs[value.name], "onnxruntime"))
        names = [n for n in values if n in want]
        known = {**inputs, **{n: want[n] for n in names}}
        for value, array in from_reference(graph, known, names):
            differs = array != want[value.name]
            if not differs.any():
                continue
            assert compare(value, array, want[value.name], "onnxruntime", lsb=1).passed
            op = makers[value.name]
            assert isinstance(op, ops.Requant)
            ((_, sums),) = from_reference(graph, known, [op.x.name])
            assert distance_to_ties(graph, op, sums)[differs].max() < 1e-4
    assert len({row.tensor for row in rows}) == len(graph.outputs)
    assert all(row.passed for row in merge(rows)), [r for r in merge(rows) if not r.passed]


@pytest.mark.parametrize("name", FLOAT)
def test_models_quantized_to_unsigned_activations_are_equal(
    data: Path, name: str, tmp_path: Path
) -> None:
    source = data / "models" / f"{name}_float.onnx"
    source = source if source.exists() else data / "models" / f"{name}.onnx"
    given = import_onnx(source).graph.inputs
    path = tmp_path / "quantized.onnx"
    path.write_bytes(quantize_float(source, random_calibration(given, samples=2), "u8").content)
    graph = passed(import_onnx(path).graph, *LEGAL)
    values = quantized_values(graph)
    reference = Reference(path, values)
    for inputs in samples(graph, 2):
        want = reference.run(inputs)
        got = evaluate(graph, inputs, keep=values)
        for tensor in (*values, *(value.name for value in graph.outputs)):
            if tensor in want:
                assert (got[tensor] == want[tensor]).all(), tensor


def test_signed_activations_are_equal_where_onnxruntime_keeps_to_integers(
    data: Path, tmp_path: Path
) -> None:
    source = data / "models" / "cifar10_resnet56_float.onnx"
    given = import_onnx(source).graph.inputs
    path = tmp_path / "quantized.onnx"
    path.write_bytes(quantize_float(source, random_calibration(given, samples=2), "i8").content)
    graph = passed(import_onnx(path).graph, *LEGAL)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for inputs in samples(graph, 2):
        (want,) = session.run(None, inputs)
        (got,) = evaluate(graph, inputs).values()
        assert (got == want).all()
