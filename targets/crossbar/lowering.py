"""Instructions of mapped layers: one stream for each layer, pipelined over rows of feature maps.

loop p {
  wait %x {the rows that this output row reads}
  loop q {
    patch %conv1.x0 <- %x               for each slice of each copy: its part of the window
    analog-mvm %conv1.sum0 <- ...       all arrays of the slice at once
    accumulate %conv1.sum0 <- ...       the slices' sums
    rescale %y <- %conv1.sum0           and the rest of the epilogue
  }
  signal %y
}
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.errors import FitError, raise_if
from cimc.ir.graph import Value
from cimc.ir.ops import Conv, Matmul
from cimc.ir.program import (
    Accumulate,
    Affine,
    Copy,
    Instr,
    Item,
    Loop,
    Patch,
    Program,
    Stream,
    View,
    var,
)
from cimc.ir.tiles import Layer, Tiles
from cimc.lowering import (
    Builder,
    ConvShape,
    OutAxis,
    OutTile,
    effective_bias,
    epilogue,
    vector_layer,
)
from cimc.target import Target
from cimc.targets.crossbar.analog_mvm import AnalogMvm
from cimc.targets.crossbar.estimate import layer_cycles
from cimc.targets.crossbar.mapping import Place, heavy_op, matrix_of, place_faults, places
from cimc.targets.crossbar.plan import Block, Plan, plan_of, spec_of
from cimc.targets.crossbar.residence import fitted
from cimc.targets.crossbar.rows import row_layers, row_stream
from cimc.targets.crossbar.sums import Share, alone, cores_of, holders, transfers

HOST = "host"  # weights come from outside the chip, once


def lower_tiles(tiles: Tiles, target: Target) -> Program:
    """The program of mapped tiles; addresses are still open."""
    raise_if(place_faults(tiles, target), FitError)
    builder = Builder(tiles.graph, target)
    by_rows = row_layers(tiles)
    for layer in tiles.layers:
        if layer.place == "macro":
            builder.add(_MacroLayer(builder, layer, target).stream())
        elif layer.name in by_rows:
            builder.add(row_stream(builder, layer))
        else:
            builder.add(vector_layer(builder, layer))
    cycles = [layer_cycles(layer, tiles, target) for layer in tiles.layers]
    return fitted(builder.program(tiles.target), target, cycles)


@dataclass(frozen=True, slots=True)
class _Position:
    """The output position of one copy, and the iteration it belongs to."""

    sample: Affine
    row: Affine
    column: Affine


@dataclass(frozen=True, slots=True)
class _Sums:
    """A core's sums of one copy, of the channels from `channel` on."""

    buffer: str
    channel: int

    def view(self, channel: int, channels: int) -> View:
        """Some of the sums."""
        return View(self.buffer, Affine(channel - self.channel), ((channels, 1),))


