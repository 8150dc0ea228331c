"""What the ops compute: against loops written out, and against rules of arithmetic."""

from __future__ import annotations

import itertools
import math
from operator import mul

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.errors import InternalError, UsageError
from cimc.ir.evaluate import UNARY, evaluate
from cimc.ir.evaluate.heavy import exact_matmul
from cimc.ir.graph import parse_graph
from cimc.ir.types import Array


def run(source: str, **inputs: Array) -> Array:
    """The single output of a graph."""
    graph = parse_graph(f'graph "g"\n{source}\n')
    graph.verify()
    (array,) = evaluate(graph, inputs).values()
    return array


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from([1, 2]),
    st.integers(0, 2**16),
)
def test_integer_conv_is_the_exact_sum(
    stride: int, kernel: int, pad: int, dilation: int, group: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (2, 4, 6, 5)).astype(np.uint8)
    w = rng.integers(-128, 128, (6, 4 // group, kernel, kernel)).astype(np.int8)
    bias = rng.integers(-1000, 1000, 6).astype(np.int32)
    reach = (kernel - 1) * dilation + 1
    places = [(extent + 2 * pad - reach) // stride + 1 for extent in (6, 5)]
    if min(places) < 1:
        return
    got = run(
        f"""%x : u8[2,4,6,5]<0.5,7> = input
        %w : i8[{",".join(map(str, w.shape))}] = input
        %b : i32[6] = input
        %y : i32[2,6,{places[0]},{places[1]}] = conv %x, %w, %b {{strides=({stride}, {stride}),
        pads=({pad}, {pad}, {pad}, {pad}), dilations=({dilation}, {dilation}), group={group}}}
        return %y""",
        x=x,
        w=w,
        b=bias,
    )
    want = np.zeros(got.shape, np.int64)
    for n, k, p, q in itertools.product(*map(range, got.shape)):
        total = int(bias[k])
        first = k // (6 // group) * (4 // group)
        for c, r, s in itertools.product(range(4 // group), range(kernel), range(kernel)):
            i, j = p * stride + r * dilation - pad, q * stride + s * dilation - pad
            if 0 <= i < 6 and 0 <= j < 5:
                total += (int(x[n, first + c, i, j]) - 7) * int(w[k, c, r, s])
        want[n, k, p, q] = total
    assert (got == want).all()


@pytest.mark.parametrize("magnitude", [1, 2**7, 2**15, 2**31 - 1])
def test_products_of_integers_are_exact_at_every_size(magnitude: int) -> None:
    rng = np.random.default_rng(magnitude)
    a = rng.integers(-magnitude, magnitude + 1, (3, 70))
    b = rng.integers(-magnitude, magnitude + 1, (70, 4))
    columns = [[int(v) for v in b[:, j]] for j in range(4)]
    want = [[sum(map(mul, map(int, row), column)) for column in columns] for row in a]
    assert exact_matmul(a, b).tolist() == [[_wrapped(v) for v in row] for row in want]


def _wrapped(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def test_matmul_takes_zero_points_off_both_operands() -> None:
    a = np.array([[0, 255], [3, 4]], np.uint8)
    b = np.array([[1, 2], [-128, 127]], np.int8)
    got = run(
        """%a : u8[2,2]<0.5,3> = input
        %b : i8[2,2]<0.25,-1> = input
        %y : i32[2,2] = matmul %a, %b, _
        return %y""",
        a=a,
        b=b,
    )
    assert (got == (a.astype(int) - 3) @ (b.astype(int) + 1)).all()


def test_float_requant_rounds_half_to_even_then_clips() -> None:
    got = run(
        """%x : i32[1,7] = constant {value=(1, 3, 5, -1, -3, 1000, -1000)}
        %m : f32[1] = constant {value=(0.5,)}
        %y : i8[1,7]<1.0,1> = requant %x, %m, _ {low=-100, high=100}
        return %y"""
    )
    assert got.tolist() == [[1, 3, 3, 1, -1, 100, -100]]


def test_fixed_requant_rounds_half_up() -> None:
    got = run(
        """%x : i32[1,6] = constant {value=(1, 3, -1, -3, 5, 0)}
        %m : i32[1] = constant {value=(1,)}
        %s : i32[1] = constant {value=(1,)}
        %y : i8[1,6]<1.0,0> = requant %x, %m, %s {round="fixed"}
        return %y"""
    )
    assert got.tolist() == [[1, 2, 0, -1, 3, 0]]


def test_requant_follows_its_axis() -> None:
    got = run(
        """%x : i32[1,2,1,2] = constant {value=(10, 20, 30, 40)}
        %m : f32[2] = constant {value=(1.0, 0.1)}
        %y : i8[1,2,1,2]<1.0,0> = requant %x, %m, _
        return %y"""
    )
    assert got.reshape(-1).tolist() == [10, 20, 3, 4]


def test_quantize_is_one_division_rounded_half_to_even_and_saturated() -> None:
    x = np.array([0.25, 0.75, -0.25, 1e9, -1e9, 0.0], np.float32)
    got = run(
        """%x : f32[6] = input
        %s : f32[] = constant {value=(0.5,)}
        %z : u8[] = constant {value=(10,)}
        %y : u8[6]<0.5,10> = quantize %x, %s, %z
        return %y""",
        x=x,
    )
    assert got.tolist() == [10, 12, 10, 255, 0, 10]


def test_ops_on_quantized_types_compute_on_real_numbers() -> None:
    x = np.arange(0, 256, 5, dtype=np.uint8)
    got = run(
        f"""%x : u8[{x.size}]<0.1,100> = input
        %y : i8[{x.size}]<0.02,-10> = unary %x {{fn="sigmoid"}}
        return %y""",
        x=x,
    )
    real = (x.astype(np.float64) - 100) * np.float32(0.1)
    want = np.clip(np.rint(1 / (1 + np.exp(-real)) / np.float32(0.02)) - 10, -128, 127)
    assert np.abs(got - want).max() <= 0


@pytest.mark.parametrize("include_pad", [False, True])
def test_average_divides_by_the_elements_it_may_count(include_pad: bool) -> None:
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    got = run(
        f"""%x : f32[1,1,3,3] = input
        %y : f32[1,1,2,2] = pool %x {{fn="average", kernel=(2, 2), strides=(2, 2),
        pads=(1, 1, 0, 0), dilations=(1, 1), include_pad={str(include_pad).lower()}}}
        return %y""",
        x=x,
    )
    if include_pad:
        assert got.reshape(-1).tolist() == [1 / 4, 5 / 4, 11 / 4, 28 / 4]
    else:
        assert got.reshape(-1).tolist() == [1, 5 / 2, 11 / 2, 28 / 4]


def test_windows_past_the_end_see_real_elements_only() -> None:
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 1, 5)
    for fn, want in (("max", [2, 4, 5]), ("average", [1.5, 3.5, 5])):
        got = run(
            f"""%x : f32[1,1,5] = input
            %y : f32[1,1,3] = pool %x {{fn="{fn}", kernel=(2,), strides=(2,), pads=(0, 0),
            dilations=(1,), include_pad=true}}
            return %y""",
            x=x,
        )
        assert got.reshape(-1).tolist() == want


def test_mean_of_quantized_integers_is_an_exact_sum() -> None:
    x = np.array([[[0, 1], [1, 1]]], np.uint8)
    for op in ('reduce %x {fn="mean", axes=(1, 2)}',):
        got = run(
            f"""%x : u8[1,2,2]<0.5,0> = input
            %y : u8[1,1,1]<0.5,3> = {op}
            return %y""",
            x=x,
        )
        assert got.reshape(-1).tolist() == [1 + 3]  # 0.75 steps, rounded


def test_lut_is_indexed_from_the_lowest_integer() -> None:
    got = run(
        """%x : i2[4]<1.0,0> = constant {value=(-2, -1, 0, 1)}
        %t : u8[4] = constant {value=(10, 20, 30, 40)}
        %y : u8[4] = lut %x, %t
        return %y"""
    )
    assert got.tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize("fn", sorted(set(UNARY) - {"bitwise_not"}))
def test_unary_functions_keep_float32(fn: str) -> None:
    x = np.linspace(-3, 3, 13, dtype=np.float32)
    with np.errstate(all="ignore"):
        assert UNARY[fn](x, 0.5, 1.5).dtype in (np.float32, np.bool_)


@pytest.mark.parametrize(
    ("fn", "formula"),
    [
        ("gelu", lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2)))),
        ("gelu_tanh", lambda v: 0.5 * v * (1 + math.tanh(0.7978845608 * (v + 0.044715 * v**3)))),
        ("mish", lambda v: v * math.tanh(math.log1p(math.exp(v)))),
        ("hard_swish", lambda v: v * min(max(v / 6 + 0.5, 0), 1)),
        ("swish", lambda v: v / (1 + math.exp(-0.5 * v))),
        ("elu", lambda v: v if v > 0 else 0.5 * math.expm1(v)),
        ("selu", lambda v: 1.5 * (v if v > 0 else 0.5 * math.expm1(v))),
        ("celu", lambda v: max(v, 0) + min(0, 0.5 * math.expm1(v / 0.5))),
        ("softplus", lambda v: math.log1p(math.exp(v))),
        ("shrink", lambda v: v + 1.5 if v < -0.5 else v - 1.5 if v > 0.5 else 0),
        ("thresholded_relu", lambda v: v if v > 0.5 else 0),
        ("hard_sigmoid", lambda v: min(max(0.5 * v + 1.5, 0), 1)),
    ],
)
def test_unary_functions_follow_their_formula(fn: str, formula: object) -> None:
    assert callable(formula)
    x = np.linspace(-5, 5, 41, dtype=np.float32)
    want = np.array([formula(float(v)) for v in x])
    assert np.allclose(UNARY[fn](x, 0.5, 1.5), want, rtol=1e-5, atol=1e-6)


def test_only_what_is_asked_for_comes_back() -> None:
    graph = parse_graph(
        'graph "g"\n%x : f32[2] = input\n%a : f32[2] = unary %x {fn="exp"}\n'
        '%b : f32[2] = unary %a {fn="neg"}\n%c : f32[2] = unary %b {fn="abs"}\nreturn %c\n'
    )
    x = np.zeros(2, np.float32)
    assert set(evaluate(graph, {"x": x})) == {"c"}
    assert set(evaluate(graph, {"x": x}, keep={"a"})) == {"a", "c"}


def test_inputs_are_checked_together() -> None:
    graph = parse_graph('graph "g"\n%x : f32[2] = input\n%y : i4[2] = input\nreturn %x\n')
    with pytest.raises(UsageError) as caught:
        evaluate(graph, {"y": np.array([8, 0], np.int8), "z": np.zeros(1)})
    assert [fault.where for fault in caught.value.faults] == [
        "input z is not one of the graph's",
        "input x is missing",
        "input y leaves its range",
    ]


def test_a_wrong_declared_type_is_caught() -> None:
    graph = parse_graph(
        'graph "g"\n%x : f32[2] = input\n%y : f32[3] = softmax %x {axis=0}\nreturn %y\n'
    )
    with pytest.raises(InternalError):
        evaluate(graph, {"x": np.zeros(2, np.float32)})
