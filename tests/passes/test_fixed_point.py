"""fixed-point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.ir.evaluate import evaluate
from cimc.passes.fixed_point import fixed, fixed_point
from tests.conftest import Golden
from tests.passes.texts import graph_of

GRAPH = """
%x : i32[1,4000] = input
%m : f32[1] = constant {value=(MULTIPLIER,)}
%y : i8[1,4000]<0.5,3> = requant %x, %m, _ {axis=1}
return %y
"""


@pytest.mark.parametrize("bits", [8, 16, 31])
@settings(max_examples=200)
@given(factor=st.floats(2.0**-30, 128, width=32))
def test_the_integer_is_the_nearest(bits: int, factor: float) -> None:
    multiplier, shift = fixed(np.array([factor], np.float32), bits)
    assert 0 <= multiplier[0] < 2**bits
    assert 0 <= shift[0] <= 62
    value = float(multiplier[0]) * 2.0 ** -int(shift[0])
    if shift[0] < 62:
        assert abs(value - factor) <= factor * 2.0**-bits
    else:
        assert abs(value - factor) <= 2.0**-63


@pytest.mark.parametrize("multiplier", ["0.001", "0.0123", "0.03125", "0.7"])
def test_results_differ_at_ties_only(multiplier: str) -> None:
    before = graph_of(GRAPH.replace("MULTIPLIER", multiplier))
    after = fixed_point(before)
    x = np.arange(-2000, 2000, dtype=np.int32).reshape(1, -1)
    want, got = evaluate(before, {"x": x})["y"], evaluate(after, {"x": x})["y"]
    steps = x.astype(np.float64) * np.float32(multiplier)
    tie = np.abs(steps - np.floor(steps) - 0.5) < 1e-6 * np.maximum(1, np.abs(steps))
    assert (np.abs(want.astype(int) - got.astype(int)) <= tie).all()


def test_the_text(golden: Golden) -> None:
    golden.check(fixed_point(graph_of(GRAPH.replace("MULTIPLIER", "0.0078125"))))
