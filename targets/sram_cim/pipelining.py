"""A pipeline over cores: stages of layers, and what each of them keeps for itself.

`cuts` proposes where to cut. The most promising proposals are worked out: what stages pass on stays
on the chip where half of a level holds it, each stage finds which weights stay in its cells, what
else stays in its part of the chip's buffer, and what it fuses: for the objective, and for the
product of cycles and energy, which goes easier on what stages share. The one with the shortest
period by the closed form is taken.

A stage that takes T cycles alone, o of them with the port of the outermost memory, finds the port
taken by others for their o' cycles of each period P. Waiting as long as if they came at random,

    P = T + o * o' / P        for the slowest stage; no less than all o together
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from cimc.errors import Fault, FitError, UsageError, raise_if
from cimc.ir.tiles import Keep, Staged, Tiles
from cimc.kind import Options
from cimc.mapping.machine import Machine
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
    Stage,
    bytes_passed_on,
    cores_of_machine,
    joined,
    passed_on,
    stages_of,
)

MOST = 8  # stages
PROPOSALS = 2  # that are worked out, of each way to count
SPARING = "edp"  # the objective that spares what stages share
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
    objectives = dict.fromkeys((options.objective, SPARING))
    ways = [dataclasses.replace(options, objective=objective) for objective in objectives]
    found = [one for way in ways for one in _Search(tiles, target, way).pipelines(stages)]
    if not found and stages:
        need = f"layers that fit on parts of {cores_of_machine(machine_of(target))} cores"
        raise FitError(Fault(f"{stages} stages do not fit", need, code="CIM4041"))
    return min(found, key=lambda item: item[0])[1] if found else tiles


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
        self.known: dict[tuple[str, str, tuple[Keep, ...], Machine], Tiles] = {}

    def pipelines(self, stages: int) -> Iterator[tuple[float, Tiles]]:
        """Pipelines with their periods by the closed form; none if none fits."""
        most = min(MOST, self.shares.total, len(self.tiles.layers))
        counts = (stages,) if stages else range(1, most + 1)
        for cuts in self.proposals(counts):
            for passing in (False, True):
                tiles = self.worked_out(cuts, passing)
                if tiles is not None:
                    yield self.period(tiles), tiles

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
        cycles, ports = [], []
        for stage in stages_of(tiles, self.shares.machine):
            cost = NetworkCost(self.target, self.options, stage, self.shares.mappings)
            cycles.append(cost.total(cost.by_layer(stage.tiles)).cycles)
            ports.append(outside(Homes(Layers(stage.tiles), stage.machine), cost))
        periods = (
            (alone + math.sqrt(alone**2 + 4 * port * (sum(ports) - port))) / 2
            for alone, port in zip(cycles, ports, strict=True)
        )
        return max(*periods, sum(ports))

    def worked_out(self, cuts: Sequence[Cut], passing: bool) -> Tiles | None:
        """The cuts as stages, each with what it keeps and fuses where the given tiles do so.

        `passing`: what stages pass on stays on the chip, as far as it fits; None if nothing does.
        """
        layers = [share for cut in cuts for share in self.shares.on(cut.cores)[cut.first : cut.end]]
        staged = tuple(
            Staged(tuple(layer.name for layer in self.tiles.layers[cut.first : cut.end]), cut.cores)
            for cut in cuts
        )
        mapped = tuple(share.layer for share in layers)
        tiles = dataclasses.replace(self.tiles, layers=mapped, staged=staged)
        kept = self.passed(tiles) if passing else tiles
        if kept is None:
            return None
        stages = [self.refined(stage) for stage in stages_of(kept, self.shares.machine)]
        return joined(kept, stages)

    def refined(self, stage: Stage) -> Stage:
        """A stage with what it keeps and fuses for itself."""
        layers, keeps = stage.tiles.layers, stage.tiles.keeps
        key = layers[0].name, layers[-1].name, keeps, stage.machine
        if key not in self.known:
            cost = NetworkCost(self.target, self.options, stage, self.shares.mappings)
            own = keep_in_cells(stage.tiles, cost)
            if self.given.keeps:
                own = keep_around(own, cost, weights=True)
            if self.given.fused:
                own = fuse_among(own, cost)
            self.known[key] = own
        return dataclasses.replace(stage, tiles=self.known[key])

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
