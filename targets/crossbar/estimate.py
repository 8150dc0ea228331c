"""Cycles and events of one layer from its plan alone, without a program.

    cycles of a macro layer = passes * cycles of a product + last conversion      [a lower bound]

Events are exact: they equal those of the program, whatever copies were chosen.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from cimc.ir.graph import Graph, Op, Value, operands
from cimc.ir.ops import Binary, Conv, Lut, Matmul, Pool, Requant
from cimc.ir.tiles import Layer, Tiles
from cimc.ir.types import bits_of
from cimc.kind import Cost
from cimc.target import Target
from cimc.targets.crossbar.cost import Work, mvm_events, op_work, vector_cost
from cimc.targets.crossbar.mapping import heavy_op, matrix_of, pass_cycles, places
from cimc.targets.crossbar.plan import Plan, convert_cycles, plan_of, spec_of
from cimc.targets.crossbar.rows import row_layers
from cimc.targets.crossbar.sums import cores_of, holders


def layer_estimate(layer: Layer, tiles: Tiles, target: Target) -> Cost:
    """Cycles until a layer is done with one sample whose inputs are all there, and its events."""
    events: Counter[str] = Counter()
    if layer.place == "macro":
        for event, times in _events(layer, tiles.graph, target):
            events[event] += times
    else:
        for work, times in vector_steps(layer, tiles):
            counted = dict(vector_cost(work, target).events)
            events.update({event: count * times for event, count in counted.items()})
    shown = tuple(sorted((event, times) for event, times in events.items() if times))
    return Cost((), layer_cycles(layer, tiles, target), shown)


def layer_cycles(layer: Layer, tiles: Tiles, target: Target) -> int:
    """Cycles until a layer is done with one sample whose inputs are all there."""
    if layer.place != "macro":
        steps = vector_steps(layer, tiles)
        return sum(vector_cost(work, target).cycles * times for work, times in steps)
    plan, copies = _plan(layer, tiles.graph, target)
    positions = plan.shape.n * plan.shape.p * plan.shape.q
    widest = max(min(block.channels, plan.width) for block in plan.blocks)
    last = convert_cycles(widest * plan.converted, spec_of(target))
    return positions // copies * pass_cycles(plan, target) + last


def _plan(layer: Layer, graph: Graph, target: Target) -> tuple[Plan, int]:
    """A mapped layer's plan and number of copies."""
    assert layer.nest is not None
    producers = graph.producers()
    op = heavy_op(layer, producers)
    plan = plan_of(op, matrix_of(op, producers, graph.tensors), target)
    return plan, layer.nest.option("rows", 1) * layer.nest.option("columns", 1)


def vector_steps(layer: Layer, tiles: Tiles) -> Iterator[tuple[Work, int]]:
    """Work of the vector units for a layer, and how often: whole tensors, or row by row."""
    producers = tiles.graph.producers()
    if layer.name in row_layers(tiles):
        op = producers[layer.name]
        yield row_work(op), op.out.shape[0] * op.out.shape[2]
        return
    for name in layer.ops:
        yield op_work(producers[name], "host" if layer.place == "host" else "vector"), 1


def row_work(op: Op) -> Work:
    """Work for one row of the result, or of the operands where they are repeated along it."""
    _, channels, _, columns = op.out.shape
    elements = channels * columns
    written = elements * bits_of(op.out.type.dtype)
    if isinstance(op, Pool):
        _, depth, height, width = op.x.shape
        reach = min((op.kernel[0] - 1) * op.dilations[0] + 1, height)
        read = depth * reach * width * bits_of(op.x.type.dtype)
        return Work(elements * math.prod(op.kernel), False, read, written)
    read = 0
    for value in (op.a, op.b) if isinstance(op, Binary) else operands(op)[:1]:
        _, depth, _, width = (*(1,) * (4 - len(value.shape)), *value.shape)
        read += depth * width * bits_of(value.type.dtype)
    return Work(elements, False, read, written)


