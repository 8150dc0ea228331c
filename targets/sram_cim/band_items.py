"""Instructions of fused layers: a loop over bands, and in it the layers, one after the other.

loop band 4 {
  transfer %x.band.in <- %x            rows of the input, what lies outside is padding
  ...                                  the first layer, from %x.band.in to %a.band
  fill %a.band   when first(band)      rows above the tensor, and below it in the last band
  ...                                  the second layer, from %a.band to %b.band
  transfer %b <- %b.band               rows of the result
}

A group that runs `ahead` has second buffers: the next band's rows come in, and the last band's go
out, while one is computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

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
from cimc.targets.sram_cim.homes import Homes, near_weights, second
from cimc.targets.sram_cim.instructions import Flip, Transfer, second_banks
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
    moves = _Moves(builder, small, band, memory)
    yield from moves.first()
    body: list[Item] = [*moves.inward(), *moves.outward_later(results)]
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
    body += moves.outward(results)
    yield Loop(BAND, band.count, tuple(body))
    yield from moves.last(results)
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


class _Moves:
    """Bands of tensors on their way in and out: at once, or from and to second buffers."""

    def __init__(self, builder: Builder, small: Builder, band: Band, memory: str) -> None:
        self.builder, self.small, self.band, self.memory = builder, small, band, memory
        self.ahead = band.fused.ahead
        self.seconds: dict[str, str] = {}

    def first(self) -> Iterator[Instr]:
        """What comes in before the loop: the first band, if the loop fetches the next ones."""
        if self.ahead:
            for part in self.band.inputs.values():
                yield self.load(part, self.second(part), Affine())

    def inward(self) -> Iterator[Instr]:
        """What comes in at the beginning of a band."""
        for part in self.band.inputs.values():
            near = self.small.value(part.value)
            if not self.ahead:
                yield self.load(part, near, var(BAND))
                continue
            yield self.flip(part, near, self.second(part))
            following = self.load(part, self.second(part), var(BAND) + 1)
            yield dataclasses.replace(following, when=((BAND, "not-last"),))

    def outward(self, results: Sequence[str]) -> Iterator[Instr]:
        """What goes out, or begins to, at the end of a band."""
        for name in results:
            part = self.band.parts[name]
            near = self.small.value(part.value)
            if self.ahead:
                yield self.flip(part, self.second(part), near)
            else:
                yield self.store(part, near, var(BAND))

    def outward_later(self, results: Sequence[str]) -> Iterator[Instr]:
        """The band before goes out at the beginning of the next one."""
        if self.ahead:
            for name in results:
                part = self.band.parts[name]
                before = self.store(part, self.second(part), var(BAND) + -1)
                yield dataclasses.replace(before, when=((BAND, "not-first"),))

    def last(self, results: Sequence[str]) -> Iterator[Instr]:
        """What goes out after the loop."""
        if self.ahead:
            for name in results:
                part = self.band.parts[name]
                yield self.store(part, self.second(part), Affine(self.band.count - 1))

    def second(self, part: Part) -> str:
        """The second buffer of a band."""
        name = part.value.name
        if name not in self.seconds:
            kind = part.value.type
            self.seconds[name] = self.small.local(
                second(part), self.memory, kind.dtype, kind.elements
            )
        return self.seconds[name]

    def flip(self, part: Part, dst: str, src: str) -> Flip:
        """The two buffers of a band change places."""
        dims = ((part.value.type.elements, 1),)
        layer = self.band.fused.layers[0]
        return Flip(View(dst, Affine(), dims), View(src, Affine(), dims), layer=layer)

    def rows(
        self, part: Part, whole: str, small: str, place: Affine
    ) -> tuple[View, View, tuple[Bound, ...]]:
        """Rows of band `place` in the whole tensor and alone; where they leave the tensor."""
        _, channels, height, width = part.whole.shape
        span = part.span
        start = Affine(span.start) + place * span.step
        axes = (channels, span.rows, width)
        steps = (height * width, width, 1)
        outer = View(whole, start * width, tuple(zip(axes, steps, strict=True)))
        steps = (span.rows * width, width, 1)
        inner = View(small, Affine(), tuple(zip(axes, steps, strict=True)))
        last = span.start + span.step * (self.band.count - 1) + span.rows
        leaves = span.start < 0 or last > height
        return outer, inner, (Bound(start, (0, 1, 0), height),) if leaves else ()

    def load(self, part: Part, near: str, place: Affine) -> Transfer:
        """A band comes in."""
        outer, inner, bounds = self.rows(part, self.builder.value(part.whole), near, place)
        return Transfer(
            inner,
            outer,
            0 if part.beyond == ANY else part.beyond,
            read_bounds=bounds,
            meanwhile=second_banks(self.ahead, False),
            read=inner.elements,
            stored=inner.elements,
            layer=self.band.fused.layers[0],
        )

    def store(self, part: Part, near: str, place: Affine) -> Transfer:
        """A band goes out."""
        outer, inner, bounds = self.rows(part, self.builder.value(part.whole), near, place)
        return Transfer(
            outer,
            inner,
            write_bounds=bounds,
            operand=NAMES[OUTPUT],
            meanwhile=second_banks(False, self.ahead),
            read=inner.elements,
            stored=inner.elements,
            layer=self.band.fused.layers[-1],
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
