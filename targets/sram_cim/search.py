"""The mapping of every macro layer: by rule, by search over a closed form, or exactly."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING

from cimc.errors import Fault, FitError, raise_if
from cimc.ir.tiles import Layer, Nest, Tiles
from cimc.kind import Options
from cimc.mapping.machine import Machine
from cimc.mapping.nest import Mapped, capacity_faults
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim.layers import Layers, in_layer
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import nest_of
from cimc.targets.sram_cim.stationary import simple, weight_stationary
from cimc.targets.sram_cim.timing import evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    class SolveLayers(Protocol):
        """`cimc.targets.sram_cim.exact.layers.solve_layers`."""

        def __call__(
            self,
            starts: Mapping[tuple[Workload, int], Nest],
            names: Mapping[tuple[Workload, int], Sequence[str]],
            titles: Mapping[tuple[Workload, int], str],
            target: Target,
            options: Options,
        ) -> Mapping[tuple[Workload, int], Nest]: ...


EXACT = "cimc.targets.sram_cim.exact.layers"  # above this layer: it asks the simulator
HEURISTICS = ("latency", "energy", "edp")  # what annealing can minimize

Key = tuple[Workload, int]  # what layers are equal by: workload, and operations that follow


def map_layers(tiles: Tiles, target: Target, options: Options) -> Tiles:
    """Nests for all macro layers; equal layers are mapped once.

    level 0  one output after the other  1  weight-stationary  2  search  3  exact search
    raises   FitError naming all layers that fit in no way
    """
    layers, machine = Layers(tiles), machine_of(target)
    groups: dict[Key, list[Layer]] = {}
    for layer in tiles.layers:
        if layer.place == "macro":
            key = (layers.heavy(layer).workload, max(1, len(layer.ops) - 1))
            groups.setdefault(key, []).append(layer)
    faults: list[Fault] = []
    starts: dict[Key, Nest] = {}
    for key, group in groups.items():
        found = best_mapping(*key, machine, target, options)
        faults += [
            in_layer(fault, layer, layers.heavy(layer).op)
            for layer in group
            for fault in capacity_faults(found)
        ]
        starts[key] = nest_of(found)
    raise_if(faults, FitError)
    nests: Mapping[Key, Nest] = starts
    if options.level > 2 and groups:
        solve_layers: SolveLayers = importlib.import_module(EXACT).solve_layers
        names = {key: [layer.name for layer in group] for key, group in groups.items()}
        titles = {key: layers.title(group[0]) for key, group in groups.items()}
        nests = solve_layers(starts, names, titles, target, options)
    chosen = {layer.name: nests[key] for key, group in groups.items() for layer in group}
    return dataclasses.replace(
        tiles,
        layers=tuple(
            dataclasses.replace(layer, nest=chosen.get(layer.name, layer.nest))
            for layer in tiles.layers
        ),
    )


def best_mapping(
    workload: Workload, epilogue: int, machine: Machine, target: Target, options: Options
) -> Mapped:
    """The mapping of one workload with the effort of -O`level`, 2 at most.

    Where nothing fits it is the one that takes least, which does not fit either.
    """
    first = simple(workload, machine)
    if options.level == 0:
        return first
    spec, objective = spec_of(target), Objective.parse(options.objective)
    candidates = [*weight_stationary(workload, machine)]
    if options.level > 1:
        from cimc.targets.sram_cim.anneal import annealed  # imports Numba

        asked = str(objective)
        for name in (asked,) if asked in HEURISTICS else HEURISTICS:
            found = annealed(workload, machine, spec, epilogue, name)
            candidates += [] if found is None or any(capacity_faults(found)) else [found]
    if not any(capacity_faults(first)):
        candidates.insert(0, first)

    def cost(mapped: Mapped) -> float:
        figures = evaluate(mapped, spec, epilogue)
        return objective.score(figures.cycles, figures.energy_pj)

    return min(candidates, key=cost, default=first)
