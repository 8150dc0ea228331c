"""Models as text, and a comparison of importer and evaluator with onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx.parser
import pytest
from onnx import ModelProto, numpy_helper

from cimc.frontend import Imported, import_onnx
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import parse_graph
from cimc.ir.types import Array

Build = Callable[..., ModelProto]
Compare = Callable[..., Imported]


def _model(body: str, opset: int = 17, ir_version: int = 8, **weights: Array) -> ModelProto:
    """A model from ONNX's text form; `weights` become initializers."""
    model = onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "com.microsoft" : 1]> {body}'
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()
    )
    return model


def run_onnx(model: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What onnxruntime makes of it, without its own fusions."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _compare(
    model: ModelProto,
    seed: int = 0,
    tolerance: float = 1e-5,
    steps: int = 0,
    inputs: Mapping[str, Array] | None = None,
) -> Imported:
    """Import, check the graph and its text, and compare all outputs with onnxruntime's.

    Floats may differ by `tolerance` of the largest value, integers by `steps`.
    """
    content = model.SerializeToString()
    imported = import_onnx(content)
    graph = imported.graph
    graph.verify()
    assert parse_graph(str(graph), graph.tensors) == graph
    placed = {name for op in graph.ops for name in op.nodes}
    assert set(imported.folded) | placed == {node.name for node in imported.nodes}
    assert not set(imported.folded) & placed
    random = np.random.default_rng(seed)
    given: dict[str, Array] = dict(inputs or {})
    for value in graph.inputs:
        if value.name not in given:
            if value.type.is_integer:
                whole = random.integers(0, 256, value.shape)
                given[value.name] = whole.astype(np.uint8 if value.type.dtype == "u8" else np.int8)
            else:
                given[value.name] = random.standard_normal(value.shape).astype(np.float32)
    have, want = evaluate(graph, given), run_onnx(content, given)
    assert have.keys() == want.keys()
    for name, expected in want.items():
        assert have[name].shape == expected.shape, name
        assert have[name].dtype == expected.dtype, name
        error = np.abs(have[name].astype(np.float64) - expected.astype(np.float64)).max(initial=0)
        if expected.dtype.kind == "f":
            assert error <= tolerance * max(1, float(np.abs(expected).max(initial=0))), name
        else:
            assert error <= steps, name
    return imported


@pytest.fixture
def model() -> Build:
    """Builds a model from text and weights."""
    return _model


@pytest.fixture
def compare() -> Compare:
    """Compares importer and evaluator with onnxruntime."""
    return _compare
