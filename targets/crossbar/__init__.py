"""The kind `crossbar`: analog crossbar arrays whose cells hold the weights of all layers at once.

Every conv and matmul with constant integer weights runs in arrays (`plan` cuts the weights,
`mapping` places copies, `lowering` writes the streams), all other ops in the vector units. What one
product computes stands in `AnalogMvm`; what instructions cost, in `cost`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cimc.errors import Fault
from cimc.ir.graph import Graph, Op
from cimc.ir.ops import Conv, Matmul
from cimc.ir.program import Buffer, Instr, Program
from cimc.ir.tiles import Layer, Tiles
from cimc.ir.types import bits_of
from cimc.kind import Cost, Kind, Options, Price
from cimc.lowering import heavy_fault, needed_bits, weight_matrix
from cimc.target import Target
from cimc.targets.crossbar.analog_mvm import AnalogMvm
from cimc.targets.crossbar.cost import areas, instruction_cost, prices
from cimc.targets.crossbar.estimate import layer_estimate
from cimc.targets.crossbar.lowering import lower_tiles
from cimc.targets.crossbar.mapping import map_layers

__all__ = ["KIND", "AnalogMvm", "CrossbarKind"]

WIDEST = 16  # bits of a weight or input


class CrossbarKind:
    """Analog crossbars."""

    name = "crossbar"
    summary = "analog crossbar arrays, weights of all layers resident"

    def place(self, op: Op, graph: Graph, target: Target) -> str | Fault:
        """Products with constant integer weights run in arrays, everything else in vector units."""
        return "macro" if _fits_arrays(op, graph) else "vector"

    def map(self, tiles: Tiles, target: Target, options: Options) -> Tiles:
        """Cores and copies for every layer."""
        return map_layers(tiles, target, options)

    def lower(self, tiles: Tiles, target: Target) -> Program:
        """A stream for each layer."""
        return lower_tiles(tiles, target)

    def cost(self, instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
        """Units, cycles and events of one execution."""
        return instruction_cost(instr, buffers, target)

    def energies(self, target: Target) -> Mapping[str, Price]:
        """Price of every event."""
        return prices(target)

    def area(self, target: Target) -> Mapping[str, float]:
        """mm2 by component."""
        return areas(target)

    def estimate(self, layer: Layer, tiles: Tiles, target: Target) -> Cost:
        """Closed-form cycles and events of one layer."""
        return layer_estimate(layer, tiles, target)


def _fits_arrays(op: Op, graph: Graph) -> bool:
    if not isinstance(op, Conv | Matmul) or heavy_fault(op) is not None:
        return False
    x, held = (op.x, op.w) if isinstance(op, Conv) else (op.a, op.b)
    weights = graph.tensor(held)
    if weights is None or (op.bias is not None and graph.tensor(op.bias) is None):
        return False
    if isinstance(op, Matmul) and weights.size != weights.shape[-1] * weights.shape[-2]:
        return False  # batches of weights
    if not (x.type.is_integer and held.type.is_integer):
        return False
    matrix = weight_matrix(op, weights)
    return bits_of(x.type.dtype) <= WIDEST and needed_bits(matrix, symmetric=True) <= WIDEST


KIND: Final[Kind] = CrossbarKind()
