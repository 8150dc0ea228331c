"""A plan for every macro layer: sample its column program in several styles, take the cheapest.

One chunk from the middle of a layer is generated and priced; the others are like it. First the
style is chosen (inputs at a time, layouts), then how many groups of arrays share the layer.
Splitting input channels keeps shared sums, but adds partial sums outside; splitting output channels
loses sharing. Whether weights are the program or data is decided by energy times time (unless the
objective is energy): the two differ by an order of magnitude in both, in opposite directions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, FitError, InternalError, raise_if
from cimc.ir.tiles import Layer, Tiles
from cimc.kind import Options
from cimc.mapping.objective import Objective
from cimc.passes._blocks import Block, k_ranges
from cimc.passes._signed_sums import reduced, signed_sums
from cimc.target import Target
from cimc.targets.rtm_ap import emit_kernels as kernels
from cimc.targets.rtm_ap.codegen import Part, Style, chunk_of, demand_of, part_of
from cimc.targets.rtm_ap.lowering import block
from cimc.targets.rtm_ap.multiply import SUM, operands_of, reduction_of, room_for, words_of
from cimc.targets.rtm_ap.plan import (
    Plan,
    Tile,
    evened,
    geometry_of,
    position_tile,
    too_large,
)
from cimc.targets.rtm_ap.pricing import Price, Pricer
from cimc.targets.rtm_ap.regions import CHOICES, Demand, regions, shortage
from cimc.targets.rtm_ap.work import Work, spec_of, work_of

Ints = NDArray[np.int64]
_MOST_PAIRS = 1 << 20  # of terms in the sums of a chunk: what sharing takes time for
_PRODUCTS = 64  # of a row at a time: loading costs the same, code grows
_CHUNKS = {0: (), 1: (36,), 2: (18, 36, 72, 144), 3: (9, 18, 36, 72, 144, 288)}  # inputs, by level
_LAYOUTS = {0: CHOICES[:1], 1: CHOICES[:1], 2: (CHOICES[0], CHOICES[3]), 3: CHOICES}


def map_layers(tiles: Tiles, target: Target, options: Options) -> Tiles:
    """A plan in the nest of every macro layer; all layers that do not fit are named together."""
    layers, faults = list[Layer](), list[Fault]()
    producers = tiles.graph.producers()
    for layer in tiles.layers:
        try:
            layers.append(_mapped(layer, tiles, target, options))
        except FitError as problem:
            node = next(iter(producers[layer.ops[0]].nodes), "")
            faults += [replace(fault, node=fault.node or node) for fault in problem.faults]
    raise_if(faults, FitError)
    return replace(tiles, layers=tuple(layers))


def _mapped(layer: Layer, tiles: Tiles, target: Target, options: Options) -> Layer:
    if layer.place != "macro":
        return layer
    if layer.nest is None:
        raise InternalError(f"macro layer {layer.name} has no nest")
    work = work_of(layer, tiles)
    plan = Chooser(layer, work, target, options).plan()
    return replace(layer, nest=plan.nest(layer.nest, target, work.shape))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a plan costs: cycles, energy in pJ with leakage, and the counts behind both."""

    plan: Plan
    cycles: int
    energy_pj: float
    price: Price  # all runs and loads of one group of arrays for one tile

    def worth(self, objective: str) -> float:
        """Smaller is better."""
        return Objective.parse(objective).score(self.cycles, self.energy_pj)


