"""The program of a whole network: all layers in one stream, kept values where they belong."""

from __future__ import annotations

import dataclasses

from cimc.errors import Fault, FitError, UsageError, raise_if
from cimc.ir.program import Item, Program, Stream
from cimc.ir.tiles import Tiles
from cimc.lowering import Builder, vector_items
from cimc.mapping.machine import Machine
from cimc.target import Target
from cimc.targets.sram_cim.band_items import band_items
from cimc.targets.sram_cim.homes import Homes, tile_bytes
from cimc.targets.sram_cim.layers import Layers, check_nests, mapped_nest
from cimc.targets.sram_cim.lowering import macro_items
from cimc.targets.sram_cim.machine import machine_of


def lower_tiles(tiles: Tiles, target: Target) -> Program:
    """One stream that runs all layers, one after the other; only kept values have addresses."""
    layers = Layers(tiles)
    homes = Homes(layers, machine_of(target))
    raise_if(homes.faults(), UsageError)
    raise_if(homes.overfull(), FitError)
    machines = {
        layer.name: homes.view(place)
        for place, layer in enumerate(tiles.layers)
        if layer.place == "macro"
    }
    check_nests(layers, machines)
    builder = kept_builder(tiles, target, homes)
    addresses = _addresses(homes, machines)
    body: list[Item] = []
    for layer in tiles.layers:
        band = layers.bands.get(layer.name)
        if band is not None:
            if layer is band.whole_layers[0]:
                body += band_items(builder, homes, band, machines)
        elif layer.place == "macro":
            heavy = layers.heavy(layer)
            mapped = mapped_nest(layer, heavy, machines[layer.name])
            body += macro_items(builder, layer, heavy, mapped)
        else:
            body += vector_items(builder, layer)
    builder.add(Stream("main", tuple(body)))
    program = builder.program(tiles.target)
    pinned = {builder.kept.get(name, name): address for name, address in addresses.items()}
    buffers = (dataclasses.replace(b, address=pinned.get(b.name)) for b in program.buffers)
    return dataclasses.replace(program, buffers=tuple(buffers))


def kept_builder(tiles: Tiles, target: Target, homes: Homes) -> Builder:
    """A builder that knows where kept values have their homes."""
    memories = {name: homes.memory(name) for name in homes.levels}
    constants = [name for name in memories if homes.is_constant(name)]
    computed = {name: memory for name, memory in memories.items() if name not in constants}
    builder = Builder(tiles.graph, target, computed)
    for name in constants:
        builder.keep_constant(builder.producers[name].out, memories[name])
    return builder


def _addresses(homes: Homes, machines: dict[str, Machine]) -> dict[str, int]:
    """Addresses of kept values above the tiles of every layer that runs meanwhile."""
    layers = homes.layers
    tiles = [
        tile_bytes(mapped_nest(layer, layers.heavy(layer), machines[layer.name]))
        if layer.place == "macro"
        else {}
        for layer in homes.tiles.layers
    ]
    addresses = homes.placed(tiles)
    if addresses is None:
        levels = {homes.machine.levels[tenant.level].name for tenant in homes.tenants}
        raise FitError(
            Fault(
                f"kept values leave no room for tiles in {', '.join(sorted(levels))}",
                need="one gap for each value, above the tiles of all layers that run meanwhile",
                help="keep fewer values",
                code="CIM4035",
            )
        )
    return addresses
