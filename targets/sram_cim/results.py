"""The way of the results: partial sums come and go, complete ones pass the layer's epilogue.

Levels outside the innermost complete one hold results as the layer's readers want them; further in
lie exact sums. The epilogue stands between: it runs when a tile leaves the outermost level of sums,
or, where sums must go to the outermost memory before they are complete, on the tile's last visit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cimc.ir.graph import Value
from cimc.ir.program import (
    Accumulate,
    Affine,
    Bound,
    Buffer,
    Copy,
    Fill,
    Instr,
    View,
    view_fields,
)
from cimc.ir.tiles import Layer
from cimc.lowering import Builder, OutAxis, OutTile, effective_bias, epilogue, weight_matrix
from cimc.mapping.flows import Flow, reductions
from cimc.mapping.layout import Layout, tile_layout, whole_layout, window
from cimc.mapping.machine import NAMES, OUTPUT
from cimc.targets.sram_cim.corrections import Correction, corrections
from cimc.targets.sram_cim.frame import NOW, Frame, Held, Turn, When, memory_of, whole
from cimc.targets.sram_cim.instructions import Flip, Transfer
from cimc.targets.sram_cim.layers import Heavy
from cimc.targets.sram_cim.machine import spec_of
from cimc.targets.sram_cim.pieces import pieces_of

STORE = "vector.x1"  # the vector units' own store of tables and intermediate tiles


@dataclass(frozen=True, slots=True)
class NestTile(OutTile):
    """A tile of a nest's result; each loop dimension has a limit of its own."""

    def bounds(self, loops: Mapping[str, int]) -> tuple[Bound, ...]:
        """The loop dimensions that can run past their extent."""
        found = []
        for dim, start in self.start:
            steps = tuple(axis.step if axis.dim == dim else 0 for axis in self.axes)
            limit = dict(self.shape.dims)[dim]
            last = start.const + sum(max(0, f * (loops[var] - 1)) for var, f in start.terms)
            last += sum(s * (e - 1) for s, e in zip(steps, self.extents, strict=True))
            if last >= limit:
                found.append(Bound(start, steps, limit))
        return tuple(found)


