"""canonicalize."""

from __future__ import annotations

import pytest

from cimc.ir import ops
from cimc.ir.evaluate import UNARY
from cimc.passes.canonicalize import canonicalize
from tests.conftest import Golden
from tests.passes.texts import graph_of, largest_gap, passed

NUMBERS = "\n".join(
    f"%c{name} : f32[] = constant {{value=({value},)}}"
    for name, value in {
        "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "root": 1.4142135,
        "cube": 0.044715, "pi": 0.7978846, "quick": 1.702, "sixth": 0.16666667,
    }.items()
)  # fmt: skip
SPELLED = {
    "gelu": "t=div x root; t=erf t; t=add t one; t=mul x t; y=mul t half",
    "gelu_tanh": "t=pow x three; t=mul t cube; t=add x t; t=mul t pi; t=tanh t; t=add t one;"
    " h=mul x half; y=mul h t",
    "swish": "t=sigmoid x; y=mul x t",
    "hard_swish": "t=add x three; t=max t zero; t=min t six; t=mul t x; y=div t six",
    "mish": "t=softplus x; t=tanh t; y=mul x t",
    "softplus": "t=exp x; t=add t one; y=log t",
    "sigmoid": "t=neg x; t=exp t; t=add t one; y=reciprocal t",
}


def spelled(steps: str) -> str:
    """Ops for short steps such as `t=mul x half`; names are made unique."""
    lines, latest = [], {"x": "x"}
    for count, step in enumerate(steps.split(";")):
        target, expression = step.strip().split("=")
        fn, *operands = expression.split()
        named = [latest.get(name, f"c{name}") for name in operands]
        name = "y" if target == "y" else f"{target}{count}"
        op = "unary" if len(named) == 1 else "binary"
        shown = ", ".join(f"%{value}" for value in named)
        lines.append(f'%{name} : f32[2,5] = {op} {shown} {{fn="{fn}"}} @("{name}",)')
        latest[target] = name
    return "\n".join(lines)


@pytest.mark.parametrize("fn", sorted(SPELLED))
def test_a_function_that_is_spelled_out_is_recognized(fn: str) -> None:
    before = graph_of(f"""
        %x : f32[2,5] = input
        {NUMBERS}
        %czero : f32[] = constant {{value=(0.0,)}}
        {spelled(SPELLED[fn])}
        return %y""")
    after = passed(before, "canonicalize")
    assert largest_gap(before, after) < 1e-5
    (op,) = [op for op in after.ops if isinstance(op, ops.Unary)]
    assert (op.fn, op.x.name) == (fn, "x")
    assert set(op.nodes) == {node for old in before.ops for node in old.nodes}
    assert fn in UNARY


def test_a_function_that_is_nearly_one_is_left_alone() -> None:
    steps = SPELLED["gelu"].replace("half", "one")
    before = graph_of(f"%x : f32[2,5] = input\n{NUMBERS}\n{spelled(steps)}\nreturn %y")
    assert [op.mnemonic for op in canonicalize(before).ops] == [
        op.mnemonic for op in before.ops if op.out.name in {"x", "croot", "cone"} or op.nodes
    ]


def test_a_linear_layer_is_a_matmul_with_bias(golden: Golden) -> None:
    before = graph_of("""
        %x : f32[1,3] = input
        %i : i8[2,3] = constant {value=(1, 2, 3, -4, 5, 6)}
        %s : f32[2] = constant {value=(0.5, 0.25)}
        %w : f32[2,3] = dequantize %i, %s, _ {axis=0} @("DQ_0",)
        %t : f32[3,2] = transpose %w {perm=(1, 0)} @("Transpose_1",)
        %m : f32[1,2] = matmul %x, %t, _ @("MatMul_2",)
        %b : f32[2] = constant {value=(1.0, -1.0)}
        %a : f32[1,2] = binary %b, %m {fn="add"} @("Add_3",)
        %c : f32[1,2] = constant {value=(2.0, 4.0)}
        %y : f32[1,2] = binary %a, %c {fn="mul"} @("Mul_4",)
        return %y""")
    after = passed(before, "canonicalize")
    assert largest_gap(before, after) < 1e-5
    golden.check(after)


def test_weights_come_right() -> None:
    before = graph_of("""
        %x : f32[2,3,4] = input
        %w : f32[2,3] = constant {value=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)}
        %b : f32[2,1] = constant {value=(1.0, 2.0)}
        %y : f32[2,2,4] = matmul %w, %x, %b
        return %y""")
    after = passed(before, "canonicalize", "fold-constants", "simplify")
    assert largest_gap(before, after) < 1e-5
    (product,) = [op for op in after.ops if isinstance(op, ops.Matmul)]
    assert after.tensor(product.b) is not None


@pytest.mark.parametrize("group", [1, 2])
def test_a_transposed_conv_is_a_conv(group: int, golden: Golden) -> None:
    before = graph_of(f"""
        %x : f32[1,2,2,2] = input
        %i : i8[2,1,2,2] = constant {{value=(1, 2, 3, 4, 5, 6, 7, 8)}}
        %s : f32[1] = constant {{value=(0.5,)}}
        %w : f32[2,1,2,2] = dequantize %i, %s, _
        %y : f32[1,{group},4,3] = conv_transpose %x, %w, _ {{strides=(3, 2), pads=(0, 1, 1, 0),
          dilations=(1, 1), group={group}}}
        return %y""")
    after = passed(before, "canonicalize")
    assert largest_gap(before, after) < 1e-5
    golden.check(after)


@pytest.mark.parametrize(("fn", "pool"), [("mean", "average"), ("max", "max")])
@pytest.mark.parametrize("keep", [True, False])
def test_a_reduction_of_the_plane_is_a_pool(fn: str, pool: str, keep: bool) -> None:
    shape = "2,3,1,1" if keep else "2,3"
    before = graph_of(f"""
        %x : f32[2,3,4,5] = input
        %y : f32[{shape}] = reduce %x {{fn="{fn}", axes=(-1, 2), keep={str(keep).lower()}}}
        return %y""")
    after = passed(before, "canonicalize")
    assert largest_gap(before, after) < 1e-6
    (op,) = [op for op in after.ops if isinstance(op, ops.Pool)]
    assert (op.fn, op.kernel) == (pool, (4, 5))
