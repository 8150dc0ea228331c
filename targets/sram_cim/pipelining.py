"""Stages of a pipeline over cores: which layers, and how many cores each.

Every layer is mapped for every number of cores that a stage may have. For each number of stages, a
dynamic program over layers and cores finds the cuts whose slowest stage is fastest; stages share
the port of the outermost memory, so no period is shorter than it is held for one sample. The best
of these by that closed form is taken; then each stage finds for itself which weights stay in its
cells, what stays in its part of the chip's buffer, and what it fuses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cimc.errors import Fault, FitError, UsageError, raise_if
from cimc.ir.graph import operands
from cimc.ir.tiles import Layer, Staged, Tiles
from cimc.kind import Options
from cimc.mapping.flows import flows
from cimc.mapping.nest import Mapped, capacity_faults
from cimc.target import Target
from cimc.targets.sram_cim.cells import keep_in_cells
from cimc.targets.sram_cim.cost import width
from cimc.targets.sram_cim.fusion import fuse_among
from cimc.targets.sram_cim.homes import Homes
from cimc.targets.sram_cim.layers import Layers, mapped_nest
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.network_cost import Mappings, NetworkCost, epilogue_of
from cimc.targets.sram_cim.placing import nest_of
from cimc.targets.sram_cim.residency import keep_around
from cimc.targets.sram_cim.stages import Stage, cores_of_machine, joined, part_of, stages_of

MOST = 8  # stages
EVERY = 8  # up to so many cores, each number is tried for a stage; beyond, powers of two


@dataclass(frozen=True, slots=True)
class Share:
    """One layer on so many cores: its nest, its cycles, and those of the outermost memory."""

    layer: Layer
    cycles: float
    outside: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Layers `first` .. `end`-1 on `cores` of their own."""

    first: int
    end: int
    cores: int


def pipeline_cores(tiles: Tiles, target: Target, options: Options, *, stages: int) -> Tiles:
    """The mapped tiles as a pipeline of `stages`; with 0 of them, of as many as gain most.

    What is kept and fused is chosen anew in each stage, where the given tiles have such.
    raises  UsageError for a number of stages that there cannot be, FitError where layers do not
            fit on fewer cores
    """
    if tiles.staged:
        return tiles
    bare = dataclasses.replace(tiles, keeps=(), fused=())
    raise_if(_impossible(tiles, target, stages), UsageError)
    search = _Search(bare, target, options)
    if search.total < 2 and not stages:
        return tiles
    cuts = search.best(stages)
    if cuts is None:
        need = f"layers that fit on parts of {search.total} cores"
        fault = Fault(f"no {stages or 'two'} stages fit", need, code="CIM4041")
        if stages:
            raise FitError(fault)
        return tiles
    return search.refined(cuts, tiles)


def _impossible(tiles: Tiles, target: Target, stages: int) -> Iterator[Fault]:
    total = cores_of_machine(machine_of(target))
    if stages > min(total, len(tiles.layers)) or stages < 0:
        yield Fault(
            f"{stages} stages cannot be had",
            need="a core and a layer for each",
            have=f"{total} cores ({target.path}: cores), {len(tiles.layers)} layers",
            help="ask for fewer stages, or for 0: as many as gain",
            code="CIM4040",
        )


