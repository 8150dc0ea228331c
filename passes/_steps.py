"""Staircases: what integer a quantize makes of every exact sum, and a requant that does just that.

before   %r : f32[1,64] = dequantize %sum, %s, _
         %b : f32[1,64] = binary %r, %shift {fn="add"}
         %q : i2[1,64]<1.0,0> = quantize %b, ...
after    %q : i2[1,64]<1.0,0> = requant %sum, %q.multiplier, _, %q.gain, %q.bias

A chain of functions that only rise or only fall, from a sum to few integers, is a staircase: step k
is the lowest sum that gives more than k. The steps are found by bisection with the chain's own
float32 operations; a line a*u + b that passes every step on the right side becomes multiplier,
gain (a power of two, so that the bias is fine enough) and bias. The result is checked at both sides
of every step, which proves it equal for every sum. Where no line fits, the chain stays float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.evaluate.functions import BINARY, UNARY
from cimc.ir.evaluate.numbers import quantized
from cimc.ir.graph import Op, Value
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Type, int_range

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_RISING = {"ceil", "clip", "erf", "floor", "relu", "round", "sigmoid", "sign", "softsign", "tanh"}
_RISING_BY_ALPHA = {"hard_sigmoid", "leaky_relu"}  # where alpha >= 0
_MOST_GAIN = 24
_MOST_PAIRS = 1 << 26
_ROOM = 0.05  # of one sum's height
_LARGEST = int_range("i32")[1]


@dataclass(frozen=True, slots=True)
class Line:
    """What a requant needs: total = sum * gain + bias, then times multiplier; one for a channel."""

    multiplier: NDArray[np.float32]
    gain: NDArray[np.int32]
    bias: NDArray[np.int32]
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Functions of one sum: `value` as a function of `leaf`, whose channels lie on `axis`."""

    new: Rewrite
    value: Value
    leaf: Value
    axis: int

    def directions(self, channels: int) -> Integers | None:
        """+1 where the chain rises with the sum, -1 where it falls, for each channel; else None."""
        found = self._direction(self.value)
        return None if found is None else np.broadcast_to(found.reshape(-1), channels)

    def of(self, reals: NDArray[np.float32]) -> NDArray[np.float32]:
        """The chain at [channels, n] values of the leaf, in float32."""
        return self._computed(self.value, reals)

    def _parts(self, op: ops.Unary | ops.Binary) -> tuple[Value, ...]:
        return (op.x,) if isinstance(op, ops.Unary) else (op.a, op.b)

    def _direction(self, value: Value) -> Integers | None:
        if value.name == self.leaf.name:
            return np.ones(1, np.int64)
        maker = self.new.maker(value)
        if not isinstance(maker, ops.Unary | ops.Binary) or maker.out.type != self.leaf.type:
            return None
        if isinstance(maker, ops.Unary):
            inner = self._direction(maker.x)
            rises = maker.fn in _RISING or (maker.fn in _RISING_BY_ALPHA and maker.alpha >= 0)
            return inner if rises else -inner if maker.fn == "neg" and inner is not None else None
        numbers = [self._number(part) for part in self._parts(maker)]
        if numbers[0] is None and numbers[1] is None:
            a, b = self._direction(maker.a), self._direction(maker.b)
            alike = a is not None and b is not None and bool((a == b).all())
            return a if alike and maker.fn in ("add", "max", "min") else None
        inner = self._direction(maker.a if numbers[0] is None else maker.b)
        number = numbers[1] if numbers[0] is None else numbers[0]
        if inner is None or number is None or not np.isfinite(number).all():
            return None
        match maker.fn, numbers[0] is None:
            case "add" | "max" | "min", _:
                return inner
            case "sub", first:
                return inner if first else -inner
            case ("mul", _) | ("div", True) if maker.fn == "mul" or (number != 0).all():
                return np.asarray(inner * np.where(number < 0, -1, 1).reshape(-1), np.int64)
        return None

    def _number(self, value: Value) -> NDArray[np.float32] | None:
        """A constant as a scalar or as one number for each channel: [channels, 1]."""
        array = self.new.array(value)
        rank = len(self.leaf.shape)
        if array is None or array.ndim > rank or array.dtype != np.float32:
            return None
        if array.size == 1:
            return array.astype(np.float32).reshape(())
        shape = (1,) * (rank - array.ndim) + array.shape
        along = all(extent == 1 for axis, extent in enumerate(shape) if axis != self.axis % rank)
        return array.astype(np.float32).reshape(-1, 1) if along else None

    def _computed(self, value: Value, reals: NDArray[np.float32]) -> NDArray[np.float32]:
        if value.name == self.leaf.name:
            return reals
        number = self._number(value)
        if number is not None:
            return number
        maker = self.new.maker(value)
        assert isinstance(maker, ops.Unary | ops.Binary)
        with np.errstate(all="ignore"):
            if isinstance(maker, ops.Unary):
                x = self._computed(maker.x, reals)
                return np.asarray(UNARY[maker.fn](x, maker.alpha, maker.beta), np.float32)
            a, b = self._computed(maker.a, reals), self._computed(maker.b, reals)
            return np.asarray(BINARY[maker.fn](a, b), np.float32)


