"""Mapped layers as instructions, in one stream.

loop p 4 {
  ap-load %x[...] {array=0, arrays=13, copies=2, apart=16, ...}     # chunk 0 of all inputs
  ap-run %conv1.words[0; 412:1], %conv1.slots[...] {array=0, ...}   # output channels 0 .. 31
  ap-run %conv1.words.1[0; 397:1], ... {array=16, ...}              # output channels 32 .. 63
  ap-load ...                                                       # chunk 1
  ...
  ap-read %conv1.sums[...], %conv1.offset {array=0, ...}
  rescale %y[...], %conv1.sums[...], ...
}
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, InternalError, VerifyError
from cimc.ir.program import Affine, Instr, Item, Program, Stream, View
from cimc.ir.sums import Sums
from cimc.ir.tiles import Layer, Tiles
from cimc.lowering import Builder, OutAxis, OutTile, Progress, epilogue, vector_items
from cimc.passes._blocks import Block, blocks, chunks
from cimc.passes._signed_sums import stands_for, without
from cimc.target import Target
from cimc.targets.rtm_ap.codegen import (
    ColumnCode,
    chunks_of,
    codes_of_sums,
    demand_of,
    part_of,
)
from cimc.targets.rtm_ap.instructions import ApLoad, ApRead, ApRun
from cimc.targets.rtm_ap.multiply import lower_multiply
from cimc.targets.rtm_ap.plan import Plan, Tile, geometry_of, plan_of, too_large
from cimc.targets.rtm_ap.pricing import Pricer
from cimc.targets.rtm_ap.regions import shortage
from cimc.targets.rtm_ap.windows import distinct, looped, start_of, window_view
from cimc.targets.rtm_ap.work import Work, spec_of, work_of

Ints = NDArray[np.int64]


def lower_tiles(tiles: Tiles, target: Target) -> Program:
    """One stream that runs all layers in order."""
    builder = Builder(tiles.graph, target)
    body: list[Item] = []
    for layer in tiles.layers:
        if layer.place == "macro":
            body += lower_layer(builder, layer, tiles, target)
        else:
            body += vector_items(builder, layer)
    builder.add(Stream("main", tuple(body)))
    return builder.program(tiles.target)


def lower_layer(builder: Builder, layer: Layer, tiles: Tiles, target: Target) -> tuple[Item, ...]:
    """The loops of one macro layer."""
    if layer.nest is None:
        raise InternalError(f"macro layer {layer.name} has no nest")
    work, plan = work_of(layer, tiles), plan_of(layer.nest)
    if plan.kind == "multiply":
        body = tuple(lower_multiply(builder, layer, work, plan, target))
    else:
        body = tuple(_Program(builder, layer, work, plan, tiles, target).body())
    items: list[Item] = [wait for value in builder.inputs(layer) for wait in builder.wait(value)]
    items += looped(body, plan.tile, work.shape)
    for name in sorted(builder.outside(layer)):
        value = builder.producers[name].out
        builder.announce(value, Progress("", 1))
        items.append(builder.signal(value))
    return tuple(items)


def block(work: Work, piece: Block) -> Ints:
    """The weights of a piece as [output channels, input channels * r * s]; 0 between groups."""
    s = work.shape
    if work.weights is None:
        raise InternalError("weights that are computed cannot be a program")
    window = s.r * s.s
    found = np.zeros(
        (piece.k_end - piece.k_begin, (piece.c_end - piece.c_begin) * window), np.int64
    )
    for row, k in enumerate(range(piece.k_begin, piece.k_end)):
        first = k // s.k * s.c  # of the input channels of its conv group
        begin, end = max(piece.c_begin, first), min(piece.c_end, first + s.c)
        if begin < end:
            found[row, (begin - piece.c_begin) * window : (end - piece.c_begin) * window] = (
                work.weights[k, (begin - first) * window : (end - first) * window]
            )
    return found


@dataclass(frozen=True)
class Group:
    """One group of arrays: its part of the weights, its code, where it lies."""

    piece: Block
    code: ColumnCode
    words: str  # buffer
    array: int
    round: int  # groups of one round work side by side
    pricer: Pricer


class _Program:
    """A layer whose weights are its program."""

    def __init__(
        self, builder: Builder, layer: Layer, work: Work, plan: Plan, tiles: Tiles, target: Target
    ) -> None:
        self.builder, self.layer, self.work, self.plan = builder, layer, work, plan
        self.target, self.ap = target, spec_of(target).ap
        self.size = (self.ap.rows, self.ap.columns, self.ap.domains)
        self.arrays = plan.arrays(self.ap.rows)
        self.sums_memory = list(target.spec.memory)[1]
        self.sums = {
            (piece.outputs, piece.channels): piece.sums
            for piece in tiles.sums
            if piece.layer == layer.name
        }
        self.parts = blocks(work.shape, plan.k_groups, plan.c_groups)
        self.groups = self._groups()
        self.slots = self.groups[0].code.regions.slots()
        self.slot_buffer = builder.table(f"{layer.name}.slots", self.slots, dtype="u32")

    def _groups(self) -> list[Group]:
        flat = [piece for row in self.parts for piece in row]
        groups = [self._sums_of(piece) for piece in flat]
        codes = codes_of_sums(
            groups,
            self.work.input_bits,
            geometry_of(self.target),
            self.plan.style,
        )
        if codes is None:
            have = (
                f"{self.ap.columns} columns of {self.ap.domains} domains ({self.target.path}: ap)"
            )
            parts = [
                [part_of(without(sums, 0), self.work.input_bits) for sums in group]
                for group in groups
            ]
            need, help_ = shortage(
                demand_of(parts, self.work.input_bits),
                geometry_of(self.target),
                self.plan.style.input_layout,
            )
            raise too_large(self.layer.name, need, have, f"run the pass map again, or {help_}")
        apart = -(-self.arrays // self.ap.arrays) * self.ap.arrays
        space = max(1, self.ap.arrays * self.target.spec.cores // apart)
        abreast = max(1, space // len(self.parts[0])) * len(self.parts[0])
        found = []
        for number, (piece, code) in enumerate(zip(flat, codes, strict=True)):
            name = f"{self.layer.name}.words"
            words = self.builder.table(name, code.words, dtype="u32")
            turn, place = divmod(number, abreast)
            found.append(Group(piece, code, words, place * apart, turn, Pricer(self.ap)))
        return found

    def _sums_of(self, piece: Block) -> list[Sums]:
        """The sums of each chunk, as passes left them, or else straight from the weights."""
        weights = block(self.work, piece)
        if not self.sums:
            return chunks_of(weights, self.plan.style)
        window = self.work.shape.r * self.work.shape.s
        found = []
        for span in chunks(piece, max(1, self.plan.style.chunk // window)):
            sums = self.sums.get(((piece.k_begin, piece.k_end), span))
            begin, end = ((channel - piece.c_begin) * window for channel in span)
            if sums is None or not stands_for(sums, weights[:, begin:end]):
                where = f"sums of %{self.layer.name}, outputs {piece.k_begin}:{piece.k_end}, "
                raise VerifyError(
                    Fault(
                        f"{where}channels {span[0]}:{span[1]}, are not its weights",
                        need="sums as the mapping cuts the weights, each of the same value",
                        have="other ones" if sums is not None else "none",
                        help="run fold-weights and what follows it again, after map",
                        code="CIM3203",
                    )
                )
            found.append(sums)
        return found

    def body(self) -> Iterator[Item]:
        """One tile of output positions."""
        for turn in range(1 + self.groups[-1].round):
            groups = [group for group in self.groups if group.round == turn]
            chunks = max(group.code.chunks for group in groups)
            for number in range(chunks):
                here = [group for group in groups if number < group.code.chunks]
                yield from self._loads(here, number)
                yield from (self._run(group, number) for group in here)
            yield from self._results(groups)

    def _channels(self, group: Group, number: int) -> tuple[int, int]:
        """Input channels of a chunk."""
        window = self.work.shape.r * self.work.shape.s
        step = self.plan.style.chunk // window
        begin = group.piece.c_begin + number * step
        return begin, min(begin + step, group.piece.c_end)

    def _loads(self, groups: Sequence[Group], number: int) -> Iterator[Instr]:
        """One load for all groups that read the same input channels."""
        shared: dict[tuple[int, int], list[Group]] = {}
        for group in groups:
            shared.setdefault(self._channels(group, number), []).append(group)
        for channels, readers in shared.items():
            arrays = [group.array for group in readers]
            steps = {b - a for a, b in itertools.pairwise(arrays)}
            if len(steps) > 1:
                raise InternalError(f"groups of {self.layer.name} are not evenly spaced")
            yield self._load(readers, channels, number, steps.pop() if steps else 0)

    def _load(
        self, readers: Sequence[Group], channels: tuple[int, int], number: int, apart: int
    ) -> ApLoad:
        work, stack = self.work, readers[0].code.regions.inputs
        view, bounds = window_view(work, self.builder.value(work.x), self.plan.tile, channels)
        load = ApLoad(
            view,
            3,
            readers[0].array,
            self.arrays,
            self.size,
            stack.column,
            stack.bits,
            stack.banks,
            layout=stack.layout,
            offset=work.lift,
            fill=work.zero,
            read_bounds=bounds,
            copies=len(readers),
            apart=apart,
            fresh=number == 0,
            fetched=distinct(work, self.plan.tile, channels[1] - channels[0]),
            layer=self.layer.name,
        )
        prices = [group.pricer.touched(load.slots()) for group in readers]
        return replace(
            load,
            shifts=max(price.shifts for price in prices),
            moves=sum(price.moves for price in prices),
            checks=sum(price.checks for price in prices),
        )

    def _run(self, group: Group, number: int) -> ApRun:
        code = group.code.chunk(number)
        price = group.pricer.code(code, self.slots)
        return ApRun(
            View(group.words, Affine(int(group.code.starts[number])), ((len(code), 1),)),
            View(self.slot_buffer, Affine(), ((len(self.slots), 1),)),
            group.array,
            self.arrays,
            self.size,
            self.ap.carries,
            passes=price.passes,
            clears=price.writes,
            searched=price.searched,
            written=price.written,
            changed=price.changed,
            shifts=price.shifts,
            moves=price.moves,
            checks=price.checks,
            fresh=number == 0,
            layer=self.layer.name,
        )

    def _results(self, groups: Sequence[Group]) -> Iterator[Instr]:
        """Sums of each range of output channels, over all its groups, then the epilogue."""
        ranges: dict[tuple[int, int], list[Group]] = {}
        for group in groups:
            ranges.setdefault((group.piece.k_begin, group.piece.k_end), []).append(group)
        for (begin, end), held in ranges.items():
            tile = out_tile(self.builder, self.layer, self.work, self.plan.tile, begin, end - begin)
            offset = np.sum([group.code.offset for group in held], axis=0)
            weights = np.concatenate([block(self.work, group.piece) for group in held], axis=1)
            table = self.work.corrected(offset, weights, begin)
            for number, group in enumerate(held):
                yield self._read(group, tile, table if number == 0 else None)
            yield from epilogue(
                self.builder,
                self.layer,
                tile,
                bias=None,
                scratch=self.sums_memory,
                tables=self.sums_memory,
                loops=self.plan.tile.trips(self.work.shape),
            )

    def _read(self, group: Group, tile: OutTile, table: Ints | None) -> ApRead:
        room, offset = group.code.regions, None
        if table is not None:
            name = self.builder.table(f"{self.layer.name}.offset", table, self.sums_memory, "i32")
            offset = View(name, Affine(), ((len(table), 1),))
        read = ApRead(
            tile.acc_view(),
            offset,
            group.array,
            self.arrays,
            self.size,
            0,
            room.acc_bits,
            fresh=table is not None,
            layer=self.layer.name,
        )
        price = group.pricer.touched(read.slots()) + group.pricer.home()
        return replace(read, shifts=price.shifts, moves=price.moves, checks=price.checks)


def out_tile(
    builder: Builder, layer: Layer, work: Work, tile: Tile, first: int, channels: int
) -> OutTile:
    """A tile of sums [k, n, p, q] of output channels first .. first + channels - 1."""
    s = work.shape
    memory = list(builder.target.spec.memory)[1]
    acc = builder.local(f"{layer.name}.sums", memory, "i32", channels * tile.positions)
    axes = (
        OutAxis("k", channels, tile.positions),
        OutAxis("n", tile.n, tile.p * tile.q),
        OutAxis("p", tile.p, tile.q),
        OutAxis("q", tile.q, 1),
    )
    starts = tuple((dim, start_of(dim, tile, s)) for dim in "npq")
    return OutTile(s, acc, axes, (("k", Affine(first)), *starts))
