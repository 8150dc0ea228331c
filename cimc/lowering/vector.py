"""Layers of the vector unit (or the host): wait for all inputs, compute whole tensors, signal."""

from __future__ import annotations

from collections.abc import Iterator

from cimc.ir.graph import operands
from cimc.ir.program import Item, Stream, VectorOp
from cimc.ir.tiles import Layer
from cimc.lowering.builder import Builder, Progress


def vector_layer(builder: Builder, layer: Layer) -> Stream:
    """A stream of its own for one layer of whole-tensor ops."""
    return Stream(layer.name, tuple(vector_items(builder, layer)))


def vector_items(builder: Builder, layer: Layer) -> Iterator[Item]:
    """Wait, VectorOp and Signal for each op of the layer, in order."""
    for value in builder.inputs(layer):
        yield from builder.wait(value)
    shown = builder.outside(layer)
    unit = "host" if layer.place == "host" else "vector"
    for name in layer.ops:
        op = builder.producers[name]
        for value in (*operands(op), op.out):
            builder.value(value)
        yield VectorOp(op, unit, layer=layer.name)
        if name in shown:
            builder.announce(op.out, Progress("", 1))
            yield builder.signal(op.out)
