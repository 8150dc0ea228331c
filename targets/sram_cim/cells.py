"""Which weights stay in the cells of macros: no inference loads them again.

    keep %conv.w in macro        %conv's mapping has all its weights in the cells at once

All of them, if they fit: layer after layer, the largest first, gets the share of what is left that
its weights are of those to come. Otherwise one layer after the other, the smallest first, as long
as the sum over all layers gains by it, by the closed form.
"""

from __future__ import annotations

import dataclasses
import math

from cimc.ir.tiles import Keep, Layer, Tiles
from cimc.mapping.machine import WEIGHT, Machine
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.targets.sram_cim.homes import Homes
from cimc.targets.sram_cim.layers import Layers
from cimc.targets.sram_cim.network_cost import NetworkCost, epilogue_of
from cimc.targets.sram_cim.placing import nest_of


def keep_in_cells(tiles: Tiles, cost: NetworkCost) -> Tiles:
    """The mapped tiles of one stage with weights in the cells, where that gains."""
    return _Search(tiles, cost).best()


class _Search:
    """The layers whose weights could stay, and what has been found."""

    def __init__(self, tiles: Tiles, cost: NetworkCost) -> None:
        self.tiles, self.cost, self.layers = tiles, cost, Layers(tiles)
        machine = cost.machine
        self.cells = machine.chain(WEIGHT)[-1]
        self.level = machine.levels[self.cells]
        along = (axis.size for axis in machine.axes if axis.name in self.level.along)
        self.room = self.level.size_bits * math.prod(along)  # bits of all cells
        homes = Homes(self.layers, machine)
        self.sizes = {  # bits, by layer
            layer.name: self.layers.heavy(layer).w.type.bits
            for layer in tiles.layers
            if layer.nest is not None
            and not homes.obstacle(self.layers.heavy(layer).w.name, self.cells)
        }

    def best(self) -> Tiles:
        """All weights if they fit, or as many as gain."""
        found, least = self.tiles, self.cost.score(self.tiles)
        together = self.all_of_them()
        if together is not None:
            score = self.cost.score(together)
            if score < least:
                return together
        for name in sorted(self.sizes, key=lambda name: self.sizes[name]):
            if self.sizes[name] > self.room:
                break
            tried = self.with_layer(found, name, self.level.size_bits)
            if tried is not None and (score := self.cost.score(tried)) < least:
                found, least = tried, score
        return found

    def all_of_them(self) -> Tiles | None:
        """Every layer's weights in its share of the cells."""
        if not 0 < sum(self.sizes.values()) <= self.room:
            return None
        found, left, room = self.tiles, sum(self.sizes.values()), self.level.size_bits
        for name in sorted(self.sizes, key=lambda name: -self.sizes[name]):
            share = room * self.sizes[name] // left
            tried = self.with_layer(found, name, share) or self.with_layer(found, name, room)
            if tried is None:
                return None
            found, left = tried, left - self.sizes[name]
            layers = Layers(found)
            homes = Homes(layers, self.cost.machine)
            used = sum(homes.cell_bits(y) for y in found.layers if homes.in_cells(y))
            room = self.level.size_bits - used
        return found

    def with_layer(self, tiles: Tiles, name: str, room: int) -> Tiles | None:
        """One more layer's weights in the cells, in `room` bits of each; None if it does not fit.

        Other layers whose tiles no longer fit beside them are mapped anew.
        """
        place = next(n for n, layer in enumerate(tiles.layers) if layer.name == name)
        weights = self.layers.heavy(tiles.layers[place]).w.name
        tried = dataclasses.replace(tiles, keeps=(*tiles.keeps, Keep(weights, self.level.name)))
        homes = Homes(Layers(tried), self.cost.machine)
        mapped = self.mapping(tried.layers[place], self.limited(homes.view(place), room))
        if mapped is None:
            return None
        tried = _with(tried, place, mapped)
        homes = Homes(Layers(tried), self.cost.machine)
        for other, layer in enumerate(tried.layers):
            if layer.nest is None or other == place:
                continue
            view = homes.view(other)
            given = resolve(layer.nest, homes.layers.heavy(layer).workload, view)
            if isinstance(given, Mapped) and not any(capacity_faults(given)):
                continue
            again = None if homes.in_cells(layer) else self.mapping(layer, view)
            if again is None:
                return None
            tried = _with(tried, other, again)
        return tried

    def limited(self, view: Machine, room: int) -> Machine:
        """A machine with no more than `room` bits in each cell."""
        level = view.levels[self.cells]
        if level.size_bits <= room:
            return view
        levels = list(view.levels)
        levels[self.cells] = dataclasses.replace(level, size_bits=room)
        return dataclasses.replace(view, levels=tuple(levels))

    def mapping(self, layer: Layer, view: Machine) -> Mapped | None:
        """The best mapping of a layer found on a machine, if one fits."""
        if view.levels[self.cells].size_bits <= 0:
            return None
        workload = self.layers.heavy(layer).workload
        mapped = self.cost.mapping(workload, epilogue_of(layer), view)
        return None if any(capacity_faults(mapped)) else mapped


def _with(tiles: Tiles, place: int, mapped: Mapped) -> Tiles:
    layer = dataclasses.replace(tiles.layers[place], nest=nest_of(mapped))
    layers = (*tiles.layers[:place], layer, *tiles.layers[place + 1 :])
    return dataclasses.replace(tiles, layers=layers)
