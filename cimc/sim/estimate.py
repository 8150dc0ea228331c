"""Closed-form estimate of a mapped network: no program, no simulation.

    period   longest layer where layers work side by side, else the sum of all
    latency  side by side: along the graph, each layer starts when the first rows that it needs
             are there, and ends no earlier than it could after the last row of its inputs
             one after the other: the sum of all layers
    stages   layers one after the other, and the longest stage as period
    energy   events of all layers times their prices                                       [exact]

Cycles and events of one layer are those of `Kind.estimate`, alone on the machine: what layers wait
for shared units and latencies is missing, so times are low as a rule. (The period may be a little
high: a layer's last latency is in its cycles, but overlaps with its next sample.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cimc.errors import Fault, UsageError, raise_if
from cimc.ir import ops
from cimc.ir.graph import Graph, Op, operands
from cimc.ir.tiles import Layer, Tiles
from cimc.kind import Cost, Kind, load_kind
from cimc.sim.energy import leakage_pj_per_cycle
from cimc.target import Target


@dataclass(frozen=True)
class Estimate:
    """What a mapped network takes, by formula."""

    latency_cycles: float
    period_cycles: float
    dynamic_pj: float
    static_pj: float  # leakage during the latency
    layers: Mapping[str, Cost]
    layer_pj: Mapping[str, float]

    @property
    def total_pj(self) -> float:
        """Dynamic and static energy."""
        return self.dynamic_pj + self.static_pj


def estimate(
    tiles: Tiles, target: Target, *, pipelined: bool, kind: Kind | None = None
) -> Estimate:
    """Estimate of one sample; `pipelined` where each layer has a stream of its own.

    raises  UsageError naming each event that the target has no price for
    """
    kind = kind or load_kind(target.kind)
    costs = {layer.name: kind.estimate(layer, tiles, target) for layer in tiles.layers}
    prices = kind.energies(target)
    missing = {event for cost in costs.values() for event, _ in cost.events} - prices.keys()
    raise_if(
        (Fault(f"event {event} has no price", code="CIM6010") for event in sorted(missing)),
        UsageError,
    )
    layer_pj = {
        name: sum(count * prices[event].pj for event, count in cost.events)
        for name, cost in costs.items()
    }
    cycles = {name: float(cost.cycles) for name, cost in costs.items()}
    latency = _pipelined_latency(tiles, cycles) if pipelined else sum(cycles.values())
    period = max(cycles.values(), default=0.0) if pipelined else latency
    if tiles.staged:
        latency = sum(cycles.values())
        period = max(sum(cycles[name] for name in staged.layers) for staged in tiles.staged)
    static = leakage_pj_per_cycle(target) * latency
    return Estimate(latency, period, sum(layer_pj.values()), static, costs, layer_pj)


def _pipelined_latency(tiles: Tiles, cycles: Mapping[str, float]) -> float:
    """When the last layer ends if each starts on the first rows of its inputs."""
    producers = tiles.graph.producers()
    owner = {name: layer.name for layer in tiles.layers for name in layer.ops}
    start: dict[str, float] = {}
    end: dict[str, float] = {}
    for layer in _in_order(tiles):
        work = cycles[layer.name]
        begin, over = 0.0, work
        for name in layer.ops:
            op = producers[name]
            for value in operands(op):
                before = owner.get(value.name, layer.name)
                if before == layer.name:
                    continue
                share = _first_share(op, value.name)
                begin = max(begin, start[before] + share * (end[before] - start[before]))
                over = max(over, end[before] + work / _rows(op))
        start[layer.name], end[layer.name] = begin, max(over, begin + work)
    return max(end.values(), default=0.0)


def _in_order(tiles: Tiles) -> list[Layer]:
    """Layers by the place of their last op, so that those they read from come first."""
    place = {op.out.name: number for number, op in enumerate(tiles.graph.ops)}
    return sorted(tiles.layers, key=lambda layer: max(place[name] for name in layer.ops))


def _first_share(op: Op, operand: str) -> float:
    """The share of an operand that must be there before the first row of the result."""
    if isinstance(op, ops.Conv | ops.Pool) and op.x.name == operand and len(op.x.shape) > 2:
        height = op.x.shape[2]
        kernel = op.w.shape[2] if isinstance(op, ops.Conv) else op.kernel[0]
        reach = (kernel - 1) * (op.dilations[0] if op.dilations else 1) + 1
        return min(1.0, max(1, reach - (op.pads[0] if op.pads else 0)) / height)
    if isinstance(op, ops.Binary | ops.Requant | ops.Lut) and len(op.out.shape) > 2:
        return 1.0 / op.out.shape[2]
    return 1.0


def _rows(op: Op) -> int:
    """Rows of an op's result, which its producer signals one by one; 1 for other tensors."""
    return op.out.shape[2] if len(op.out.shape) == 4 else 1


def macs_of(graph: Graph) -> dict[str, int]:
    """True multiply-accumulates of each heavy op, by its result: no padding, no unused cells."""
    found: dict[str, int] = {}
    for op in graph.ops:
        if isinstance(op, ops.Conv):
            found[op.out.name] = op.out.type.elements * math.prod(op.w.shape[1:])
        elif isinstance(op, ops.Matmul):
            found[op.out.name] = op.out.type.elements * op.a.shape[-1]
    return found
