"""Share signed subexpressions across output channels and across the input channels of a chunk.

before   y0 += x0 + x1 - x2        after    t9 = x0 + x1
         y1 += x0 + x1 + x7                 y0 += t9 - x2
         y2 += x3 - x0 - x1                 y1 += t9 + x7
                                            y2 += x3 - t9

The pair of terms that occurs most often becomes a value, and so on while one occurs twice. Each of
`rounds` takes some of what is shared apart and shares it anew; the best result stays. `most` is
how many inputs and shared values there may be: columns are finite.
"""

from __future__ import annotations

from dataclasses import replace

from cimc.ir.tiles import Tiles
from cimc.passes._signed_sums import reduced
from cimc.pipeline.passes import compiler_pass


@compiler_pass("share-terms")
def share_terms(tiles: Tiles, *, rounds: int = 0, most: int = 1 << 20) -> Tiles:
    """Share pairs of terms within each piece."""
    pieces = (replace(piece, sums=reduced(piece.sums, most, rounds)) for piece in tiles.sums)
    return replace(tiles, sums=tuple(pieces))
