"""QONNX operators, against their definitions written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cimc.errors import UnsupportedError
from cimc.frontend import import_onnx
from cimc.frontend.reader import QONNX_DOMAINS
from cimc.ir import ops
from cimc.ir.evaluate import evaluate
from cimc.passes.integerize import integerize
from tests.passes.texts import passed

Floats = NDArray[np.float32]
ROUNDINGS: dict[str, Callable[[Floats], Floats]] = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda y: np.sign(y) * np.ceil(np.abs(y)),
    "DOWN": np.fix,
    "HALF_UP": lambda y: np.sign(y) * np.floor(np.abs(y) + np.float32(0.5)),
    "HALF_DOWN": lambda y: np.sign(y) * np.ceil(np.abs(y) - np.float32(0.5)),
}


def quant(
    x: Floats,
    scale: Floats | np.float32,
    zero: np.float32,
    bits: int,
    signed: int,
    narrow: int,
    rounding: str,
) -> Floats:
    """IntQuant as the QONNX specification has it."""
    y = x / scale + zero
    if bits == 1 and signed:
        y = np.where(y >= 0, np.float32(1), np.float32(-1))
    else:
        low = -(2 ** (bits - 1)) + narrow if signed else 0
        high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
        y = ROUNDINGS[rounding](np.clip(y, np.float32(low), np.float32(high)))
    return np.asarray((y - zero) * scale, np.float32)


def model(
    nodes: Sequence[tuple[str, list[str], str, Mapping[str, Any]]],
    shape: tuple[int, ...],
    domain: str = "qonnx.custom_op.general",
    version: int = 1,
    **weights: object,
) -> bytes:
    """Nodes (operator, operands, result, attributes) from x to y; custom ones are in `domain`."""
    custom = ("Quant", "IntQuant", "BipolarQuant", "Trunc", "FloatQuant", "MultiThreshold")
    made = [
        helper.make_node(op, inputs, [out], domain=domain if op in custom else "", **attributes)
        for op, inputs, out, attributes in nodes
    ]
    proto: ModelProto = helper.make_model(
        helper.make_graph(
            made,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(np.asarray(array, np.float32), name)
                for name, array in weights.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid(domain, version)],
        ir_version=8,
    )
    return bytes(proto.SerializeToString())


def run(content: bytes, x: Floats) -> Floats:
    """The imported graph's result."""
    graph = import_onnx(content).graph
    graph.verify()
    return np.asarray(evaluate(graph, {"x": x})["y"], np.float32)


def sample(shape: tuple[int, ...], scale: float = 1.0) -> Floats:
    """Numbers around zero, many of them exact ties and integers."""
    random = np.random.default_rng(0)
    ties = random.integers(-12, 12, shape) / 2
    return np.where(random.random(shape) < 0.5, ties, random.normal(0, 4, shape)).astype(
        np.float32
    ) * np.float32(scale)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8])
def test_quant_is_what_the_specification_says(bits: int, rounding: str) -> None:
    x = sample((4, 50), 0.5)
    for signed in (0, 1):
        for narrow in (0, 1):
            for zero in (0, 1 if bits > 1 else 0):
                if not signed and bits == 1 and narrow:
                    continue  # no value is left
                attributes = {"signed": signed, "narrow": narrow, "rounding_mode": rounding}
                content = model(
                    [("Quant", ["x", "s", "z", "b"], "y", attributes)],
                    x.shape, s=0.5, z=zero, b=bits,
                )  # fmt: skip
                want = quant(x, np.float32(0.5), np.float32(zero), bits, signed, narrow, rounding)
                assert (run(content, x) == want).all(), (signed, narrow, zero)


def test_activations_take_the_narrowest_type_that_holds_them() -> None:
    for bits, signed, dtype in [
        (2, 1, "i2"),
        (3, 1, "i4"),
        (4, 0, "u4"),
        (5, 0, "u8"),
        (9, 1, "i16"),
    ]:
        content = model(
            [("Quant", ["x", "s", "z", "b"], "y", {"signed": signed, "narrow": 0})],
            (1, 4), s=0.25, z=0.0, b=bits,
        )  # fmt: skip
        graph = import_onnx(content).graph
        (made,) = [op for op in graph.ops if isinstance(op, ops.Quantize)]
        assert made.out.type.dtype == dtype


@pytest.mark.parametrize("domain", QONNX_DOMAINS)
def test_weights_become_integers_with_a_scale_for_each_channel(domain: str) -> None:
    random = np.random.default_rng(1)
    w, x = random.normal(size=(6, 5)).astype(np.float32), sample((3, 5))
    scale = random.uniform(0.1, 1, (6, 1)).astype(np.float32)
    attributes = {"signed": 1, "narrow": 1, "rounding_mode": "ROUND"}
    content = model(
        [
            ("Quant", ["w", "s", "z", "b"], "q", attributes),
            ("Gemm", ["x", "q"], "y", {"transB": 1}),
        ],
        x.shape, domain, w=w, s=scale, z=0.0, b=3.0,
    )  # fmt: skip
    graph = import_onnx(content).graph
    (weights,) = [op for op in graph.ops if isinstance(op, ops.Dequantize)]
    assert weights.x.type.dtype == "i4"
    want = x @ quant(w, scale, np.float32(0), 3, 1, 1, "ROUND").T
    assert np.abs(run(content, x) - want).max() < 1e-5


