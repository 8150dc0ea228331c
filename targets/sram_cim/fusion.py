"""Which neighbouring layers run together, band by band.

Every run of up to `LONGEST` layers is a candidate if a value inside it has no home on the chip: in
bands it never leaves it. Bands are as high as some shares of the level allow. Each layer of a
candidate is mapped for its band; a shortest path over the layers then takes the candidates that
pay, by the closed form, over their layers as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from cimc.ir.ops import Conv
from cimc.ir.tiles import Fused, Layer, Nest, Tiles
from cimc.kind import Options
from cimc.mapping.nest import capacity_faults
from cimc.target import Target
from cimc.targets.sram_cim.bands import ROWS, Band, part_bytes
from cimc.targets.sram_cim.homes import WEIGHTS, Homes, tile_bytes
from cimc.targets.sram_cim.layers import Layers, mapped_nest
from cimc.targets.sram_cim.network_cost import NetworkCost, epilogue_of
from cimc.targets.sram_cim.placing import nest_of

LONGEST = 4  # layers in a group
SHARES = (0.7, 0.35)  # of the level's free room, for bands and weights; the rest is for tiles
WEIGHT_SHARE = 0.35  # of it, at most, for one layer's weights


@dataclass(frozen=True, slots=True)
class Group:
    """Layers first .. last-1 fused, with their nests for bands."""

    first: int
    fused: Fused
    layers: tuple[Layer, ...]
    cost: float

    @property
    def end(self) -> int:
        """The place of the first layer after the group."""
        return self.first + len(self.layers)


def fuse_rows(tiles: Tiles, target: Target, options: Options) -> Tiles:
    """The mapped tiles with those layers fused that gain by it."""
    if tiles.fused or tiles.staged:
        return tiles
    return fuse_among(tiles, NetworkCost(target, options))


def fuse_among(tiles: Tiles, cost: NetworkCost) -> Tiles:
    """The same for the layers of one stage."""
    return _Search(tiles, cost).best()


class _Search:
    """The network as it is, and what groups would take instead."""

    def __init__(self, tiles: Tiles, cost: NetworkCost) -> None:
        self.tiles, self.layers, self.cost = tiles, Layers(tiles), cost
        self.machine = self.cost.machine
        self.homes = Homes(self.layers, self.machine)
        self.sizes = self.tile_sizes(tiles)
        figures = self.cost.by_layer(tiles)
        total = self.cost.total(figures)
        score = self.cost.objective.score
        base = score(total.cycles, total.energy_pj)
        # The objective's slope: what one more cycle, one more pJ costs; a little of the other one.
        cycle = score(total.cycles * 1.001, total.energy_pj) - base
        pj = score(total.cycles, total.energy_pj * 1.001) - base
        self.slopes = (
            (cycle + 1e-6 * base) / max(total.cycles, 1.0),
            (pj + 1e-6 * base) / max(total.energy_pj, 1.0),
        )
        self.alone = [self.weighed(f.cycles, f.energy_pj) for f in figures]

    def tile_sizes(self, tiles: Tiles) -> list[dict[int, int]]:
        """Bytes of each layer's own tiles, by level."""
        layers = Layers(tiles)
        homes = Homes(layers, self.machine)
        return [
            tile_bytes(mapped_nest(layer, layers.heavy(layer), homes.view(place)))
            if layer.nest is not None
            else {}
            for place, layer in enumerate(tiles.layers)
        ]

    def weighed(self, cycles: float, pj: float) -> float:
        """The objective, linear around the network as it is."""
        return self.slopes[0] * cycles + self.slopes[1] * pj

    def best(self) -> Tiles:
        """A shortest path over the layers, one by one or by groups."""
        count = len(self.tiles.layers)
        least: list[float] = [0.0] + [float("inf")] * count
        taken: list[Group | None] = [None] * (count + 1)
        groups: dict[int, list[Group]] = {}
        for group in self.groups():
            groups.setdefault(group.first, []).append(group)
        for place in range(count):
            if least[place] + self.alone[place] < least[place + 1]:
                least[place + 1], taken[place + 1] = least[place] + self.alone[place], None
            for group in groups.get(place, []):
                if least[place] + group.cost < least[group.end]:
                    least[group.end], taken[group.end] = least[place] + group.cost, group
        chosen: list[Group] = []
        place = count
        while place:
            step = taken[place]
            place = place - 1 if step is None else step.first
            if step is not None:
                chosen.append(step)
        while True:  # each group fits for itself; values that stay long may be in the way of two
            tiles = self.joined(chosen[::-1])
            homes = Homes(Layers(tiles), self.machine)
            if not chosen or homes.placed(self.tile_sizes(tiles)) is not None:
                return tiles
            chosen.pop()

    def joined(self, groups: list[Group]) -> Tiles:
        """The network with these groups."""
        layers, inner = list(self.tiles.layers), set[str]()
        for group in groups:
            layers[group.first : group.end] = group.layers
            inner |= {name for layer in group.layers[:-1] for name in layer.ops}
        return dataclasses.replace(
            self.tiles,
            layers=tuple(layers),
            keeps=tuple(keep for keep in self.tiles.keeps if keep.value not in inner),
            fused=tuple(group.fused for group in groups),
        )

    # --- candidates ---

    def groups(self) -> Iterator[Group]:
        """All groups that can run in bands and fit, whether they pay or not."""
        if not self.homes.band_level:
            return
        count = len(self.tiles.layers)
        for first in range(count):
            for last in range(first + 1, min(first + LONGEST, count)):
                if not self.is_open(first, last):
                    break
                if self.gains(first, last):
                    for fused in self.heights(first, last):
                        group = self.mapped(first, fused)
                        if group is not None:
                            yield group

    def is_open(self, first: int, last: int) -> bool:
        """Whether layers first .. last may be a group's, or its beginning."""
        layers = self.tiles.layers[first : last + 1]
        if any(self.homes.in_cells(layer) for layer in layers):  # as many as their mapping takes
            return False
        names = tuple(layer.name for layer in layers)
        band = Band(Fused(names, 1), layers, self.layers.producers)
        return not any(
            band.hindrance(self.layers.producers[name]) for layer in layers for name in layer.ops
        )

    def gains(self, first: int, last: int) -> bool:
        """Whether something inside would no longer go to the outermost memory and back."""
        layers = self.tiles.layers[first : last + 1]
        if all(layer.nest is None for layer in layers):
            return False
        inner = [name for layer in layers[:-1] for name in self.layers.leaving(layer)]
        return any(name not in self.homes.levels for name in inner)

    def heights(self, first: int, last: int) -> Iterator[Fused]:
        """Bands as high as each share of the free room allows."""
        layers = self.tiles.layers[first : last + 1]
        names = tuple(layer.name for layer in layers)
        rows = self.layers.producers[layers[-1].ops[-1]].out.shape[ROWS]
        level = self.homes.band_level
        size = self.machine.levels[level].size_bits // 8
        room = size - max(self.homes.taken(place, level) for place in range(first, last + 1))
        counts = sorted({-(-rows // height) for height in range(1, rows + 1)})
        shares = list(SHARES)
        for count in counts:
            if count < 2 or not shares:
                continue
            fused = Fused(names, -(-rows // count))
            band = Band(fused, layers, self.layers.producers)
            if self.layers.open_end(band) or band.build():
                continue
            if self.need(band, room) <= shares[0] * room:
                share = shares.pop(0)
                yield fused
                ahead = sum(part_bytes(part) for part in band.inputs.values())
                ahead += sum(part_bytes(band.parts[n]) for n in self.layers.leaving(layers[-1]))
                if self.need(band, room) + ahead <= share * room:
                    yield dataclasses.replace(fused, ahead=True)

    def need(self, band: Band, room: int) -> int:
        """Bytes of a group's bands at the time when they are most, and of weights that stay."""
        parts = list(band.inputs.values())
        live = sum(part_bytes(part) for part in parts)
        most = 0
        before = 0
        for layer in band.whole_layers:
            made = sum(part_bytes(band.parts[name]) for name in self.layers.leaving(layer))
            most = max(most, before + made)
            before = made
        weights = sum(self.near_bytes(layer, room) for layer in band.whole_layers)
        return live + most + weights

    def near_bytes(self, layer: Layer, room: int) -> int:
        """Bytes of a layer's weights, if they should stay for all bands."""
        op = self.layers.producers[layer.ops[0]]
        if layer.nest is None or not isinstance(op, Conv) or self.homes.level(op.w):
            return 0
        size = self.homes.bytes(op.w.name)
        return size if size <= WEIGHT_SHARE * room else 0

    # --- mapping ---

    def mapped(self, first: int, fused: Fused) -> Group | None:
        """A candidate with nests for its bands; None where something does not fit."""
        end = first + len(fused.layers)
        level = self.homes.band_level
        size = self.machine.levels[level].size_bits // 8
        room = size - max(self.homes.taken(place, level) for place in range(first, end))
        bare = list(self.tiles.layers)
        for place in range(first, end):
            layer = bare[place]
            if layer.nest is not None:
                near = self.near_bytes(layer, room)
                options = ((WEIGHTS, self.machine.levels[level].name),) if near else ()
                bare[place] = dataclasses.replace(layer, nest=Nest((), options=options))
        inner = {name for layer in bare[first : end - 1] for name in layer.ops}
        keeps = tuple(keep for keep in self.tiles.keeps if keep.value not in inner)
        tiles = dataclasses.replace(self.tiles, layers=tuple(bare), keeps=keeps, fused=(fused,))
        layers = Layers(tiles)
        if layers.obstacles:
            return None
        homes = Homes(layers, self.machine)
        found: list[Layer] = []
        sizes = list(self.sizes)
        for place, whole in enumerate(self.tiles.layers):
            layer = bare[place]
            if layer.nest is None or not first <= place < end:
                found.append(whole)
                continue
            view = homes.view(place)
            if any(item.size_bits < 0 for item in view.levels):
                return None
            mapped = self.cost.mapping(layers.heavy(layer).workload, epilogue_of(layer), view)
            if any(capacity_faults(mapped)):
                return None
            nest = dataclasses.replace(nest_of(mapped), options=layer.nest.options)
            found.append(dataclasses.replace(layer, nest=nest))
            sizes[place] = tile_bytes(mapped)
        if homes.placed(sizes) is None:
            return None
        chosen = dataclasses.replace(tiles, layers=tuple(found))
        placed = Layers(chosen)
        beside = Homes(placed, self.machine)
        figures = self.cost.group(placed, beside, first, placed.bands[fused.layers[0]])
        cost = self.weighed(figures.cycles, figures.energy_pj)
        return Group(first, fused, tuple(found[first:end]), cost)
