"""Layers whose weights are data: rows hold pairs of an output position and an output channel.

    loop c 64 {
      ap-load %x[...] {column=40, fresh=true}        # `chunk` inputs of every row
      ap-load %w[...] {column=168}                   # and their weights
      ap-run %fc.start[...] ... when first(c)        # sum <- 2**s
      ap-run %fc.words[...] ...                      # sum += x0*w0; sum += x1*w1; ...
    }
    ap-read %fc.sums[...] ...

Each row multiplies for itself, one keyed addition per weight bit, so the program is the same for
all of them and does not grow with the layer. The reduction is cut into `parts` that lie in
neighbouring rows; the read-out adds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cimc.ir.program import Affine, Bound, Item, Loop, View, var
from cimc.ir.tiles import Layer
from cimc.ir.types import int_range
from cimc.lowering import Builder, OutAxis, OutTile, epilogue, needed_bits
from cimc.target import Target
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.instructions import ApLoad, ApRead, ApRun
from cimc.targets.rtm_ap.isa import ACROSS, Slot, Word
from cimc.targets.rtm_ap.plan import Plan, too_large
from cimc.targets.rtm_ap.pricing import Price, Pricer
from cimc.targets.rtm_ap.regions import Geometry, Stack
from cimc.targets.rtm_ap.windows import needed, start_of
from cimc.targets.rtm_ap.work import Work, spec_of, zero_of

SUM, START = "sum", "start"


@dataclass(frozen=True, slots=True)
class Operands:
    """How inputs, weights and sums are held while a row multiplies.

    Stored are x + x_offset and w + w_offset. A sum starts at 2**start (0: at zero), so that it
    stays positive where inputs do; where inputs have a sign it is two's complement.
    """

    x_bits: int
    x_offset: int
    x_signed: bool
    w_bits: int
    w_offset: int
    w_signed: bool
    sum_bits: int
    start: int


def operands_of(work: Work, reduction: int) -> Operands:
    """Widths that hold every sum over `reduction` products.

    Inputs are lifted to be unsigned where the weights are known, since then the sum of the weights
    is, too; otherwise zero points are taken off.
    """
    if work.weights is not None:
        top = (1 << work.input_bits) - 1
        w_bits = needed_bits(work.weights)
        lowest, highest = (
            int(x) for x in (work.weights.min(initial=0), work.weights.max(initial=0))
        )
        w_offset = -zero_of(work.w.type)
        return _operands(
            0, top, work.input_bits, work.lift, lowest, highest, w_bits, w_offset, reduction
        )
    (x_low, x_high), (w_low, w_high) = (
        [bound - zero_of(kind) for bound in int_range(kind.dtype)]
        for kind in (work.x.type, work.w.type)
    )
    x_offset, w_offset = -zero_of(work.x.type), -zero_of(work.w.type)
    x_bits, w_bits = (_width(low, high) for low, high in ((x_low, x_high), (w_low, w_high)))
    return _operands(x_low, x_high, x_bits, x_offset, w_low, w_high, w_bits, w_offset, reduction)


def _operands(
    x_low: int,
    x_high: int,
    x_bits: int,
    x_offset: int,
    w_low: int,
    w_high: int,
    w_bits: int,
    w_offset: int,
    reduction: int,
) -> Operands:
    products = [x * w for x in (x_low, x_high) for w in (w_low, w_high)]
    low, high = reduction * min(0, *products), reduction * max(0, *products)
    signed = x_low < 0
    start = 0
    if not signed and low < 0:
        start = (-low - 1).bit_length()
        low, high = 0, high + (1 << start)
    bits = _width(low, high)
    return Operands(x_bits, x_offset, signed, w_bits, w_offset, w_low < 0, bits, start)


def _width(low: int, high: int) -> int:
    """Bits of an unsigned number, or of two's complement where there are negative ones."""
    return max(1, high.bit_length()) if low >= 0 else max(high, -low - 1).bit_length() + 1


