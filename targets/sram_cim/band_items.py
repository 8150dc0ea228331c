"""Instructions of fused layers: a loop over bands, and in it the layers, one after the other.

loop band 4 {
  transfer %x.band.in <- %x            rows of the input, what lies outside is padding
  ...                                  the first layer, from %x.band.in to %a.band
  fill %a.band   when first(band)      rows above the tensor, and below it in the last band
  ...                                  the second layer, from %a.band to %b.band
  transfer %b <- %b.band               rows of the result
}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from cimc.ir.program import (
    BAND,
    Affine,
    Bound,
    Fill,
    Instr,
    Item,
    Loop,
    Signal,
    View,
    Wait,
    var,
)
from cimc.lowering import Builder, vector_items
from cimc.lowering.builder import Progress
from cimc.mapping.machine import NAMES, OUTPUT, WEIGHT, Machine
from cimc.targets.sram_cim.bands import ANY, Band, Part
from cimc.targets.sram_cim.homes import Homes, near_weights
from cimc.targets.sram_cim.instructions import Transfer
from cimc.targets.sram_cim.layers import mapped_nest
from cimc.targets.sram_cim.lowering import macro_items


def band_items(
    builder: Builder, homes: Homes, band: Band, machines: Mapping[str, Machine]
) -> Iterator[Item]:
    """All instructions of one group of fused layers."""
    layers = homes.layers
    results = layers.leaving(band.whole_layers[-1])
    memory = f"{homes.machine.levels[homes.band_level].name}.x1"
    parts = [band.parts[name] for y in band.whole_layers for name in layers.leaving(y)]
    parts += band.inputs.values()
    graph = band.graph(results, layers.tiles.graph.tensors)
    small = builder.beside(graph, {part.value.name: memory for part in parts})
    for part in band.inputs.values():
        yield from builder.wait(part.whole)
    yield from _weights(builder, small, homes, band, memory)
    body: list[Item] = [_load(builder, small, band, part) for part in band.inputs.values()]
    for layer in band.whole_layers:
        own = band.layer(layer)
        if layer.place == "macro":
            heavy = layers.heavy(layer)
            items = macro_items(small, own, heavy, mapped_nest(layer, heavy, machines[layer.name]))
        else:
            items = vector_items(small, own)
        body += _renamed(items, layer.name)
        for name in layers.leaving(layer):
            body += _edges(band, band.parts[name], layer.name)
    body += [_store(builder, small, band, band.parts[name]) for name in results]
    yield Loop(BAND, band.count, tuple(body))
    for name in results:
        value = builder.producers[name].out
        builder.announce(value, Progress("", 1))
        yield builder.signal(value)


def _weights(
    builder: Builder, small: Builder, homes: Homes, band: Band, memory: str
) -> Iterator[Instr]:
    """Weights that stay for all bands are fetched before the first one."""
    for layer in band.whole_layers:
        if homes.has_near_weights(layer):
            value = homes.layers.heavy(layer).w
            source = builder.buffer(builder.value(value))
            name = builder.local(
                near_weights(layer, value.name), memory, source.dtype, source.elements
            )
            small.kept[value.name] = name
            dims = ((source.elements, 1),)
            yield Transfer(
                View(name, Affine(), dims),
                View(source.name, Affine(), dims),
                operand=NAMES[WEIGHT],
                read=source.elements,
                stored=source.elements,
                layer=layer.name,
            )


def _rows(band: Band, part: Part, whole: str, small: str) -> tuple[View, View, tuple[Bound, ...]]:
    """A band's rows in the whole tensor and in a buffer of its own; where they leave the tensor."""
    _, channels, height, width = part.whole.shape
    span = part.span
    first = Affine(span.start) + var(BAND) * span.step
    axes = (channels, span.rows, width)
    steps = (height * width, width, 1)
    outer = View(whole, first * width, tuple(zip(axes, steps, strict=True)))
    steps = (span.rows * width, width, 1)
    inner = View(small, Affine(), tuple(zip(axes, steps, strict=True)))
    last = span.start + span.step * (band.count - 1) + span.rows
    leaves = span.start < 0 or last > height
    return outer, inner, (Bound(first, (0, 1, 0), height),) if leaves else ()


def _load(builder: Builder, small: Builder, band: Band, part: Part) -> Transfer:
    outer, inner, bounds = _rows(band, part, builder.value(part.whole), small.value(part.value))
    return Transfer(
        inner,
        outer,
        0 if part.beyond == ANY else part.beyond,
        read_bounds=bounds,
        read=inner.elements,
        stored=inner.elements,
        layer=band.whole_layers[0].name,
    )


def _store(builder: Builder, small: Builder, band: Band, part: Part) -> Transfer:
    outer, inner, bounds = _rows(band, part, builder.value(part.whole), small.value(part.value))
    return Transfer(
        outer,
        inner,
        write_bounds=bounds,
        operand=NAMES[OUTPUT],
        read=inner.elements,
        stored=inner.elements,
        layer=band.whole_layers[-1].name,
    )


def _edges(band: Band, part: Part, layer: str) -> Iterator[Fill]:
    """Rows above the tensor in the first band, below it in the last, hold what padding holds."""
    if part.beyond == ANY:
        return
    _, channels, _, width = part.whole.shape
    rows = part.span.rows
    above, below = part.outside(band.count)
    for count, at, when in ((above, 0, "first"), (below, rows - below, "last")):
        if count:
            dims = ((channels, rows * width), (count * width, 1))
            view = View(part.value.name, Affine(at * width), dims)
            yield Fill(view, part.beyond, when=((BAND, when),), layer=layer)


def _renamed(items: Iterable[Item], layer: str) -> Iterator[Item]:
    """The items for a layer of the network; progress within a band is nobody's business."""
    for item in items:
        if isinstance(item, Loop):
            yield dataclasses.replace(item, body=tuple(_renamed(item.body, layer)))
        elif not isinstance(item, Wait | Signal):
            yield dataclasses.replace(item, layer=layer)
