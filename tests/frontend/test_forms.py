"""Forms of operators beside ONNX's own node tests: old opsets, and onnxruntime's operators."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.frontend import support_table
from cimc.ir import ops

from .conftest import Build, Compare

X = "float[1,4,6,6] x"
OLD_FORMS = {
    "clip attributes": (7, f"g ({X}) => (float[1,4,6,6] y) {{ y = Clip <min=-0.5, max=0.7> (x) }}"),
    "clip max only": (7, f"g ({X}) => (float[1,4,6,6] y) {{ y = Clip <max=0.1> (x) }}"),
    "dropout": (7, f"g ({X}) => (float[1,4,6,6] y) {{ y, m = Dropout <ratio=0.5> (x) }}"),
    "pad attributes": (
        7,
        f"g ({X}) => (float[1,4,8,9] y) "
        '{ y = Pad <mode="constant", pads=[0,0,1,1,0,0,1,2], value=0.5> (x) }',
    ),
    "pad reflect": (
        10,
        f'g ({X}) => (float[1,4,8,9] y) {{ y = Pad <mode="reflect", pads=[0,0,1,1,0,0,1,2]> (x) }}',
    ),
    "slice attributes": (
        9,
        f"g ({X}) => (float[1,4,3,5] y) "
        "{ y = Slice <axes=[2,3], starts=[1,-5], ends=[4,2147483647]> (x) }",
    ),
    "squeeze attributes": (
        11,
        f"g ({X}) => (float[4,1,6,6] y) "
        "{ s = Squeeze <axes=[0]> (x) y = Unsqueeze <axes=[1]> (s) }",
    ),
    "reduce attributes": (
        11,
        f"g ({X}) => (float[1,4,1,1] y) {{ y = ReduceMean <axes=[2,3], keepdims=1> (x) }}",
    ),
    "reduce sum attributes": (
        11,
        f"g ({X}) => (float[4,6] y) {{ y = ReduceSum <axes=[0,-2], keepdims=0> (x) }}",
    ),
    "softmax over the rest": (11, f"g ({X}) => (float[1,4,6,6] y) {{ y = Softmax <axis=1> (x) }}"),
    "log softmax last": (11, f"g ({X}) => (float[1,4,6,6] y) {{ y = LogSoftmax <axis=-1> (x) }}"),
    "split attributes": (
        11,
        f"g ({X}) => (float[1,1,6,6] a, float[1,3,6,6] b) "
        "{ a, b = Split <axis=1, split=[1,3]> (x) }",
    ),
    "upsample attributes": (
        7,
        f"g ({X}) => (float[1,4,12,18] y) "
        '{ y = Upsample <mode="nearest", scales=[1.0,1.0,2.0,3.0]> (x) }',
    ),
    "global pools": (
        7,
        f"g ({X}) => (float[1,4,1,1] y) "
        "{ a = GlobalAveragePool (x) b = GlobalMaxPool (x) y = Sub (a, b) }",
    ),
    "max pool ceil": (
        10,
        f"g ({X}) => (float[1,4,3,3] y) "
        "{ y = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[0,0,0,0], ceil_mode=1> (x) }",
    ),
    "average pool same": (
        7,
        f"g ({X}) => (float[1,4,3,3] y) "
        '{ y = AveragePool <kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_LOWER"> (x) }',
    ),
    "average pool ceil": (
        10,
        f"g ({X}) => (float[1,4,3,3] y) "
        "{ y = AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1, count_include_pad=1, "
        "pads=[0,0,0,0]> (x) }",
    ),
    "group norm per group": (
        18,
        f"g ({X}) => (float[1,4,6,6] y) <float[2] s = {{1.5, 2.0}}, float[2] b = {{0.5, 0.1}}> "
        "{ y = GroupNormalization <num_groups=2> (x, s, b) }",
    ),
    "matmul of vectors": (
        13,
        "g (float[5] x, float[5,3] w) => (float[3] y) { y = MatMul (x, w) }",
    ),
    "stacked matmul": (
        13,
        "g (float[2,1,4,5] x, float[3,5,6] w) => (float[2,3,4,6] y) { y = MatMul (x, w) }",
    ),
    "mean of three": (
        8,
        "g (float[2,3] a, float[3] b, float[2,1] c) => (float[2,3] y) { y = Mean (a, b, c) }",
    ),
    "size zero dimension copied": (
        13,
        f"g ({X}) => (float[1,4,36] y) <int64[3] s = {{0, 0, -1}}> {{ y = Reshape (x, s) }}",
    ),
}


@pytest.mark.parametrize("name", OLD_FORMS)
def test_old_form(name: str, model: Build, compare: Compare) -> None:
    """The attribute forms of old opsets mean what onnxruntime computes."""
    opset, body = OLD_FORMS[name]
    compare(model(body, opset))


def test_upsample_by_operand(model: Build, compare: Compare) -> None:
    """Upsample 9 and Resize 10 take scales as an operand; both round down."""
    scales = np.array([1, 1, 2, 1.5], np.float32)
    body = f"g ({X}) => (float[1,4,12,9] y) {{ y = %s (x, s) }}"
    compare(model(body % "Upsample", 9, s=scales))
    compare(model(body % "Resize", 10, s=scales))


def test_batch_norm_old(model: Build, compare: Compare) -> None:
    """Opset 7 with its spatial attribute."""
    random = np.random.default_rng(0)
    operands = {name: random.uniform(0.5, 1.5, 4).astype(np.float32) for name in "sbmv"}
    body = f"g ({X}) => (float[1,4,6,6] y) {{ y = BatchNormalization <spatial=1> (x, s, b, m, v) }}"
    compare(model(body, 7, **operands))


def _scale(value: float) -> np.ndarray[tuple[()], np.dtype[np.float32]]:
    return np.array(value, np.float32)


ZERO = np.array(128, np.uint8)
MICROSOFT = {
    "add": "com.microsoft.QLinearAdd (q, s, z, q, s, z, t, z)",
    "mul": "com.microsoft.QLinearMul (q, s, z, q, s, z, t, z)",
    "sigmoid": "com.microsoft.QLinearSigmoid (q, s, z, u, n)",
    "leaky relu": "com.microsoft.QLinearLeakyRelu <alpha=0.3> (q, s, z, t, z)",
    "softmax": "com.microsoft.QLinearSoftmax <axis=-1, opset=13> (q, s, z, u, n)",
    "average pool": "com.microsoft.QLinearAveragePool <kernel_shape=[2,2]> (q, s, z, s, z)",
    "global average pool": "com.microsoft.QLinearGlobalAveragePool (q, s, z, s, z)",
    "concat": "com.microsoft.QLinearConcat <axis=1> (t, z, q, s, z, q, s, z)",
}


@pytest.mark.parametrize("name", MICROSOFT)
def test_microsoft_operator(name: str, model: Build, compare: Compare) -> None:
    """onnxruntime's own quantized operators, one step apart at most."""
    shapes = {"average pool": "1,4,5,5", "global average pool": "1,4,1,1", "concat": "1,8,6,6"}
    out = f"uint8[{shapes.get(name, '1,4,6,6')}] y"
    body = f"g (uint8[1,4,6,6] q) => ({out}) {{ y = {MICROSOFT[name]} }}"
    weights = {"s": _scale(0.02), "z": ZERO, "t": _scale(0.05), "u": _scale(1 / 256)}
    compare(model(body, 17, n=np.array(0, np.uint8), **weights), steps=1)


