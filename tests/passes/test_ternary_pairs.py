"""The greedy pair rule on ternary weights: the kernel is its plain twin, and no rule worse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.passes._signed_sums import Ints, reduced, shared_rows, signed_sums
from cimc.passes._ternary_pairs import share_pairs
from tests.passes.greedy_pairs import Pair, Row, additions, greedy, greedy_last_noted
from tests.passes.test_signed_sums import ternary


def shared(weights: Ints, most: int = 1 << 20) -> tuple[list[Row], list[Pair]]:
    """What the kernel makes of a matrix, in the twin's words."""
    sums = signed_sums(weights)
    start, terms, temps = share_pairs(
        sums.inputs, sums.start, sums.terms >> 8 << 1 | sums.terms & 1, most
    )
    rows: list[Row] = []
    for begin, end in itertools.pairwise(start.tolist()):
        rows.append({term >> 1: -1 if term & 1 else 1 for term in terms[begin:end].tolist()})
    return rows, [(a, b, sign) for a, b, sign in temps.tolist()]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 150), inputs=st.integers(1, 24),
       sparsity=st.sampled_from([0, 0.3, 0.5, 0.8]), spare=st.sampled_from([0, 3, 99]))  # fmt: skip
def test_the_kernel_equals_its_twin(
    seed: int, rows: int, inputs: int, sparsity: float, spare: int
) -> None:
    weights = ternary(np.random.default_rng(seed), rows, inputs, sparsity)
    assert shared(weights, inputs + spare) == greedy_last_noted(weights, inputs + spare)


@pytest.mark.parametrize(
    ("rows", "inputs", "sparsity"), [(64, 9, 0.6), (200, 9, 0.8), (24, 36, 0.6)]
)
def test_t6_no_slice_is_worse_than_by_the_greedy_rule(
    rows: int, inputs: int, sparsity: float
) -> None:
    """T6: the greedy rule of the literature leaves open which of equal pairs comes first."""
    for seed in range(10):
        weights = ternary(np.random.default_rng(seed), rows, inputs, sparsity)
        sums = signed_sums(weights)
        ours = reduced(shared_rows(sums), rounds=40)
        assert (ours.matrix() == weights).all()
        assert ours.additions <= additions(*greedy(weights)) <= sums.additions
