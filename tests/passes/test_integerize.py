"""integerize."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.errors import UnsupportedError
from cimc.ir import ops
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.passes.integerize import integerize
from tests.conftest import Golden
from tests.ir.graphs import random_inputs
from tests.passes.texts import graph_of, largest_gap

CONV = "strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)"
SCALES = """
%sx : f32[] = constant {value=(0.1037,)}
%zx : u8[] = constant {value=(128,)}
%sw : f32[2] = constant {value=(0.02, 0.5)}
%sy : f32[] = constant {value=(0.2,)}
%zy : u8[] = constant {value=(10,)}
"""
INPUT = f"""
%f : f32[1,2,3,3] = input
{SCALES}
%q : u8[1,2,3,3]<0.1037,128> = quantize %f, %sx, %zx @("Q_in",)
%x : f32[1,2,3,3] = dequantize %q, %sx, %zx @("DQ_x",)
"""
WEIGHTS = """
%wi : i8[2,2,1,1] = constant {value=(100, -7, 3, 127)}
%w : f32[2,2,1,1] = dequantize %wi, %sw, _ {axis=0} @("DQ_w",)
"""
RESULT = """
%yq : u8[1,2,3,3]<0.2,10> = quantize %y, %sy, %zy @("Q_y",)
%out : f32[1,2,3,3] = dequantize %yq, %sy, %zy @("DQ_out",)
return %out
"""


def kinds(graph: Graph) -> list[str]:
    """The ops that compute something."""
    return [op.mnemonic for op in graph.ops if op.mnemonic not in ("input", "constant")]


def test_a_conv_with_activation_residual_and_softmax(golden: Golden) -> None:
    before = graph_of(f"""{INPUT}{WEIGHTS}
        %bi : i32[2] = constant {{value=(100, -50)}}
        %sb : f32[2] = constant {{value=(0.002074, 0.05185)}}
        %b : f32[2] = dequantize %bi, %sb, _ {{axis=0}} @("DQ_b",)
        %a : f32[1,2,3,3] = conv %x, %w, %b {{{CONV}}} @("Conv",)
        %r : f32[1,2,3,3] = unary %a {{fn="clip", alpha=0.0, beta=6.0}} @("Clip",)
        %rq : u8[1,2,3,3]<0.2,10> = quantize %r, %sy, %zy @("Q_r",)
        %rr : f32[1,2,3,3] = dequantize %rq, %sy, %zy @("DQ_r",)
        %s : f32[1,2,3,3] = binary %rr, %x {{fn="add"}} @("Add",)
        %sq : u8[1,2,3,3]<0.2,10> = quantize %s, %sy, %zy @("Q_s",)
        %sr : f32[1,2,3,3] = dequantize %sq, %sy, %zy @("DQ_s",)
        %t : f32[1,2,3,3] = transpose %sr {{perm=(0, 1, 3, 2)}} @("Transpose",)
        %h : f32[1,2,3,3] = unary %t {{fn="hard_swish"}} @("HardSwish",)
        %hq : u8[1,2,3,3]<0.2,10> = quantize %h, %sy, %zy @("Q_h",)
        %hr : f32[1,2,3,3] = dequantize %hq, %sy, %zy @("DQ_h",)
        %p : f32[1,2,3,3] = softmax %hr {{axis=1}} @("Softmax",)
        return %p""")
    after = integerize(before)
    assert largest_gap(before, after) < 1e-6
    assert {n for op in after.ops for n in op.nodes} == {n for op in before.ops for n in op.nodes}
    golden.check(after)


@pytest.mark.parametrize(
    ("weights", "dtype"),
    [
        ("%wi : u8[2,2,1,1] = constant {value=(255, 0, 130, 128)}\n"
         "%zw : u8[] = constant {value=(128,)}", "i8"),
        ("%wi : u8[2,2,1,1] = constant {value=(255, 0, 130, 128)}\n"
         "%zw : u8[] = constant {value=(0,)}", "i16"),
        ("%wi : i8[2,2,1,1] = constant {value=(127, -128, 0, 5)}\n"
         "%zw : i8[2] = constant {value=(0, -3)}", "i8"),
        ("%wi : i4[2,2,1,1] = constant {value=(7, -8, 0, 5)}\n"
         "%zw : i4[] = constant {value=(0,)}", "i4"),
        ("%wi : u4[2,2,1,1] = constant {value=(15, 0, 8, 5)}\n"
         "%zw : u4[] = constant {value=(8,)}", "i4"),
        ("%wi : u4[2,2,1,1] = constant {value=(15, 0, 8, 5)}\n"
         "%zw : u4[] = constant {value=(0,)}", "i8"),
    ],
)  # fmt: skip
def test_weights_have_no_zero_point_left(weights: str, dtype: str) -> None:
    along = "{axis=0}" if "[2] =" in weights else ""
    scale = "%sw" if along else "%sx"
    before = graph_of(f"""{INPUT}{weights}
        %w : f32[2,2,1,1] = dequantize %wi, {scale}, %zw {along}
        %y : f32[1,2,3,3] = conv %x, %w, _ {{{CONV}}}
        {RESULT}""")
    after = integerize(before)
    assert largest_gap(before, after) <= 0.2 + 1e-6
    (conv,) = [op for op in after.ops if isinstance(op, ops.Conv)]
    assert conv.w.type.dtype == dtype


def test_a_bias_of_floats_goes_into_the_requant() -> None:
    before = graph_of(f"""{INPUT}{WEIGHTS}
        %b : f32[2] = constant {{value=(1.0, -3.0)}}
        %y : f32[1,2,3,3] = conv %x, %w, %b {{{CONV}}}
        {RESULT}""")
    after = integerize(before)
    assert largest_gap(before, after) < 1e-6
    (conv,) = [op for op in after.ops if isinstance(op, ops.Conv)]
    (requant,) = [op for op in after.ops if isinstance(op, ops.Requant)]
    assert conv.bias is None
    assert requant.bias is not None
    assert requant.gain is not None
    bias, gain = after.tensor(requant.bias), after.tensor(requant.gain)
    assert bias is not None
    assert gain is not None
    units = bias.astype(np.float64) / gain.astype(np.float64)  # any number that changes no result
    assert abs(units[0] - 1.0 / (0.1037 * 0.02)) <= 1
    assert abs(units[1] - -3.0 / (0.1037 * 0.5)) <= 1


def test_a_sum_without_quantize_is_dequantized() -> None:
    before = graph_of(f"""{INPUT}{WEIGHTS}
        %y : f32[1,2,3,3] = conv %x, %w, _ {{{CONV}}}
        %z : f32[1,2,3,3] = softmax %y {{axis=1}}
        return %z""")
    after = integerize(before)
    assert largest_gap(before, after) < 1e-6
    assert kinds(after) == ["quantize", "conv", "dequantize", "softmax"]


def test_both_operands_of_a_product_may_be_computed() -> None:
    before = graph_of(f"""
        %f : f32[2,3,3] = input
        {SCALES}
        %q : u8[2,3,3]<0.1037,128> = quantize %f, %sx, %zx
        %x : f32[2,3,3] = dequantize %q, %sx, %zx
        %t : f32[2,3,3] = transpose %x {{perm=(0, 2, 1)}}
        %y : f32[2,3,3] = matmul %x, %t, _
        %yq : u8[2,3,3]<0.2,10> = quantize %y, %sy, %zy
        return %yq""")
    after = integerize(before)
    assert largest_gap(before, after) <= 1
    assert kinds(after) == ["quantize", "transpose", "matmul", "requant"]


def test_sixteen_bit_activations_are_summed_exactly() -> None:
    before = graph_of("""
        %f : f32[1,2] = input
        %sx : f32[] = constant {value=(0.001,)}
        %zx : i16[] = constant {value=(5,)}
        %q : i16[1,2]<0.001,5> = quantize %f, %sx, %zx
        %x : f32[1,2] = dequantize %q, %sx, %zx
        %wi : i8[2,2] = constant {value=(1, 2, 3, 4)}
        %w : f32[2,2] = dequantize %wi, %sx, _
        %m : f32[1,2] = matmul %x, %w, _
        %r : f32[1,2] = unary %m {fn="tanh"}
        %rq : i16[1,2]<0.001,5> = quantize %r, %sx, %zx
        return %rq""")
    after = integerize(before)
    assert largest_gap(before, after) <= 1
    assert kinds(after) == ["quantize", "matmul", "dequantize", "unary", "quantize"]


def test_sums_beyond_32_bits_are_refused() -> None:
    before = graph_of("""
        %f : f32[1,600] = input
        %sx : f32[] = constant {value=(0.001,)}
        %zx : i16[] = constant {value=(0,)}
        %q : i16[1,600]<0.001,0> = quantize %f, %sx, %zx
        %x : f32[1,600] = dequantize %q, %sx, %zx
        %one : i8[1,1] = constant {value=(127,)}
        %wi : i8[600,1] = constant {digest="all 127"}
        %w : f32[600,1] = dequantize %wi, %sx, _
        %m : f32[1,1] = matmul %x, %w, _ @("MatMul_7",)
        return %m""")
    before.tensors["all 127"] = np.full((600, 1), 127, np.int8)  # type: ignore[index]
    with pytest.raises(UnsupportedError) as caught:
        integerize(before)
    assert str(caught.value) == (
        "error CIM1404: matmul %m cannot be computed with integers\n"
        "  node:    MatMul_7\n"
        "  need:    sums of up to 2.5e+09\n"
        "  have:    32-bit accumulators"
    )


def test_float_models_are_refused_once() -> None:
    graph = graph_of(f"""
        %x : f32[1,2,3,3] = input
        %w : f32[2,2,1,1] = constant {{value=(1.0, 2.0, 3.0, 4.0)}}
        %a : f32[1,2,3,3] = conv %x, %w, _ {{{CONV}}} @("Conv_0",)
        %y : f32[1,2,3,3] = conv %a, %w, _ {{{CONV}}} @("Conv_1",)
        return %y""")
    with pytest.raises(UnsupportedError) as caught:
        integerize(graph)
    assert str(caught.value) == (
        "error CIM1401: g is not quantized\n"
        "  need:    int8 weights and activations\n"
        "  have:    2 convolutions and matrix products of float32\n"
        "  help:    give calibration data to quantize it"
    )


def test_every_layer_that_was_left_out_is_named() -> None:
    graph = graph_of(f"""{INPUT}
        %w : f32[2,2,1,1] = constant {{value=(1.0, 2.0, 3.0, 4.0)}}
        %a : f32[1,2,3,3] = conv %x, %w, _ {{{CONV}}} @("Conv_0",)
        %y : f32[1,2,3,3] = conv %a, %w, _ {{{CONV}}} @("Conv_1",)
        return %y""")
    with pytest.raises(UnsupportedError) as caught:
        integerize(graph)
    faults = [(fault.node, fault.code, fault.need) for fault in caught.value.faults]
    need = "its {} quantized: DequantizeLinear before it"
    assert faults == [
        ("Conv_0", "CIM1402", need.format("weights")),
        ("Conv_1", "CIM1402", need.format("input")),
        ("Conv_1", "CIM1402", need.format("weights")),
    ]


def test_integer_inputs_take_the_type_that_they_are_read_with() -> None:
    graph = graph_of(f"""
        %q : u8[1,2,3,3] = input
        {SCALES}
        %x : f32[1,2,3,3] = dequantize %q, %sx, %zx
        {WEIGHTS}
        %y : f32[1,2,3,3] = conv %x, %w, _ {{{CONV}}}
        {RESULT}""")
    after = integerize(graph)
    assert str(after.inputs[0].type) == "u8[1,2,3,3]<0.1037,128>"
    inputs = random_inputs(graph)
    want, got = evaluate(graph, inputs)["out"], evaluate(after, inputs)["out"]
    assert np.allclose(got, want, atol=0.2)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ('%y : f32[1,2,3,3] = unary %x {fn="tanh"}', ["lut"]),
        ('%n : f32[1,2,3,3] = unary %x {fn="sigmoid"}\n'
         '%y : f32[1,2,3,3] = binary %x, %n {fn="mul"}', ["lut"]),
        ("%y : f32[1,2,3,3] = reshape %x", ["reshape", "lut"]),
        ("%y : f32[1,2,3,3] = softmax %x {axis=1}", ["softmax"]),
        ("%y : f32[1,2,3,3] = pool %x {fn=\"average\", kernel=(1, 1), strides=(1, 1),\n"
         "pads=(0, 0, 0, 0), dilations=(1, 1)}", ["pool"]),
        ('%y : f32[1,2,3,3] = binary %x, %x {fn="max"}', ["lut"]),
        ("%k : f32[1,2,1,1] = constant {value=(2.0, -1.0)}\n"
         '%y : f32[1,2,3,3] = binary %x, %k {fn="mul"}', ["binary"]),
        ("%g : f32[3] = constant {value=(2.0, -1.0, 1.0)}\n"
         "%y : f32[1,2,3,3] = layer_norm %x, %g, _", ["layer_norm"]),
        ("%p : f32[1,2,4,3] = pad %x {pads=(0, 0, 1, 0, 0, 0, 0, 0), value=0.123}\n"
         "%y : f32[1,2,3,3] = slice %p {starts=(0, 0, 0, 0), steps=(1, 1, 1, 1)}", None),
        ("%z : f32[1,2,3,3] = concat [%x, %x] {axis=2}\n".replace("3,3] = c", "6,3] = c")
         + "%y : f32[1,2,3,3] = slice %z {starts=(0, 0, 1, 0), steps=(1, 1, 2, 1)}",
         ["concat", "slice", "lut"]),
    ],
)  # fmt: skip
def test_ops_between_dequantize_and_quantize(steps: str, left: list[str] | None) -> None:
    before = graph_of(f"{INPUT}{steps}\n{RESULT}")
    after = integerize(before)
    assert largest_gap(before, after) <= 0.2 + 1e-6
    if left is not None:
        assert kinds(after) == ["quantize", *left, "dequantize"]


def test_a_bias_of_floats_before_sixteen_bits_is_as_fine_as_float32() -> None:
    before = graph_of(f"""{INPUT}{WEIGHTS}
        %b : f32[2] = constant {{value=(1.0003, -3.0007)}}
        %s16 : f32[] = constant {{value=(0.001,)}}
        %y : f32[1,2,3,3] = conv %x, %w, %b {{{CONV}}}
        %yq : i16[1,2,3,3]<0.001,0> = quantize %y, %s16, _
        %out : f32[1,2,3,3] = dequantize %yq, %s16, _
        return %out""")
    after = integerize(before)
    assert largest_gap(before, after) <= 0.001 + 1e-6
    (requant,) = [op for op in after.ops if isinstance(op, ops.Requant)]
    assert requant.gain is not None
    assert requant.bias is not None
