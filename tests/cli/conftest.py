"""A command line in a folder of its own, with small models to work on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        """The answer to --json."""
        return json.loads(self.out)


Cimc = Callable[..., Answer]


@pytest.fixture
def cimc(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Cimc:
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Answer:
        code = main(list(arguments))
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


def save(path: Path, nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray]) -> None:
    """Write a model with input x f32[1,3,8,8] and output y."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def weights(seed: int = 1) -> dict[str, np.ndarray]:
    """Float weights of a convolution and a fully connected layer."""
    random = np.random.default_rng(seed)
    return {
        "w1": random.normal(0, 0.3, (6, 3, 3, 3)).astype(np.float32),
        "b1": random.normal(0, 0.1, 6).astype(np.float32),
        "w2": random.normal(0, 0.3, (6, 5)).astype(np.float32),
        "b2": random.normal(0, 0.1, 5).astype(np.float32),
    }


@pytest.fixture
def float_model(tmp_path: Path) -> Path:
    """Conv, Relu, GlobalAveragePool, Flatten, Gemm in float32."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], "rectify"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "average"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], "last"),
    ]
    save(tmp_path / "float.onnx", nodes, weights())
    return tmp_path / "float.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The same network quantized to eight bits, with QuantizeLinear and DequantizeLinear."""
    given = weights()
    tensors: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def scales(name: str, scale: np.ndarray | float, zero: int, kind: type) -> list[str]:
        tensors[f"{name}_s"] = np.asarray(scale, np.float32)
        tensors[f"{name}_z"] = np.full(np.shape(scale), zero, kind)
        return [f"{name}_s", f"{name}_z"]

    def both(name: str, scale: float, zero: int) -> str:
        pair = scales(name, scale, zero, np.int8)
        nodes.append(helper.make_node("QuantizeLinear", [name, *pair], [f"{name}_q"], f"q_{name}"))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_q", *pair], [f"{name}_d"], f"d_{name}")
        )
        return f"{name}_d"

    def stored(name: str, scale: np.ndarray, axis: int, kind: type, shape: tuple[int, ...]) -> str:
        limits = np.iinfo(kind)
        integers = np.rint(given[name] / scale.reshape(shape))
        tensors[f"{name}_q"] = np.clip(integers, limits.min, limits.max).astype(kind)
        pair = scales(name, scale, 0, kind)
        nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{name}_q", *pair], [f"{name}_d"], f"d_{name}", axis=axis
            )
        )
        return f"{name}_d"

    x = both("x", 0.03, -3)
    s1 = (np.abs(given["w1"]).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    s2 = (np.abs(given["w2"]).max(axis=0) / 127).astype(np.float32)
    w1 = stored("w1", s1, 0, np.int8, (-1, 1, 1, 1))
    b1 = stored("b1", s1 * np.float32(0.03), 0, np.int32, (-1,))
    nodes.append(helper.make_node("Conv", [x, w1, b1], ["a"], "first", pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Relu", ["a"], ["r"], "rectify"))
    r = both("r", 0.02, -128)
    nodes.append(helper.make_node("GlobalAveragePool", [r], ["p"], "average"))
    p = both("p", 0.01, -128)
    nodes.append(helper.make_node("Flatten", [p], ["f"], "flatten"))
    w2 = stored("w2", s2, 1, np.int8, (1, -1))
    b2 = stored("b2", s2 * np.float32(0.01), 0, np.int32, (-1,))
    nodes.append(helper.make_node("Gemm", ["f", w2, b2], ["g"], "last"))
    g = both("g", 0.01, 5)
    nodes.append(helper.make_node("Identity", [g], ["y"], "result"))
    save(tmp_path / "model.onnx", nodes, tensors)
    return tmp_path / "model.onnx"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four samples in x.npy."""
    random = np.random.default_rng(2)
    np.save(tmp_path / "x.npy", random.normal(0, 1, (4, 3, 8, 8)).astype(np.float32))
    return tmp_path / "x.npy"
