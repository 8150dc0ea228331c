"""simplify."""

from __future__ import annotations

import pytest

from cimc.passes.simplify import simplify
from tests.passes.texts import graph_of, largest_gap


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("%y : f32[2,3] = reshape %x", 0),
        ("%a : f32[6] = reshape %x\n%y : f32[3,2] = reshape %a", 1),
        (
            "%a : f32[3,2] = transpose %x {perm=(1, 0)}\n"
            "%y : f32[2,3] = transpose %a {perm=(1, 0)}",
            0,
        ),
        ('%y : f32[2,3] = unary %x {fn="clip", alpha=-inf, beta=inf}', 0),
        ('%a : f32[2,3] = unary %x {fn="relu"}\n%y : f32[2,3] = unary %a {fn="relu"}', 1),
        (
            '%a : f32[2,3] = unary %x {fn="relu"}\n'
            '%y : f32[2,3] = unary %a {fn="clip", alpha=-1.0, beta=6.0}',
            1,
        ),
        ("%y : f32[2,3] = pad %x {pads=(0, 0, 0, 0)}", 0),
        ("%y : f32[2,3] = slice %x {starts=(0, 0), steps=(1, 1)}", 0),
        ("%y : f32[2,3] = slice %x {starts=(1, 0), steps=(-1, 1)}", 1),
        ("%y : f32[2,3] = concat [%x] {axis=0}", 0),
        ("%y : f32[2,3] = tile %x", 0),
        ("%y : f32[2,3] = cast %x", 0),
        ("%y : f32[2,3] = resize %x {scales=(1.0, 1.0)}", 0),
        ('%c : f32[1] = constant {value=(0.0,)}\n%y : f32[2,3] = binary %c, %x {fn="add"}', 0),
        ('%c : f32[1] = constant {value=(1.0,)}\n%y : f32[2,3] = binary %x, %c {fn="div"}', 0),
        ('%c : f32[1] = constant {value=(1.0,)}\n%y : f32[2,3] = binary %c, %x {fn="div"}', 1),
        (
            "%s : f32[] = constant {value=(0.5,)}\n%q : i8[2,3]<0.5,0> = quantize %x, %s, _\n"
            "%d : f32[2,3] = dequantize %q, %s, _\n%y : i8[2,3]<0.5,0> = quantize %d, %s, _",
            1,
        ),
    ],
)
def test_what_changes_nothing_goes(source: str, left: int) -> None:
    before = graph_of(
        f'%x : f32[2,3] = input\n{source}\n%z : {_type(source)} = unary %y {{fn="abs"}}\nreturn %z'
    )
    after = simplify(before)
    assert largest_gap(before, after) == 0
    kept = [op for op in after.ops if op.mnemonic not in ("input", "constant")]
    assert len(kept) == left + 1


def _type(source: str) -> str:
    """The type of %y."""
    return source.split("%y : ")[1].split(" = ")[0]


def test_an_output_keeps_its_name() -> None:
    before = graph_of(
        "%x : f32[2] = input\n%y : f32[2] = reshape %x\n%z : f32[2] = reshape %y\nreturn %y, %z"
    )
    after = simplify(before)
    assert [value.name for value in after.outputs] == ["y", "z"]
    assert largest_gap(before, after) == 0


@pytest.mark.parametrize(
    ("scores", "goes"),
    [
        ("%m : f32[3,3] = matmul %x, %w, _", True),
        ('%p : f32[3,3] = matmul %x, %w, _\n%m : f32[3,3] = binary %p, %mask {fn="add"}', True),
        ('%p : f32[3,3] = matmul %x, %w, _\n%m : f32[3,3] = binary %p, %all {fn="add"}', False),
        ('%m : f32[3,3] = binary %w, %x {fn="add"}', False),
    ],
)
def test_a_safe_softmax_is_a_softmax_unless_a_row_may_be_masked(scores: str, goes: bool) -> None:
    before = graph_of(f"""
        %x : f32[3,3] = input
        %w : f32[3,3] = input
        %mask : f32[3,3] = constant {{value=(0.0, -inf, -inf, 0.0, 0.0, -inf, 0.0, 0.0, 0.0)}}
        %all : f32[1,3] = constant {{value=(-inf, -inf, -inf)}}
        %zero : f32[] = constant {{value=(0.0,)}}
        {scores}
        %s : f32[3,3] = softmax %m {{axis=1}}
        %n : bool[3,3] = unary %s {{fn="is_nan"}}
        %y : f32[3,3] = where %n, %zero, %s
        return %y""")
    after = simplify(before)
    assert largest_gap(before, after) == 0
    assert ("where" not in {op.mnemonic for op in after.ops}) == goes


def test_zeros_around_a_conv_become_its_pads() -> None:
    before = graph_of("""
        %x : f32[1,1,3,3] = input
        %w : f32[1,1,2,2] = constant {value=(1.0, 2.0, 3.0, 4.0)}
        %p : f32[1,1,5,4] = pad %x {pads=(0, 0, 1, 0, 0, 0, 1, 1)}
        %y : f32[1,1,4,4] = conv %p, %w, _ {strides=(1, 1), pads=(0, 1, 0, 0), dilations=(1, 1)}
        return %y""")
    after = simplify(before)
    assert largest_gap(before, after) == 0
    assert [op.mnemonic for op in after.ops] == ["input", "constant", "conv"]