def test_bipolar_quant_gives_signs_of_weights_and_activations() -> None:
    w, x = sample((4, 6)), sample((3, 4))
    x[0, 0] = w[0, 0] = 0.0
    content = model(
        [
            ("BipolarQuant", ["x", "one"], "xq", {}),
            ("BipolarQuant", ["w", "half"], "wq", {}),
            ("MatMul", ["xq", "wq"], "y", {}),
        ],
        x.shape, w=w, one=1.0, half=0.5,
    )  # fmt: skip
    want = np.where(x >= 0, 1, -1) @ np.where(w >= 0, 0.5, -0.5)
    assert (run(content, x) == want).all()


@pytest.mark.parametrize("rounding", ["FLOOR", "ROUND", "CEIL"])
def test_trunc_drops_bits(rounding: str) -> None:
    x = np.arange(-40, 40, dtype=np.float32).reshape(1, -1) * np.float32(0.25)
    first = model(
        [("Trunc", ["x", "s", "z", "b", "o"], "y", {"rounding_mode": rounding})],
        x.shape, s=0.25, z=0.0, b=8.0, o=6.0,
    )  # fmt: skip
    y = ROUNDINGS[rounding](np.asarray(np.round(x * 4) / 4, np.float32)) * np.float32(0.25)
    assert (run(first, x) == y).all()
    attributes = {"rounding_mode": rounding, "signed": 1, "narrow": 0}
    second = model(
        [("Trunc", ["x", "s", "z", "b", "so", "o"], "y", attributes)],
        x.shape, version=2, s=0.25, z=0.0, b=8.0, so=1.0, o=4.0,
    )  # fmt: skip
    y = ROUNDINGS[rounding](np.clip(np.round(x / np.float32(0.25)) / np.float32(4), -8, 7))
    assert (run(second, x) == y).all()


@pytest.mark.parametrize(
    ("activation", "attributes"),
    [
        ("Quant", {"signed": 1, "narrow": 1, "rounding_mode": "ROUND"}),
        ("Quant", {"signed": 1, "narrow": 0, "rounding_mode": "FLOOR"}),
        ("Quant", {"signed": 0, "narrow": 0, "rounding_mode": "HALF_UP"}),
        ("BipolarQuant", {}),
    ],
)
def test_what_is_between_two_quantizers_becomes_one_requant(
    activation: str, attributes: dict[str, object]
) -> None:
    """Ternary weights, batch norm with both signs, then few bits: integers, equal everywhere."""
    random = np.random.default_rng(2)
    w = random.integers(-1, 2, (12, 7)).astype(np.float32) * np.float32(0.3)
    norm: dict[str, Any] = {
        "g": random.normal(size=7), "c": random.normal(size=7),
        "m": random.normal(size=7), "v": random.uniform(0.5, 2, 7),
    }  # fmt: skip
    operands = ["n", "s", "z", "b"] if activation == "Quant" else ["n", "s"]
    content = model(
        [
            ("Quant", ["x", "s", "z", "b"], "xq", {"signed": 1, "narrow": 1}),
            ("Quant", ["w", "ws", "z", "two"], "wq", {"signed": 1, "narrow": 1}),
            ("MatMul", ["xq", "wq"], "p", {}),
            ("BatchNormalization", ["p", "g", "c", "m", "v"], "n", {}),
            (activation, operands, "y", attributes),
        ],
        (300, 12), w=w, s=0.5, ws=0.3, z=0.0, b=3.0, two=2.0, **norm,
    )  # fmt: skip
    before = import_onnx(content).graph
    after = integerize(passed(before, "canonicalize", "fold-constants", "fold-batch-norm"))
    kinds = [op.mnemonic for op in after.ops]
    assert kinds.count("requant") == 1
    assert "binary" not in kinds
    x = random.normal(0, 1, (300, 12)).astype(np.float32)
    assert (evaluate(before, {"x": x})["y"] == evaluate(after, {"x": x})["y"]).all()


@pytest.mark.parametrize(
    ("operator", "helps"), [("FloatQuant", "train with Quant"), ("MultiThreshold", "streamlining")]
)
def test_other_operators_are_refused_by_name(operator: str, helps: str) -> None:
    content = model([(operator, ["x", "s"], "y", {})], (1, 4), s=1.0)
    with pytest.raises(UnsupportedError, match=f"{operator} is not supported") as caught:
        import_onnx(content)
    assert helps in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"b": 2.5}, "the bit width of Quant is impossible"),
        ({"b": 40.0}, "the bit width of Quant is impossible"),
        ({"s": 0.0}, "the scale of Quant is impossible"),
        ({"z": 0.5}, "the zero point of Quant is no integer"),
        ({"s": np.ones((3, 4)) + np.eye(3, 4)}, "operand 1 of Quant does not fit"),
    ],
)
def test_impossible_operands_are_refused(changed: dict[str, object], message: str) -> None:
    given: dict[str, Any] = {"s": 1.0, "z": 0.0, "b": 4.0} | changed
    content = model([("Quant", ["x", "s", "z", "b"], "y", {})], (3, 4), **given)
    with pytest.raises(UnsupportedError, match=message):
        import_onnx(content)


def test_shapes_alone_are_enough_for_a_check(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(
        model(
            [
                ("Quant", ["w", "s", "z", "b"], "q", {}),
                ("MatMul", ["x", "q"], "y", {}),
            ],
            (1, 256),
            w=np.zeros((256, 256)),
            s=1.0,
            z=0.0,
            b=4.0,
        )
    )
    graph = import_onnx(path, weights=False).graph
    (weights,) = [op for op in graph.ops if isinstance(op, ops.Dequantize)]
    assert weights.x.type.dtype == "i4"
