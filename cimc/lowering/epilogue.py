"""What follows a heavy op in its layer, as instructions on one output tile.

A tile of exact sums lies in an accumulator; requantization, table look-ups and functions of it and
another tensor turn it into a tile of the result, element by element:

    rescale %y[k, q] <- %acc[q, k], bias[k], multiplier[k]
    combine %z[k, q] <- %y.tile[k, q], %other[k, q]

The tile's axes follow loop dimensions of the op (`OutAxis`), so offsets and strides in the result,
in other tensors and in per-channel tables are all derived from it. Where a tile may reach past the
result (cut tails), tables are padded, other tensors are copied with bounds first, and writes carry
bounds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cimc.errors import InternalError
from cimc.ir import ops
from cimc.ir.graph import Op, Value
from cimc.ir.program import (
    Accumulate,
    Affine,
    Bound,
    Combine,
    Copy,
    Instr,
    Item,
    Lookup,
    Rescale,
    View,
)
from cimc.ir.tiles import Layer
from cimc.ir.types import Array, Type, int_range
from cimc.lowering.builder import Builder
from cimc.lowering.geometry import ConvShape

FUSED_FNS = frozenset({"add", "sub", "mul", "max", "min"})


@dataclass(frozen=True, slots=True)
class OutAxis:
    """`extent` steps of loop dimension `dim`, `step` apart; `acc` is the accumulator's stride."""

    dim: str
    extent: int
    acc: int
    step: int = 1


@dataclass(frozen=True)  # without slots: the coordinates are kept
class OutTile:
    """A tile of the result of `shape`; `start` gives its first coordinate by loop dimension.

    With several groups, dimension "k" runs on over the groups' channels (g*k in all).
    """

    shape: ConvShape
    acc: str
    axes: tuple[OutAxis, ...]
    start: tuple[tuple[str, Affine], ...] = ()
    offset: Affine = field(default_factory=Affine)  # of the tile in the accumulator

    @property
    def extents(self) -> tuple[int, ...]:
        """Extent of each axis."""
        return tuple(axis.extent for axis in self.axes)

    def acc_view(self) -> View:
        """The sums."""
        return View(self.acc, self.offset, tuple((axis.extent, axis.acc) for axis in self.axes))

    def steps(self, place: int) -> tuple[int, ...]:
        """How coordinate `place` of the result moves along each axis."""
        return self._coordinates[place][1]

    def first(self, place: int) -> Affine:
        """Coordinate `place` of the tile's first element."""
        return self._coordinates[place][0]

    @cached_property
    def _coordinates(self) -> tuple[tuple[Affine, tuple[int, ...]], ...]:
        """First element and steps along the axes, for each coordinate of the result."""
        moves = {dim: self.shape.step(dim) for dim in "gnkpq"}
        found = []
        for place in range(len(self.shape.result)):
            first = Affine()
            for dim, start in self.start:
                if moves[dim][place]:
                    first = first + start * moves[dim][place]
            steps = tuple(axis.step * moves[axis.dim][place] for axis in self.axes)
            found.append((first, steps))
        return tuple(found)

    def view(self, buffer: str, strides: tuple[int, ...]) -> View:
        """The tile in a tensor with the given stride for each coordinate of the result."""
        offset, moves = Affine(), [0] * len(self.axes)
        for (first, steps), stride in zip(self._coordinates, strides, strict=True):
            if stride:
                offset = offset + first * stride
                moves = [m + s * stride for m, s in zip(moves, steps, strict=True)]
        return View(buffer, offset, tuple(zip(self.extents, moves, strict=True)))

    def dense(self, buffer: str) -> View:
        """The tile alone, row-major, in a local buffer."""
        return View(buffer, Affine(), tuple(zip(self.extents, _strides(self.extents), strict=True)))

    def reach(self, place: int, loops: Mapping[str, int]) -> int:
        """Largest value of coordinate `place` over all iterations of `loops` (trip counts)."""
        first = self.first(place)
        last = sum(max(0, f * (loops[var] - 1)) for var, f in first.terms)
        ends = zip(self.extents, self.steps(place), strict=True)
        return first.const + last + sum(step * (extent - 1) for extent, step in ends)

    def bounds(self, loops: Mapping[str, int]) -> tuple[Bound, ...]:
        """The coordinates of the result that can leave it, each with its limit."""
        return tuple(
            Bound(self.first(place), self.steps(place), limit)
            for place, limit in enumerate(self.shape.result)
            if self.reach(place, loops) >= limit
        )