class _MacroLayer:
    """One layer under construction."""

    def __init__(self, builder: Builder, layer: Layer, target: Target) -> None:
        assert layer.nest is not None
        self.builder, self.layer, self.spec = builder, layer, spec_of(target)
        self.op: Conv | Matmul = heavy_op(layer, builder.producers)
        self.matrix = matrix_of(self.op, builder.producers, builder.graph.tensors)
        self.plan: Plan = plan_of(self.op, self.matrix, target)
        self.shape: ConvShape = self.plan.shape
        self.x: Value = self.op.x if isinstance(self.op, Conv) else self.op.a
        _, self.inputs, self.sums = target.spec.memory
        self.rows = layer.nest.option("rows", 1)
        self.columns = layer.nest.option("columns", 1)
        self.start = layer.nest.option("array", 0)
        shape = self.shape
        self.trips = {"n": shape.n, "p": shape.p // self.rows, "q": shape.q // self.columns}
        self.zero = self.x.type.quant.zero if self.x.type.quant is not None else 0
        self.bias = self._bias()
        self.weights = self._host_weights()

    def stream(self) -> Stream:
        """The layer's stream; its weights join the setup."""
        copies = self.rows * self.columns
        by_copy: dict[int, list[Place]] = {copy: [] for copy in range(copies)}
        for place in places(self.plan, copies, self.start, self.spec.array.per_core):
            by_copy[place.copy].append(place)
        # Step by step for all copies: units serve in program order, and one copy's later steps
        # must not hold up the other copies' earlier ones.
        steps: tuple[list[Item], ...] = ([], [], [], [], [])
        for copy, found in by_copy.items():
            for step, items in zip(steps, self._copy(copy, found), strict=True):
                step += items
        body = [item for step in steps for item in step]
        for name in self.layer.ops:
            self.builder.announce(self.builder.producers[name].out, self.shape.progress)
        return Stream(self.layer.name, self._loops(body))

    def _copy(self, copy: int, slices: list[Place]) -> tuple[list[Item], ...]:
        """One output position: products, fetches, sums in cores and across cores, epilogue."""
        at, name = self._position(copy), self.layer.name
        cores = cores_of(slices, self.spec.array.per_core)
        sums = {
            core: self._sums_of(
                core, min(b.channel for b in blocks), sum(b.channels for b in blocks)
            )
            for core, blocks in cores.items()
        }
        products: list[Item] = []
        inner: list[Item] = []
        for core, blocks in cores.items():
            for found in blocks.values():
                products += self._products(at, core, found, sums[core], inner)
        held = holders(cores)
        across: list[Item] = []
        ready = {share: sums[share.core] for share in alone(held)}
        for block, inside in held.items():
            for share, core in transfers(block, inside):
                other = sums[core].view(share.channel, share.channels)
                own = ready.get(share, sums[share.core]).view(share.channel, share.channels)
                if share not in ready:
                    ready[share] = self._sums_of(share.core, share.channel, share.channels)
                total = ready[share].view(share.channel, share.channels)
                across.append(Accumulate(total, own, other, layer=name))
        ahead: list[Item] = []
        last: list[Item] = []
        for share, held_sums in ready.items():
            last += self._epilogue(at, share, held_sums, ahead)
        return products, ahead, inner, across, last

    def _loops(self, body: list[Item]) -> tuple[Item, ...]:
        shown = sorted(self.builder.outside(self.layer))
        signals = [self.builder.signal(self.builder.producers[n].out, self.rows) for n in shown]
        row: tuple[Item, ...] = (Loop("q", self.trips["q"], tuple(body)),)
        rows = Loop("p", self.trips["p"], (*self._waits(), *row, *signals))
        return (Loop("n", self.trips["n"], (rows,)),) if self.shape.n > 1 else (rows,)

    def _waits(self) -> list[Item]:
        shape, found = self.shape, list[Item]()
        last = var("p") * self.rows + (self.rows - 1)  # row of the result
        read = last * shape.strides[0] + ((shape.r - 1) * shape.dilations[0] - shape.pads[0])
        sample = var("n") if shape.n > 1 else Affine()
        for value in self.builder.inputs(self.layer):
            count = last + 1 + sample * shape.p
            if value.name == self.x.name:
                count = read + 1 + sample * shape.h
            elif value.type.elements != self.op.out.type.elements:
                found += self.builder.wait(value)
                continue
            found += self.builder.wait(value, count, shape.progress.axis)
        return found

    def _position(self, copy: int) -> _Position:
        sample = var("n") if self.shape.n > 1 else Affine()
        row = var("p") * self.rows + copy // self.columns
        return _Position(sample, row, var("q") * self.columns + copy % self.columns)

    # --- products ---

    def _products(
        self, at: _Position, core: int, slices: list[Place], sums: _Sums, inner: list[Item]
    ) -> Iterator[Item]:
        """The products of one block's slices in one core; `inner` takes their additions."""
        name = self.layer.name
        for number, place in enumerate(slices):
            block = place.block
            x = self.builder.local(
                f"{name}.x",
                f"core{core}.{self.inputs}",
                self.x.type.dtype,
                place.rows,
                self._slots,
            )
            yield self._fetch(at, x, block.first + place.first, place.rows)
            if not number:
                yield self._mvm(x, place, sums.buffer, block.channel - sums.channel)
                continue
            part = self.builder.local(
                f"{name}.part", f"core{core}.{self.sums}", "i32", block.channels, self._slots
            )
            yield self._mvm(x, place, part, 0)
            total = sums.view(block.channel, block.channels)
            summand = View(part, Affine(), ((block.channels, 1),))
            inner.append(Accumulate(total, total, summand, layer=name))

    def _fetch(self, at: _Position, x: str, first: int, count: int) -> Instr:
        """Read a part of the window into input registers."""
        shape, strides = self.shape, self.shape.x_strides
        dst, source = View(x, Affine(), ((count, 1),)), self.builder.value(self.x)
        if shape.matmul:
            src = View(source, at.row * strides["h"] + first, ((count, 1),))
            return Copy(dst, src, layer=self.layer.name)
        channels = shape.g * shape.c
        elements = channels * shape.h * shape.w
        return Patch(
            dst,
            View(source, at.sample * strides["n"], ((elements, 1),)),
            Affine(first),
            at.row * shape.strides[0] + -shape.pads[0],
            at.column * shape.strides[1] + -shape.pads[1],
            (channels, shape.h, shape.w),
            (shape.r, shape.s),
            shape.dilations,
            self.zero,
            layer=self.layer.name,
        )

    def _mvm(self, x: str, place: Place, sums: str, offset: int) -> AnalogMvm:
        rows, columns = place.rows, place.block.channels
        cells = self._program(place)
        return AnalogMvm(
            View(sums, Affine(offset), ((rows, 0), (columns, 1))),
            View(x, Affine(), ((rows, 1), (columns, 0))),
            View(cells, Affine(), ((rows, columns), (columns, 1))),
            input_bits=self.plan.input_bits,
            signed=self.plan.signed,
            dac_bits=self.spec.dac.bits,
            weight_bits=self.plan.weight_bits,
            cell_bits=self.spec.array.cell_bits,
            adc_bits=self.spec.adc.bits,
            active_rows=self.spec.array.active_rows,
            encoding=self.spec.array.encoding,
            fresh=True,
            layer=self.layer.name,
        )

    # --- weights ---

    def _program(self, place: Place) -> str:
        """Copy a slice's weights into its arrays, once, before the first input."""
        rows, columns = place.rows, place.block.channels
        core, array = divmod(place.array, self.spec.array.per_core)
        memory = f"core{core}.array{array}"
        cells = self.builder.local(
            f"{self.layer.name}.cells", memory, self._weight_type, rows * columns
        )
        source, start, row, column = self.weights[place.block]
        self.builder.setup(
            Copy(
                View(cells, Affine(), ((rows, columns), (columns, 1))),
                View(source, Affine(start + place.first * row), ((rows, row), (columns, column))),
                layer=self.layer.name,
            )
        )
        return cells

    def _host_weights(self) -> dict[Block, tuple[str, int, int, int]]:
        """Where each block's weights are: table, start, strides of a row and of a column.

        Dense weights are read where the graph has them; those of groups are laid out in blocks,
        with zeros off the diagonal.
        """
        held = self.op.w if isinstance(self.op, Conv) else self.op.b
        if self.shape.g == 1 and held.type.dtype == self._weight_type:
            array = self.builder.constant(held)
            assert array is not None
            table = self.builder.table(f"{self.layer.name}.weights", array, HOST, held.type.dtype)
            is_turned = isinstance(self.op, Conv)  # [k, window], else [window, k]
            row, column = (1, self.shape.window) if is_turned else (self.shape.k, 1)
            return {
                block: (table, block.first * row + block.channel * column, row, column)
                for block in self.plan.blocks
            }
        laid: list[NDArray[np.integer]] = []
        starts: dict[Block, int] = {}
        total = 0
        for block in self.plan.blocks:
            cells = self.plan.weights(self.matrix, block)
            laid.append(cells.reshape(-1))
            starts[block] = total
            total += cells.size
        name = f"{self.layer.name}.weights"
        table = self.builder.table(name, np.concatenate(laid), HOST, self._weight_type)
        return {block: (table, start, block.channels, 1) for block, start in starts.items()}

    @property
    def _weight_type(self) -> str:
        return next(f"i{bits}" for bits in (2, 4, 8, 16) if self.plan.weight_bits <= bits)

    def _bias(self) -> NDArray[np.int32] | None:
        held = self.op.bias
        bias = None if held is None else self.builder.constant(held)
        return effective_bias(self.zero, self.matrix, bias)

    # --- results ---

    def _sums_of(self, core: int, channel: int, channels: int) -> _Sums:
        """A buffer for sums in a core."""
        memory = f"core{core}.{self.sums}"
        name = self.builder.local(f"{self.layer.name}.sum", memory, "i32", channels, self._slots)
        return _Sums(name, channel)

    def _epilogue(
        self, at: _Position, share: Share, sums: _Sums, ahead: list[Item]
    ) -> tuple[Instr, ...]:
        """From sums to results; other operands are fetched `ahead`, while arrays work."""
        first = ("k", Affine(share.channel))
        tile = OutTile(
            self.shape,
            sums.buffer,
            (OutAxis("k", share.channels, 1),),
            (("n", at.sample), first, ("p", at.row), ("q", at.column)),
            Affine(share.channel - sums.channel),
        )
        core = f"core{share.core}"
        return epilogue(
            self.builder,
            self.layer,
            tile,
            bias=self.bias,
            scratch=f"{core}.{self.sums}",
            tables=f"{core}.tables",
            loops=self.trips,
            ahead=ahead,
        )

    @property
    def _slots(self) -> int:
        """Registers are doubled where a next position can be prepared meanwhile."""
        return 2 if math.prod(self.trips.values()) > 1 else 1
