"""Cycles and events of one layer in closed form: how often each instruction runs, what it costs."""

from __future__ import annotations

from collections.abc import Iterator

from cimc.ir.program import Item, executions, walk
from cimc.ir.tiles import Layer, Tiles
from cimc.kind import Cost
from cimc.lowering import Builder, vector_items
from cimc.lowering.builder import Progress
from cimc.target import Target
from cimc.targets.sram_cim.band_items import band_items
from cimc.targets.sram_cim.cost import instruction_cost
from cimc.targets.sram_cim.homes import Homes
from cimc.targets.sram_cim.layers import Layers, mapped_nest
from cimc.targets.sram_cim.lowering import macro_items
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.network import kept_builder
from cimc.targets.sram_cim.stages import stages_of


def layer_estimate(layer: Layer, tiles: Tiles, target: Target) -> Cost:
    """Exact events, and cycles as a lower bound: those of the unit that is held longest."""
    stages = stages_of(tiles, machine_of(target))
    stage = next(stage for stage in stages if layer in stage.tiles.layers)
    homes = Homes(Layers(stage.tiles), stage.machine)
    builder = kept_builder(tiles, target, (homes,))
    items = stage.settled(list(_items(builder, homes, layer)))
    held: dict[str, int] = {}
    events: dict[str, int] = {}
    buffers = builder.program(tiles.target).buffer_map()
    for instr, loops in walk(items):
        if instr.layer != layer.name:
            continue
        cost = instruction_cost(instr, buffers, target)
        times = executions(instr, loops)
        for unit, cycles in cost.holds:
            held[unit] = held.get(unit, 0) + cycles * times
        for event, count in cost.events:
            events[event] = events.get(event, 0) + count * times
    return Cost((), max(held.values(), default=0), tuple(sorted(events.items())))


def _items(builder: Builder, homes: Homes, layer: Layer) -> Iterator[Item]:
    """The instructions of a layer; of a fused one, those of its group."""
    layers = homes.layers
    band = layers.bands.get(layer.name)
    together = (layer,) if band is None else band.whole_layers
    for one in together:
        for value in builder.inputs(one):
            builder.announce(value, Progress("", 1))
    views = {
        one.name: homes.view(homes.tiles.layers.index(one))
        for one in together
        if one.place == "macro"
    }
    if band is not None:
        yield from band_items(builder, homes, band, views)
    elif layer.place == "macro":
        heavy = layers.heavy(layer)
        yield from macro_items(builder, layer, heavy, mapped_nest(layer, heavy, views[layer.name]))
    else:
        yield from vector_items(builder, layer)