def _events(layer: Layer, graph: Graph, target: Target) -> Iterator[tuple[str, int]]:
    """Events of all output positions of a macro layer; each place serves its share of them."""
    assert layer.nest is not None
    plan, copies = _plan(layer, graph, target)
    spec, shape = spec_of(target), plan.shape
    outer, inputs, sums = spec.memory
    placed = places(plan, copies, layer.nest.option("array", 0), spec.array.per_core)
    positions = shape.n * shape.p * shape.q
    share = positions // copies  # positions of one copy
    producers = graph.producers()
    heavy = heavy_op(layer, producers)
    x = heavy.x if isinstance(heavy, Conv) else heavy.a
    bits = (plan.input_bits, plan.signed)
    for _, slices in itertools.groupby(placed, key=lambda place: place.copy):
        cores = cores_of(slices, spec.array.per_core)
        held = holders(cores)
        for block, inside in held.items():
            yield "link.bits", (len(inside) - 1) * block.channels * 32 * share
            additions = (len(list(plan.slices(block))) - 1) * block.channels * share
            yield "shift_add.additions", additions
            yield f"{sums}.read_bits", 2 * additions * 32
            yield f"{sums}.write_bits", additions * 32
    for place in places(plan, 1, 0, spec.array.per_core):  # every copy does the same
        rows, columns = place.rows, place.block.channels
        for event, times in mvm_events(rows, columns, bits, plan.weight_bits, spec).items():
            yield event, times * positions
        reads = rows * plan.input_bits * plan.arrays_of(place.block)
        yield f"{inputs}.read_bits", reads * positions
        yield f"{sums}.write_bits", columns * 32 * positions
        fetched = rows * bits_of(x.type.dtype) * positions
        yield f"{outer}.read_bits", fetched
        yield "bus.bits", fetched
        yield f"{inputs}.write_bits", fetched
    yield from _epilogue_events(layer, graph, producers, outer, sums)


def _epilogue_events(
    layer: Layer,
    graph: Graph,
    producers: dict[str, Op],
    outer: str,
    sums: str,
) -> Iterator[tuple[str, int]]:
    """Events of the ops after the heavy one, which see each element of the result once."""
    users, results = graph.users(), {value.name for value in graph.outputs}
    inside = frozenset(layer.ops)
    elements = producers[layer.name].out.type.elements

    def read(value: Value) -> Iterator[tuple[str, int]]:
        bits = bits_of(value.type.dtype)
        if value.name in inside:
            yield f"{sums}.read_bits", elements * bits
        elif producers[value.name].mnemonic != "constant" or value.type.elements == elements:
            yield f"{outer}.read_bits", elements * bits  # fetched ahead, then read where it lies
            yield "bus.bits", elements * bits
            yield f"{sums}.write_bits", elements * bits
            yield f"{sums}.read_bits", elements * bits

    def write(value: Value, memory: str) -> Iterator[tuple[str, int]]:
        bits = elements * bits_of(value.type.dtype)
        yield f"{memory}.write_bits", bits
        if memory == outer:
            yield "bus.bits", bits
            yield "link.bits", bits

    for name in layer.ops:
        op = producers[name]
        kept = any(user.out.name in inside for user in users[name])
        shown = name in results or any(user.out.name not in inside for user in users[name])
        if isinstance(op, Conv | Matmul):
            if shown:
                yield from read(op.out)
                yield from write(op.out, outer)
                if _adds_bias(op):
                    yield "vector.ops", elements
            continue
        assert isinstance(op, Requant | Lut | Binary)
        for value in (op.a, op.b) if isinstance(op, Binary) else (op.x,):
            yield from read(value)
        yield "vector.ops", elements
        yield from write(op.out, sums if kept or not shown else outer)
        if kept and shown:
            yield from read(op.out)
            yield from write(op.out, outer)


def _adds_bias(op: Conv | Matmul) -> bool:
    """Whether the sums are added to something on their way out: a bias, or a zero point's share."""
    x = op.x if isinstance(op, Conv) else op.a
    return op.bias is not None or (x.type.quant is not None and x.type.quant.zero != 0)