def leaf_of(new: Rewrite, value: Value, leaves: set[str]) -> Value | None:
    """The only value among `leaves` that `value` is made from, constants aside."""
    found: dict[str, Value] = {}
    seen: set[str] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if item.name in seen or new.array(item) is not None:
            continue
        seen.add(item.name)
        if item.name in leaves:
            found[item.name] = item
            continue
        maker: Op | None = new.maker(item)
        if not isinstance(maker, ops.Unary | ops.Binary):
            return None
        waiting += (maker.x,) if isinstance(maker, ops.Unary) else (maker.a, maker.b)
    return next(iter(found.values())) if len(found) == 1 else None


def fitted(chain: Chain, scale: Floats, offset: Floats, reach: Integers, kind: Type) -> Line | None:
    """The line for integers of `kind`; sums u of a channel stand for u * scale + offset.

    reach: the largest absolute sum of each channel
    """
    assert kind.quant is not None
    numbers = np.broadcast_arrays(scale.reshape(-1), offset.reshape(-1), reach.reshape(-1))
    directions = chain.directions(max(chain.leaf.shape[chain.axis], 1))
    if directions is None:
        return None
    channels = 1
    if numbers[0].size > 1 or (directions != directions[0]).any() or not _is_uniform(chain):
        channels = chain.leaf.shape[chain.axis]
    scale, offset, reach = (np.broadcast_to(array, channels) for array in numbers)
    rising = directions[:channels]
    unit, zero = np.float32(kind.quant.scale), kind.quant.zero

    def codes(u: Integers) -> Integers:
        """What the chain and the quantize make of [channels, n] rising sums."""
        sums = (u * rising[:, None]).astype(np.float64)
        reals = (sums * scale[:, None] + offset[:, None]).astype(np.float32)
        return quantized(chain.of(reals), unit, np.int64(zero), kind.dtype).astype(np.int64)

    ends = codes(np.stack([-reach, reach], axis=1))
    low, high = int(ends.min()), int(ends.max())
    steps = _steps(codes, reach, low, high)
    middle: Floats = np.arange(low, high).astype(np.float64) - zero + 0.5
    bounds = _Bounds(steps, middle, reach)
    slopes = bounds.slopes(scale / np.float64(unit))
    return None if slopes is None else bounds.line(slopes, rising, zero, low, high)


def _is_uniform(chain: Chain) -> bool:
    """True where no constant of the chain differs from channel to channel."""
    waiting, sizes = [chain.value], [1]
    while waiting:
        item = waiting.pop()
        array, maker = chain.new.array(item), chain.new.maker(item)
        if array is not None:
            sizes.append(array.size)
        elif item.name != chain.leaf.name and isinstance(maker, ops.Unary | ops.Binary):
            waiting += (maker.x,) if isinstance(maker, ops.Unary) else (maker.a, maker.b)
    return max(sizes) == 1


