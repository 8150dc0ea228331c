"""Where to cut a network into stages, and how many cores each gets.

Every layer is mapped for every number of cores that a stage may have: with its operands outside
(`far`), and as if they all lay on the chip (`near`), which small networks come close to. For each
number of stages, a dynamic program over layers and cores finds the cuts whose slowest stage is
fastest. Stages share the port of the outermost memory, so no period is shorter than what all
layers together hold it for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from cimc.ir.graph import operands
from cimc.ir.tiles import Layer, Tiles
from cimc.kind import Options
from cimc.mapping.flows import flows
from cimc.mapping.machine import Level, Machine
from cimc.mapping.nest import Mapped, capacity_faults
from cimc.target import Target
from cimc.targets.sram_cim.cost import width
from cimc.targets.sram_cim.homes import Homes
from cimc.targets.sram_cim.layers import Layers, mapped_nest
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.network_cost import Mappings, NetworkCost, band_moves, epilogue_of
from cimc.targets.sram_cim.placing import nest_of
from cimc.targets.sram_cim.stages import Stage, cores_of_machine, part_of

EVERY = 8  # up to so many cores, each number is tried for a stage; beyond, powers of two


@dataclass(frozen=True, slots=True)
class Cut:
    """Layers `first` .. `end`-1 on `cores` of their own."""

    first: int
    end: int
    cores: int


@dataclass(frozen=True, slots=True)
class Share:
    """One layer on so many cores: its nest, its cycles, those as if all lay on the chip."""

    layer: Layer
    far: float
    near: float


class Shares:
    """The layers of a network on parts of the machine."""

    def __init__(self, tiles: Tiles, target: Target, options: Options) -> None:
        self.tiles, self.target, self.options = tiles, target, options
        self.layers, self.machine = Layers(tiles), machine_of(target)
        self.total = cores_of_machine(self.machine)
        self.known: dict[int, tuple[Share, ...]] = {}
        self.mappings: Mappings = {}

    def on(self, cores: int) -> tuple[Share, ...]:
        """All layers on so many cores; none if one of them does not fit there."""
        if cores not in self.known:
            self.known[cores] = tuple(self._on(cores))
        return self.known[cores] if len(self.known[cores]) == len(self.tiles.layers) else ()

    def _on(self, cores: int) -> Iterator[Share]:
        stage = Stage("", self.tiles, part_of(self.machine, cores), 0)
        cost = NetworkCost(self.target, self.options, stage, self.mappings)
        homes = Homes(self.layers, stage.machine)
        inside = on_chip(stage.machine, homes.band_level)
        for layer in self.tiles.layers:
            if layer.nest is None:
                cycles = sum(
                    cost.vector(self.layers.producers[name], homes, None).cycles
                    for name in layer.ops
                )
                yield Share(layer, cycles, cycles)
                continue
            workload, epilogue = self.layers.heavy(layer).workload, epilogue_of(layer)
            far = cost.mapping(workload, epilogue, stage.machine)
            if any(capacity_faults(far)):
                return
            near = cost.mapping(workload, epilogue, inside)
            best = far if any(capacity_faults(near)) else near
            found = [cost.cycles_of(mapped, layer) for mapped in (far, best)]
            named = dataclasses.replace(layer, nest=nest_of(far))
            yield Share(named, found[0], min(found))

    # --- cuts ---

    def cuts(self, counts: Collection[int], *, near: bool) -> Iterator[tuple[Cut, ...]]:
        """For each number of stages, the cuts whose slowest stage is fastest."""
        sums = {size: self.sums(size, near) for size in self.sizes() if self.on(size)}
        layers = len(self.tiles.layers)
        slowest: dict[tuple[int, int], float] = {(0, 0): 0.0}  # by layers and cores taken
        ways: dict[tuple[int, int], tuple[Cut, ...]] = {(0, 0): ()}
        for count in range(1, max(counts, default=0) + 1):
            following: dict[tuple[int, int], float] = {}
            chosen: dict[tuple[int, int], tuple[Cut, ...]] = {}
            for (first, taken), before in slowest.items():
                for size, total in sums.items():
                    if taken + size > self.total:
                        continue
                    for end in range(first + 1, layers + 1):
                        worst = max(before, total[end] - total[first])
                        key = end, taken + size
                        if worst < following.get(key, math.inf):
                            following[key] = worst
                            chosen[key] = (*ways[first, taken], Cut(first, end, size))
            slowest, ways = following, chosen
            ends = [key for key in slowest if key[0] == layers]
            if count in counts and ends:
                yield ways[min(ends, key=lambda key: (slowest[key], key))]

    def slowest(self, cuts: Sequence[Cut], *, near: bool) -> float:
        """Cycles of the slowest stage."""
        ends = [(self.sums(cut.cores, near), cut) for cut in cuts]
        return max(sums[cut.end] - sums[cut.first] for sums, cut in ends)

    def sizes(self) -> list[int]:
        """Numbers of cores that a stage may have."""
        if self.total <= EVERY:
            return list(range(1, self.total + 1))
        return [1 << place for place in range(self.total.bit_length())]

    def sums(self, cores: int, near: bool) -> list[float]:
        """Cycles of the first so many layers on so many cores."""
        found = [0.0]
        for share in self.on(cores):
            found.append(found[-1] + (share.near if near else share.far))
        return found


def on_chip(machine: Machine, home: int) -> Machine:
    """The machine as a layer finds it whose operands all lie in level `home`."""

    def bare(place: int, level: Level) -> Level:
        return level if place >= home else dataclasses.replace(level, holds=(False, False, False))

    levels = tuple(bare(place, level) for place, level in enumerate(machine.levels))
    return dataclasses.replace(machine, levels=levels)


# --- what all stages share ---


def outside(homes: Homes, cost: NetworkCost) -> float:
    """Cycles that the layers of a stage hold the port of the outermost memory for one sample."""
    read, written = 0.0, 0.0
    layers = homes.layers
    for place, layer in enumerate(homes.tiles.layers):
        band = layers.bands.get(layer.name)
        count = 1 if band is None else band.count
        if band is not None:
            for part, inward in band_moves(layers, band, layer):
                bits = 0 if homes.level(part.whole) else part.value.type.bits * count
                read, written = (read + bits, written) if inward else (read, written + bits)
        if layer.nest is not None:
            coming, going = _macro_bits(mapped_nest(layer, layers.heavy(layer), homes.view(place)))
            read, written = read + coming * count, written + going * count
        elif band is None:
            for op in (layers.producers[name] for name in layer.ops):
                values = dict.fromkeys(operands(op))
                read += sum(value.type.bits for value in values if not homes.level(value))
                written += 0 if homes.level(op.out) else op.out.type.bits
    memory = next(iter(cost.spec.memory.values()))
    cycles = read / width(memory, "read"), written / width(memory, "write")
    return sum(cycles) if memory.ports == "shared" else max(cycles)


def _macro_bits(mapped: Mapped) -> tuple[float, float]:
    """Bits that leave and enter the outermost memory."""
    read, written = 0.0, 0.0
    for flow in flows(mapped):
        if flow.outer.level == 0:
            bits = flow.outer_elements * mapped.bits(flow.operand, 0)
            read, written = read + flow.inward * bits, written + flow.outward * bits
    return read, written