@pytest.mark.parametrize("scales", [1, 5])
def test_qlinear_conv(scales: int, model: Build, compare: Compare) -> None:
    """Weights of one scale or one for each channel, with bias."""
    random = np.random.default_rng(1)
    weights = {
        "w": random.integers(-127, 128, (5, 4, 3, 3)).astype(np.int8),
        "ws": random.uniform(0.001, 0.01, scales).astype(np.float32),
        "wz": np.zeros(scales, np.int8),
        "b": random.integers(-1000, 1000, 5).astype(np.int32),
        "s": _scale(0.02), "z": ZERO, "t": _scale(0.05),
    }  # fmt: skip
    body = (
        "g (uint8[1,4,6,6] q) => (uint8[1,5,3,3] y) "
        "{ y = QLinearConv <strides=[2,2], pads=[1,1,1,1]> (q, s, z, w, ws, wz, t, z, b) }"
    )
    imported = compare(model(body, **weights), steps=1)
    assert sum(isinstance(op, ops.Conv) for op in imported.graph.ops) == 1


@pytest.mark.parametrize("transposed", [0, 1])
def test_qgemm(transposed: int, model: Build, compare: Compare) -> None:
    """A transposed constant is transposed at import, its scales follow."""
    random = np.random.default_rng(2)
    shape = (7, 12) if transposed else (12, 7)
    weights = {
        "w": random.integers(-127, 128, shape).astype(np.int8),
        "ws": random.uniform(0.001, 0.01, 7).astype(np.float32),
        "wz": np.zeros(7, np.int8),
        "b": random.integers(-1000, 1000, 7).astype(np.int32),
        "s": _scale(0.02), "z": ZERO, "t": _scale(0.05),
    }  # fmt: skip
    body = (
        "g (uint8[3,12] q) => (uint8[3,7] y) "
        f"{{ y = com.microsoft.QGemm <transB={transposed}> (q, s, z, w, ws, wz, b, t, z) }}"
    )
    imported = compare(model(body, **weights), steps=1)
    assert not any(isinstance(op, ops.Transpose) for op in imported.graph.ops)