class Chooser:
    """The plans of one layer."""

    def __init__(self, layer: Layer, work: Work, target: Target, options: Options) -> None:
        self.layer, self.work, self.target, self.options = layer, work, target, options
        self.spec = spec_of(target)
        self.ap, self.geometry = self.spec.ap, geometry_of(target)
        self.lines = self.spec.cores * self.ap.arrays * self.ap.rows
        sums = list(self.spec.memory.values())[1].size_bits // 8
        self.most_sums = max(1, sums // 16)  # of 4 bytes; the rest is for tables and epilogues
        self._parts: dict[tuple[Block, bool], Part | None] = {}
        self._prices: dict[tuple[Block, Style], Price | None] = {}

    def plan(self) -> Plan:
        """The best plan."""
        found = [*self.programs(), *self.multiplies()]
        if not found:
            need, help_ = shortage(self._least(), self.geometry)
            have = (
                f"{self.ap.columns} columns of {self.ap.domains} domains ({self.target.path}: ap)"
            )
            raise too_large(self.layer.name, need, have, help_)
        objective = "energy" if self.options.objective == "energy" else "edp"
        return min(found, key=lambda figures: figures.worth(objective)).plan

    def figures(self, plan: Plan) -> Iterator[Figures]:
        """The figures of a given plan; none if it does not fit."""
        if plan.kind == "multiply":
            return self.multiplied(plan)
        return self.sampled(plan.style, plan.tile, plan.k_groups, plan.c_groups)

    # --- weights as the program ---

    def programs(self) -> Iterator[Figures]:
        """The best plan whose program is the weights, if there is one."""
        if self.work.weights is None:
            return
        objective = self.options.objective
        tile = self.tile()
        samples = [
            figures for style in self.styles() for figures in self.sampled(style, tile, 1, 1)
        ]
        if not samples:
            yield from self._narrow(tile)
            return
        style = min(samples, key=lambda figures: figures.worth(objective)).plan.style
        splits = [
            figures
            for k_groups, c_groups in self.splits(tile, style)
            for figures in self.sampled(style, tile, k_groups, c_groups)
        ]
        yield min(splits or samples, key=lambda figures: figures.worth(objective))

    def _narrow(self, tile: Tile) -> Iterator[Figures]:
        """Where not all output channels fit at once: fewer, and some of them later."""
        k_groups, window = 1, self.work.shape.r * self.work.shape.s
        styles = list(self.styles())
        styles += [replace(style, chunk=window) for style in styles[:1]]
        while k_groups < 2 * self.work.channels:
            for style in styles:
                found = list(self.sampled(style, tile, min(k_groups, self.work.channels), 1))
                if found:
                    yield from found
                    return
            k_groups *= 2

    def _least(self) -> Demand:
        """One output channel and one input channel at a time: less is no program."""
        window, top = self.work.shape.r * self.work.shape.s, (1 << self.work.input_bits) - 1
        most = operands_of(self.work, self.work.shape.c * window).sum_bits
        local = window
        if self.work.weights is not None:
            each = np.abs(self.work.weights)
            most = int(each.sum(axis=1).max() * top).bit_length()
            local = int(each.reshape(len(each), -1, window).sum(axis=2).max())
        local_bits = max(1, (local * top).bit_length())
        return Demand(1, max(1, most), local_bits, window, self.work.input_bits, 0, 0)

    def tile(self) -> Tile:
        """Positions that work side by side."""
        return position_tile(
            self.work.shape, max(1, min(self.lines, self.most_sums // self.work.channels))
        )

    def styles(self) -> Iterator[Style]:
        """Chunk sizes and layouts to try."""
        window = self.work.shape.r * self.work.shape.s
        level = min(self.options.level, 3)
        most = max(1, self.work.shape.c * self.work.shape.g) * window
        wanted = [size for size in _CHUNKS[level] if size >= window] or [window]
        if level == 0:
            free = self.geometry.columns // 2
            wanted = [max(window, free // self.work.input_bits // window * window)]
        chunks = dict.fromkeys(min(most, size // window * window) for size in wanted)
        for chunk in chunks:
            for inputs, temps in _LAYOUTS[level]:
                yield Style(chunk, level > 0, self._destroys(), inputs, temps)

    def _destroys(self) -> bool:
        """Destructive additions take fewer passes, but drive more cells."""
        ap = self.ap
        saved, more = 4 * ap.search_pj, 0.75 * ap.write_pj
        return self.options.level > 0 and (self.options.objective == "latency" or saved > more)

    def splits(self, tile: Tile, style: Style) -> Iterator[tuple[int, int]]:
        """Groups along output and input channels that the chip holds at once."""
        arrays = -(-tile.lines // self.ap.rows)
        space = self.spec.cores // -(-arrays // self.ap.arrays)
        chunks = -(-self.work.shape.c * self.work.shape.r * self.work.shape.s // style.chunk)
        k_groups = 1
        while k_groups <= min(space, self.work.channels):
            c_groups = 1
            while k_groups * c_groups <= space and c_groups <= chunks:
                yield k_groups, c_groups
                c_groups *= 2
            k_groups *= 2
        if self.options.level == 0 or space == 0:
            yield 1, 1

    def sampled(self, style: Style, tile: Tile, k_groups: int, c_groups: int) -> Iterator[Figures]:
        """The figures of a plan, from a chunk in the middle of its first group; none: no room."""
        shape = self.work.shape
        begin, end = next(iter(k_ranges(shape, k_groups)))
        first, last = begin // shape.k, -(-end // shape.k)
        channels = (last - first) * shape.c
        step = max(1, style.chunk // (shape.r * shape.s))
        middle = channels // step // 2 * step
        middle -= step if middle == channels and middle else 0
        at = first * shape.c + middle
        piece = Block(begin, end, at, min(at + step, last * shape.c))
        if (piece, style) not in self._prices:
            self._prices[piece, style] = self._chunk_price(piece, style)
        price = self._prices[piece, style]
        if price is None:
            return
        chunks = math.ceil(math.ceil(channels / c_groups) / step)
        groups = len(list(k_ranges(shape, k_groups)))
        plan = Plan("program", tile, groups, c_groups, style)
        yield self._figures(plan, price.times(chunks), end - begin)

    def _part(self, piece: Block, share: bool) -> Part | None:
        """The sums of one chunk; None where sharing would take too long."""
        if (piece, share) not in self._parts:
            sums, part = signed_sums(block(self.work, piece)), None
            lengths = np.diff(sums.start)
            few = piece.c_end - piece.c_begin == 1 or (lengths**2).sum() < 2 * _MOST_PAIRS
            if few or not share:
                part = part_of(reduced(sums) if share else sums, self.work.input_bits)
            self._parts[piece, share] = part
        return self._parts[piece, share]

    def _chunk_price(self, piece: Block, style: Style) -> Price | None:
        """Load and run of one chunk that comes after others; None: no room, even unshared."""
        for share in (True, False) if style.share else (False,):
            part = self._part(piece, share)
            found = self._part_price(part, piece, style) if part is not None else None
            if found is not None:
                return found
        return None

    def _part_price(self, part: Part, piece: Block, style: Style) -> Price | None:
        if self.work.weights is None:
            return None
        top = (1 << self.work.input_bits) - 1
        high = np.abs(self.work.weights).sum(axis=1) * top
        demand = demand_of([[part]], self.work.input_bits)
        demand = replace(demand, acc_bits=max(1, int(high.max(initial=1)).bit_length()))
        room = regions(demand, self.geometry, style.input_layout, style.temp_layout)
        if room is None:
            return None
        reached = high[piece.k_begin : piece.k_end] // 2
        words = _middle_words(part, room.places(), reached, self.work.input_bits, style)
        if words is None:
            return None
        slots, pricer = room.slots(), Pricer(self.ap)
        pricer.touched(slots[: part.sums.inputs])
        pricer.code(words, slots)
        load = pricer.touched(slots[: part.sums.inputs])
        return load + pricer.code(words, slots)

    def _figures(self, plan: Plan, price: Price, rows: int) -> Figures:
        """Cycles and energy of all tiles from those of one group in one tile."""
        spec, tile, ap = self.spec, plan.tile, self.ap
        arrays = plan.arrays(ap.rows)
        space = max(1, spec.cores // -(-arrays // ap.arrays))
        rounds = -(-plan.groups // space)
        trips = int(np.prod(list(tile.trips(self.work.shape).values())))
        sums = self.work.channels * tile.positions * plan.c_groups
        memory = list(spec.memory.values())[1]
        reading = rows * 24 * ap.search_cycles
        outside = -(-sums * 32 // memory.write_bits_per_cycle) + -(-sums // spec.vector.lanes)
        cycles = trips * (rounds * (price.cycles(ap) + reading) + outside)
        energy = price.energy_pj(ap) * arrays * ap.rows * plan.groups
        energy += sums * (32 * 2 * memory.write_pj_per_bit + spec.vector.op_pj)
        leaking = sum(
            level.leakage_pj_per_cycle * (spec.cores if level.per == "core" else 1)
            for level in spec.memory.values()
        )
        return Figures(plan, cycles, trips * energy + cycles * leaking, price)

    # --- weights as data ---

    def multiplies(self) -> Iterator[Figures]:
        """The plan that keeps weights in the rows."""
        shape = self.work.shape
        most = min(self.lines, self.most_sums)
        q = min(shape.q, most)
        k = min(shape.k, max(1, most // q))
        p = min(shape.p, max(1, most // (q * k)))
        g = min(shape.g, max(1, most // (q * k * p)))
        n = min(shape.n, max(1, most // (q * k * p * g)))
        tile = evened(Tile(n, p, q, g, k), shape)
        parts = 1
        while parts * 2 * tile.lines <= self.lines and parts * 2 <= shape.c:
            parts *= 2
        tile = replace(tile, parts=parts)
        step = min(_PRODUCTS // (shape.r * shape.s) or 1, shape.c)
        while step:
            found = list(
                self.multiplied(Plan("multiply", tile, 1, 1, Style(step * shape.r * shape.s)))
            )
            if found:
                yield from found
                return
            step //= 2

    def multiplied(self, plan: Plan) -> Iterator[Figures]:
        """The figures of a plan that keeps weights in the rows; none: no room."""
        cut = reduction_of(self.work, plan)
        held = operands_of(self.work, cut.part * cut.window)
        room = room_for(held, cut.values, self.geometry)
        if room is None:
            return
        slots, pricer = room.slots(cut.values), Pricer(self.ap)
        code = words_of(held, cut.values)[SUM]
        pricer.touched(slots[1:])
        pricer.code(code, slots)
        once = pricer.touched(slots[1:]) + pricer.code(code, slots)
        yield self._figures(plan, once.times(cut.trips), 1)


def _middle_words(
    part: Part, places: kernels.Places, reached: Ints, input_bits: int, style: Style
) -> NDArray[np.uint32] | None:
    """The words of a chunk that adds to accumulators which hold something."""
    size = 5 * len(part.sums.temps) + len(part.sums.terms) + 5 * part.sums.rows
    words = np.empty(size, np.uint32)
    chunk = chunk_of(part.sums, input_bits)
    count = kernels.emit_chunk(chunk, places, reached.copy(), False, False, style.dead, words, 0)
    return None if count < 0 else words[:count]
