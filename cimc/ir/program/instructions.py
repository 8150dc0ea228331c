"""The instructions that every machine has, each with its meaning in plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, VerifyError
from cimc.ir.evaluate import evaluate_op
from cimc.ir.evaluate.elementwise import combined
from cimc.ir.evaluate.numbers import Numbers, requantized
from cimc.ir.graph import Op, Value, operands
from cimc.ir.program.structure import Affine, Bound, Instr, Machine, View, register_instr
from cimc.ir.types import Array, Quant, Type

Mask = NDArray[np.bool_]


def whole(value: Value) -> View:
    """The buffer of a graph value, all of it, in the value's shape."""
    dims: list[tuple[int, int]] = []
    stride = 1
    for extent in reversed(value.shape):
        dims.append((extent, stride))
        stride *= extent
    return View(value.name, Affine(), tuple(reversed(dims)))


def inside(bounds: tuple[Bound, ...], view: View, loops: Mapping[str, int]) -> Mask | None:
    """Where all coordinates stay within their limits, by the view's axes; None: everywhere."""
    if not bounds:
        return None
    found: Mask = np.ones(view.extents, np.bool_)
    for bound in bounds:
        coordinate = np.asarray(bound.start.at(loops))
        for axis, (extent, step) in enumerate(zip(view.extents, bound.steps, strict=True)):
            shape = [-1 if axis == other else 1 for other in range(len(view.dims))]
            coordinate = coordinate + step * np.arange(extent).reshape(shape)
        found &= (coordinate >= 0) & (coordinate < bound.limit)
    return found


def wrapped(sums: NDArray[np.int64]) -> NDArray[np.int32]:
    """Sums in the 32 bits of an accumulator, which wraps as adders do."""
    return sums.astype(np.int32)


def _ints(array: Array) -> NDArray[np.int64]:
    return cast(NDArray[np.int64], array.astype(np.int64))


@register_instr
@dataclass(frozen=True, slots=True)
class Copy(Instr):
    """dst[i...] = src[i...]; `fill` where a read bound fails, nothing where a write bound fails."""

    dst: View
    src: View
    fill: int = 0
    read_bounds: tuple[Bound, ...] = ()
    write_bounds: tuple[Bound, ...] = ()
    mnemonic: ClassVar[str] = "copy"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Read where both kinds of bounds allow, write where the write bounds allow."""
        read = inside(self.read_bounds, self.src, loops)
        write = inside(self.write_bounds, self.dst, loops)
        wanted = write if read is None else read if write is None else read & write
        values = machine.read(self.src, loops, wanted)
        if read is not None:
            values = np.where(read, values, np.asarray(self.fill))
        machine.write(self.dst, loops, values, write)


@register_instr
@dataclass(frozen=True, slots=True)
class Fill(Instr):
    """dst[i...] = value."""

    dst: View
    value: int = 0
    mnemonic: ClassVar[str] = "fill"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """The same value everywhere."""
        machine.write(self.dst, loops, np.asarray(self.value))


@register_instr
@dataclass(frozen=True, slots=True)
class Patch(Instr):
    """Gather one run of a convolution window (im2col done by the address generator).

    Element j of dst is e = first + j of the window flattened as (channel, r, s): the feature map's
    element (channel, row + r*dilation, column + s*dilation), or `fill` where that lies outside, or
    beyond the last channel.
    """

    dst: View  # one axis
    src: View  # one axis over the whole feature map of one sample, C*H*W elements
    first: Affine  # first element of the flattened window
    row: Affine  # of the window's first element, may be negative
    column: Affine
    shape: tuple[int, int, int]  # C, H, W
    kernel: tuple[int, int]  # R, S
    dilation: tuple[int, int]
    fill: int
    mnemonic: ClassVar[str] = "patch"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Read all of the window's channels that the run touches, then cut the run out."""
        (channels, height, width), (rows, columns) = self.shape, self.kernel
        first, row, column = (at.at(loops) for at in (self.first, self.row, self.column))
        ((_, stride),) = self.src.dims
        ((count, _),) = self.dst.dims
        begin, end = first // (rows * columns), -(-(first + count) // (rows * columns))
        channel, r, s = np.ogrid[begin:end, :rows, :columns]
        y, x = row + r * self.dilation[0], column + s * self.dilation[1]
        e = (channel * rows + r) * columns + s
        run = (e >= first) & (e < first + count)
        real = (channel < channels) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        window = View(
            self.src.buffer,
            self.src.offset + stride * ((begin * height + row) * width + column),
            (
                (end - begin, stride * height * width),
                (rows, stride * width * self.dilation[0]),
                (columns, stride * self.dilation[1]),
            ),
        )
        values = machine.read(window, loops, run & real)
        machine.write(self.dst, loops, np.where(real, values, np.asarray(self.fill))[run])


