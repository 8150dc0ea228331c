"""Quantized ops against onnxruntime's own integer kernels, bit for bit.

onnxruntime's x86 kernels are the model; on other machines its results may differ by one at ties.
"""

from __future__ import annotations

import platform

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.ir.evaluate import evaluate
from cimc.ir.graph import parse_graph
from cimc.ir.types import Array

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the kernels compared with are x86's"
)
DTYPES = {"u8": (np.uint8, TensorProto.UINT8), "i8": (np.int8, TensorProto.INT8)}


def kernel(
    op: str,
    dtype: str,
    operands: dict[str, Array],
    constants: dict[str, Array],
    **attributes: int,
) -> Array:
    """What onnxruntime's kernel computes; constants in the order of the operator's inputs."""
    kind = DTYPES[dtype][1]
    order = list(constants)
    node = helper.make_node(op, order, ["out"], domain="com.microsoft")
    node.attribute.extend(helper.make_attribute(n, v) for n, v in attributes.items())
    graph = helper.make_graph(
        [node],
        "kernel",
        [helper.make_tensor_value_info(n, kind, list(a.shape)) for n, a in operands.items()],
        [helper.make_tensor_value_info("out", kind, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items() if n not in operands],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, operands)[0])


def ours(op: str, types: dict[str, str], out: str, operands: dict[str, Array]) -> Array:
    """What the evaluator computes."""
    lines = [f"%{name} : {kind} = input" for name, kind in types.items()]
    source = "\n".join(['graph "g"', *lines, f"%out : {out} = {op}", "return %out", ""])
    graph = parse_graph(source)
    graph.verify()
    return evaluate(graph, operands)["out"]


def drawn(rng: np.random.Generator, dtype: str) -> tuple[np.float32, int]:
    """A scale and a zero point."""
    low = np.iinfo(DTYPES[dtype][0]).min
    return np.float32(np.exp(rng.uniform(-5, 0))), int(rng.integers(low, low + 256))


def quant(pair: tuple[np.float32, int]) -> str:
    """As a type shows it."""
    return f"<{pair[0]!s},{pair[1]}>"


def constants_of(dtype: str, **pairs: tuple[np.float32, int]) -> dict[str, Array]:
    """Scale and zero point tensors by name."""
    found: dict[str, Array] = {}
    for name, (scale, zero) in pairs.items():
        found[f"{name}_scale"] = np.array(scale, np.float32)
        found[f"{name}_zero"] = np.array(zero, DTYPES[dtype][0])
    return found


@pytest.mark.parametrize("dtype", ["u8", "i8"])
@pytest.mark.parametrize("fn", ["add", "mul"])
@pytest.mark.parametrize("seed", range(6))
def test_add_and_mul_of_all_pairs(fn: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, out = (drawn(rng, dtype) for _ in range(3))
    if seed % 3 == 0:  # equal scales: many exact ties
        b, out = (a[0], b[1]), (np.float32(2 * a[0]), out[1])
    every = np.arange(256, dtype=np.uint8).view(DTYPES[dtype][0])
    operands: dict[str, Array] = {"a": np.repeat(every, 256), "b": np.tile(every, 256)}
    held = constants_of(dtype, a=a, b=b, out=out)
    inputs = {
        "a": operands["a"],
        "a_scale": held["a_scale"],
        "a_zero": held["a_zero"],
        "b": operands["b"],
        "b_scale": held["b_scale"],
        "b_zero": held["b_zero"],
        "out_scale": held["out_scale"],
        "out_zero": held["out_zero"],
    }
    want = kernel({"add": "QLinearAdd", "mul": "QLinearMul"}[fn], dtype, operands, inputs)
    types = {"a": f"{dtype}[65536]{quant(a)}", "b": f"{dtype}[65536]{quant(b)}"}
    got = ours(f'binary %a, %b {{fn="{fn}"}}', types, f"{dtype}[65536]{quant(out)}", operands)
    assert (got == want).all()


@pytest.mark.parametrize("dtype", ["u8", "i8"])
@pytest.mark.parametrize("seed", range(4))
def test_global_average(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, out = drawn(rng, dtype), drawn(rng, dtype)
    out = (x[0], out[1]) if seed % 2 else out
    low = np.iinfo(DTYPES[dtype][0]).min
    array = rng.integers(low, low + 256, (2, 50, 8, 8)).astype(DTYPES[dtype][0])
    held = constants_of(dtype, x=x, out=out)
    want = kernel("QLinearGlobalAveragePool", dtype, {"x": array}, {"x": array, **held})
    types = {"x": f"{dtype}[2,50,8,8]{quant(x)}"}
    pool = (
        'pool %x {fn="average", kernel=(8, 8), strides=(8, 8), pads=(0, 0, 0, 0), dilations=(1, 1)}'
    )
    for op in (pool, 'reduce %x {fn="mean", axes=(2, 3)}'):
        got = ours(op, types, f"{dtype}[2,50,1,1]{quant(out)}", {"x": array})
        assert (got == want).all()


@pytest.mark.parametrize("extent", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1 / 256, 1 / 255, 0.01])
def test_softmax(extent: int, scale: float) -> None:
    rng = np.random.default_rng(extent)
    x, out = (np.float32(0.1), 100), (np.float32(scale), 0)
    array = rng.integers(0, 256, (40, extent)).astype(np.uint8)
    held = constants_of("u8", x=x, out=out)
    want = kernel("QLinearSoftmax", "u8", {"x": array}, {"x": array, **held}, axis=-1, opset=13)
    shape = f"u8[40,{extent}]"
    got = ours("softmax %x {axis=-1}", {"x": shape + quant(x)}, shape + quant(out), {"x": array})
    assert (got == want).all()