class Results:
    """Emits all flows of O of one layer."""

    def __init__(self, builder: Builder, layer: Layer, heavy: Heavy, frame: Frame) -> None:
        self.builder, self.layer, self.heavy, self.frame = builder, layer, heavy, frame
        self.mapped = frame.mapped
        self.axes = self.mapped.workload.axes[OUTPUT]
        self.home = Held(whole_layout(self.axes), "", -1)
        self.leaving = [builder.producers[name].out for name in sorted(builder.outside(layer))]
        self.corrections, made = corrections(builder, layer, heavy)
        frame.before[-1] += made
        self.spec = spec_of(builder.target)
        self.first_finish = -1  # tables are needed at the end of this loop's first iteration
        self.stored: dict[str, str] = {}  # tables fetched into the vector units' store

    def emit(self, moves: Sequence[Flow]) -> Held:
        """Put all flows, outermost first, into the frame; the tile of sums in the registers."""
        complete = sum(not flow.partial for flow in moves)
        self.first_finish = moves[max(complete - 1, 0)].loop
        split = max(complete - 1, 0)  # levels inside this many flows hold sums
        outside = [-1, *(flow.loop for flow in moves)]  # the loop that fills the level outside
        finals = [self.finals(*pair) for pair in zip(moves[:split], outside, strict=False)]
        sums = [
            self.held(flow, base, "i32", "")
            for flow, base in zip(moves[split:], outside[split:], strict=False)
        ]
        outer = [None if complete else self.home_sums(), *sums]
        for flow, source, held in zip(moves[split:], outer, sums, strict=False):
            if flow.partial and source is not None:
                self.come_back(flow, source, held)
        self.begin(moves[-1], sums[-1])
        landing = finals[-1] if finals else None
        passing = moves[-1] if complete and self.can_pass(moves[split:], sums[0]) else None
        done = self.done(moves[-1], sums) if passing is not None else sums[-1]
        for flow, sink, held in reversed([*zip(moves[split:], outer, sums, strict=False)]):
            visits = self.frame.real(reductions(self.mapped, flow.loop))
            if passing is not None and flow is passing:
                for earlier in self.frame.not_all_of(visits, "last"):
                    self.after(flow.loop, [self.leave(flow, sums[0], held, NOW)], earlier)
                last = [self.pass_on(flow, held, done), *self.finish(flow, done, landing, NOW)]
                self.after(flow.loop, last, self.frame.all_of(visits, "last"))
            elif passing is not None and sink is None:
                continue
            elif sink is None:
                finish = partial(self.finish, flow, held, landing)
                self.deliver(flow, outside[split], (held,), finish)
            elif sink is outer[0]:
                for when in self.frame.not_all_of(visits, "last"):
                    self.after(flow.loop, [self.leave(flow, sink, held, NOW)], when)
                latest = self.frame.all_of(visits, "last")
                self.after(flow.loop, self.finish(flow, held, None, NOW), latest)
            else:
                self.after(flow.loop, [self.leave(flow, sink, held, NOW)])
        for number in reversed(range(split)):
            flow, tiles = moves[number], finals[number]
            into = (
                finals[number - 1]
                if number
                else {name: self.home_of(self.builder.producers[name].out) for name in tiles}
            )

            leave = partial(self.leave_all, flow, into, tiles)
            self.deliver(flow, outside[number], tuple(tiles.values()), leave)
        return sums[-1]

    # --- sums that pass their level ---

    def can_pass(self, moves: Sequence[Flow], outer: Held) -> bool:
        """Whether complete sums go from the registers straight through the epilogue.

        They wait for it in a small buffer of their own, beside the tile where partial sums lie, so
        neither holds up the other. It must have room, and its results must fill whole words.
        """
        if len(moves) != 2 or outer.other or moves[1].loop < 0:
            return False
        spec, mapped = self.spec, self.mapped
        level = mapped.machine.levels[moves[0].inner.level]
        union = math.prod(run.extent for runs in self.small(moves[1]).runs for run in runs)
        taken = sum(mapped.occupied()[moves[0].inner.level].values())
        waiting = 2 * moves[1].outer_elements * spec.macro.psum_bits
        landing = mapped.machine.levels[moves[0].outer.level]
        results, cores = union * mapped.workload.bits[OUTPUT], mapped.used(0)
        lanes = spec.vector.lanes * (cores if spec.vector.per == "core" else 1)
        shares = cores if "cores" in landing.along else 1
        return (
            taken + waiting <= level.size_bits
            and results % (shares * landing.write_bits) == 0
            and union % lanes == 0
        )

    def small(self, flow: Flow) -> Layout:
        """The layout of one register tile of sums."""
        return tile_layout(self.axes, self.mapped.union(flow.loop + 1))

    def done(self, flow: Flow, sums: Sequence[Held]) -> Held:
        """Two buffers for register tiles of complete sums, by turns."""
        layout = self.small(flow)
        place = self.builder.buffer(sums[0].buffer)
        name = self.builder.local(f"{place.name}.done", place.memory, "i32", layout.elements, 2)
        return Held(layout, name, flow.loop)

    def pass_on(self, flow: Flow, held: Held, done: Held) -> Instr:
        """A register tile of complete sums goes to where the epilogue takes it."""
        leaving = self.leave(flow, done, held, NOW)
        return dataclasses.replace(leaving, dst=whole(done.buffer, done.layout), write_bounds=())

    def deliver(
        self,
        flow: Flow,
        base: int,
        tiles: Sequence[Held],
        leave: Callable[[Turn], list[Instr]],
    ) -> None:
        """Complete tiles go out: at once, or from second buffers during the next iteration.

        What the tile of the level outside, filled in loop `base`, is to get must be there before
        that one goes out in turn.
        """
        frame = self.frame
        if not all(held.other for held in tiles):
            self.after(flow.loop, leave(NOW))
            return
        for held in tiles:
            flip = Flip(whole(held.other, held.layout), whole(held.buffer, held.layout))
            self.after(flow.loop, [flip])
        bits = self.mapped.bits(OUTPUT, flow.inner.level)
        pieces = pieces_of(frame, flow, tiles[0].layout, bits)
        for turn, when in frame.turns(base, flow.loop, -1):
            for instr in leave(turn):
                moved = dataclasses.replace(instr, when=when)
                if pieces is None or not isinstance(moved, Transfer):
                    frame.before[flow.loop].append(moved)
                else:
                    frame.before[pieces.place].append(pieces.cut(moved))
        self.after(base, leave(Turn(base + 1, -1, steps=False)))

    def after(self, loop: int, instrs: Sequence[Instr], when: When = ()) -> None:
        """Put instructions at the end of a loop's body."""
        name = self.layer.name
        self.frame.after[loop] += [
            dataclasses.replace(instr, when=(*instr.when, *when), layer=name) for instr in instrs
        ]

    # --- tiles ---

    def held(self, flow: Flow, outside: int, dtype: str, suffix: str) -> Held:
        """A new buffer for the tile that a flow fills, and a second one if it leaves later."""
        layout = tile_layout(self.axes, self.mapped.union(flow.loop + 1))
        level = self.mapped.machine.levels[flow.inner.level].name
        memory = memory_of(self.mapped, flow.inner.level)
        name = f"{self.layer.name}.{NAMES[OUTPUT]}.{level}{suffix}"
        name = self.builder.local(name, memory, dtype, layout.elements)
        other = ""
        if flow.double and not flow.partial and flow.loop > outside:
            other = self.builder.local(f"{name}.out", memory, dtype, layout.elements)
        return Held(layout, name, flow.loop, other)

    def finals(self, flow: Flow, outside: int) -> dict[str, Held]:
        """A tile for each value that leaves the layer."""
        return {
            value.name: self.held(flow, outside, value.type.dtype, f".{number}" if number else "")
            for number, value in enumerate(self.leaving)
        }

    def home_of(self, value: Value) -> Held:
        """A whole result in the outermost memory."""
        return dataclasses.replace(self.home, buffer=self.builder.value(value))

    def home_sums(self) -> Held:
        """All sums of the layer, in the outermost memory."""
        elements = math.prod(axis.limit for axis in self.axes)
        name = f"{self.layer.name}.sums"
        buffer = self.builder.local(name, self.builder.outer, "i32", elements)
        return dataclasses.replace(self.home, buffer=buffer)

    # --- moves ---

    def seen(
        self, flow: Flow, outer: Held, held: Held, turn: Turn = NOW
    ) -> tuple[View, tuple[Bound, ...]]:
        """A flow's tile in the level outside, and where it leaves the result."""
        is_home = outer.loop < 0 and outer.layout == self.home.layout
        start = self.frame.start(outer.loop, flow.loop, turn)
        seen = window(held.layout, outer.layout, start, self.frame.trips if is_home else None)
        return seen.view(outer.buffer), seen.bounds

    def come_back(self, flow: Flow, outer: Held, held: Held) -> None:
        """Partial sums of earlier visits return."""
        view, bounds = self.seen(flow, outer, held)
        visits = self.frame.real(reductions(self.mapped, flow.loop))
        for when in self.frame.not_all_of(visits, "first"):
            self.frame.before[flow.loop].append(
                Transfer(
                    whole(held.buffer, held.layout),
                    view,
                    read_bounds=bounds,
                    operand=NAMES[OUTPUT],
                    read=flow.outer_elements,
                    readers=self.mapped.instances(flow.outer.level),
                    stored=flow.inner_elements,
                    writers=self.mapped.instances(flow.inner.level),
                    when=when,
                    layer=self.layer.name,
                )
            )

    def begin(self, flow: Flow, held: Held) -> None:
        """Sums begin at zero."""
        visits = self.frame.real(reductions(self.mapped, flow.loop))
        self.frame.before[flow.loop].append(
            Fill(
                whole(held.buffer, held.layout),
                when=self.frame.all_of(visits, "first"),
                layer=self.layer.name,
            )
        )

    def leave_all(
        self, flow: Flow, into: Mapping[str, Held], tiles: Mapping[str, Held], turn: Turn
    ) -> list[Instr]:
        """The tiles of all results go one level out."""
        return [self.leave(flow, into[name], held, turn) for name, held in tiles.items()]

    def leave(self, flow: Flow, outer: Held, held: Held, turn: Turn) -> Transfer:
        """A tile goes one level out."""
        view, bounds = self.seen(flow, outer, held, turn)
        return Transfer(
            view,
            whole(held.buffer if turn is NOW else held.other, held.layout),
            write_bounds=bounds,
            operand=NAMES[OUTPUT],
            meanwhile="" if turn is NOW else "src",
            read=flow.inner_elements,
            readers=self.mapped.instances(flow.inner.level),
            stored=flow.outer_elements,
            writers=self.mapped.instances(flow.outer.level),
            layer=self.layer.name,
        )

    # --- the epilogue ---

    def finish(
        self, flow: Flow, held: Held, landing: Mapping[str, Held] | None, turn: Turn
    ) -> list[Instr]:
        """Complete sums become results."""
        axes = tuple(
            OutAxis(run.terms[0][0], run.extent, run.stride)
            for runs in held.layout.runs
            for run in runs
            if run.extent > 1
        )
        start = self.frame.start(-1, flow.loop, turn)
        dims = [axis.terms[0][0] for axis in self.axes]
        tile = NestTile(
            self.heavy.shape,
            held.buffer if turn is NOW else held.other,
            axes or (OutAxis("p", 1, 1),),
            tuple((dim, start[dim]) for dim in dims),
        )
        landed = None
        if landing is not None:
            landed = {name: self.landed(tile, flow, into, turn) for name, into in landing.items()}
        instrs = [
            *(item for fix in self.corrections for item in self.correct(tile, fix)),
            *epilogue(
                self.builder,
                self.layer,
                tile,
                bias=self.bias(),
                scratch=STORE,
                tables=self.builder.outer,
                loops=self.frame.trips,
                landing=landed,
            ),
        ]
        return [self.near(instr) for instr in instrs]

    def landed(self, tile: NestTile, flow: Flow, into: Held, turn: Turn) -> View:
        """A finished tile in the level outside."""
        start = self.frame.start(into.loop, flow.loop, turn)
        offset = Affine()
        for dim, at in start.items():
            offset = offset + at * into.layout.step(dim)
        dims = tuple((axis.extent, into.layout.step(axis.dim)) for axis in tile.axes)
        return View(into.buffer, offset, dims)

    def bias(self) -> NDArray[np.int32] | None:
        """What the epilogue adds to the sums of each channel."""
        heavy = self.heavy
        bias = None if heavy.op.bias is None else self.builder.constant(heavy.op.bias)
        if heavy.weights is not None and not self.corrections:
            return effective_bias(heavy.zero, weight_matrix(heavy.op, heavy.weights), bias)
        return None if bias is None else bias.reshape(-1).astype(np.int32)

    def correct(self, tile: NestTile, fix: Correction) -> list[Instr]:
        """Add a correction to a tile of sums."""
        elements = math.prod(axis.extent for axis in tile.axes if axis.dim in fix.dims)
        local = self.builder.local(f"{fix.buffer}.tile", STORE, "i32", elements)
        steps, stride = dict[str, int](), 1
        for axis in reversed(tile.axes):
            if axis.dim in fix.dims:
                steps[axis.dim] = stride
                stride *= axis.extent
        inner = tuple((axis.extent, steps.get(axis.dim, 0)) for axis in tile.axes)
        outer = tuple((axis.extent, fix.stride(axis.dim)) for axis in tile.axes)
        kept = [place for place, axis in enumerate(tile.axes) if axis.dim in fix.dims]
        offset = Affine()
        for dim, at in tile.start:
            offset = offset + at * fix.stride(dim)
        bounds = tuple(
            Bound(bound.start, tuple(bound.steps[place] for place in kept) or (0,), bound.limit)
            for bound in tile.bounds(self.frame.trips)
        )
        name = self.layer.name
        return [
            Copy(
                View(local, Affine(), tuple(inner[place] for place in kept) or ((1, 1),)),
                View(fix.buffer, offset, tuple(outer[place] for place in kept) or ((1, 1),)),
                read_bounds=bounds,
                layer=name,
            ),
            Accumulate(tile.acc_view(), tile.acc_view(), View(local, Affine(), inner), layer=name),
        ]

    def near(self, instr: Instr) -> Instr:
        """The instruction with its tables in the vector units' store, fetched once per layer."""
        changed: dict[str, View] = {}
        for name in view_fields(type(instr)):
            view = getattr(instr, name)
            if view is None:
                continue
            buffer = self.builder.buffer(view.buffer)
            if buffer.init is not None and buffer.name not in self.builder.producers:
                changed[name] = dataclasses.replace(view, buffer=self.store(buffer))
        return dataclasses.replace(instr, **changed)  # type: ignore[arg-type]  # fields of its own

    def store(self, table: Buffer) -> str:
        """A table's copy in the vector units' store."""
        if table.name not in self.stored:
            local = self.builder.local(f"{table.name}.near", STORE, table.dtype, table.elements)
            dims = ((table.elements, 1),)
            tables = self.frame.before[self.first_finish]
            when = self.frame.all_of(self.frame.real(range(self.first_finish + 1)), "first")
            tables.append(
                Copy(
                    View(local, Affine(), dims),
                    View(table.name, Affine(), dims),
                    when=when,
                    layer=self.layer.name,
                )
            )
            self.stored[table.name] = local
        return self.stored[table.name]