@register_instr
@dataclass(frozen=True, slots=True)
class Mvm(Instr):
    """acc[...] (+)= sum of x[...] * w[...] over a common iteration space.

    All three views have the same extents; axes of stride 0 in acc are summed, its other axes never
    meet. `fresh` starts from zero instead of from acc. This is the ideal, exact product; a machine
    kind whose arrays compute something else has an instruction of its own.
    """

    acc: View  # i32
    x: View
    w: View  # resident in an array
    fresh: bool = False
    mnemonic: ClassVar[str] = "mvm"
    updates: ClassVar[tuple[str, ...]] = ("acc",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Exact products and sums."""
        x, w = _ints(machine.read(self.x, loops)), _ints(machine.read(self.w, loops))
        summed = tuple(axis for axis, (_, stride) in enumerate(self.acc.dims) if not stride)
        sums = np.sum(x * w, axis=summed, keepdims=True)
        dims = tuple((extent if stride else 1, stride) for extent, stride in self.acc.dims)
        place = View(self.acc.buffer, self.acc.offset, dims)
        if not self.fresh:
            sums = sums + _ints(machine.read(place, loops))
        machine.write(place, loops, wrapped(sums))


@register_instr
@dataclass(frozen=True, slots=True)
class Accumulate(Instr):
    """dst[i...] = a[i...] + b[i...] on exact sums (i32)."""

    dst: View
    a: View
    b: View
    mnemonic: ClassVar[str] = "accumulate"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """One addition for each element."""
        a, b = (machine.read(view, loops) for view in (self.a, self.b))
        machine.write(self.dst, loops, wrapped(_ints(a) + _ints(b)))


@register_instr
@dataclass(frozen=True, slots=True)
class Rescale(Instr):
    """The graph's `requant` on a tile: dst = requant(acc * gain + bias), entry by entry of tables.

    Tables that several elements share have stride 0. `zero`, `low` and `high` as in
    `cimc.ir.ops.Requant`; a missing shift means float32 rounding, a missing gain is 1.
    """

    dst: View
    acc: View  # i32
    bias: View | None  # i32
    multiplier: View  # f32, or i32 with a shift
    shift: View | None  # i32
    zero: int
    low: int
    high: int
    write_bounds: tuple[Bound, ...] = ()
    gain: View | None = None  # i32
    mnemonic: ClassVar[str] = "rescale"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """The evaluator's arithmetic on each element."""
        within = inside(self.write_bounds, self.dst, loops)
        sums = _ints(machine.read(self.acc, loops, within))
        if self.gain is not None:
            sums = sums * _ints(machine.read(self.gain, loops, within))
        if self.bias is not None:
            sums = sums + _ints(machine.read(self.bias, loops, within))
        multiplier = cast(NDArray[np.float32], machine.read(self.multiplier, loops, within))
        shift = None
        if self.shift is not None:
            shift = _ints(machine.read(self.shift, loops, within))
        out = requantized(wrapped(sums), multiplier, shift, self.zero, self.low, self.high)
        machine.write(self.dst, loops, out, within)


@register_instr
@dataclass(frozen=True, slots=True)
class Lookup(Instr):
    """dst = table[src - lowest]: the graph's `lut` on a tile."""

    dst: View
    src: View
    table: View  # one axis, all entries
    lowest: int
    write_bounds: tuple[Bound, ...] = ()
    mnemonic: ClassVar[str] = "lookup"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Look every element up."""
        within = inside(self.write_bounds, self.dst, loops)
        entries = _ints(machine.read(self.src, loops, within)) - self.lowest
        if within is not None:
            entries = np.where(within, entries, 0)
        ((extent, _),) = self.table.dims
        if entries.size and not 0 <= entries.min() <= entries.max() < extent:
            have = f"{entries.min()} .. {entries.max()}"
            raise VerifyError(Fault("lookup beyond its table", f"0 .. {extent - 1}", have))
        machine.write(self.dst, loops, machine.read(self.table, loops)[entries], within)


@register_instr
@dataclass(frozen=True, slots=True)
class Combine(Instr):
    """The graph's quantized `binary` (fn add, sub, mul ...) on a tile, clamped to low .. high.

    The buffers' element types with these scales and zero points are the types of its values.
    """

    dst: View
    a: View
    b: View
    fn: str
    a_scale: float
    a_zero: int
    b_scale: float
    b_zero: int
    scale: float
    zero: int
    low: int
    high: int
    write_bounds: tuple[Bound, ...] = ()
    mnemonic: ClassVar[str] = "combine"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """The evaluator's arithmetic on each element."""
        within = inside(self.write_bounds, self.dst, loops)
        a, b = (cast(Numbers, machine.read(view, loops, within)) for view in (self.a, self.b))
        quants = (
            Quant(self.a_scale, self.a_zero),
            Quant(self.b_scale, self.b_zero),
            Quant(self.scale, self.zero),
        )
        held = (self.a, self.b, self.dst)
        kinds = [
            Type(machine.dtype(view.buffer), (), quant)
            for view, quant in zip(held, quants, strict=True)
        ]
        with np.errstate(all="ignore"):
            out = combined(self.fn, a, b, (kinds[0], kinds[1], kinds[2]), self.low, self.high)
        machine.write(self.dst, loops, out, within)


@register_instr
@dataclass(frozen=True, slots=True)
class VectorOp(Instr):
    """A whole graph op on whole tensors in the vector unit; its values are buffers of their names.

    Meaning: `cimc.ir.evaluate` of that op. Constants among its operands are buffers, too.
    """

    op: Op
    unit: str = "vector"  # "vector", or "host" where the person allowed it
    mnemonic: ClassVar[str] = "vector"

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Read all operands, evaluate, write the result."""
        held = {value.name: machine.read(whole(value), loops) for value in operands(self.op)}
        machine.write(whole(self.op.out), loops, evaluate_op(self.op, held))


@register_instr
@dataclass(frozen=True, slots=True)
class Signal(Instr):
    """Progress on `buffer`: `count` more parts of it are written."""

    buffer: str
    count: int = 1
    mnemonic: ClassVar[str] = "signal"


@register_instr
@dataclass(frozen=True, slots=True)
class Wait(Instr):
    """Go on when progress on `buffer` has reached min(count, limit)."""

    buffer: str
    count: Affine
    limit: int
    mnemonic: ClassVar[str] = "wait"
