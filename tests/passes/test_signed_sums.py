"""Shared subexpressions: the sums stay what they are, with as few additions as expected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cimc.passes._signed_sums import (
    improved,
    in_order,
    reduced,
    shared_rows,
    signed_sums,
    stands_for,
    without,
)

Ints = NDArray[np.int64]
# kernels, input channels, output channels and output positions of ResNet-18 at 224 px
RESNET18 = (
    [(7, 3, 64, 112)]
    + [(3, 64, 64, 56)] * 4
    + [(3, 64, 128, 28), (1, 64, 128, 28)] + [(3, 128, 128, 28)] * 3
    + [(3, 128, 256, 14), (1, 128, 256, 14)] + [(3, 256, 256, 14)] * 3
    + [(3, 256, 512, 7), (1, 256, 512, 7)] + [(3, 512, 512, 7)] * 3
)  # fmt: skip


def ternary(random: np.random.Generator, rows: int, inputs: int, sparsity: float) -> Ints:
    signs = random.choice([-1, 1], (rows, inputs))
    return np.where(random.random((rows, inputs)) < sparsity, 0, signs)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 40), inputs=st.integers(1, 20),
       high=st.sampled_from([1, 3, 7, 127, 255]))  # fmt: skip
def test_t6_sharing_keeps_every_weight_and_never_adds_more(
    seed: int, rows: int, inputs: int, high: int
) -> None:
    weights = np.random.default_rng(seed).integers(-high, high + 1, (rows, inputs))
    plain = signed_sums(weights)
    shared = reduced(plain)
    assert (plain.matrix() == weights).all()
    assert (shared.matrix() == weights).all()
    assert shared.additions <= plain.additions
    assert shared.slice_additions <= plain.slice_additions


def test_digits_are_canonical() -> None:
    weights = np.arange(-300, 301)[:, None]
    sums = signed_sums(weights)
    for row, weight in enumerate(weights[:, 0].tolist()):
        digits = sums.terms[sums.start[row] : sums.start[row + 1]]
        shifts = np.sort(digits >> 1 & 0x7F)
        assert (np.diff(shifts) >= 2).all()
        assert len(digits) <= (abs(weight).bit_length() + 2) // 2


def test_t7_repeated_and_negated_rows_are_free() -> None:
    row = np.array([1, -1, 0, 1, 1, 0, -1])
    once = reduced(signed_sums(row[None]))
    again = reduced(signed_sums(np.array([row, -row, row])))
    assert once.slice_additions == again.slice_additions == 4
    assert [len(again.row(number)) for number in range(3)] == [1, 1, 1]


def test_t6_one_input_has_nothing_to_share() -> None:
    sums = reduced(signed_sums(ternary(np.random.default_rng(0), 100, 1, 0.3)))
    assert sums.shared == 0


def test_no_pair_is_left_that_occurs_twice() -> None:
    sums = reduced(signed_sums(ternary(np.random.default_rng(1), 64, 12, 0.6)))
    pairs: dict[tuple[int, int, int], int] = {}
    for row in range(sums.rows):
        terms = sorted(sums.row(row))
        for place, two in enumerate(terms):
            for one in terms[:place]:
                key = (one >> 1, two >> 1, (one ^ two) & 1)
                pairs[key] = pairs.get(key, 0) + 1
    assert max(pairs.values()) == 1


@pytest.mark.parametrize("limit", [9, 12, 20])
def test_temporaries_stay_within_the_limit(limit: int) -> None:
    weights = ternary(np.random.default_rng(2), 256, 9, 0.5)
    sums = reduced(signed_sums(weights), limit)
    assert sums.shared == limit - 9
    assert (sums.matrix() == weights).all()


@pytest.mark.parametrize(
    ("rows", "sparsity", "before", "after", "temps"),
    [(64, 0.8, 115.8, 97.7, 11.0), (256, 0.5, 1149.9, 601.3, 95.3), (256, 0.8, 462.8, 343.4, 40.8),
     (512, 0.8, 921.7, 636.0, 71.1), (512, 0.9, 462.1, 393.1, 32.1)],
)  # fmt: skip
def test_t8_means_over_random_slices(
    rows: int, sparsity: float, before: float, after: float, temps: float
) -> None:
    found = []
    for seed in range(50):
        plain = signed_sums(ternary(np.random.default_rng(seed), rows, 9, sparsity))
        shared = reduced(plain)
        found.append((plain.additions, shared.additions, shared.shared))
        filled = 1 - sparsity**9
        bound = 1 - filled / (9 * (1 - sparsity))
        assert 1 - shared.additions / plain.additions <= bound + 0.04
    means = np.mean(found, axis=0)
    assert means[0] == pytest.approx(before, rel=0.01)
    assert means[1] == pytest.approx(after, rel=0.03)
    assert means[2] == pytest.approx(temps, rel=0.06)


def resnet18(sparsity: float) -> list[tuple[Ints, int, int]]:
    """Ternary weights [rows, inputs], inputs per channel, and output positions of every layer."""
    random = np.random.default_rng(18)
    return [
        (ternary(random, k, c * kernel**2, sparsity), kernel**2, size**2)
        for kernel, c, k, size in RESNET18
    ]


def test_t9_resnet18_before_sharing() -> None:
    layers = resnet18(0.8)
    assert sum(weights.size for weights, _, _ in layers) == 11_166_912
    macs = sum(weights.size * positions for weights, _, positions in layers)
    assert macs == pytest.approx(1.814e9, rel=1e-3)
    additions = sum(signed_sums(weights).additions for weights, _, _ in layers)
    assert additions == pytest.approx(2.23e6, rel=0.01)


def test_fused_channels_share_more_than_single_ones() -> None:
    """Row-adds of ResNet-18: at least 15 % fewer than by the greedy rule channel by channel."""
    single = fused = 0
    for weights, window, positions in resnet18(0.8):
        for size in (window, max(1, 144 // window) * window):
            adds = 0
            for begin in range(0, weights.shape[1], size):
                adds += reduced(signed_sums(weights[:, begin : begin + size])).additions
            if size == window:
                single += adds * positions
            else:
                fused += adds * positions
    assert single == pytest.approx(281e6, rel=0.01)
    assert fused <= 0.85 * single


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(2, 40), inputs=st.integers(1, 8),
       high=st.sampled_from([1, 3, 100]))  # fmt: skip
def test_t7_equal_rows_are_made_once(seed: int, rows: int, inputs: int, high: int) -> None:
    random = np.random.default_rng(seed)
    some = random.integers(-high, high + 1, (rows, inputs))
    signs = random.choice([-1, 0, 1], (rows, 3))
    weights = np.concatenate([some, *(some * signs[:, [i]] for i in range(3))])
    plain = signed_sums(weights)
    found = shared_rows(plain)
    assert (found.matrix() == weights).all()
    # repeated ones cost nothing beyond those that are there once
    assert found.slice_additions <= signed_sums(some).slice_additions
    assert (reduced(found).matrix() == weights).all()
    assert reduced(found).additions <= found.additions <= plain.additions


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 40), inputs=st.integers(1, 20),
       high=st.sampled_from([1, 3, 127]), most=st.integers(0, 30))  # fmt: skip
def test_other_forms_of_the_same_sums(
    seed: int, rows: int, inputs: int, high: int, most: int
) -> None:
    weights = np.random.default_rng(seed).integers(-high, high + 1, (rows, inputs))
    sums = reduced(shared_rows(signed_sums(weights)))
    ordered, fewer, better = in_order(sums), without(sums, most), improved(sums, 5)
    for found in (ordered, fewer, better):
        assert (found.matrix() == weights).all()
        assert stands_for(found, weights)
    assert ordered.additions <= sums.additions
    assert all(len(ordered.sum(number)) == 2 for number in range(ordered.shared))
    used = {term >> 8 for term in ordered.terms.tolist()}
    assert used >= set(range(inputs, inputs + ordered.shared))
    assert better.additions <= sums.additions <= fewer.additions
    assert len({term >> 8 for term in fewer.terms.tolist()} - set(range(inputs))) == fewer.shared


def test_sums_of_other_weights_are_told_apart() -> None:
    weights = ternary(np.random.default_rng(0), 9, 12, 0.4)
    sums = reduced(signed_sums(weights))
    for row, column in ((0, 0), (8, 11), (4, 5)):
        other = weights.copy()
        other[row, column] += 1
        assert not stands_for(sums, other)
    assert not stands_for(sums, weights[:, :-1])
