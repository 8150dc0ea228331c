"""Make sums that are equal, or each other's negative, once.

before   y0 += x0 - x4 + x7        after    t9 = x0 - x4 + x7
         y5 += - x0 + x4 - x7               y0 += t9
                                            y5 += - t9
"""

from __future__ import annotations

from dataclasses import replace

from cimc.ir.tiles import Tiles
from cimc.passes._signed_sums import shared_rows
from cimc.pipeline.passes import compiler_pass


@compiler_pass("share-rows")
def share_rows(tiles: Tiles) -> Tiles:
    """Share equal and negated rows within each piece."""
    pieces = (replace(piece, sums=shared_rows(piece.sums)) for piece in tiles.sums)
    return replace(tiles, sums=tuple(pieces))
