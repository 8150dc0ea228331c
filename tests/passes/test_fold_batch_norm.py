"""fold-batch-norm."""

from __future__ import annotations

import pytest

from cimc.passes.fold_batch_norm import fold_batch_norm
from tests.conftest import Golden
from tests.passes.texts import graph_of, largest_gap

PARAMETERS = """
%scale : f32[2] = constant {value=(1.5, -0.5)}
%shift : f32[2] = constant {value=(0.25, 1.0)}
%mean : f32[2] = constant {value=(0.1, -0.2)}
%variance : f32[2] = constant {value=(0.9, 2.0)}
"""
CONV = "strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)"
WEIGHT = "%w : f32[2,1,2,2] = constant {value=(1.0, 2.0, 3.0, 4.0, -1.0, 0.5, 0.25, 2.0)}"


def test_it_goes_into_the_weights_before_it(golden: Golden) -> None:
    before = graph_of(f"""
        %x : f32[1,1,4,4] = input
        {WEIGHT}
        %b : f32[2] = constant {{value=(0.5, -0.5)}}
        {PARAMETERS}
        %a : f32[1,2,3,3] = conv %x, %w, %b {{{CONV}}} @("Conv_0",)
        %y : f32[1,2,3,3] = batch_norm %a, %scale, %shift, %mean, %variance @("BatchNorm_1",)
        return %y""")
    after = fold_batch_norm(before)
    assert largest_gap(before, after) < 1e-5
    golden.check(after)


@pytest.mark.parametrize(("value", "folds"), [(0.0, False), (0.375, True)])
def test_through_a_pad_where_all_channels_agree_on_what_it_fills_in(
    value: float, folds: bool
) -> None:
    same = PARAMETERS.replace("(1.5, -0.5)", "(1.0, 1.0)").replace("(0.9, 2.0)", "(1.0, 1.0)")
    same = same.replace("(0.25, 1.0)", "(0.25, 0.25)") if folds else PARAMETERS
    same = same.replace("(0.1, -0.2)", "(0.1, 0.1)") if folds else same
    before = graph_of(f"""
        %x : f32[1,1,4,4] = input
        {WEIGHT}
        {same}
        %a : f32[1,2,3,3] = conv %x, %w, _ {{{CONV}}}
        %p : f32[1,2,4,3] = pad %a {{pads=(0, 0, 1, 0, 0, 0, 0, 0), value={value}}}
        %y : f32[1,2,4,3] = batch_norm %p, %scale, %shift, %mean, %variance
        return %y""")
    after = fold_batch_norm(before)
    assert largest_gap(before, after) < 1e-5
    assert ("binary" not in {op.mnemonic for op in after.ops}) == folds


def test_without_weights_it_becomes_mul_and_add() -> None:
    before = graph_of(f"""
        %x : f32[1,2,3,3] = input
        {PARAMETERS}
        %y : f32[1,2,3,3] = batch_norm %x, %scale, %shift, %mean, %variance
        return %y""")
    after = fold_batch_norm(before)
    assert largest_gap(before, after) < 1e-5
    assert [op.mnemonic for op in after.ops if op.mnemonic != "constant"] == [
        "input",
        "binary",
        "binary",
    ]


def test_a_conv_that_others_read_keeps_its_weights() -> None:
    before = graph_of(f"""
        %x : f32[1,1,4,4] = input
        {WEIGHT}
        {PARAMETERS}
        %a : f32[1,2,3,3] = conv %x, %w, _ {{{CONV}}}
        %y : f32[1,2,3,3] = batch_norm %a, %scale, %shift, %mean, %variance
        return %y, %a""")
    after = fold_batch_norm(before)
    assert largest_gap(before, after) < 1e-5
    assert "w" in after.producers()
