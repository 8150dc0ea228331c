"""Two bits for each ternary weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimc.ir.packing import pack_ternary, unpack_ternary


@given(st.lists(st.integers(-1, 1), max_size=50))
def test_packing_is_undone(weights: list[int]) -> None:
    array = np.array(weights, np.int8)
    packed = pack_ternary(array)
    assert packed.size == -(-array.size // 4)
    assert (unpack_ternary(packed, array.shape) == array).all()


def test_the_first_weight_is_in_the_low_bits() -> None:
    assert pack_ternary(np.array([[1, -1], [0, 1], [-1, 0]])).tolist() == [0b01001101, 0b0011]


def test_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="a ternary weight is -1, 0 or 1"):
        pack_ternary(np.array([2]))
