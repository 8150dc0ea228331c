"""detect-ternary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.ir import ops
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, parse_graph
from cimc.passes.detect_ternary import detect_ternary
from cimc.passes.fixed_point import fixed_point
from tests.conftest import Golden
from tests.ir.graphs import random_inputs
from tests.passes.texts import graph_of


def same(before: Graph, after: Graph) -> bool:
    """True where several random inputs give equal results."""
    return all(
        (evaluate(before, inputs)["y"] == evaluate(after, inputs)["y"]).all()
        for inputs in (random_inputs(before, seed) for seed in range(4))
    )


def dense(weights: str, bias: str, multiplier: str = "0.001") -> Graph:
    """A small layer with eight inputs and two outputs."""
    return graph_of(f"""
        %x : u8[3,8]<0.1,10> = input
        %w : i8[8,2] = constant {{value=({weights})}}
        %b : i32[2] = constant {{value=({bias})}}
        %m : f32[1] = constant {{value=({multiplier},)}}
        %s : i32[3,2] = matmul %x, %w, %b @("Gemm_0",)
        %y : u8[3,2]<0.5,3> = requant %s, %m, _ {{axis=1, low=0, high=255}} @("Q_1",)
        return %y""")


SEVENS = "7, 0, -7, 0, 0, 127, 7, -127, 0, 0, 7, 127, 7, 127, 0, 0"


def test_requants_bring_sums_back(golden: Golden) -> None:
    before = dense(SEVENS, "-71, 1270")
    after = detect_ternary(before)
    assert same(before, after)
    golden.check(after)


def test_without_bias_there_is_only_a_gain() -> None:
    before = dense(SEVENS, "1, 2")
    (product,) = (op for op in before.ops if isinstance(op, ops.Matmul))
    changed = tuple(replace(product, bias=None) if op is product else op for op in before.ops)
    before = replace(before, ops=changed)
    after = detect_ternary(before)
    assert same(before, after)
    (requant,) = (op for op in after.ops if isinstance(op, ops.Requant))
    assert requant.gain is not None
    assert requant.bias is None


@pytest.mark.parametrize("bias", ["0, 0", "-71, 1270"])
def test_a_gain_and_a_bias_that_are_there_are_kept(bias: str) -> None:
    before = dense(SEVENS, bias, "0.00003")
    gained = parse_graph(
        str(before)
        .replace("%y :", "%g : i32[2] = constant {value=(16, -32)}\n%p : i32[1] = constant "
                         "{value=(900,)}\n%y :")
        .replace("requant %s, %m, _", "requant %s, %m, _, %g, %p"),
        before.tensors,
    )  # fmt: skip
    gained.verify()
    after = detect_ternary(gained)
    assert same(gained, after)
    assert "binary" not in [op.mnemonic for op in after.ops]
    assert "i2" in {op.out.type.dtype for op in after.ops}


def test_tables_along_another_axis_forbid_a_gain() -> None:
    before = graph_of("""
        %x : u8[2,8]<0.1,10> = input
        %w : i8[8,2] = constant {value=(7, 0, -7, 0, 0, 9, 7, -9, 0, 0, 7, 9, 7, 9, 0, 0)}
        %m : f32[2] = constant {value=(0.001, 0.002)}
        %s : i32[2,2] = matmul %x, %w, _
        %y : u8[2,2]<0.5,3> = requant %s, %m, _ {axis=0, low=0, high=255}
        return %y""")
    after = detect_ternary(before)
    assert same(before, after)
    assert [op.mnemonic for op in after.ops].count("binary") == 1


def test_the_lowest_integer_has_a_factor_of_its_own() -> None:
    before = dense("-128, 0, 0, 127, -128, -127" + ", 0" * 10, "1, 2")
    after = detect_ternary(before)
    assert same(before, after)
    (requant,) = (op for op in after.ops if isinstance(op, ops.Requant))
    assert requant.gain is not None
    gain = after.tensor(requant.gain)
    assert gain is not None
    assert gain.tolist() == [128, 127]


def test_signs_alone_need_nothing_else() -> None:
    before = dense("1, 0, -1, 0, 0, 1, 1, -1, 0, 0, 1, 1, 1, 1, 0, 0", "-71, 1270")
    after = detect_ternary(before)
    assert same(before, after)
    assert [op.mnemonic for op in after.ops] == [op.mnemonic for op in before.ops]
    assert after.producers()["s"].nodes == ("Gemm_0",)


def test_other_weights_are_left_alone() -> None:
    before = dense(SEVENS.replace("-127", "-126"), "0, 0")
    assert detect_ternary(before) == before


def test_sums_that_are_results_keep_their_unit() -> None:
    before = dense(SEVENS, "-70, 1270")
    before = replace(before, outputs=(before.producers()["s"].out, *before.outputs))
    after = detect_ternary(before)
    inputs = random_inputs(before)
    assert (evaluate(before, inputs)["s"] == evaluate(after, inputs)["s"]).all()
    assert same(before, after)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 127),
    st.integers(1, 127),
    st.booleans(),
    st.booleans(),
    st.floats(2.0**-16, 0.0625, width=32),
    st.integers(0, 2**16),
)
def test_results_are_equal_whatever_the_factors(
    a: int, b: int, is_multiple: bool, is_fixed: bool, multiplier: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-1, 2, (8, 2)) * np.array([a, b])
    bias = rng.integers(-50, 50, 2) * (np.array([a, b]) if is_multiple else 37)
    before = dense(
        ", ".join(map(str, weights.reshape(-1))), ", ".join(map(str, bias)), repr(multiplier)
    )
    if is_fixed:
        before = fixed_point(before)
    after = detect_ternary(before)
    assert same(before, after)
    constants = [op.out.type.dtype for op in after.ops if op.mnemonic == "constant"]
    assert "i2" in constants
    assert "i8" not in constants


@pytest.mark.parametrize("group", [1, 2])
def test_convolutions(group: int) -> None:
    shape = "2,2,2,1" if group == 1 else "2,1,2,2"
    values = "9, 0, -9, 9, 0, -4, 4, 0"
    before = graph_of(f"""
        %x : i8[1,2,4,4]<0.1,-3> = input
        %w : i8[{shape}] = constant {{value=({values})}}
        %b : i32[2] = constant {{value=(1, 8)}}
        %m : f32[2] = constant {{value=(0.01, 0.02)}}
        %s : i32[1,2,3,{4 if group == 1 else 3}] = conv %x, %w, %b {{strides=(1, 1),
          pads=(0, 0, 0, 0), dilations=(1, 1), group={group}}}
        %y : i8[1,2,3,{4 if group == 1 else 3}]<0.5,3> = requant %s, %m, _ {{low=3, high=99}}
        return %y""")
    after = detect_ternary(before)
    assert same(before, after)
    assert "i2" in {op.out.type.dtype for op in after.ops}
