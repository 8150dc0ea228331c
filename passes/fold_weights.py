"""Turn constant weights into additions: a zero is nothing, +1 an addition, -1 a subtraction.

before   layer %a macro [%a] { ... options style="program" chunk=18 }     %w = [[1, 0, -1], ...]
after    layer %a macro [%a] { ... options style="program" chunk=18 }
         sums %a outputs 0:4 channels 0:3 inputs 3 {
           y0 += x0 - x2
           ...
         }

Weights of more bits become signed digits: 7*x is (x << 3) - x. No weight is stored any more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cimc.ir.sums import Piece, Sums
from cimc.ir.tiles import Tiles
from cimc.passes._blocks import Compiled, compiled_layers
from cimc.passes._signed_sums import signed_sums
from cimc.pipeline.passes import compiler_pass


@compiler_pass("fold-weights")
def fold_weights(tiles: Tiles) -> Tiles:
    """Write the layers whose weights become the program as sums of inputs."""
    return replace(tiles, sums=tuple(_folded(layer) for layer in compiled_layers(tiles)))


def _folded(found: Compiled) -> Piece:
    """All output channels over all input channels; a conv group reads its own channels only."""
    shape, sums = found.shape, signed_sums(found.weights)
    group = np.arange(shape.g * shape.k) // shape.k
    first = np.repeat(group * shape.c * found.window, np.diff(sums.start))
    channels = shape.g * shape.c
    sums = Sums(channels * found.window, 0, sums.start, sums.terms + (first << 8))
    return Piece(found.layer.name, (0, len(found.weights)), (0, channels), sums)
