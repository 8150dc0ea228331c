"""Mappings."""
from __future__ import annotations
from cimc.ir.tiles import Tiles
from cimc.kind import Options
from cimc.target import Target
def map_layers(tiles: Tiles, target: Target, options: Options) -> Tiles:
    raise NotImplementedError
