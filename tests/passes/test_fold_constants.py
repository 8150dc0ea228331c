"""fold-constants."""

from __future__ import annotations

from cimc.passes.fold_constants import fold_constants
from tests.conftest import Golden
from tests.passes.texts import graph_of, largest_gap

GRAPH = """
%x : f32[2,2] = input
%w : f32[2] = constant {value=(4.0, 9.0)}
%s : f32[] = constant {value=(0.5,)}
%root : f32[2] = unary %w {fn="sqrt"} @("Sqrt_0",)
%turned : f32[2,1] = reshape %root @("Reshape_1",)
%q : i8[2,1]<0.5,0> = quantize %turned, %s, _ @("Q_2",)
%d : f32[2,1] = dequantize %q, %s, _ @("DQ_3",)
%wide : f32[2,100] = broadcast %d
%many : f32[2,100] = broadcast %turned
%y : f32[2,2] = binary %x, %d {fn="mul"} @("Mul_4",)
return %y, %wide, %many
"""


def test_what_is_constant_is_computed_but_dequantize_stays(golden: Golden) -> None:
    before = graph_of(GRAPH)
    after = fold_constants(before, max_elements=50)
    assert largest_gap(before, after) == 0
    golden.check(after)


def test_large_results_are_left_alone() -> None:
    before = graph_of(GRAPH)
    assert [op.mnemonic for op in fold_constants(before, max_elements=50).ops].count(
        "broadcast"
    ) == 2
    assert [op.mnemonic for op in fold_constants(before).ops].count("broadcast") == 1
