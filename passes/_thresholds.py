"""Requantization of sums counted in larger units, proven to give the same results.

A requant is a step function of its sums: it is known by the least sum that reaches each result.
Two requants with equal thresholds are equal, whatever their multipliers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.evaluate.numbers import Numbers, requantized
from cimc.ir.types import Array

Integers = NDArray[np.int64]
_STEPS = (0, 1, -1, 2, -2, 3, -3)  # units in the last place from the nearest multiplier
_BITS = 31


@dataclass(frozen=True, slots=True)
class Scale:
    """What a requant multiplies with per channel: a float32, or an integer and a shift."""

    multiplier: Numbers
    shift: Integers | None


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums that can occur, per channel: n * factor + bias for n from `least` to `most`."""

    least: Integers
    most: Integers
    factor: Integers
    bias: Integers


def same_results(
    op: ops.Requant, multiplier: Array | None, shift: Array | None, before: Sums, after: Sums
) -> Scale | None:
    """A scale with which sums `after` give what sums `before` gave; None if none was found.

    multiplier, shift  the constants of `op`; None where they are computed
    """
    if multiplier is None or (shift is None) != (op.shift is None):
        return None
    scale = _scale(multiplier, shift, before.factor.shape)
    if not (scale.multiplier > 0).all():
        return None
    want = _thresholds(op, before, scale)
    found: Scale | None = None
    is_open = np.ones(want.shape[0], bool)
    for tried in _scales(scale, before.factor // after.factor):
        same = (_thresholds(op, after, tried) == want).all(axis=1)
        chosen = tried.multiplier if found is None else found.multiplier
        chosen = np.where(is_open & same, tried.multiplier, chosen)
        found = Scale(chosen, tried.shift)
        is_open &= ~same
        if not is_open.any():
            return found
    return None


def _scale(multiplier: Array, shift: Array | None, channels: tuple[int, ...]) -> Scale:
    """One entry for each channel."""
    if shift is None:
        return Scale(np.broadcast_to(multiplier.reshape(-1), channels).astype(np.float32), None)
    tables = (multiplier, shift)
    integers = (np.broadcast_to(a.reshape(-1), channels).astype(np.int64) for a in tables)
    return Scale(*integers)


def _scales(scale: Scale, factor: Integers) -> Iterator[Scale]:
    """Scales near `factor` times as large, the nearest first."""
    if scale.shift is None:
        product = (scale.multiplier.astype(np.float64) * factor).astype(np.float32)
        for step in _STEPS:
            yield Scale((product.view(np.int32) + np.int32(step)).view(np.float32), None)
        return
    exact = scale.multiplier.astype(np.int64) * factor
    spare = np.maximum(np.frexp(exact.astype(np.float64))[1] - _BITS, 0).astype(np.int64)
    spare = np.minimum(spare, scale.shift)
    half = np.where(spare > 0, np.left_shift(1, np.maximum(spare - 1, 0)), 0)
    nearest = np.right_shift(exact + half, spare)
    for step in _STEPS:
        yield Scale(np.clip(nearest + step, 1, 2**_BITS - 1), scale.shift - spare)


def _thresholds(op: ops.Requant, sums: Sums, scale: Scale) -> Integers:
    """For each channel and result above `low`: the least n that reaches it, by bisection.

    Multipliers are positive, so results never fall as sums grow.
    """
    zero = op.out.type.quant.zero if op.out.type.quant else 0
    levels = np.arange(op.low + 1, op.high + 1)
    shape = (sums.least.size, levels.size)
    low = np.broadcast_to(sums.least[:, None], shape).copy()
    high = np.broadcast_to(sums.most[:, None] + 1, shape).copy()  # + 1: not reached
    shift = None if scale.shift is None else scale.shift[:, None]
    while (low < high).any():
        middle = (low + high) // 2
        total = middle * sums.factor[:, None] + sums.bias[:, None]
        result = requantized(total, scale.multiplier[:, None], shift, zero, op.low, op.high)
        reached = np.asarray(result >= levels)
        high = np.where((low < high) & reached, middle, high)
        low = np.where((low < high) & ~reached, middle + 1, low)
    return low
