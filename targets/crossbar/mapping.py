"""Where the weights of each layer lie: copies of its blocks in cores, and how many copies.

Layers form a pipeline whose pace the slowest one sets. A layer needs one pass of its arrays for
each output position, so arrays that are left over go, step by step, to further copies of the layer
with the most passes: copies work on neighbouring output positions, whole rows last.
"""

from __future__ import annotations

import bisect
import dataclasses
import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, FitError
from cimc.ir.graph import Op, constant_array
from cimc.ir.ops import Conv, Matmul
from cimc.ir.tiles import Layer, Spatial, TemporalLoop, Tiles
from cimc.kind import Options
from cimc.lowering import ConvShape, weight_matrix
from cimc.target import Target
from cimc.targets.crossbar.plan import Block, Plan, mvm_cycles, plan_of, spec_of

INSTRUCTIONS = 12_000  # copies may not blow a program up beyond this


@dataclass(frozen=True, slots=True)
class Place:
    """One slice of one copy of a block: `rows` from `first` on, in arrays from `array` on."""

    copy: int
    block: Block
    first: int
    rows: int
    array: int


def places(plan: Plan, copies: int, start: int, per_core: int) -> Iterator[Place]:
    """The places of all copies from array `start` on; a slice never lies in two cores."""
    for copy in range(copies):
        for block in plan.blocks:
            width = plan.arrays_of(block)
            for first, rows in plan.slices(block):
                start = _within_core(start, width, per_core)
                yield Place(copy, block, first, rows, start)
                start += width


def end_of(plan: Plan, copies: int, start: int, per_core: int) -> int:
    """The first array after all copies."""
    widths = [plan.arrays_of(b) for b in plan.blocks for _ in plan.slices(b)]
    for _ in range(copies):
        for width in widths:
            start = _within_core(start, width, per_core) + width
    return start


def _within_core(start: int, width: int, per_core: int) -> int:
    left = per_core - start % per_core
    return start if width <= left else start + left


def heavy_op(layer: Layer, producers: Mapping[str, Op]) -> Conv | Matmul:
    """The conv or matmul of a macro layer."""
    op = producers[layer.ops[0]]
    assert isinstance(op, Conv | Matmul)
    return op


def matrix_of(
    op: Conv | Matmul, producers: Mapping[str, Op], tensors: Mapping[str, NDArray[np.generic]]
) -> NDArray[np.integer]:
    """The constant weights of a heavy op as [g*k, window]."""
    held = op.w if isinstance(op, Conv) else op.b
    return weight_matrix(op, constant_array(producers[held.name], tensors))


def place_faults(tiles: Tiles, target: Target) -> Iterator[Fault]:
    """Layers without a place, and such that a hand has put beyond the chip or over each other."""
    spec = spec_of(target)
    producers, free = tiles.graph.producers(), 0
    mapped = [layer for layer in tiles.layers if layer.place == "macro"]
    for layer in mapped:
        if layer.nest is None or "array" not in dict(layer.nest.options):
            yield Fault(f"layer %{layer.name} has no place", help="run map first", code="CIM3104")
            return
    for layer in sorted(mapped, key=_first_array):
        op = heavy_op(layer, producers)
        plan = plan_of(op, matrix_of(op, producers, tiles.graph.tensors), target)
        start, nest = _first_array(layer), layer.nest
        copies = (nest.option("rows", 1) * nest.option("columns", 1)) if nest else 1
        if start < free:
            yield Fault(
                f"layer %{layer.name} lies over another one",
                need=f"an array from {free} on",
                have=f"array={start}",
                code="CIM3105",
            )
        free = end_of(plan, copies, start, spec.array.per_core)
    if free > spec.cores * spec.array.per_core:
        yield Fault(
            f"layers lie beyond {target.name}",
            need=f"{free} arrays",
            have=f"{spec.cores * spec.array.per_core} arrays ({target.path}: cores)",
            code="CIM3102",
        )


def _first_array(layer: Layer) -> int:
    return layer.nest.option("array", 0) if layer.nest else 0


def map_layers(tiles: Tiles, target: Target, options: Options) -> Tiles:
    """Give every macro layer its copies and its first array; -O2 and up use arrays left over.

    raises  FitError if one copy of every layer needs more cores than the target has
    """
    producers = tiles.graph.producers()
    layers = [layer for layer in tiles.layers if layer.place == "macro"]
    plans: dict[str, Plan] = {}
    for layer in layers:
        op = heavy_op(layer, producers)
        plans[layer.name] = plan_of(op, matrix_of(op, producers, tiles.graph.tensors), target)
    _check_fit(layers, plans, producers, target)
    copies = {layer.name: (1, 1) for layer in layers}
    if options.level >= 2:
        copies = _duplicated(plans, target)
    start, mapped = 0, []
    for layer in tiles.layers:
        if layer.place == "macro":
            plan, (rows, columns) = plans[layer.name], copies[layer.name]
            mapped.append(_mapped(layer, plan, rows, columns, start, target))
            start = end_of(plan, rows * columns, start, spec_of(target).array.per_core)
        else:
            mapped.append(layer)
    return dataclasses.replace(tiles, layers=tuple(mapped))