def can_fuse(op: Op, heavy: Op, inside: Collection[str]) -> bool:
    """Whether `op` can run in the epilogue of `heavy`, whose layer made `inside` so far.

    The caller sees to it that nothing else that `op` reads depends on the layer.
    """
    if op.out.type.elements != heavy.out.type.elements:
        return False
    channel = len(heavy.out.shape) - 1 if isinstance(heavy, ops.Matmul) else 1
    match op:
        case ops.Requant():
            tables = (op.multiplier, op.shift, op.gain, op.bias)
            shared = all(table is None or table.type.elements == 1 for table in tables)
            along = op.axis % len(op.x.shape) == channel
            return op.x.name == heavy.out.name and (shared or along)
        case ops.Lut():
            return op.x.name in inside and op.x.name != heavy.out.name
        case ops.Binary():
            if op.fn not in FUSED_FNS or heavy.out.name in (op.a.name, op.b.name):
                return False
            if op.a.name not in inside and op.b.name not in inside:
                return False
            return _quantized(op.out.type) and all(
                value.name in inside
                or (_quantized(value.type) and _follows(value.shape, op.out.shape, channel))
                for value in (op.a, op.b)
            )
        case _:
            return False


def _quantized(kind: Type) -> bool:
    return kind.quant is not None


def _follows(shape: tuple[int, ...], result: tuple[int, ...], channel: int) -> bool:
    """True for a tensor of the result's shape, of one element, or of one element per channel."""
    if math.prod(shape) == 1 or shape == result:
        return True
    padded = (*(1,) * (len(result) - len(shape)), *shape)
    wanted = tuple(extent if place == channel else 1 for place, extent in enumerate(result))
    return padded == wanted


def epilogue(
    builder: Builder,
    layer: Layer,
    tile: OutTile,
    *,
    bias: NDArray[np.int32] | None,
    scratch: str,
    tables: str,
    loops: Mapping[str, int],
    landing: Mapping[str, View] | None = None,
    ahead: list[Item] | None = None,
) -> tuple[Instr, ...]:
    """Instructions that finish one tile and write what other layers read.

    `bias` is added to the sums, one per channel; `scratch` and `tables` name the memories of
    intermediate tiles and of per-channel tables; `loops` gives the trip counts around the tile.
    `landing` has, by value, the tiles to write instead of whole tensors; nothing of them is cut.
    `ahead` takes copies of other tensors' tiles to doubled scratch, which may run before the sums
    are there.
    """
    made = _Epilogue(builder, layer, tile, scratch, tables, loops, landing, ahead)
    made.sums(bias)
    for name in layer.ops[1:]:
        made.add(builder.producers[name])
    return tuple(made.instrs)


