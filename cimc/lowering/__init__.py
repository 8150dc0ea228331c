"""What all lowerings share: buffers, geometry of heavy ops, epilogues, vector layers.

A kind's `lower` walks the layers of the tiled graph in order and makes streams for each:

    builder = Builder(tiles.graph, target)
    for layer in tiles.layers:
        if layer.place == "macro":
            op = builder.op(layer)                       # the heavy op
            shape = conv_shape(op)
            bias = effective_bias(...)                   # zero point of x folded in
            ... the kind's own instructions fill an accumulator ...
            body += epilogue(builder, layer, tile, ...)  # writes the result
            builder.announce(...)                        # which rows it signals
        else:
            builder.add(vector_layer(builder, layer))
    program = builder.program(tiles.target)
"""

from cimc.lowering.builder import Builder, Progress
from cimc.lowering.epilogue import OutAxis, OutTile, can_fuse, epilogue
from cimc.lowering.geometry import (
    ConvShape,
    conv_shape,
    effective_bias,
    heavy_fault,
    needed_bits,
    weight_matrix,
    window_offsets,
)
from cimc.lowering.vector import vector_items, vector_layer

__all__ = [
    "Builder",
    "ConvShape",
    "OutAxis",
    "OutTile",
    "Progress",
    "can_fuse",
    "conv_shape",
    "effective_bias",
    "epilogue",
    "heavy_fault",
    "needed_bits",
    "vector_items",
    "vector_layer",
    "weight_matrix",
    "window_offsets",
]
