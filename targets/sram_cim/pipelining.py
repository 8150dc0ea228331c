"""A pipeline over cores: stages of layers, and what each of them keeps for itself.

`cuts` proposes where to cut. The most promising proposals are worked out: what stages pass on stays
on the chip where half of a level holds it, each stage finds which weights stay in its cells, what
else stays in its part of the chip's buffer, and what it fuses. The one with the shortest period by
the closed form is taken: that of the slowest stage, or of the outermost memory's port.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from cimc.errors import Fault, FitError, UsageError, raise_if
from cimc.ir.tiles import Keep, Staged, Tiles
from cimc.kind import Options
from cimc.target import Target
from cimc.targets.sram_cim.cells import keep_in_cells
from cimc.targets.sram_cim.cuts import Cut, Shares, outside
from cimc.targets.sram_cim.fusion import fuse_among
from cimc.targets.sram_cim.homes import Homes
from cimc.targets.sram_cim.layers import Layers
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.network_cost import NetworkCost
from cimc.targets.sram_cim.residency import keep_around
from cimc.targets.sram_cim.stages import (
    bytes_passed_on,
    cores_of_machine,
    joined,
    passed_on,
    stages_of,
)

MOST = 8  # stages
PROPOSALS = 3  # that are worked out, of each way to count
ROOM = 0.5  # share of a level for what stages pass on, at most


def pipeline_cores(tiles: Tiles, target: Target, options: Options, *, stages: int) -> Tiles:
    """The mapped tiles as a pipeline of `stages`; with 0 of them, of as many as gain most.

    What is kept and fused is chosen anew in each stage, where the given tiles have such.
    raises  UsageError for a number of stages that there cannot be, FitError where layers do not
            fit on fewer cores
    """
    if tiles.staged:
        return tiles
    raise_if(_impossible(tiles, target, stages), UsageError)
    if not stages and min(cores_of_machine(machine_of(target)), len(tiles.layers)) < 2:
        return tiles
    search = _Search(tiles, target, options)
    found = search.best(stages)
    if found is None and stages:
        need = f"layers that fit on parts of {search.shares.total} cores"
        raise FitError(Fault(f"{stages} stages do not fit", need, code="CIM4041"))
    return found or tiles


def _impossible(tiles: Tiles, target: Target, stages: int) -> Iterator[Fault]:
    total = cores_of_machine(machine_of(target))
    if not 0 <= stages <= min(total, len(tiles.layers)):
        yield Fault(
            f"there cannot be {stages} stages",
            need="a core and a layer for each",
            have=f"{total} cores ({target.path}: cores), {len(tiles.layers)} layers",
            help="ask for fewer stages, or for 0: as many as gain",
            code="CIM4040",
        )


class _Search:
    """Proposals of cuts, worked out."""

    def __init__(self, tiles: Tiles, target: Target, options: Options) -> None:
        self.given, self.target, self.options = tiles, target, options
        self.tiles = dataclasses.replace(tiles, keeps=(), fused=())
        self.shares = Shares(self.tiles, target, options)

    def best(self, stages: int) -> Tiles | None:
        """The pipeline with the shortest period by the closed form; None if none fits."""
        most = min(MOST, self.shares.total, len(self.tiles.layers))
        counts = (stages,) if stages else range(1, most + 1)
        found = [
            self.worked_out(cuts, passing)
            for cuts in self.proposals(counts)
            for passing in (False, True)
        ]
        return min(found, key=self.period, default=None)

    def proposals(self, counts: Sequence[int]) -> list[tuple[Cut, ...]]:
        """Cuts that promise most, by layers with operands outside and by layers on the chip."""
        found: dict[tuple[Cut, ...], None] = {}
        for near in (False, True):
            cuts = list(self.shares.cuts(counts, near=near))
            cuts.sort(key=lambda one: self.shares.slowest(one, near=near))
            found.update(dict.fromkeys(cuts[:PROPOSALS]))
        return list(found)

    def period(self, tiles: Tiles) -> float:
        """Cycles between samples by the closed form."""
        slowest, shared = 0.0, 0.0
        for stage in stages_of(tiles, self.shares.machine):
            cost = NetworkCost(self.target, self.options, stage, self.shares.mappings)
            slowest = max(slowest, cost.total(cost.by_layer(stage.tiles)).cycles)
            shared += outside(Homes(Layers(stage.tiles), stage.machine), cost)
        return max(slowest, shared)

    def worked_out(self, cuts: Sequence[Cut], passing: bool) -> Tiles:
        """The cuts as stages, each with what it keeps and fuses where the given tiles do so.

        `passing`: what stages pass on stays on the chip, as far as it fits.
        """
        layers = [share for cut in cuts for share in self.shares.on(cut.cores)[cut.first : cut.end]]
        staged = tuple(
            Staged(tuple(layer.name for layer in self.tiles.layers[cut.first : cut.end]), cut.cores)
            for cut in cuts
        )
        mapped = tuple(share.layer for share in layers)
        tiles = dataclasses.replace(self.tiles, layers=mapped, staged=staged)
        kept = self.passed(tiles) if passing else None
        tiles = kept or tiles
        stages = []
        for stage in stages_of(tiles, self.shares.machine):
            cost = NetworkCost(self.target, self.options, stage, self.shares.mappings)
            own = keep_in_cells(stage.tiles, cost)
            if self.given.keeps:
                own = keep_around(own, cost, weights=True)
            if self.given.fused:
                own = fuse_among(own, cost)
            stages.append(dataclasses.replace(stage, tiles=own))
        return joined(tiles, stages)

    def passed(self, tiles: Tiles) -> Tiles | None:
        """What stages pass on in a level of the chip, the smallest first; layers mapped for it."""
        machine, slots = self.shares.machine, passed_on(tiles)
        homes = Homes(Layers(tiles), machine)
        level = machine.levels[homes.band_level]
        room = level.size_bits / 8 * ROOM
        groups = {homes.layers.leaving(layer) for layer in tiles.layers}
        sizes = {
            names: sum(bytes_passed_on(tiles, name, slots.get(name, 1)) for name in names)
            for names in groups
            if set(names) & set(slots)
            and set(names) <= set(slots)
            and not any(homes.obstacle(name, homes.band_level) for name in names)
        }
        keeps: list[Keep] = []
        for names in sorted(sizes, key=lambda names: (sizes[names], names)):
            if sizes[names] <= room:
                room -= sizes[names]
                keeps += [Keep(name, level.name) for name in names]
        if not keeps or not homes.band_level:
            return None
        return self.mapped(dataclasses.replace(tiles, keeps=tuple(keeps)))

    def mapped(self, tiles: Tiles) -> Tiles | None:
        """All stages' layers mapped beside what is kept; None if one does not fit."""
        stages = []
        for stage in stages_of(tiles, self.shares.machine):
            cost = NetworkCost(self.target, self.options, stage, self.shares.mappings)
            own = cost.mapped(stage.tiles)
            if own is None:
                return None
            stages.append(dataclasses.replace(stage, tiles=own))
        return joined(tiles, stages)
