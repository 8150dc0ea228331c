"""Closed-form cycles and events of a layer, from its plan.

Loads, reads, what moves and what follows the sums are exact: they equal the program's. Column
programs are written for some groups of arrays; the others count like them, in proportion to their
weights that are not zero. Small layers and those with one group are exact. Written cells
are expected values, as in the program. Most waits for ports are left out of the cycles.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from cimc.errors import InternalError
from cimc.ir.graph import operands
from cimc.ir.program import Affine, Buffer, Instr, VectorOp, View, views, walk
from cimc.ir.tiles import Layer, Tiles
from cimc.ir.types import bits_of
from cimc.kind import Cost, common_cost
from cimc.lowering import Builder, epilogue
from cimc.passes._blocks import Block, blocks
from cimc.target import Target
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.codegen import column_codes
from cimc.targets.rtm_ap.cost import instruction_cost, load_cycles
from cimc.targets.rtm_ap.instructions import ApRead
from cimc.targets.rtm_ap.lowering import block, out_tile
from cimc.targets.rtm_ap.multiply import lower_multiply
from cimc.targets.rtm_ap.plan import Plan, geometry_of, plan_of, too_large
from cimc.targets.rtm_ap.pricing import Price, Pricer
from cimc.targets.rtm_ap.regions import Regions
from cimc.targets.rtm_ap.windows import distinct
from cimc.targets.rtm_ap.work import Work, spec_of, work_of

_SAMPLED = 10_000  # weights that are not zero, for which column programs are written


def layer_estimate(layer: Layer, tiles: Tiles, target: Target) -> Cost:
    """Cycles and events of one layer."""
    if layer.place != "macro":
        return _vector(layer, tiles, target)
    if layer.nest is None:
        raise InternalError(f"macro layer {layer.name} has no nest")
    work, plan = work_of(layer, tiles), plan_of(layer.nest)
    builder = Builder(tiles.graph, target)
    if plan.kind == "multiply":
        return _multiplied(builder, layer, work, plan, target)
    return _Programs(builder, layer, work, plan, target).cost()


def _vector(layer: Layer, tiles: Tiles, target: Target) -> Cost:
    producers, outer = tiles.graph.producers(), next(iter(target.spec.memory))
    cycles, events = 0, Counter[str]()
    for name in layer.ops:
        op = producers[name]
        values = [*operands(op), op.out]
        buffers = {v.name: Buffer(v.name, outer, v.type.dtype, v.type.elements) for v in values}
        unit = "host" if layer.place == "host" else "vector"
        cost = common_cost(VectorOp(op, unit), buffers, target)
        cycles += cost.cycles
        events.update(dict(cost.events))
    return Cost((), cycles, tuple(events.items()))


def _multiplied(builder: Builder, layer: Layer, work: Work, plan: Plan, target: Target) -> Cost:
    """Weights as data: the column program does not depend on them, so all of it is counted."""
    cycles, events = 0, Counter[str]()
    trips = math.prod(plan.tile.trips(work.shape).values())
    items = tuple(lower_multiply(builder, layer, work, plan, target))
    for instr, loops in walk(items):
        first = {var for var, condition in instr.when if condition == "first"}
        times = trips * math.prod(loop.count for loop in loops if loop.var not in first)
        cost = instruction_cost(instr, _buffers(builder, instr), target)
        cycles += times * cost.cycles
        events.update({event: times * count for event, count in cost.events})
    return Cost((), cycles, tuple(events.items()))


def _buffers(builder: Builder, instr: Instr) -> Mapping[str, Buffer]:
    return {view.buffer: builder.buffer(view.buffer) for view in views(instr).values()}


@dataclass(frozen=True)
class _Sample:
    """What some groups of arrays take for one tile."""

    once: Price  # loads and read-outs of all of them
    runs: Price
    read_shifts: int  # of one read-out
    groups: int
    slots: int
    acc_bits: int
    weights: int  # that are not zero


@dataclass(frozen=True)
class _Group:
    """The weights of one group of arrays in numbers."""

    piece: Block
    weights: tuple[int, ...]  # those that are not zero, in each chunk
    widest: int  # largest sum of weights' sizes in an output channel


def _accumulators(room: Regions, rows: int) -> isa.Code:
    return isa.slot_table([room.acc(row) for row in range(rows)])


class _Programs:
    """A layer whose weights are its program."""

    def __init__(
        self, builder: Builder, layer: Layer, work: Work, plan: Plan, target: Target
    ) -> None:
        self.builder, self.layer, self.work, self.plan = builder, layer, work, plan
        self.target, self.spec = target, spec_of(target)
        self.ap = self.spec.ap
        self.parts = blocks(work.shape, plan.k_groups, plan.c_groups)
        self.groups = [self._group(piece) for row in self.parts for piece in row]
        self.arrays = plan.arrays(self.ap.rows)
        self.window = work.shape.r * work.shape.s
        self.trips = math.prod(plan.tile.trips(work.shape).values())

    def _group(self, piece: Block) -> _Group:
        weights, chunk = block(self.work, piece), self.plan.style.chunk
        nonzero = np.count_nonzero(weights, axis=0)
        starts = range(0, len(nonzero), chunk)
        counts = tuple(int(nonzero[begin : begin + chunk].sum()) for begin in starts)
        return _Group(piece, counts, int(np.abs(weights).sum(axis=1).max(initial=0)))

    def cost(self) -> Cost:
        """All tiles."""
        sample, events = self._sample(), Counter[str]()
        cycles = sum(self._run(sample, groups, events) for groups in self._rounds())
        cycles += self._finish(sample, events)
        counted = {event: count * self.trips for event, count in events.items() if count}
        return Cost((), cycles * self.trips, tuple(counted.items()))

    def _sample(self) -> _Sample:
        """As many groups as `_SAMPLED` weights allow, evenly spread, but one at least."""
        weights = [sum(group.weights) for group in self.groups]
        count = max(1, min(len(weights), _SAMPLED * len(weights) // max(1, sum(weights))))
        picked = [place * len(weights) // count + len(weights) // count // 2
                  for place in range(count)]  # fmt: skip
        matrices = [block(self.work, self.groups[place].piece) for place in picked]
        codes = column_codes(
            matrices, self.work.input_bits, geometry_of(self.target), self.plan.style
        )
        if codes is None:
            raise too_large(self.layer.name, "its plan", "the arrays", "run the pass map again")
        slots, room, once, runs = codes[0].regions.slots(), codes[0].regions, Price(), Price()
        for code, matrix in zip(codes, matrices, strict=True):
            pricer = Pricer(self.ap)
            for number in range(code.chunks):
                begin = number * self.plan.style.chunk
                inputs = min(self.plan.style.chunk, matrix.shape[1] - begin)
                once += pricer.touched(room.inputs.table(inputs))
                runs += pricer.code(code.chunk(number), slots)
            read = pricer.touched(_accumulators(room, len(matrix))) + pricer.home()
            once += replace(read, writes=0)
        top = (1 << self.work.input_bits) - 1
        widest = max(group.widest for group in self.groups) * top
        bits = max(room.acc_bits, widest.bit_length())  # all groups share their places
        nonzero = sum(weights[place] for place in picked)
        return _Sample(once, runs, read.shifts, count, len(slots), bits, nonzero)

    def _rounds(self) -> Iterator[list[_Group]]:
        """Groups of arrays that find room side by side."""
        each = -(-self.arrays // self.ap.arrays)  # cores of a group
        c_groups = len(self.parts[0])
        abreast = max(1, self.spec.cores // each // c_groups) * c_groups
        for begin in range(0, len(self.groups), abreast):
            yield self.groups[begin : begin + abreast]

    def _run(self, sample: _Sample, groups: list[_Group], events: Counter[str]) -> int:
        """Loads and column programs of one round; returns its cycles.

        After each chunk all groups wait for the one with most weights.
        """
        spec, rows = self.spec, self.arrays * self.ap.rows
        outer, memory = next(iter(spec.memory.items()))
        channels = {(group.piece.c_begin, group.piece.c_end) for group in groups}
        fetched = sum(
            distinct(self.work, self.plan.tile, end - begin) * bits_of(self.work.x.type.dtype)
            for begin, end in channels
        )
        weights = sum(sum(group.weights) for group in groups)
        part = len(groups) / sample.groups
        share = weights / sample.weights if sample.weights else part
        words = round(sample.runs.words * share) * 32 + sample.slots * 32 * len(groups)
        events[f"{outer}.read_bits"] += fetched + words
        events["link.bits"] += fetched
        values = sum(group.piece.c_end - group.piece.c_begin for group in groups) * self.window
        once, runs, bits = sample.once, sample.runs, self.work.input_bits
        written = values * bits + runs.written * share
        events["ap.searched_bits"] += rows * round(runs.searched * share)
        events["ap.written_bits"] += rows * round(written)
        events["ap.shift_steps"] += rows * round(once.moves * part + runs.moves * share)
        events["ap.checks"] += rows * round(once.checks * part + runs.checks * share)
        values, shifts = (total // sample.groups for total in (once.writes // bits, once.shifts))
        loading = load_cycles(values, bits, shifts, self.target)
        moving = -(-fetched // min(memory.read_bits_per_cycle, spec.link.bits_per_cycle))
        slowest = sum(map(max, itertools.zip_longest(*(g.weights for g in groups), fillvalue=0)))
        running = runs.cycles(self.ap) * (slowest / sample.weights if sample.weights else 1.0)
        chunks = max(len(group.weights) for group in groups)
        latency = chunks * (2 * memory.latency_cycles + spec.link.hop_cycles)
        port = -(-words // memory.read_bits_per_cycle)
        return max(loading, moving) + round(running) + port + latency

    def _finish(self, sample: _Sample, events: Counter[str]) -> int:
        """Read-outs and what follows the sums; returns their cycles."""
        cycles, table = 0, list(self.spec.memory)[1]
        size = (self.ap.rows, self.ap.columns, self.ap.domains)
        for row in self.parts:
            begin, count = row[0].k_begin, row[0].k_end - row[0].k_begin
            tile = out_tile(self.builder, self.layer, self.work, self.plan.tile, begin, count)
            offset = self.builder.table("offset", np.zeros(count, np.int32), table, "i32")
            for number in range(len(row)):
                read = ApRead(
                    tile.acc_view(),
                    View(offset, Affine(), ((count, 1),)) if number == 0 else None,
                    0,
                    self.arrays,
                    size,
                    0,
                    sample.acc_bits,
                    fresh=number == 0,
                    shifts=sample.read_shifts,
                )
                cycles += self._counted([read], events)
            done = epilogue(
                self.builder,
                self.layer,
                tile,
                bias=None,
                scratch=table,
                tables=table,
                loops=self.plan.tile.trips(self.work.shape),
            )
            cycles += self._counted(done, events)
        first = instruction_cost(read, _buffers(self.builder, read), self.target)
        return cycles + first.cycles

    def _counted(self, instrs: Iterable[Instr], events: Counter[str]) -> int:
        """Count the events of some instructions; how long they keep what all tiles share."""
        cycles = 0
        for instr in instrs:
            cost = instruction_cost(instr, _buffers(self.builder, instr), self.target)
            events.update(dict(cost.events))
            cycles += max(
                (held for unit, held in cost.holds if not unit.endswith(".ap")), default=0
            )
        return cycles
