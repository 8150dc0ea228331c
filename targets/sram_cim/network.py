"""The program of a whole network: a stream for each stage, kept values where they belong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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
from cimc.targets.sram_cim.stages import settled, stage_faults, stages_of


def lower_tiles(tiles: Tiles, target: Target) -> Program:
    """A stream runs its layers one after the other; only kept values have addresses."""
    raise_if(stage_faults(tiles, machine_of(target)), FitError)
    stages = stages_of(tiles, machine_of(target))
    homes = [Homes(Layers(stage.tiles), stage.machine) for stage in stages]
    raise_if((fault for one in homes for fault in one.faults()), UsageError)
    raise_if((fault for one in homes for fault in one.overfull()), FitError)
    machines = {
        layer.name: one.view(place)
        for one in homes
        for place, layer in enumerate(one.tiles.layers)
        if layer.place == "macro"
    }
    check_nests(Layers(tiles), machines)
    builder = kept_builder(tiles, target, homes)
    addresses = {name: at for one in homes for name, at in _addresses(one, machines).items()}
    for stage, one in zip(stages, homes, strict=True):
        builder.add(Stream(stage.name, tuple(_items(builder, one, machines))))
    program = builder.program(tiles.target)
    pinned = {builder.kept.get(name, name): address for name, address in addresses.items()}
    buffers = (dataclasses.replace(b, address=pinned.get(b.name)) for b in program.buffers)
    return settled(dataclasses.replace(program, buffers=tuple(buffers)), stages, tiles)


def _items(builder: Builder, homes: Homes, machines: dict[str, Machine]) -> list[Item]:
    """The instructions of one stage."""
    layers = homes.layers
    body: list[Item] = []
    for layer in homes.tiles.layers:
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
    return body


def kept_builder(tiles: Tiles, target: Target, stages: Sequence[Homes]) -> Builder:
    """A builder that knows where values kept in any of the stages have their homes.

    Weights that stay in cells are brought there by their layer.
    """
    memories = {
        name: homes.memory(name)
        for homes in stages
        for name, level in homes.levels.items()
        if level != homes.cells
    }
    constants = [n for n in memories if stages[0].is_constant(n)]
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