def _steps(codes: Callable[[Integers], Integers], reach: Integers, low: int, high: int) -> Integers:
    """The lowest u with codes(u) > k for k in low .. high - 1; reach + 1 where there is none."""
    wanted = np.arange(low, high)[None, :]
    shape = (len(reach), high - low)
    below = np.broadcast_to(-reach[:, None] - 1, shape).copy()
    above = np.broadcast_to(reach[:, None] + 1, shape).copy()
    while (above - below > 1).any():
        middle = (below + above) // 2
        inside = np.clip(middle, -reach[:, None], reach[:, None])
        is_more = codes(inside) > wanted
        open_ = above - below > 1
        above = np.where(open_ & is_more, middle, above)
        below = np.where(open_ & ~is_more, middle, below)
    return above


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Points that a line must pass above (at each step) and below (one before it)."""

    steps: Integers  # [channels, n]
    middle: Floats  # [n], between two integers
    reach: Integers

    @property
    def _over(self) -> NDArray[np.bool_]:
        return self.steps <= self.reach[:, None]

    @property
    def _under(self) -> NDArray[np.bool_]:
        return self.steps - 1 >= -self.reach[:, None]

    def interval(self, slopes: Floats) -> tuple[Floats, Floats]:
        """Between which intercepts a line of that slope fits; nowhere if the first is larger."""
        at = self.middle - slopes[:, None] * self.steps
        least = np.where(self._over, at, -np.inf).max(axis=1, initial=-np.inf)
        most = np.where(self._under, at + slopes[:, None], np.inf).min(axis=1, initial=np.inf)
        return least, most

    def slopes(self, nominal: Floats) -> Floats | None:
        """A slope for each channel for which a line fits; None if a channel has none.

        Where the nominal slope leaves little room for an intercept, the middle of all is taken.
        """
        slopes = np.asarray(nominal, np.float64).copy()
        least, most = self.interval(slopes)
        narrow = np.flatnonzero(~(most - least > _ROOM * slopes))
        if len(narrow) * self.steps.shape[1] ** 2 > _MOST_PAIRS:
            narrow = np.flatnonzero(~(least < most))[: _MOST_PAIRS // self.steps.shape[1] ** 2]
        for channel in narrow:
            found = self._slope(int(channel))
            if found is None:
                return None
            slopes[channel] = found
        return slopes

    def _slope(self, channel: int) -> float | None:
        """The middle of the slopes for which a line fits: each pair of points is a bound."""
        over, under = self._over[channel], self._under[channel]
        p, hp = self.steps[channel][over], self.middle[over]
        q, hq = self.steps[channel][under] - 1, self.middle[under]
        run, rise = q[None, :] - p[:, None], hq[None, :] - hp[:, None]
        if ((run == 0) & (rise <= 0)).any():
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = rise / run
        least = float(ratio.max(where=run < 0, initial=0.0))
        most = float(ratio.min(where=run > 0, initial=np.inf))
        if not least < most:
            return None
        return (least + most) / 2 if np.isfinite(most) else max(1.0, 2 * least)

    def line(self, slopes: Floats, rising: Integers, zero: int, low: int, high: int) -> Line | None:
        """The line with the least gain that is right at every step; None if there is none."""
        least, most = self.interval(slopes)
        with np.errstate(invalid="ignore"):
            middle = (least + most) / 2
        room = np.maximum(1.0, slopes)
        intercept = np.where(
            np.isfinite(least), least + room, np.where(np.isfinite(most), most - room, 0.0)
        )
        intercept = np.where(np.isfinite(least) & np.isfinite(most), middle, intercept)
        for power in range(_MOST_GAIN + 1):
            gain = 2**power
            bias = np.rint(intercept / slopes * gain)
            if (np.abs(bias) + self.reach.astype(np.float64) * gain > _LARGEST).any():
                return None
            multiplier = (slopes / gain).astype(np.float32)
            whole = bias.astype(np.int64)
            if self._is_right(multiplier, gain, whole, zero, low, high):
                gains = (rising * gain).astype(np.int32)
                return Line(multiplier, gains, whole.astype(np.int32), low, high)
        return None

    def _is_right(
        self,
        multiplier: NDArray[np.float32],
        gain: int,
        bias: Integers,
        zero: int,
        low: int,
        high: int,
    ) -> bool:
        """Whether the requant gives more than k at step k and not before it."""

        def given(u: Integers) -> Integers:
            total = u * gain + bias[:, None]
            steps = np.rint(total.astype(np.float32) * multiplier[:, None])
            return np.asarray(np.clip(steps.astype(np.float64) + zero, low, high), np.int64)

        wanted = np.arange(low, high)[None, :]
        over = (given(self.steps) > wanted) | ~self._over
        under = (given(self.steps - 1) <= wanted) | ~self._under
        return bool(over.all() and under.all())
