"""The kind `sram-cim`: cores with one SRAM macro each, fed through a memory hierarchy.

Convs and matmuls of integers run in the macros, also those with two computed operands; everything
else in the vector units. All cores work on one layer at a time: weights stream through the macros
as the layer's mapping says. `search` chooses mappings, `lowering` writes the instructions of a
layer, `network` those of all.

Across layers, `homes` says where values lie that never leave the chip, `residency` chooses them;
`bands` are what fused layers work on, `band_items` writes their instructions, `fusion` chooses
them; `network_cost` adds up what the choices compare. `stages` are the parts of a pipeline over
cores, `pipelining` chooses them and, by `cells`, weights that stay where they are multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cimc.errors import Fault
from cimc.ir.graph import Graph, Op
from cimc.ir.program import Buffer, Instr, Program
from cimc.ir.tiles import Layer, Tiles
from cimc.kind import Cost, Kind, Options, Price
from cimc.target import Target
from cimc.targets.sram_cim.cost import instruction_cost, prices
from cimc.targets.sram_cim.energy import area
from cimc.targets.sram_cim.estimate import layer_estimate
from cimc.targets.sram_cim.fusion import fuse_rows
from cimc.targets.sram_cim.instructions import Activate, Flip, Transfer
from cimc.targets.sram_cim.layers import runs_in_macros
from cimc.targets.sram_cim.machine import spec_of
from cimc.targets.sram_cim.network import lower_tiles
from cimc.targets.sram_cim.pipelining import pipeline_cores
from cimc.targets.sram_cim.residency import keep_resident
from cimc.targets.sram_cim.search import map_layers

__all__ = ["KIND", "Activate", "Flip", "SramCimKind", "Transfer"]


class SramCimKind:
    """SRAM compute-in-memory macros in a memory hierarchy."""

    name = "sram-cim"
    summary = "SRAM macros in a memory hierarchy, weights streamed through them"

    def place(self, op: Op, graph: Graph, target: Target) -> str | Fault:
        """Products of integers run in macros, everything else in vector units."""
        return "macro" if runs_in_macros(op, graph) else "vector"

    def map(self, tiles: Tiles, target: Target, options: Options) -> Tiles:
        """A mapping for every macro layer."""
        return map_layers(tiles, target, options)

    def keep_resident(
        self, tiles: Tiles, target: Target, options: Options, *, weights: bool
    ) -> Tiles:
        """Values and weights that stay on the chip."""
        return keep_resident(tiles, target, options, weights=weights)

    def fuse_rows(self, tiles: Tiles, target: Target, options: Options) -> Tiles:
        """Neighbouring layers that run band by band."""
        return fuse_rows(tiles, target, options)

    def pipeline_cores(
        self, tiles: Tiles, target: Target, options: Options, *, stages: int
    ) -> Tiles:
        """Stages of layers, each on cores of its own."""
        return pipeline_cores(tiles, target, options, stages=stages)

    def lower(self, tiles: Tiles, target: Target) -> Program:
        """A stream that runs all layers, or one for each stage."""
        return lower_tiles(tiles, target)

    def cost(self, instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
        """Units, cycles and events of one execution."""
        return instruction_cost(instr, buffers, target)

    def energies(self, target: Target) -> Mapping[str, Price]:
        """Price of every event."""
        return prices(target)

    def area(self, target: Target) -> Mapping[str, float]:
        """mm2 by component."""
        return area(spec_of(target))

    def estimate(self, layer: Layer, tiles: Tiles, target: Target) -> Cost:
        """Closed-form cycles and events of one layer."""
        return layer_estimate(layer, tiles, target)


KIND: Final[Kind] = SramCimKind()
