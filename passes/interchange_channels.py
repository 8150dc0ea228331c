"""Make the input channels the outer loop: all output channels of an array add up a chunk of inputs.

before   sums %a outputs 0:64 channels 0:128 inputs 1152 { y0 += x5 - x17 + ... }
after    sums %a outputs 0:32 channels 0:8 inputs 72 { y0 += x5 - x17   y1 += ... }
         sums %a outputs 0:32 channels 8:16 inputs 72 { ... }
         ...
         sums %a outputs 32:64 channels 0:8 inputs 72 { ... }

Only now do rows of additions share operands that are there at the same time. The mapping says which
output channels an array has (cores) and how many inputs it loads at once (chunk).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cimc.errors import Fault, UsageError
from cimc.ir.sums import Piece
from cimc.ir.tiles import Tiles
from cimc.passes._blocks import Compiled, compiled_layers, split
from cimc.pipeline.passes import compiler_pass


@compiler_pass("interchange-channels")
def interchange_channels(tiles: Tiles) -> Tiles:
    """Cut sums into those of one chunk of inputs and one group of arrays."""
    layers = {found.layer.name: found for found in compiled_layers(tiles)}
    pieces = [new for piece in tiles.sums for new in _cut(piece, layers.get(piece.layer))]
    return replace(tiles, sums=tuple(pieces))


def _cut(piece: Piece, found: Compiled | None) -> Iterator[Piece]:
    if found is None:
        yield piece
        return
    whole = (0, found.shape.g * found.shape.k), (0, found.shape.g * found.shape.c)
    if piece.sums.shared or (piece.outputs, piece.channels) != whole:
        where = f"sums of %{piece.layer} cannot be cut"
        need = "all channels in one piece that shares nothing yet"
        raise UsageError(Fault(where, need, help="run fold-weights first", code="CIM2077"))
    for outputs, spans in found.spans():
        yield from split(piece, outputs, spans, found.window)