def _check_fit(
    layers: list[Layer], plans: Mapping[str, Plan], producers: Mapping[str, Op], target: Target
) -> None:
    spec, end = spec_of(target), 0
    for plan in plans.values():
        if not plan.width:
            raise FitError(
                Fault(
                    f"a weight of {plan.weight_bits} bits is wider than an array",
                    need=f"{plan.cells} columns",
                    have=f"{spec.array.columns} columns ({target.path}: array.columns)",
                    code="CIM3101",
                )
            )
        end = end_of(plan, 1, end, spec.array.per_core)
    cores = -(-end // spec.array.per_core)
    if cores <= spec.cores:
        return
    largest = sorted(layers, key=lambda layer: -plans[layer.name].arrays)[:3]
    shown = ", ".join(
        f"{', '.join(producers[layer.name].nodes) or layer.name} {plans[layer.name].arrays}"
        for layer in largest
    )
    raise FitError(
        Fault(
            f"the weights do not fit on {target.name}",
            need=f"{end} arrays in {cores} cores",
            have=f"{spec.cores * spec.array.per_core} arrays in {spec.cores} cores "
            f"({target.path}: cores)",
            help=f"set cores={cores}, or use cells of more bits or weights of fewer",
            code="CIM3102",
            context=(("most", f"{shown} arrays"),),
        )
    )


def _duplicated(plans: Mapping[str, Plan], target: Target) -> dict[str, tuple[int, int]]:
    """Rows and columns of output positions that copies compute at once, by layer."""
    steps = list(_steps(plans, target))

    def chosen(count: int) -> dict[str, tuple[int, int]]:
        return dict.fromkeys(plans, (1, 1)) | dict(steps[:count])

    # Slices do not cross cores, so some arrays stay empty and the last steps may not fit.
    fitting = bisect.bisect_left(
        range(1, len(steps) + 1), True, key=lambda count: not _fits(plans, chosen(count), target)
    )
    return chosen(fitting)


def _fits(plans: Mapping[str, Plan], copies: Mapping[str, tuple[int, int]], target: Target) -> bool:
    spec, end = spec_of(target), 0
    for name, plan in plans.items():
        end = end_of(plan, math.prod(copies[name]), end, spec.array.per_core)
    return end <= spec.cores * spec.array.per_core


def _steps(plans: Mapping[str, Plan], target: Target) -> Iterator[tuple[str, tuple[int, int]]]:
    """Which layer gets how many copies next, while arrays and instructions are left."""
    spec = spec_of(target)
    chosen = dict.fromkeys(plans, (1, 1))
    choices = {name: list(_choices(plan.shape)) for name, plan in plans.items()}
    free = spec.cores * spec.array.per_core - sum(plan.arrays for plan in plans.values())
    size = {name: 3 * plan.row_slices + 4 for name, plan in plans.items()}  # instructions
    room = INSTRUCTIONS - sum(size.values())
    slowest = [(-_passes(plan, (1, 1), target), name) for name, plan in plans.items()]
    heapq.heapify(slowest)
    while slowest:
        _, name = heapq.heappop(slowest)
        plan, now = plans[name], math.prod(chosen[name])
        further = next((pair for pair in choices[name] if math.prod(pair) > now), None)
        if further is None:
            return  # the slowest layer computes all positions at once
        more = math.prod(further) - now
        if more * plan.arrays > free or more * size[name] > room:
            return  # other layers' copies would not make the pipeline faster
        free -= more * plan.arrays
        room -= more * size[name]
        chosen[name] = further
        yield name, further
        heapq.heappush(slowest, (-_passes(plan, further, target), name))


def _choices(shape: ConvShape) -> Iterator[tuple[int, int]]:
    """(rows, columns) computed at once that divide the output's, fewest first."""
    yield from ((1, count) for count in range(1, shape.q + 1) if shape.q % count == 0)
    yield from ((count, shape.q) for count in range(2, shape.p + 1) if shape.p % count == 0)


def _passes(plan: Plan, copies: tuple[int, int], target: Target) -> int:
    """Cycles that a layer's arrays are busy with one sample."""
    shape = plan.shape
    positions = shape.n * (shape.p // copies[0]) * (shape.q // copies[1])
    return positions * pass_cycles(plan, target)


def pass_cycles(plan: Plan, target: Target) -> int:
    """Cycles of the slowest product of one output position."""
    widest = max(min(block.channels, plan.width) for block in plan.blocks)
    rows = max(rows for block in plan.blocks for _, rows in plan.slices(block))
    bits = (plan.input_bits, plan.signed)
    return mvm_cycles(rows, widest * plan.converted, bits, spec_of(target))


def _mapped(layer: Layer, plan: Plan, rows: int, columns: int, start: int, target: Target) -> Layer:
    """The layer's nest with its mapping."""
    assert layer.nest is not None
    shape = plan.shape
    outer, inputs, sums = target.spec.memory
    block = plan.blocks[0]
    window, outputs = min(block.rows, plan.rows), min(block.channels, plan.width)
    spatial = (
        Spatial("rows", (("e", window),)),
        Spatial("columns", (("k", outputs),)),
        Spatial("arrays", (("e", -(-block.rows // plan.rows)), ("k", plan.arrays_of(block)))),
        Spatial("copies", (("p", rows), ("q", columns))),
    )
    held = (outer, "array", outer)
    loops = [TemporalLoop("n", shape.n, held)] if shape.n > 1 else []
    loops.append(TemporalLoop("p", shape.p // rows, held))
    loops.append(TemporalLoop("q", shape.q // columns, (inputs, "array", sums)))
    options = (
        ("array", start),
        ("arrays", rows * columns * plan.arrays),
        ("rows", rows),
        ("columns", columns),
        ("weight_bits", plan.weight_bits),
    )
    double = ((inputs, "I"), (sums, "O"))
    nest = dataclasses.replace(
        layer.nest, spatial=spatial, loops=tuple(loops), double=double, options=options
    )
    return dataclasses.replace(layer, nest=nest)
