"""Instructions of a mapped nest: its loops in time, and in them the tiles that move.

loop p0 {
  flip %a.I.ib <- %a.I.ib.next                   the tile loaded ahead
  transfer %a.I.ib.next <- %a.I.gb               the next one, while this one is used
  loop c1 {
    transfer %a.W.macro <- %w                    single-buffered: activations wait
    fill %a.O.oreg   when first(c1)              partial sums begin at zero,
    transfer %a.O.oreg <- %a.O.ob   when not-first(c1)          or come back
    activate %a.O.oreg, %a.I.ireg, %a.W.macro
    transfer %a.O.ob <- %a.O.oreg
  }
  rescale %a <- %a.O.ob                          complete sums: the layer's epilogue
}

An operand's tile moves at the innermost loop outside the loops of its next level that changes it.
The fetch from the outermost memory pads: beyond the tensor lies the input's zero point, and zero
weights where a tail is cut, so that inner tiles are whole. Results are cut on their way out.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

from cimc.ir.graph import Value
from cimc.ir.program import Affine, Item, View
from cimc.ir.tiles import Layer
from cimc.lowering import Builder
from cimc.lowering.builder import Progress
from cimc.mapping.flows import Flow, flows
from cimc.mapping.layout import tile_layout, whole_layout, window
from cimc.mapping.machine import INPUT, NAMES, OUTPUT, WEIGHT
from cimc.mapping.nest import Mapped
from cimc.targets.sram_cim.frame import Frame, Held, memory_of, whole
from cimc.targets.sram_cim.instructions import Activate, Flip, Transfer, second_banks
from cimc.targets.sram_cim.layers import Heavy
from cimc.targets.sram_cim.pieces import pieces_of
from cimc.targets.sram_cim.results import Results


def macro_items(builder: Builder, layer: Layer, heavy: Heavy, mapped: Mapped) -> Iterator[Item]:
    """All instructions of one macro layer, with waits for what it reads and signals at its end."""
    for value in builder.inputs(layer):
        yield from builder.wait(value)
    emitter = _Emitter(builder, layer, heavy, mapped)
    yield from emitter.items()
    for name in sorted(builder.outside(layer)):
        value = builder.producers[name].out
        builder.announce(value, Progress("", 1))
        yield builder.signal(value)


class _Emitter:
    """One layer under construction."""

    def __init__(self, builder: Builder, layer: Layer, heavy: Heavy, mapped: Mapped) -> None:
        self.builder, self.layer, self.heavy, self.mapped = builder, layer, heavy, mapped
        self.frame = Frame(mapped)
        self.axes = mapped.workload.axes

    def items(self) -> list[Item]:
        """The loops with everything in them."""
        moves = flows(self.mapped)
        x = self.inward(INPUT, self.heavy.x, moves)
        w = self.inward(WEIGHT, self.heavy.w, moves)
        results = Results(self.builder, self.layer, self.heavy, self.frame)
        # Weights have the longest way to the first activation.
        first = self.frame.before[-1]
        first.sort(key=lambda item: not (isinstance(item, Transfer) and item.operand == "W"))
        acc = results.emit([flow for flow in moves if flow.operand == OUTPUT])
        return self.frame.items([self.activation(acc, x, w)])

    # --- inputs and weights ---

    def inward(self, operand: int, value: Value, moves: tuple[Flow, ...]) -> Held:
        """All transfers of an operand towards the macro; the tile in its registers."""
        held = Held(whole_layout(self.axes[operand]), self.builder.value(value), -1)
        own = [flow for flow in moves if flow.operand == operand]
        if not own:
            return self.settled(operand, held)
        for flow, inner in itertools.zip_longest(own, own[1:]):
            held = self.fetch(flow, inner, held, value)
        return held

    def settled(self, operand: int, outer: Held) -> Held:
        """An operand at home in the macro: `setup` brings it there, straight from outside."""
        mapped = self.mapped
        home = mapped.machine.chain(operand)[0]
        layout = tile_layout(self.axes[operand], mapped.union(0))
        name = f"{self.layer.name}.{NAMES[operand]}.{mapped.machine.levels[home].name}"
        kind = self.builder.buffer(outer.buffer).dtype
        buffer = self.builder.local(name, memory_of(mapped, home), kind, layout.elements)
        seen = window(layout, outer.layout, self.frame.start(-1, -1), {})
        sizes = [
            mapped.workload.elements(operand, mapped.extents(0, operand, level))
            for level in (0, home)
        ]
        self.builder.setup(
            Transfer(
                whole(buffer, layout),
                seen.view(outer.buffer),
                read_bounds=seen.bounds,
                operand=NAMES[operand],
                read=sizes[0],
                stored=sizes[1],
                writers=mapped.instances(home),
                layer=self.layer.name,
            )
        )
        return Held(layout, buffer, -1)

    def fetch(self, flow: Flow, inner: Flow | None, outer: Held, value: Value) -> Held:
        """The transfers of one flow: at once, or one tile ahead into a second buffer.

        `inner` is the flow of the same tiles further in.
        """
        mapped, frame = self.mapped, self.frame
        layout = tile_layout(self.axes[flow.operand], mapped.union(flow.loop + 1))
        level = mapped.machine.levels[flow.inner.level]
        name = f"{self.layer.name}.{NAMES[flow.operand]}.{level.name}"
        memory = memory_of(mapped, flow.inner.level)
        kind = value.type.dtype
        buffer = self.builder.local(name, memory, kind, layout.elements)
        if not flow.double or flow.loop < 0:
            held = Held(layout, buffer, flow.loop)
            start = frame.start(outer.loop, flow.loop)
            frame.before[flow.loop].append(self.load(flow, outer, outer.buffer, held, start))
            return held
        ahead = self.builder.local(f"{name}.next", memory, kind, layout.elements)
        is_home = flow.outer.level == mapped.machine.chain(flow.operand)[0]
        base = outer.base if is_home or outer.other else outer.loop
        held = Held(layout, buffer, flow.loop, ahead, base)
        first = frame.start(flow.loop, flow.loop)
        source = outer.other or outer.buffer
        frame.before[base].append(self.load(flow, outer, source, held, first))
        flip = Flip(whole(buffer, layout), whole(ahead, layout), layer=self.layer.name)
        frame.before[flow.loop].append(flip)
        # A flow that loads ahead, too, reads this tile in the last iterations of its loops.
        until = inner.loop if inner is not None and inner.double else None
        pieces = pieces_of(frame, flow, layout, mapped.workload.bits[flow.operand], until)
        for turn, when in frame.turns(base, flow.loop, 1):
            same = is_home or turn.begin - 1 > outer.loop
            source = outer.buffer if same else outer.other
            start = frame.start(outer.loop, flow.loop, turn)
            load = self.load(flow, outer, source, held, start)
            load = dataclasses.replace(load, when=when)
            if pieces is None:
                frame.before[flow.loop].append(load)
            else:
                frame.before[pieces.place].append(pieces.cut(load))
        return held

    def load(
        self, flow: Flow, outer: Held, source: str, sink: Held, start: Mapping[str, Affine]
    ) -> Transfer:
        """One transfer of a flow towards the macro, into the second buffer where there is one."""
        mapped = self.mapped
        is_home = flow.outer.level == mapped.machine.chain(flow.operand)[0]
        seen = window(sink.layout, outer.layout, start, self.frame.trips if is_home else None)
        fill = 0
        if flow.operand == INPUT and seen.bounds:
            fill = self.heavy.zero
        return Transfer(
            whole(sink.other or sink.buffer, sink.layout),
            seen.view(source),
            fill,
            read_bounds=seen.bounds,
            operand=NAMES[flow.operand],
            meanwhile=second_banks(bool(sink.other), bool(outer.other) and source == outer.other),
            read=flow.outer_elements,
            readers=mapped.instances(flow.outer.level),
            stored=flow.inner_elements,
            writers=mapped.instances(flow.inner.level),
            layer=self.layer.name,
        )

    # --- the macros ---

    def activation(self, acc: Held, x: Held, w: Held) -> Activate:
        """The product over all spatial loops; registers and cells hold what inner loops need."""
        dims = [(dim, extent) for dim, extent in self.mapped.spread.items() if extent > 1]

        def view(held: Held) -> View:
            start = self.frame.start(held.loop, len(self.mapped.loops) - 1)
            offset = Affine()
            for dim, at in start.items():
                offset = offset + at * held.layout.step(dim)
            axes = tuple((extent, held.layout.step(dim)) for dim, extent in dims)
            return View(held.buffer, offset, axes or ((1, 1),))

        cores, rows, columns = (self.mapped.used(axis) for axis in range(3))
        views = view(acc), view(x), view(w)
        return Activate(*views, cores, rows, columns, layer=self.layer.name)
