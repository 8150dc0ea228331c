"""A machine kind in sixty lines: no arrays, every op is one instruction of the vector unit."""

from __future__ import annotations

from collections.abc import Mapping

from cimc.errors import Fault
from cimc.ir.graph import Graph, Op
from cimc.ir.ops import Conv, Matmul
from cimc.ir.program import Buffer, Instr, Program, VectorOp
from cimc.ir.tiles import Layer, Tiles
from cimc.kind import (
    Cost,
    Options,
    Price,
    common_area,
    common_cost,
    common_prices,
    vector_work,
)
from cimc.lowering import Builder, conv_shape, vector_layer
from cimc.target import Target
from cimc_demo_plugin.vector_machine_spec import VectorMachineSpec


class VectorMachine:
    """The kind."""

    name = "demo-vector"
    summary = "a vector unit and nothing else"

    def place(self, op: Op, graph: Graph, target: Target) -> str | Fault:
        """Everything runs in the vector unit, but one op that the tests refuse."""
        if op.mnemonic == "lrn":
            return Fault(f"LRN is not supported on {target.name}", need="a square root unit")
        return "vector"

    def map(self, tiles: Tiles, target: Target, options: Options) -> Tiles:
        """There is nothing to map."""
        return tiles

    def lower(self, tiles: Tiles, target: Target) -> Program:
        """A stream for each layer."""
        builder = Builder(tiles.graph, target)
        for layer in tiles.layers:
            builder.add(vector_layer(builder, layer))
        return builder.program(tiles.target)

    def cost(self, instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
        """The shared costs, and one multiply-accumulate per lane and cycle for products."""
        cost = common_cost(instr, buffers, target)
        if not (isinstance(instr, VectorOp) and isinstance(instr.op, Conv | Matmul)):
            return cost
        macs = conv_shape(instr.op).macs
        cycles = -(-macs // target.spec.vector.lanes)
        holds = (*cost.holds, ("multiplier", cycles))
        return Cost(holds, max(cost.cycles, cycles), (*cost.events, ("product.macs", macs)))

    def energies(self, target: Target) -> Mapping[str, Price]:
        """The shared prices and that of a product."""
        assert isinstance(target.spec, VectorMachineSpec)
        price = Price(target.spec.product.mac_pj, ("product.mac_pj",))
        return {**common_prices(target), "product.macs": price}

    def area(self, target: Target) -> Mapping[str, float]:
        """The shared areas."""
        return common_area(target)

    def estimate(self, layer: Layer, tiles: Tiles, target: Target) -> Cost:
        """Elements by lanes."""
        makers = tiles.graph.producers()
        work = sum(vector_work(makers[name])[0] for name in layer.ops)
        return Cost((), -(-work // target.spec.vector.lanes), (("vector.ops", work),))


KIND = VectorMachine()