class _Search:
    """The layers alone on parts of the machine."""

    def __init__(self, tiles: Tiles, target: Target, options: Options) -> None:
        self.tiles, self.target, self.options = tiles, target, options
        self.layers, self.machine = Layers(tiles), machine_of(target)
        self.total = cores_of_machine(self.machine)
        self.known: dict[int, list[Share] | None] = {}
        self.mappings: Mappings = {}

    # --- layers on fewer cores ---

    def shares(self, cores: int) -> list[Share] | None:
        """All layers on so many cores; None if one of them does not fit there."""
        if cores not in self.known:
            self.known[cores] = self._shares(cores)
        return self.known[cores]

    def _shares(self, cores: int) -> list[Share] | None:
        stage = Stage("", self.tiles, part_of(self.machine, cores), 0)
        cost = NetworkCost(self.target, self.options, stage, self.mappings)
        found = []
        for layer in self.tiles.layers:
            if layer.nest is not None and cores < self.total:
                workload = self.layers.heavy(layer).workload
                mapped = cost.mapping(workload, epilogue_of(layer), stage.machine)
                if any(capacity_faults(mapped)):
                    return None
                layer = dataclasses.replace(layer, nest=nest_of(mapped))
            found.append(layer)
        tiles = dataclasses.replace(self.tiles, layers=tuple(found))
        homes = Homes(Layers(tiles), stage.machine)
        return [
            Share(layer, figures.cycles, self.outside(homes, place))
            for place, (layer, figures) in enumerate(zip(found, cost.by_layer(tiles), strict=True))
        ]

    def outside(self, homes: Homes, place: int) -> float:
        """Cycles that a layer holds the port of the outermost memory."""
        layer = homes.tiles.layers[place]
        memory = next(iter(spec_of(self.target).memory.values()))
        read, written = 0.0, 0.0
        if layer.nest is None:
            for name in layer.ops:
                op = self.layers.producers[name]
                read += sum(value.type.bits for value in dict.fromkeys(operands(op)))
                written += op.out.type.bits
        else:
            mapped = mapped_on(homes, place)
            for flow in flows(mapped):
                if flow.outer.level == 0:
                    bits = flow.outer_elements * mapped.bits(flow.operand, 0)
                    read += flow.inward * bits
                    written += flow.outward * bits
        cycles = read / width(memory, "read"), written / width(memory, "write")
        return sum(cycles) if memory.ports == "shared" else max(cycles)

    # --- cuts ---

    def best(self, stages: int) -> tuple[Cut, ...] | None:
        """The cuts with the shortest period; None if none fit."""
        counts = [stages] if stages else range(2, min(MOST, self.total, len(self.tiles.layers)) + 1)
        found = [(self.period(cuts), len(cuts), cuts) for cuts in self.cuts(counts)]
        return min(found, key=lambda item: item[:2])[2] if found else None

    def period(self, cuts: Sequence[Cut]) -> float:
        """Cycles between samples by the closed form: the slowest stage, or the port they share."""
        stages = [self.stage_shares(cut) for cut in cuts]
        slowest = max(sum(share.cycles for share in shares) for shares in stages)
        return max(slowest, sum(share.outside for shares in stages for share in shares))

    def stage_shares(self, cut: Cut) -> list[Share]:
        """The layers of one stage."""
        shares = self.shares(cut.cores)
        assert shares is not None
        return shares[cut.first : cut.end]

    def cuts(self, counts: Sequence[int]) -> Iterator[tuple[Cut, ...]]:
        """For each number of stages, the cuts whose slowest stage is fastest."""
        sizes = [size for size in self.sizes() if self.shares(size) is not None]
        sums = {size: self.sums(size) for size in sizes}
        layers = len(self.tiles.layers)
        slowest: dict[tuple[int, int], float] = {(0, 0): 0.0}  # by layers and cores taken
        ways: dict[tuple[int, int], tuple[Cut, ...]] = {(0, 0): ()}
        for count in range(1, max(counts, default=0) + 1):
            following: dict[tuple[int, int], float] = {}
            chosen: dict[tuple[int, int], tuple[Cut, ...]] = {}
            for (first, taken), before in slowest.items():
                for size in sizes:
                    if taken + size > self.total:
                        break
                    for end in range(first + 1, layers + 1):
                        worst = max(before, sums[size][end] - sums[size][first])
                        key = end, taken + size
                        if worst < following.get(key, math.inf):
                            following[key] = worst
                            chosen[key] = (*ways[first, taken], Cut(first, end, size))
            slowest, ways = following, chosen
            ends = [key for key in slowest if key[0] == layers]
            if count in counts and ends:
                yield ways[min(ends, key=lambda key: (slowest[key], key))]

    def sizes(self) -> list[int]:
        """Numbers of cores that a stage may have."""
        if self.total <= EVERY:
            return list(range(1, self.total + 1))
        return [1 << place for place in range(self.total.bit_length())]

    def sums(self, cores: int) -> list[float]:
        """Cycles of the first so many layers on so many cores."""
        found = [0.0]
        for share in self.shares(cores) or ():
            found.append(found[-1] + share.cycles)
        return found

    # --- stages ---

    def refined(self, cuts: Sequence[Cut], given: Tiles) -> Tiles:
        """The cuts as stages, each with what it keeps and fuses; as `given` does, if at all."""
        layers = [share.layer for cut in cuts for share in self.stage_shares(cut)]
        staged = tuple(
            Staged(tuple(layer.name for layer in self.tiles.layers[cut.first : cut.end]), cut.cores)
            for cut in cuts
        )
        tiles = dataclasses.replace(self.tiles, layers=tuple(layers), staged=staged)
        stages = []
        for stage in stages_of(tiles, self.machine):
            cost = NetworkCost(self.target, self.options, stage, self.mappings)
            own = keep_in_cells(stage.tiles, cost)
            if given.keeps:
                own = keep_around(own, cost, weights=True)
            if given.fused:
                own = fuse_among(own, cost)
            stages.append(dataclasses.replace(stage, tiles=own))
        return joined(tiles, stages)


def mapped_on(homes: Homes, place: int) -> Mapped:
    """A layer's nest, resolved on the machine as the layer finds it."""
    layer = homes.tiles.layers[place]
    return mapped_nest(layer, homes.layers.heavy(layer), homes.view(place))
