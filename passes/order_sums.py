"""Put additions in order: each shared value is one addition, made just before its first use.

before   t9 = x0 + x1 - x2         after    t9 = x0 + x1
         t10 = x3 + x5                      t10 = t9 - x2
         y0 += t9                           y0 += t10
         y1 += t10 - t9                     t11 = x3 + x5
                                            y1 += t11 - t10

Values live shortly, so few columns hold them, and their last use may destroy them. What nothing
uses is left out. (In the text, all t stand before the y; they are numbered in this order.)
"""

from __future__ import annotations

from dataclasses import replace

from cimc.ir.tiles import Tiles
from cimc.passes._signed_sums import in_order
from cimc.pipeline.passes import compiler_pass


@compiler_pass("order-sums")
def order_sums(tiles: Tiles) -> Tiles:
    """Order the sums of each piece."""
    pieces = (replace(piece, sums=in_order(piece.sums)) for piece in tiles.sums)
    return replace(tiles, sums=tuple(pieces))