def test_integer_operators_are_exact(model: Build, compare: Compare) -> None:
    """ConvInteger and MatMulInteger give the same i32 sums, whatever the zero points."""
    random = np.random.default_rng(3)
    w = random.integers(0, 256, (5, 4, 3, 3)).astype(np.uint8)
    body = "g (uint8[1,4,6,6] q) => (int32[1,5,4,4] y) { y = ConvInteger (q, w, z, wz) }"
    compare(model(body, w=w, z=np.array(7, np.uint8), wz=np.array(200, np.uint8)))
    m = random.integers(-128, 128, (6, 5)).astype(np.int8)
    body = "g (uint8[2,3,6] q) => (int32[2,3,5] y) { y = MatMulInteger (q, m, z) }"
    compare(model(body, m=m, z=np.array(7, np.uint8)))


def test_gemm_of_dequantized_weights_keeps_integers(model: Build, compare: Compare) -> None:
    """transB of a dequantized constant turns the integers, not the real numbers."""
    random = np.random.default_rng(4)
    w = random.integers(-127, 128, (7, 12)).astype(np.int8)
    scales = random.uniform(0.001, 0.01, 7).astype(np.float32)
    body = (
        "g (float[3,12] x) => (float[3,7] y) "
        "{ r = DequantizeLinear <axis=0> (w, s) y = Gemm <transB=1> (x, r) }"
    )
    graph = compare(model(body, w=w, s=scales)).graph
    (dequantize,) = [op for op in graph.ops if isinstance(op, ops.Dequantize)]
    assert dequantize.x.shape == (12, 7)
    assert dequantize.axis == 1
    array = graph.tensor(dequantize.x)
    assert array is not None
    assert array.dtype == np.int8