class _Epilogue:
    """The instructions made so far, and where each value of the layer lies."""

    def __init__(
        self,
        builder: Builder,
        layer: Layer,
        tile: OutTile,
        scratch: str,
        tables: str,
        loops: Mapping[str, int],
        landing: Mapping[str, View] | None,
        ahead: list[Item] | None,
    ) -> None:
        self.builder, self.layer, self.tile = builder, layer, tile
        self.scratch, self.tables = scratch, tables
        self.bounds = tile.bounds(loops)
        self.landing, self.ahead = landing, ahead
        self.cut = self.bounds if landing is None else ()  # of what is written
        self.channels = 1 + tile.reach(tile.shape.channel, loops)
        self.shown = builder.outside(layer)
        self.read = {
            name
            for name in layer.ops
            if any(user.out.name in layer.ops for user in builder.users[name])
        }
        self.held: dict[str, View] = {}
        self.instrs: list[Instr] = []
        self.bias: NDArray[np.int32] | None = None

    def sums(self, bias: NDArray[np.int32] | None) -> None:
        """The exact sums with their bias, written only where another layer reads them."""
        heavy = self.builder.op(self.layer)
        self.bias = bias
        if heavy.out.name not in self.shown:
            return
        dst = self.result(heavy.out)
        if bias is None:
            self.instrs.append(self.copy(dst, self.tile.acc_view()))
            return
        added, total = self.bias_view(bias), self.local(heavy.out) if self.cut else dst
        self.instrs.append(Accumulate(total, self.tile.acc_view(), added, layer=self.layer.name))
        if self.cut:
            self.instrs.append(self.copy(dst, total))

    def add(self, op: Op) -> None:
        """One more op of the layer."""
        kept = op.out.name in self.read  # later ops of the layer read it, so it needs a local tile
        shown = op.out.name in self.shown
        dst = self.local(op.out) if kept or not shown else self.result(op.out)
        bounds = () if kept else self.cut
        match op:
            case ops.Requant():
                self.instrs.append(self.rescale(op, dst, bounds))
            case ops.Lut():
                self.instrs.append(self.lookup(op, dst, bounds))
            case ops.Binary():
                self.instrs.append(self.combine(op, dst, bounds))
            case _:
                raise InternalError(f"{op.mnemonic} {op.out} cannot run in an epilogue")
        self.held[op.out.name] = dst
        if kept and shown:
            self.instrs.append(self.copy(self.result(op.out), dst))

    def rescale(self, op: ops.Requant, dst: View, bounds: tuple[Bound, ...]) -> Rescale:
        """Requantization of the sums."""
        if op.x.name != self.layer.ops[0]:
            raise InternalError(f"requant {op.out} does not read its layer's sums")
        name = op.out.name
        multiplier = self.channel_view(f"{name}.multiplier", self.known(op.multiplier))
        shift = (
            None if op.shift is None else self.channel_view(f"{name}.shift", self.known(op.shift))
        )
        gain = None if op.gain is None else self.channel_view(f"{name}.gain", self.known(op.gain))
        bias = self.total_bias(op)
        zero = op.out.type.quant.zero if op.out.type.quant is not None else 0
        return Rescale(
            dst,
            self.tile.acc_view(),
            None if bias is None else self.bias_view(bias),
            multiplier,
            shift,
            zero,
            op.low,
            op.high,
            write_bounds=bounds,
            gain=gain,
            layer=self.layer.name,
        )

    def total_bias(self, op: ops.Requant) -> NDArray[np.int32] | None:
        """What to add after the gain: (sum + b)*gain + bias = sum*gain + (b*gain + bias).

        It wraps as the sums do, whose 32 bits hold the result.
        """
        if op.gain is None and op.bias is None:
            return self.bias
        total = np.zeros(1, np.int64) if self.bias is None else self.bias.astype(np.int64)
        if op.gain is not None:
            total = total * self.known(op.gain).reshape(-1).astype(np.int64)
        if op.bias is not None:
            total = total + self.known(op.bias).reshape(-1).astype(np.int64)
        return total.astype(np.int32) if total.any() else None

    def bias_view(self, bias: NDArray[np.int32]) -> View:
        """What is added to the sums, seen from the tile."""
        return self.channel_view(f"{self.layer.name}.bias", bias)

    def lookup(self, op: ops.Lut, dst: View, bounds: tuple[Bound, ...]) -> Lookup:
        """One table entry per element."""
        entries = self.known(op.table)
        table = self.builder.table(
            f"{op.out.name}.table", entries, self.tables, op.table.type.dtype
        )
        lowest, _ = int_range(op.x.type.dtype)
        view = View(table, Affine(), ((entries.size, 1),))
        src = self.held[op.x.name]
        return Lookup(dst, src, view, lowest, write_bounds=bounds, layer=self.layer.name)

    def combine(self, op: ops.Binary, dst: View, bounds: tuple[Bound, ...]) -> Combine:
        """A function of two tiles."""
        a, b = self.operand(op.a), self.operand(op.b)
        kinds = [value.type.quant for value in (op.a, op.b, op.out)]
        if None in kinds:
            raise InternalError(f"{op.out}: an operand is not quantized")
        (a_scale, a_zero), (b_scale, b_zero), (scale, zero) = (
            (kind.scale, kind.zero) for kind in kinds if kind is not None
        )
        low, high = int_range(op.out.type.dtype)
        return Combine(
            dst,
            a,
            b,
            op.fn,
            a_scale,
            a_zero,
            b_scale,
            b_zero,
            scale,
            zero,
            low if op.low is None else op.low,
            high if op.high is None else op.high,
            write_bounds=bounds,
            layer=self.layer.name,
        )

    def operand(self, value: Value) -> View:
        """The tile of a value that the layer made, of another tensor, or of a constant."""
        if value.name in self.held:
            return self.held[value.name]
        array = self.builder.constant(value)
        spread = value.type.elements != self.builder.op(self.layer).out.type.elements
        if array is not None and spread:
            return self.channel_view(value.name, array, value.type.dtype)
        strides = self.strides_of(value)
        view = self.tile.view(self.builder.value(value), strides)
        if not self.bounds and self.ahead is None:
            return view
        inner = self.local(value, slots=1 if self.ahead is None else 2)
        fetched = Copy(inner, view, read_bounds=self.bounds, layer=self.layer.name)
        if self.ahead is None:
            self.instrs.append(fetched)
        else:
            self.ahead.append(fetched)
        return inner

    def strides_of(self, value: Value) -> tuple[int, ...]:
        """Stride in `value` of each coordinate of the result; 0 where it is repeated."""
        result = self.tile.shape.result
        if value.type.elements == 1:
            return (0,) * len(result)
        if value.type.elements == math.prod(result):
            return _strides(result)
        return tuple(int(place == self.tile.shape.channel) for place in range(len(result)))

    def result(self, value: Value) -> View:
        """The tile in the whole tensor's buffer, or where it lands instead."""
        if self.landing is not None:
            return self.landing[value.name]
        return self.tile.view(self.builder.value(value), _strides(self.tile.shape.result))

    def local(self, value: Value, slots: int = 1) -> View:
        """A new local tile of the value's element type."""
        elements = math.prod(self.tile.extents)
        name = self.builder.local(
            f"{value.name}.tile", self.scratch, value.type.dtype, elements, slots
        )
        return self.tile.dense(name)

    def copy(self, dst: View, src: View) -> Copy:
        """A tile moved out; where it reaches past the result, nothing is written."""
        return Copy(dst, src, write_bounds=self.cut, layer=self.layer.name)

    def known(self, value: Value) -> Array:
        """A constant that an epilogue needs at compile time."""
        array = self.builder.constant(value)
        if array is None:
            raise InternalError(f"{value} must be a constant")
        return array

    def channel_view(self, name: str, array: Array, dtype: str = "") -> View:
        """A table of one entry per channel, or one for all, seen from the tile."""
        array = array.reshape(-1)
        shape = self.tile.shape
        strides = tuple(
            int(place == shape.channel and array.size > 1) for place in range(len(shape.result))
        )
        if 1 < array.size < self.channels:
            array = np.pad(array, (0, self.channels - array.size))
        return self.tile.view(self.builder.table(name, array, self.tables, dtype), strides)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides."""
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
