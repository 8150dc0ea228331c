"""The kind `rtm-ap`: racetrack associative processors.

Convs and matmuls of integers run in associative arrays, bit-serially, on all rows at once. Weights
known at compile time become the program: straight-line additions of columns, with common
subexpressions shared; or they lie in the rows beside the inputs, where that is cheaper. Everything
else runs in the vector unit.

`pass_tables` says what one bit of an operation is, `isa` what a column operation is, `codegen`
writes them, `arrays` and `kernels` execute them pass by pass, `choose` plans, `lowering` and
`multiply` write instructions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cimc.errors import Fault
from cimc.ir.graph import Graph, Op
from cimc.ir.program import Buffer, Instr, Program
from cimc.ir.tiles import Layer, Tiles
from cimc.kind import Cost, Disturbance, Kind, Options, Price, Wear
from cimc.target import Target
from cimc.targets.rtm_ap.cost import area, instruction_cost, prices
from cimc.targets.rtm_ap.instructions import ApLoad, ApRead, ApRun
from cimc.targets.rtm_ap.work import place, spec_of

__all__ = ["KIND", "ApLoad", "ApRead", "ApRun", "RtmApKind"]


class RtmApKind:
    """Racetrack associative processors."""

    name = "rtm-ap"
    summary = "associative arrays of racetrack memory, weights compiled into the program"

    def place(self, op: Op, graph: Graph, target: Target) -> str | Fault:
        """Products of integers run in the arrays, everything else in the vector unit."""
        return place(op, graph)

    def map(self, tiles: Tiles, target: Target, options: Options) -> Tiles:
        """A plan for every macro layer."""
        from cimc.targets.rtm_ap.choose import map_layers  # imports Numba

        return map_layers(tiles, target, options)

    def lower(self, tiles: Tiles, target: Target) -> Program:
        """One stream that runs all layers."""
        from cimc.targets.rtm_ap.lowering import lower_tiles  # imports Numba

        return lower_tiles(tiles, target)

    def cost(self, instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
        """Units, cycles and events of one execution."""
        return instruction_cost(instr, buffers, target)

    def energies(self, target: Target) -> Mapping[str, Price]:
        """Price of every event."""
        return prices(target)

    def area(self, target: Target) -> Mapping[str, float]:
        """mm2 by component."""
        return area(target)

    def estimate(self, layer: Layer, tiles: Tiles, target: Target) -> Cost:
        """Closed-form cycles and events of one layer."""
        from cimc.targets.rtm_ap.estimate import layer_estimate  # imports Numba

        return layer_estimate(layer, tiles, target)

    def wear(self, program: Program, target: Target) -> Wear:
        """The cells that one inference changes most often, in all arrays."""
        from cimc.targets.rtm_ap.wear import expected_wear, wear_of  # imports Numba

        return wear_of(expected_wear(program, target), spec_of(target).ap)

    def settings(self, target: Target) -> Mapping[str, float]:
        """Rate of shift faults, steps between checks of the realignment code, its reach."""
        ap = spec_of(target).ap
        return {
            "shift-fault-rate": ap.fault_per_step,
            "realign-steps": ap.realign_steps,
            "realign-reach": ap.realign_reach,
        }

    def disturb(self, target: Target, settings: Mapping[str, float], seed: int) -> Disturbance:
        """Shift faults: tracks that end one domain off, and stay so until they are realigned."""
        from cimc.targets.rtm_ap.trial import Trial

        return Trial(spec_of(target), {**self.settings(target), **settings}, seed)


KIND: Final[Kind] = RtmApKind()
