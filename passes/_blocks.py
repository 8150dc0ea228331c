"""The parts of a layer's weights: by output channels, by input channels, by what is loaded at once.

spatial ... cores(k=2, c=3)          2 x 3 groups of arrays
options style="program" chunk=18     each takes its inputs 18 at a time
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.ir.graph import Op
from cimc.ir.sums import Piece, Sums
from cimc.ir.tiles import Layer, Tiles
from cimc.lowering import ConvShape, conv_shape, weight_matrix

Ints = NDArray[np.int64]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """Output channels [k_begin, k_end), input channels [c_begin, c_end) of the input's channels."""

    k_begin: int
    k_end: int
    c_begin: int
    c_end: int


def k_ranges(shape: ConvShape, groups: int) -> Iterator[Span]:
    """Output channels of each group of arrays: equal shares, whole conv groups where possible."""
    channels = shape.g * shape.k
    step = -(-channels // groups)
    if step > shape.k:
        step = -(-step // shape.k) * shape.k
    for begin in range(0, channels, step):
        yield begin, min(begin + step, channels)


def blocks(shape: ConvShape, k_groups: int, c_groups: int) -> list[list[Block]]:
    """For each range of output channels, the blocks along its input channels."""
    found = []
    for k_begin, k_end in k_ranges(shape, k_groups):
        first, last = k_begin // shape.k, -(-k_end // shape.k)
        channels = (last - first) * shape.c
        step = -(-channels // c_groups)
        found.append(
            [
                Block(k_begin, k_end, first * shape.c + begin,
                      first * shape.c + min(begin + step, channels))
                for begin in range(0, channels, step)
            ]
        )  # fmt: skip
    return found


def chunks(block: Block, channels: int) -> list[Span]:
    """Input channels of a block, so many at a time."""
    return [
        (begin, min(begin + channels, block.c_end))
        for begin in range(block.c_begin, block.c_end, channels)
    ]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A layer whose weights become the program, as its mapping cuts it."""

    layer: Layer
    op: Op
    shape: ConvShape
    weights: Ints  # [g*k, c*r*s]

    @property
    def window(self) -> int:
        """Inputs of one channel."""
        return self.shape.r * self.shape.s

    def spans(self) -> Iterator[tuple[Span, list[Span]]]:
        """For each range of output channels, its chunks of input channels, in order."""
        nest = self.layer.nest
        assert nest is not None  # `compiled_layers` looks
        cores = {axis.axis: dict(axis.factors) for axis in nest.spatial}.get("cores", {})
        channels = max(1, nest.option("chunk", 1) // self.window)
        for row in blocks(self.shape, cores.get("k", 1), cores.get("c", 1)):
            spans = [span for block in row for span in chunks(block, channels)]
            yield (row[0].k_begin, row[0].k_end), spans


def compiled_layers(tiles: Tiles) -> Iterator[Compiled]:
    """The layers that were mapped in style "program"."""
    producers = tiles.graph.producers()
    for layer in tiles.layers:
        if layer.nest is None or dict(layer.nest.options).get("style") != "program":
            continue
        op = producers[layer.ops[0]]
        value = op.w if hasattr(op, "w") else op.b  # type: ignore[attr-defined]  # conv or matmul
        array = tiles.graph.tensor(value)
        if array is not None:
            zero = value.type.quant.zero if value.type.quant is not None else 0
            weights = (weight_matrix(op, array) - zero).astype(np.int64)
            yield Compiled(layer, op, conv_shape(op), weights)


def split(piece: Piece, outputs: Span, spans: list[Span], window: int) -> Iterator[Piece]:
    """Some output channels of a piece that shares nothing yet, cut along its input channels."""
    first = piece.outputs[0]
    rows = piece.sums.start[outputs[0] - first : outputs[1] - first + 1]
    terms = piece.sums.terms[rows[0] : rows[-1]]
    row = np.repeat(np.arange(len(rows) - 1), np.diff(rows))
    begins = np.array([begin for begin, _ in spans])
    channel = (terms >> 8) // window + piece.channels[0]
    chunk = np.searchsorted(begins, channel, "right") - 1
    order = np.argsort(chunk * len(rows) + row, kind="stable")
    counts = np.bincount(
        chunk * (len(rows) - 1) + row, minlength=len(spans) * (len(rows) - 1)
    ).reshape(len(spans), -1)
    at = 0
    for number, (begin, end) in enumerate(spans):
        start = np.concatenate([[0], np.cumsum(counts[number])])
        taken = order[at : at + start[-1]]
        at += int(start[-1])
        offset = (begin - piece.channels[0]) * window
        sums = Sums((end - begin) * window, 0, start, terms[taken] - (offset << 8))
        yield Piece(piece.layer, outputs, (begin, end), sums)