def test_attention_is_taken_apart(model: Build, compare: Compare) -> None:
    """Two query heads share each key head; causal, masked, with a cache in front."""
    body = (
        "g (float[1,4,3,8] q, float[1,2,3,8] k, float[1,2,3,8] v, float[1,1,3,5] m, "
        "float[1,2,2,8] pk, float[1,2,2,8] pv) => "
        "(float[1,4,3,8] y, float[1,2,5,8] nk, float[1,2,5,8] nv) "
        "{ y, nk, nv = Attention <is_causal=1> (q, k, v, m, pk, pv) }"
    )
    graph = compare(model(body, 23, 10)).graph
    kinds = [op.mnemonic for op in graph.ops]
    assert (kinds.count("matmul"), kinds.count("softmax")) == (2, 1)


def test_shape_arithmetic_vanishes(model: Build, compare: Compare) -> None:
    """What exporters write around a reshape leaves no op."""
    body = (
        "g (float[2,3,4] x) => (float[2,12] y) { s = Shape (x) i = Constant <value_int=0> () "
        "n = Gather (s, i) a = Constant <value_ints=[0]> () u = Unsqueeze (n, a) "
        "m = Constant <value_ints=[-1]> () t = Concat <axis=0> (u, m) y = Reshape (x, t) }"
    )
    imported = compare(model(body))
    assert [op.mnemonic for op in imported.graph.ops] == ["input", "reshape"]
    assert set(imported.folded.values()) == {"constant"}
    assert len(imported.folded) == 7


def test_safe_softmax_is_softmax(model: Build, compare: Compare) -> None:
    """Where(IsNaN(s), 0, s) becomes s, which stands for all three nodes."""
    body = (
        "g (float[2,5] x) => (float[2,5] y) <float z = {0.0}> "
        "{ s = Softmax (x) n = IsNaN (s) w = Where (n, z, s) y = Neg (w) }"
    )
    imported = compare(model(body))
    (softmax,) = [op for op in imported.graph.ops if isinstance(op, ops.Softmax)]
    assert softmax.nodes == ("Softmax_0", "IsNaN_1", "Where_2")


def test_local_functions_are_inlined(model: Build, compare: Compare) -> None:
    """A model's own functions are replaced by their nodes."""
    body = """g (float[2,3] x) => (float[2,3] y) { y = own.twice (x) }
        <domain: "own", opset_import: ["" : 17]> twice (a) => (b) { b = Add (a, a) }"""
    proto = model(body)
    proto.opset_import.add(domain="own", version=1)
    imported = compare(proto)
    assert [node.op_type for node in imported.nodes] == ["Add"]


def test_input_that_is_only_dequantized_says_how(model: Build) -> None:
    """The type of an integer input carries the scale that all its readers use."""
    from cimc.frontend import import_onnx

    body = "g (uint8[2,3] q) => (float[2,3] y) { y = DequantizeLinear (q, s, z) }"
    proto = model(body, s=_scale(0.5), z=np.array(3, np.uint8))
    graph = import_onnx(proto.SerializeToString()).graph
    assert str(graph.inputs[0].type) == "u8[2,3]<0.5,3>"


def test_identity_to_an_output_keeps_its_name(model: Build, compare: Compare) -> None:
    """Outputs have the names that the model gives them, also where nodes do nothing."""
    body = (
        "g (float[2,3] x) => (float[2,3] y, float[2,3] z, float[1] c) "
        "{ y = Identity (x) z = Dropout (x) c = Constant <value_floats=[2.0]> () }"
    )
    imported = compare(model(body))
    assert [value.name for value in imported.graph.outputs] == ["y", "z", "c"]


def test_support_table_is_sorted_and_complete() -> None:
    """`cimc ops` prints this: each row a known operator with its opsets."""
    rows = support_table()
    assert [(r.domain, r.op_type) for r in rows] == sorted((r.domain, r.op_type) for r in rows)
    table = {(row.domain, row.op_type): row for row in rows}
    assert (table["", "Conv"].since, table["", "Upsample"].until) == (7, 9)
    assert len(rows) > 150
    assert all(row.since <= row.until for row in rows)
