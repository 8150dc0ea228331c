"""Ternary weights and activations of 2 to 8 bits, executed, in every form that ONNX has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

import cimc
from cimc.frontend import import_onnx
from cimc.ir import ops
from cimc.ir.evaluate import evaluate
from cimc.ir.types import Array, bits_of

OPSETS = {2: 25, 4: 21}  # the first with integers of so many bits
DOMAIN = "qonnx.custom_op.general"


class Network:
    """x -> few bits -> conv, ternary -> relu or not -> few bits -> linear, ternary -> y."""

    def __init__(self, form: str, bits: int, signed: bool, per_channel: bool) -> None:
        self.form, self.bits, self.signed, self.per_channel = form, bits, signed, per_channel
        self.nodes: list[NodeProto] = []
        self.stored: list[TensorProto] = []

    def add(self, op: str, inputs: list[str], out: str, **attributes: object) -> str:
        """A node."""
        domain = DOMAIN if op == "Quant" else ""
        node = helper.make_node(op, inputs, [out], name=out, domain=domain)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self.nodes.append(node)
        return out

    def constant(self, name: str, array: Array) -> str:
        """An initializer of floats or bytes."""
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def typed(self, name: str, array: Array, bits: int, signed: bool) -> str:
        """An initializer of integers of so many bits."""
        kind = getattr(TensorProto, f"{'' if signed else 'U'}INT{bits}")
        self.stored.append(helper.make_tensor(name, kind, array.shape, array.reshape(-1).tolist()))
        return name

    def activations(self, x: str, scale: float) -> str:
        """x in few bits, as real numbers again."""
        low = -(2 ** (self.bits - 1)) if self.signed else 0
        high = low + 2**self.bits - 1
        s = self.constant(f"{x}_s", np.array(scale, np.float32))
        if self.form == "qonnx":
            operands = [s] + [
                self.constant(f"{x}_{name}", np.array(value, np.float32))
                for name, value in (("z", 0), ("b", self.bits))
            ]
            flags = {"signed": int(self.signed), "narrow": 0, "rounding_mode": "ROUND"}
            return self.add("Quant", [x, *operands], f"{x}_r", **flags)
        bits = 8
        if self.form == "types":
            bits = self.bits
        elif self.bits < 8:
            ends = [
                self.constant(f"{x}_{name}", np.array(code * scale, np.float32))
                for name, code in (("low", low), ("high", high))
            ]
            x = self.add("Clip", [x, *ends], f"{x}_c")
        pair = [s, self.typed(f"{x}_z", np.array(0), bits, self.signed)]
        q = self.add("QuantizeLinear", [x, *pair], f"{x}_q")
        return self.add("DequantizeLinear", [q, *pair], f"{x}_r")

    def weights(self, name: str, shape: tuple[int, ...], seed: int) -> str:
        """Ternary weights with one magnitude, or one for each output channel."""
        random = np.random.default_rng(seed)
        codes = random.integers(-1, 2, shape)
        scale = np.array(0.4873, np.float32)  # no sum lies between two integers
        if self.per_channel:
            scale = random.uniform(0.1, 1, shape[0]).astype(np.float32)
        if self.form == "qonnx":
            spread = scale.reshape(-1, *(1,) * (len(shape) - 1)) if self.per_channel else scale
            operands = [
                self.constant(f"{name}_f", (codes * spread).astype(np.float32)),
                self.constant(f"{name}_s", spread),
                self.constant(f"{name}_z", np.array(0, np.float32)),
                self.constant(f"{name}_b", np.array(2, np.float32)),
            ]
            return self.add("Quant", operands, name, signed=1, narrow=1)
        bits = self.bits if self.form == "types" else 8
        operands = [
            self.typed(f"{name}_i", codes, bits, True),
            self.constant(f"{name}_s", scale),
        ]
        axis = {"axis": 0} if self.per_channel else {}
        return self.add("DequantizeLinear", operands, name, **axis)

    def save(self, path: Path) -> None:
        """Write the model."""
        x = self.activations("x", 0.3)
        b = self.constant("b", np.array([0.3, -0.2, 0.05, 1.1, 0.0], np.float32))
        y = self.add("Conv", [x, self.weights("w", (5, 3, 3, 3), 0), b], "c", pads=[1, 1, 1, 1])
        if not self.signed:
            y = self.add("Relu", [y], "relu")
        y = self.add("Flatten", [self.activations(y, 0.7)], "flat")
        self.add("Gemm", [y, self.weights("v", (4, 180), 1)], "y", transB=1)
        opsets = [
            helper.make_opsetid("", OPSETS.get(self.bits, 17) if self.form == "types" else 17)
        ]
        opsets += [helper.make_opsetid(DOMAIN, 1)] if self.form == "qonnx" else []
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "few_bits",
            [value("x", TensorProto.FLOAT, [1, 3, 6, 6])],
            [value("y", TensorProto.FLOAT, [1, 4])],
            self.stored,
        )
        version = 13 if self.form == "types" else 8
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=version), path)


FORMS = [
    *((form, bits) for form in ("clip", "qonnx") for bits in range(2, 9)),
    *(("types", bits) for bits in (2, 4, 8)),
]


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize(("form", "bits"), FORMS)
def test_every_width_and_form_is_executed_exactly(
    form: str, bits: int, signed: bool, tmp_path: Path
) -> None:
    if form == "types" and bits == 2 and not hasattr(TensorProto, "INT2"):
        pytest.skip("the installed onnx package has no integers of two bits")
    path = tmp_path / "m.onnx"
    Network(form, bits, signed, per_channel=bits % 2 == 0).save(path)
    program = cimc.compile(path, "rtm-ap")
    graph = program.compiled.graph
    heavy = [op for op in graph.ops if isinstance(op, ops.Conv | ops.Matmul)]
    assert [bits_of((op.w if isinstance(op, ops.Conv) else op.b).type.dtype) for op in heavy] == [
        2, 2,
    ]  # fmt: skip
    x = np.random.default_rng(bits).normal(0, 2, (3, 1, 3, 6, 6)).astype(np.float32)
    model = import_onnx(path).graph
    codes = [
        op.out for op in model.ops
        if isinstance(op, ops.Quantize) and not op.x.name.startswith("x")
    ]  # fmt: skip
    assert len(codes) == 1
    for sample in x:
        found = evaluate(graph, {"x": sample}, keep=[codes[0].name])
        want = evaluate(model, {"x": sample}, keep=[codes[0].name])
        assert (found[codes[0].name] == want[codes[0].name]).all()
        assert int(np.ptp(want[codes[0].name].astype(np.int64))) <= 2**bits - 1
        assert np.allclose(found["y"], want["y"], atol=1e-4)
        assert (program.run(sample)["y"] == found["y"]).all()


@pytest.mark.parametrize("target", ["isaac", "miredo-default"])
@pytest.mark.parametrize(("form", "bits"), [("types", 4), ("qonnx", 3)])
def test_other_machines_agree(form: str, bits: int, target: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    Network(form, bits, True, per_channel=True).save(path)
    program = cimc.compile(path, target)
    x = np.random.default_rng(0).normal(0, 2, (1, 3, 6, 6)).astype(np.float32)
    assert (program.run(x)["y"] == evaluate(program.compiled.graph, {"x": x})["y"]).all()
