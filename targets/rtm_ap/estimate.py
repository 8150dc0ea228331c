"""Closed-form cycles and events of a layer, from its plan alone.

A macro layer is its sampled chunk times the number of chunks, tiles and groups, plus the way of its
sums: written, read back and finished by the vector unit. Waits for ports are left out.
"""

from __future__ import annotations

import math

from cimc.errors import InternalError
from cimc.ir.graph import operands
from cimc.ir.program import Buffer, VectorOp
from cimc.ir.tiles import Layer, Tiles
from cimc.ir.types import bits_of
from cimc.kind import Cost, Options, common_cost
from cimc.target import Target
from cimc.targets.rtm_ap.choose import Chooser, Figures
from cimc.targets.rtm_ap.plan import plan_of
from cimc.targets.rtm_ap.work import spec_of, work_of


def layer_estimate(layer: Layer, tiles: Tiles, target: Target) -> Cost:
    """Cycles and events of one layer."""
    if layer.place == "macro":
        return _macro(layer, tiles, target)
    producers, outer = tiles.graph.producers(), next(iter(target.spec.memory))
    cycles, events = 0, dict[str, int]()
    for name in layer.ops:
        op = producers[name]
        values = [*operands(op), op.out]
        buffers = {v.name: Buffer(v.name, outer, v.type.dtype, v.type.elements) for v in values}
        unit = "host" if layer.place == "host" else "vector"
        cost = common_cost(VectorOp(op, unit), buffers, target)
        cycles += cost.cycles
        for event, count in cost.events:
            events[event] = events.get(event, 0) + count
    return Cost((), cycles, tuple(events.items()))


def figures_of(layer: Layer, tiles: Tiles, target: Target) -> Figures:
    """The figures of a layer's plan."""
    if layer.nest is None:
        raise InternalError(f"macro layer {layer.name} has no nest")
    plan = plan_of(layer.nest)
    chooser = Chooser(layer, work_of(layer, tiles), target, Options())
    found = next(iter(chooser.figures(plan)), None)
    if found is None:
        raise InternalError(f"the plan of layer {layer.name} does not fit")
    return found


def _macro(layer: Layer, tiles: Tiles, target: Target) -> Cost:
    figures, spec = figures_of(layer, tiles, target), spec_of(target)
    plan, price = figures.plan, figures.price
    outer, sums_level = list(spec.memory)[:2]
    work = work_of(layer, tiles)
    trips = math.prod(plan.tile.trips(work.shape).values())
    rows = trips * plan.groups * plan.arrays(spec.ap.rows) * spec.ap.rows
    sums = work.op.out.type.elements
    loaded = work.x.type.elements * bits_of(work.x.type.dtype)
    finished = sum(
        value.type.elements
        for value in (tiles.graph.producers()[name].out for name in layer.ops[1:])
    )
    stored = tiles.graph.producers()[layer.ops[-1]].out.type.bits
    events = {
        "ap.searched_bits": rows * price.searched,
        "ap.written_bits": round(rows * price.written),
        "ap.shift_steps": rows * price.moves,
        f"{outer}.read_bits": loaded,
        "link.bits": loaded,
        f"{sums_level}.write_bits": 32 * sums * plan.c_groups,
        f"{sums_level}.read_bits": 32 * sums * plan.c_groups,
        f"{outer}.write_bits": stored,
        "vector.ops": sums * plan.c_groups + finished,
    }
    return Cost((), figures.cycles, tuple(events.items()))
