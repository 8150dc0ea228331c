"""What one layer costs by the cycle simulator, on the program that its mapping compiles to.

A layer alone: its instructions from the first fetch to the last write into the outermost memory, on
a machine that does nothing else. `alone` cuts them out of a network's program; `Referee` makes them
without a network, from the workload and the number of vector operations on each result:

    1   requantization with a bias and a multiplier for each channel
    2+  then sums with other tensors of the result's shape, one by one
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cimc.errors import FitError
from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value
from cimc.ir.program import Buffer, Item, Loop, Program, Stream
from cimc.ir.program.instructions import Signal, Wait
from cimc.ir.tiles import Layer, Nest
from cimc.ir.types import Array, Quant, Type
from cimc.kind import load_kind
from cimc.lowering import Builder
from cimc.mapping.machine import INPUT, OUTPUT, WEIGHT
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.workload import Workload
from cimc.sim.simulate.fast import FastEngine
from cimc.sim.simulate.plain import PlainEngine
from cimc.sim.simulate.plan import Plan, plan_streams
from cimc.sim.simulate.rows import Rows
from cimc.target import Target
from cimc.targets.sram_cim.energy import leakage_pj
from cimc.targets.sram_cim.layers import Heavy
from cimc.targets.sram_cim.lowering import macro_items
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.timing import Figures

_QUANT = Quant(1.0, 0)


def referee(
    nest: Nest | Mapped, workload: Workload, epilogue: int, target: Target
) -> tuple[float, float]:
    """Cycles and pJ of one layer alone.

    raises  FitError if the mapping is not legal
    """
    if isinstance(nest, Nest):
        mapped = resolve(nest, workload, machine_of(target))
        faults = list(capacity_faults(mapped)) if isinstance(mapped, Mapped) else mapped
        if faults or not isinstance(mapped, Mapped):
            raise FitError(faults)
        nest = mapped
    figures = Referee(workload, epilogue, target).judge(nest)
    return figures.cycles, figures.energy_pj


class Referee:
    """Judges mappings of one workload."""

    def __init__(self, workload: Workload, epilogue: int, target: Target) -> None:
        self.target = target
        self.heavy, self.graph, self.layer = _sketch(workload, epilogue)
        kind = load_kind(target.kind)
        self.price = {event: price.pj for event, price in kind.energies(target).items()}
        self.leakage = leakage_pj(spec_of(target))

    def program(self, mapped: Mapped) -> Program:
        """The layer's program; addresses are open."""
        builder = _Builder(self.graph, self.target)
        items = macro_items(builder, self.layer, self.heavy, mapped)
        builder.add(Stream("main", tuple(items)))
        return builder.program(self.target.name)

    def judge(self, mapped: Mapped, *, plain: bool = False) -> Figures:
        """Cycles and pJ of a legal mapping; `plain`: by the plain engine."""
        plan = plan_streams(self.program(mapped), self.target)
        cycles = simulated_cycles(plan, plain=plain)
        pj = cycles * self.leakage
        for step, times in zip(plan.steps, plan.executions, strict=True):
            for event, count in step.cost.events:
                pj += times * count * self.price[event]
        return Figures(cycles, pj)


def simulated_cycles(plan: Plan, *, plain: bool = False) -> int:
    """From the first start to the last result of one sample."""
    if plain:
        engine = PlainEngine(plan, samples=1)
        engine.run(1)
        return engine.outcome.ends[0]
    fast = FastEngine(Rows(plan), samples=1)
    fast.run(1)
    return int(fast.image.column("end", 0)[0])


def alone(program: Program, layer: str) -> Program:
    """The program with one layer's instructions only; what others made is there from the start."""
    streams = tuple(
        Stream(stream.name, items)
        for stream in program.streams
        if (items := tuple(_of_layer(stream.body, layer)))
    )
    return dataclasses.replace(program, setup=(), streams=streams)


def _of_layer(items: Sequence[Item], layer: str) -> list[Item]:
    found: list[Item] = []
    for item in items:
        if isinstance(item, Loop):
            body = tuple(_of_layer(item.body, layer))
            if body:
                found.append(Loop(item.var, item.count, body))
        elif item.layer == layer and not isinstance(item, Signal | Wait):
            found.append(item)
    return found


class _Builder(Builder):
    """A builder that asks for no weights: time and energy do not depend on them."""

    def value(self, value: Value, memory: str | None = None) -> str:
        """The buffer of a graph value."""
        if value.name not in self._buffers:
            kind = value.type
            init = "weights" if value.name == "w" else None
            self._buffers[value.name] = Buffer(
                value.name, memory or self.outer, kind.dtype, kind.elements, init=init
            )
        return value.name


def _sketch(workload: Workload, epilogue: int) -> tuple[Heavy, Graph, Layer]:
    """The heavy op, with what follows it as a graph and as a layer of it."""
    shape, bits = workload.shape, workload.bits
    if shape.matmul:
        batch = (shape.g,) if shape.g > 1 else ()
        sizes = ((*batch, shape.p, shape.c), (*batch, shape.c, shape.k), (*batch, shape.p, shape.k))
        channels, axis = shape.k, len(batch) + 1
    else:
        channels, axis = shape.g * shape.k, 1
        sizes = (
            (shape.n, shape.g * shape.c, shape.h, shape.w),
            (channels, shape.c, shape.r, shape.s),
            (shape.n, channels, shape.p, shape.q),
        )
    x = Value("x", Type(_integer(bits[INPUT]), sizes[0], _QUANT))
    w = Value("w", Type(_integer(bits[WEIGHT]), sizes[1], _QUANT))
    bias = Value("bias", Type("i32", (channels,)))
    factor = Value("factor", Type("f32", (channels,)))
    sums = Value("sums", Type("i32", sizes[2]))
    heavy = (
        ops.Matmul(sums, x, w, bias)
        if shape.matmul
        else ops.Conv(sums, x, w, bias, shape.strides, shape.pads * 2, shape.dilations, shape.g)
    )
    made: list[Op] = [ops.Input(x), ops.Constant(w, "w"), ops.Constant(bias, "bias")]
    made += [ops.Constant(factor, "factor"), heavy]
    result, inside = sums, [sums.name]
    for number in range(1, epilogue + 1 if bits[OUTPUT] != 32 else 1):
        out = Value(f"y{number}", Type(_integer(bits[OUTPUT]), sizes[2], _QUANT))
        if number == 1:
            made.append(ops.Requant(out, result, factor, None, axis))
        else:
            other = Value(f"x{number}", out.type)
            made += [ops.Input(other), ops.Binary(out, result, other, "add", None)]
        inside.append(out.name)
        result = out
    tensors: dict[str, Array] = {
        "w": np.zeros(1, np.int8),
        "bias": np.ones(channels, np.int32),
        "factor": np.ones(channels, np.float32),
    }
    weights = np.zeros((1, channels) if shape.matmul else (channels, 1), np.int8)
    layer = Layer(sums.name, "macro", tuple(inside))
    graph = Graph("layer", tuple(made), (result,), tensors)
    return Heavy(heavy, shape, weights, bits), graph, layer


def _integer(bits: int) -> str:
    """The signed integer type of so many bits, or the next wider one."""
    return next(f"i{width}" for width in (2, 4, 8, 16, 32, 64) if width >= bits)