@dataclass(frozen=True, slots=True)
class Room:
    """Places of the sum, of a chunk's inputs and of their weights."""

    sum: Slot
    x: Stack
    w: Stack

    def slots(self, count: int) -> isa.Code:
        """The sum, then inputs, then weights."""
        first = isa.slot_table([self.sum])
        return np.concatenate([first, self.x.table(count), self.w.table(count)])


def room_for(held: Operands, values: int, geometry: Geometry) -> Room | None:
    """Inputs and weights side by side as far as columns go, then in further domains."""
    free = geometry.columns - geometry.carries - held.sum_bits
    abreast = free // (held.x_bits + held.w_bits)
    if abreast < 1 or abreast * geometry.domains < values:
        return None
    levels = -(-values // abreast)
    banks = -(-values // levels)
    x = Stack(held.sum_bits, held.x_bits, ACROSS, banks, levels)
    return Room(
        Slot(0, 0, ACROSS, held.sum_bits), x, Stack(x.end, held.w_bits, ACROSS, banks, levels)
    )


def words_of(held: Operands, count: int) -> dict[str, isa.Code]:
    """The words that begin a sum, and those that add `count` products to it."""
    start = [Word(isa.INTO, 0, held.sum_bits)]
    if held.start:
        start.append(Word(isa.ONE, 0, shift=held.start))
    flags = (isa.NOT if held.w_signed else 0) | (isa.DEAD if held.x_signed else 0)
    products = [Word(isa.ONTO, 0)]
    for place in range(count):
        products.append(Word(isa.HOLD, 1 + place))
        products.append(Word(isa.MUL, 1 + count + place, held.sum_bits, 0, flags))
    return {START: isa.encoded(start), SUM: isa.encoded(products)}


@dataclass(frozen=True, slots=True)
class Reduction:
    """How the input channels of a window are cut: parts in rows, steps in time, `step` at once."""

    parts: int
    part: int  # channels of a part, a multiple of `step`
    step: int
    window: int  # r * s

    @property
    def trips(self) -> int:
        """Steps in time."""
        return self.part // self.step

    @property
    def values(self) -> int:
        """Inputs of a row at a time."""
        return self.step * self.window


def reduction_of(work: Work, plan: Plan) -> Reduction:
    """The cut that a plan asks for."""
    window = work.shape.r * work.shape.s
    part = -(-work.shape.c // plan.tile.parts)
    step = max(1, min(part, plan.style.chunk // window))
    return Reduction(plan.tile.parts, -(-part // step) * step, step, window)


def lower_multiply(
    builder: Builder, layer: Layer, work: Work, plan: Plan, target: Target
) -> Iterator[Item]:
    """One tile of rows: all its products, its sums, its epilogue."""
    made = _Multiply(builder, layer, work, plan, target)
    loop = (*made.loads(), *made.runs())
    trips = made.cut.trips
    yield from (Loop("c", trips, loop),) if trips > 1 else loop
    yield from made.results()


class _Multiply:
    """The instructions of one layer."""

    def __init__(
        self, builder: Builder, layer: Layer, work: Work, plan: Plan, target: Target
    ) -> None:
        self.builder, self.layer, self.work, self.plan = builder, layer, work, plan
        self.ap, self.target = spec_of(target).ap, target
        self.size = (self.ap.rows, self.ap.columns, self.ap.domains)
        self.arrays = plan.arrays(self.ap.rows)
        self.cut = reduction_of(work, plan)
        self.held = operands_of(work, self.cut.part * self.cut.window)
        geometry = Geometry(self.ap.columns, self.ap.domains, self.ap.carries)
        room = room_for(self.held, self.cut.values, geometry)
        if room is None:
            each = self.held.x_bits + self.held.w_bits
            abreast = -(-self.cut.values // self.ap.domains)
            most = self.held.sum_bits + abreast * each + self.ap.carries
            raise too_large(
                layer.name,
                f"{most} columns: {self.held.sum_bits} for a sum, {abreast} x {each} for "
                f"{self.cut.values} inputs with their weights, {self.ap.carries} for carries",
                f"{self.ap.columns} columns of {self.ap.domains} domains ({target.path}: ap)",
                f"raise ap.columns to {most}",
            )
        self.room = room
        self.words = words_of(self.held, self.cut.values)
        self.slots = room.slots(self.cut.values)
        self.pricer = Pricer(self.ap)
        if self.cut.trips > 1:
            self.steady()

    def steady(self) -> None:
        """Bring the columns to where they are after the first step in time."""
        self.pricer.touched(self.slots[1:])
        self.pricer.code(self.words[SUM], self.slots)

    def loads(self) -> Iterator[ApLoad]:
        """Inputs and weights of one step in time."""
        x, w = self.room.x, self.room.w
        view, bounds = self._x_view()
        yield self._load(view, bounds, x, self.held.x_offset, self.work.zero)
        view, bounds = self._w_view()
        yield self._load(view, bounds, w, self.held.w_offset, zero_of(self.work.w.type))

    def _load(
        self, view: View, bounds: tuple[Bound, ...], stack: Stack, offset: int, fill: int
    ) -> ApLoad:
        load = ApLoad(
            view,
            6,
            0,
            self.arrays,
            self.size,
            stack.column,
            stack.bits,
            stack.banks,
            offset=offset,
            fill=fill,
            read_bounds=bounds,
            fetched=view.elements,
            layer=self.layer.name,
        )
        price = self.pricer.touched(load.slots())
        return replace(load, shifts=price.shifts, moves=price.moves, checks=price.checks)

    def _starts(self) -> dict[str, Affine]:
        return {dim: start_of(dim, self.plan.tile, self.work.shape) for dim in "ngpqk"}

    def _channel(self) -> Affine:
        return var("c") * self.cut.step if self.cut.trips > 1 else Affine()

    def _trips(self) -> dict[str, int]:
        return {**self.plan.tile.trips(self.work.shape), "c": self.cut.trips}

    def _x_view(self) -> tuple[View, tuple[Bound, ...]]:
        """Axes n, g, p, q, k, part, then c, r, s."""
        s, xs, tile, cut, at = (
            self.work.shape, self.work.shape.x_strides, self.plan.tile, self.cut, self._starts()
        )  # fmt: skip
        row = at["p"] * s.strides[0] + -s.pads[0]
        column = at["q"] * s.strides[1] + -s.pads[1]
        channel = self._channel()
        dims = (
            (tile.n, xs["n"]),
            (tile.g, xs["g"]),
            (tile.p, s.strides[0] * xs["h"]),
            (tile.q, s.strides[1] * xs["w"]),
            (tile.k, 0),
            (cut.parts, cut.part * xs["c"]),
            (cut.step, xs["c"]),
            (s.r, s.dilations[0] * xs["h"]),
            (s.s, s.dilations[1] * xs["w"]),
        )
        offset = at["n"] * xs["n"] + at["g"] * xs["g"] + channel * xs["c"]
        offset = offset + row * xs["h"] + column * xs["w"]
        bounds = (
            Bound(at["n"], (1, 0, 0, 0, 0, 0, 0, 0, 0), s.n),
            Bound(at["g"], (0, 1, 0, 0, 0, 0, 0, 0, 0), s.g),
            Bound(row, (0, 0, s.strides[0], 0, 0, 0, 0, s.dilations[0], 0), s.h),
            Bound(column, (0, 0, 0, s.strides[1], 0, 0, 0, 0, s.dilations[1]), s.w),
            Bound(channel, (0, 0, 0, 0, 0, cut.part, 1, 0, 0), s.c),
        )
        view = View(self.builder.value(self.work.x), offset, dims)
        return view, needed(bounds, dims, self._trips())

    def _w_view(self) -> tuple[View, tuple[Bound, ...]]:
        """The same axes; weights lie as [g*k, c, r, s], those of a matmul as [g, c, k]."""
        s, tile, cut, at = self.work.shape, self.plan.tile, self.cut, self._starts()
        if s.matmul:
            g, k, c, r, w = s.c * s.k, 1, s.k, 0, 0
        else:
            g, k, c, r, w = s.k * s.window, s.window, s.r * s.s, s.s, 1
        channel = self._channel()
        dims = (
            (tile.n, 0),
            (tile.g, g),
            (tile.p, 0),
            (tile.q, 0),
            (tile.k, k),
            (cut.parts, cut.part * c),
            (cut.step, c),
            (s.r, r),
            (s.s, w),
        )
        bounds = (
            Bound(at["g"], (0, 1, 0, 0, 0, 0, 0, 0, 0), s.g),
            Bound(at["k"], (0, 0, 0, 0, 1, 0, 0, 0, 0), s.k),
            Bound(channel, (0, 0, 0, 0, 0, cut.part, 1, 0, 0), s.c),
        )
        offset = at["g"] * g + at["k"] * k + channel * c
        view = View(self.builder.value(self.work.w), offset, dims)
        return view, needed(bounds, dims, self._trips())

    def runs(self) -> Iterator[ApRun]:
        """The start of the sums in the first step, then the products."""
        slots = self.builder.table(f"{self.layer.name}.slots", self.slots, dtype="u32")
        for name, code in self.words.items():
            price = self.pricer.code(code, self.slots)
            words = self.builder.table(f"{self.layer.name}.{name}", code, dtype="u32")
            first = name == START and self.cut.trips > 1
            yield self._run(words, len(code), slots, price, first, name == START)

    def _run(
        self, words: str, count: int, slots: str, price: Price, first: bool, fresh: bool
    ) -> ApRun:
        return ApRun(
            View(words, Affine(), ((count, 1),)),
            View(slots, Affine(), ((len(self.slots), 1),)),
            0,
            self.arrays,
            self.size,
            self.ap.carries,
            fresh=fresh,
            passes=price.passes,
            clears=price.writes,
            searched=price.searched,
            written=price.written,
            changed=price.changed,
            shifts=price.shifts,
            moves=price.moves,
            checks=price.checks,
            when=(("c", "first"),) if first else (),
            layer=self.layer.name,
        )

    def results(self) -> Iterator[Item]:
        """Sums over the parts, corrected, then the epilogue."""
        tile, s = self.plan.tile, self.work.shape
        memory = list(self.target.spec.memory)[1]
        sizes = [getattr(tile, dim) for dim in "ngpqk"]
        strides = [int(np.prod(sizes[place + 1 :])) for place in range(5)]
        acc = self.builder.local(f"{self.layer.name}.sums", memory, "i32", int(np.prod(sizes)))
        axes = tuple(
            OutAxis(dim, size, stride)
            for dim, size, stride in zip("ngpqk", sizes, strides, strict=True)
        )
        out = OutTile(s, acc, axes, tuple(self._starts().items()))
        view = out.acc_view()
        read = ApRead(
            View(view.buffer, view.offset, ((1, 0), *view.dims)),
            None,
            0,
            self.arrays,
            self.size,
            0,
            self.held.sum_bits,
            parts=self.cut.parts,
            signed=self.held.x_signed,
            layer=self.layer.name,
        )
        price = self.pricer.touched(read.slots()) + self.pricer.home()
        yield replace(read, shifts=price.shifts, moves=price.moves, checks=price.checks)
        yield from epilogue(
            self.builder,
            self.layer,
            out,
            bias=self._bias(),
            scratch=memory,
            tables=memory,
            loops=tile.trips(s),
        )

    def _bias(self) -> np.ndarray[tuple[int], np.dtype[np.int32]] | None:
        """What the sums lack: bias, zero points, and the start of every part."""
        work, starts = self.work, self.cut.parts << self.held.start if self.held.start else 0
        if work.weights is not None:
            return work.corrected(np.full(len(work.weights), starts), work.weights, 0).astype(
                np.int32
            )
        if work.bias is None and not starts:
            return None
        bias = np.zeros(work.shape.k, np.int64) if work.bias is None else work.bias
        return (bias - starts).astype(np.int32)
