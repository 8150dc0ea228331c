"""The mapping of every macro layer: by rule, or by search over what the closed form says."""

from __future__ import annotations

import dataclasses

from cimc.ir.tiles import Layer, Nest, Tiles
from cimc.kind import Options
from cimc.mapping.machine import Machine
from cimc.mapping.nest import Mapped
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim.layers import Layers
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import nest_of
from cimc.targets.sram_cim.stationary import simple, weight_stationary
from cimc.targets.sram_cim.timing import evaluate


def map_layers(tiles: Tiles, target: Target, options: Options) -> Tiles:
    """Nests for all macro layers; equal layers are mapped once.

    level 0  one output after the other;  1  weight-stationary;  2, 3  search
    """
    layers, machine = Layers(tiles), machine_of(target)
    known: dict[tuple[Workload, int], Nest] = {}
    mapped: list[Layer] = []
    for layer in tiles.layers:
        if layer.place == "macro":
            key = (layers.heavy(layer).workload, max(1, len(layer.ops) - 1))
            if key not in known:
                known[key] = nest_of(best_mapping(*key, machine, target, options))
            layer = dataclasses.replace(layer, nest=known[key])
        mapped.append(layer)
    return dataclasses.replace(tiles, layers=tuple(mapped))


def best_mapping(
    workload: Workload, epilogue: int, machine: Machine, target: Target, options: Options
) -> Mapped:
    """The mapping of one workload with the effort of -O`level`."""
    first = simple(workload, machine)
    if options.level == 0:
        return first
    spec = spec_of(target)
    candidates = [first, *weight_stationary(workload, machine)]
    if options.level > 1:
        from cimc.targets.sram_cim.anneal import annealed  # imports Numba

        found = annealed(workload, machine, spec, epilogue, options.objective)
        candidates += [] if found is None else [found]
    return min(candidates, key=lambda m: evaluate(m, spec, epilogue).score(options.objective))
