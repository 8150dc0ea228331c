"""Which values stay on the chip between layers, and which weights stay between inferences.

Candidates are computed values and weights, best ones first: bits that never cross the port of the
outermost memory, for each bit of the level and layer that they are there. They are taken as long as
the level keeps some room for tiles; then every layer whose machine has changed is mapped anew. This
is done for several amounts of room, and what gives the best sum over all layers, by the closed form
of `timing`, is kept: the layers alone, if nothing is better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cimc.ir.graph import operands
from cimc.ir.tiles import Keep, Layer, Tiles
from cimc.kind import Options
from cimc.mapping.flows import flows
from cimc.mapping.machine import INPUT, OPERANDS, OUTPUT, WEIGHT, Machine
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.target import Target
from cimc.targets.sram_cim.homes import Homes, lifetimes, tile_bytes
from cimc.targets.sram_cim.layers import Layers
from cimc.targets.sram_cim.network_cost import NetworkCost, epilogue_of
from cimc.targets.sram_cim.placing import nest_of

ROOM = (0.05, 0.25, 0.5)  # shares of a level that are left to tiles, one after the other


@dataclass(frozen=True, slots=True)
class Candidate:
    """Values that can only be kept together: the results of one layer, or the weights of one."""

    values: tuple[str, ...]
    first: int
    last: int
    size: int  # bytes
    saved: float  # bits

    @property
    def worth(self) -> float:
        """Bits saved for each byte of the level and layer."""
        return self.saved / (self.size * (self.last - self.first + 1))


def keep_resident(tiles: Tiles, target: Target, options: Options, *, weights: bool) -> Tiles:
    """The mapped tiles with homes on the chip for what gains by it; `weights`: for them, too.

    Layers that are fused or pipelined are mapped for what is kept already: their tiles stay as
    they are.
    """
    if tiles.fused or tiles.staged:
        return tiles
    return keep_around(tiles, NetworkCost(target, options), weights=weights)


def keep_around(tiles: Tiles, cost: NetworkCost, *, weights: bool) -> Tiles:
    """The same for one stage, beside weights in its cells and values that pass to other stages."""
    cells = cost.machine.levels[cost.machine.chain(WEIGHT)[-1]].name
    passing = Homes(Layers(tiles), cost.machine).passing
    given = tuple(k for k in tiles.keeps if k.level == cells or k.value in passing)
    return _Search(dataclasses.replace(tiles, keeps=given), cost).best(weights)


class _Search:
    """The choices looked at so far, and mappings found on the way."""

    def __init__(self, tiles: Tiles, cost: NetworkCost) -> None:
        self.tiles, self.layers, self.cost = tiles, Layers(tiles), cost
        self.machine = self.cost.machine
        self.homes = Homes(self.layers, self.machine)

    def best(self, weights: bool) -> Tiles:
        """The best of all amounts of room, level by level from the outside in."""
        found, least = self.tiles, self.cost.score(self.tiles)
        for place, level in enumerate(self.machine.levels):
            if not place or level.along:  # one for each core, row or column
                continue
            for room in ROOM:
                keeps = self.chosen(place, room, weights)
                if not keeps:
                    break
                tiles = self.mapped(keeps)
                score = None if tiles is None else self.cost.score(tiles)
                if tiles is not None and score is not None and score < least:
                    found, least = tiles, score
        return found

    # --- what to keep ---

    def chosen(self, place: int, room: float, weights: bool) -> tuple[Keep, ...]:
        """The candidates worth most, while they leave some room."""
        level = self.machine.levels[place]
        size = int(level.size_bits / 8 * (1 - room))
        taken = [0] * len(self.tiles.layers)
        keeps: list[Keep] = []
        for candidate in sorted(self.candidates(place, weights), key=lambda c: (-c.worth, c.first)):
            lives = range(candidate.first, candidate.last + 1)
            if all(taken[layer] + candidate.size <= size for layer in lives):
                for layer in lives:
                    taken[layer] += candidate.size
                keeps += [Keep(value, level.name) for value in candidate.values]
        return tuple(keeps)

    def candidates(self, place: int, weights: bool) -> Iterator[Candidate]:
        """What may be kept at a level."""
        homes = Homes(self.layers, self.machine)
        lives = lifetimes(self.layers)
        read = self.traffic()
        groups = [self.layers.leaving(layer) for layer in self.tiles.layers]
        if weights:
            constants = [self.layers.heavy(y).w.name for y in self.tiles.layers if y.nest]
            groups += [(n,) for n in dict.fromkeys(constants) if homes.is_constant(n)]
        for names in groups:
            if not names or any(homes.obstacle(name, place) for name in names):
                continue
            if any(name in self.homes.levels or self.layers.strangers(name) for name in names):
                continue
            kinds = [self.layers.producers[name].out.type for name in names]
            size = sum(homes.bytes(name) for name in names)
            first, last = 0, len(self.tiles.layers) - 1
            written = 0
            if not homes.is_constant(names[0]):
                first = min(lives[name][0] for name in names)
                last = max(lives[name][1] for name in names)
                written = sum(kind.bits for kind in kinds)
            saved = written + sum(read.get(name, 0) for name in names)
            yield Candidate(names, first, last, size, saved)

    def traffic(self) -> dict[str, float]:
        """Bits read of each value from the outermost memory, by the layers alone."""
        found: dict[str, float] = {}
        for layer in self.tiles.layers:
            for name in layer.ops:
                for value in dict.fromkeys(operands(self.layers.producers[name])):
                    if value.name not in layer.ops:
                        found[value.name] = found.get(value.name, 0) + value.type.bits
            if layer.nest is not None:
                heavy, mapped = self.layers.heavy(layer), self.as_given(layer)
                if self.homes.in_cells(layer):
                    continue
                for operand, value in ((INPUT, heavy.x), (WEIGHT, heavy.w)):
                    found[value.name] += _home_bits(mapped, operand) - value.type.bits
        return found

    def as_given(self, layer: Layer) -> Mapped:
        """The mapping of a layer alone."""
        assert layer.nest is not None
        view = self.homes.view(self.tiles.layers.index(layer))
        mapped = resolve(layer.nest, self.layers.heavy(layer).workload, view)
        assert isinstance(mapped, Mapped), mapped
        return mapped

    # --- mappings ---

    def mapped(self, keeps: tuple[Keep, ...]) -> Tiles | None:
        """All layers mapped beside these values; None if tiles and values do not fit."""
        keeps = (*self.tiles.keeps, *keeps)
        homes = Homes(Layers(dataclasses.replace(self.tiles, keeps=keeps)), self.machine)
        layers: list[Layer] = []
        sizes: list[dict[int, int]] = []
        for place, layer in enumerate(self.tiles.layers):
            if layer.nest is None:
                layers.append(layer)
                sizes.append({})
                continue
            mapped = self.mapping(layer, homes.view(place))
            if any(capacity_faults(mapped)):
                return None
            layers.append(dataclasses.replace(layer, nest=nest_of(mapped)))
            sizes.append(tile_bytes(mapped))
        if homes.placed(sizes) is None:
            return None
        found = dataclasses.replace(self.tiles, layers=tuple(layers), keeps=keeps)
        return found if self.fits(found) else None

    def fits(self, tiles: Tiles) -> bool:
        """Whether all tiles fit beside weights in cells, which other mappings may take more of."""
        homes = Homes(Layers(tiles), self.machine)
        for place, layer in enumerate(tiles.layers):
            if layer.nest is not None:
                workload = homes.layers.heavy(layer).workload
                mapped = resolve(layer.nest, workload, homes.view(place))
                if not isinstance(mapped, Mapped) or any(capacity_faults(mapped)):
                    return False
        return True

    def mapping(self, layer: Layer, view: Machine) -> Mapped:
        """The best mapping of a layer on the machine as it finds it."""
        given = self.as_given(layer)
        moved = _moved(given, view)
        fits = not any(capacity_faults(moved))
        homes = [view.chain(o)[0] for o in OPERANDS]
        if fits and not any(homes):
            return moved
        workload = self.layers.heavy(layer).workload
        found = self.cost.mapping(workload, epilogue_of(layer), view)
        candidates = [moved, found] if fits else [found]
        return min(candidates, key=lambda mapped: self.cost.figures_of(mapped, layer))


def _home_bits(mapped: Mapped, operand: int) -> float:
    """Bits of an operand that leave its home for the macros."""
    first = next(flow for flow in flows(mapped) if flow.operand == operand)
    return float(first.inward * first.outer_elements * mapped.workload.bits[operand])


def _moved(given: Mapped, view: Machine) -> Mapped:
    """The same loops, with operands no further out than their homes."""
    homes = [view.chain(o)[0] for o in OPERANDS]
    levels: Sequence[tuple[int, ...]] = [
        tuple(max(level, homes[o]) for level in given.levels[o]) for o in OPERANDS
    ]
    double = frozenset((level, o) for level, o in given.double if level > homes[o])
    return dataclasses.replace(
        given,
        machine=view,
        levels=(levels[INPUT], levels[WEIGHT], levels[OUTPUT]),
        double=double,
    )
