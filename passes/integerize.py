"""Compute with the integers of a quantized model instead of the real numbers they stand for.

before   %xr : f32[1,3,8,8] = dequantize %x, ...
         %wr : f32[16,3,3,3] = dequantize %w, ...
         %a : f32[1,16,8,8] = conv %xr, %wr, %br ...
         %r : f32[1,16,8,8] = unary %a {fn="relu"}
         %y : u8[1,16,8,8]<0.02,0> = quantize %r, ...
after    %a.sum : i32[1,16,8,8] = conv %x, %w, %b ...
         %y : u8[1,16,8,8]<0.02,0> = requant %a.sum, %y.multiplier, _ {low=0, high=255}

onnxruntime runs such a group as one integer kernel, too; multipliers and rounding are the ones it
uses. A bias of floats, or functions that rise or fall with the sum, give the requant a gain and a
bias with which it is equal for every sum. A conv or matmul that cannot become integer is an error.
Other ops get quantized types where they stand between dequantize and quantize: functions of one
8-bit value become a lut, ops that only move elements move integers. What is left, such as a softmax
with float result, stays float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from cimc.errors import Fault, UnsupportedError, raise_if
from cimc.ir import ops
from cimc.ir.evaluate.numbers import element, real
from cimc.ir.graph import Graph, Op, Value
from cimc.ir.rewrite import Rewrite, with_nodes
from cimc.ir.types import Array, Quant, Type, int_range
from cimc.passes._integer_ops import (
    emit_clamped,
    emit_lut,
    emit_rescaled,
    function_of_one,
    in_type,
    moved,
    quantized_constant,
    vector_op,
)
from cimc.passes._integer_sums import Sum, emit_real, emit_requant, emit_steps, emit_sum
from cimc.pipeline.passes import graph_pass


@graph_pass("integerize")
def integerize(graph: Graph) -> Graph:
    """Replace dequantize, op, quantize by ops on quantized types, and every conv and matmul."""
    raise_if(_unquantized(graph), UnsupportedError)
    state = _Integerize(graph)
    for old in graph.ops:
        state.step(state.new.current(old))
    raise_if(state.faults, UnsupportedError)
    return state.new.finish()


def _unquantized(graph: Graph) -> list[Fault]:
    """One fault for a float model, instead of one for each of its layers."""
    heavy = [op for op in graph.ops if isinstance(op, ops.Conv | ops.Matmul)]
    floats = [op for op in heavy if not op.out.type.is_integer]
    if not floats or any(isinstance(op, ops.Quantize) for op in graph.ops):
        return []
    return [
        Fault(
            f"{graph.name} is not quantized",
            need="int8 weights and activations",
            have=f"{len(floats)} convolutions and matrix products of float32",
            help="give calibration data to quantize it",
            code="CIM1401",
        )
    ]


class _Integerize:
    """The new graph, and which integers its float values stand for."""

    def __init__(self, graph: Graph) -> None:
        self.new = Rewrite(graph)
        self.users = graph.users()
        self.input_types = dict(_input_types(graph))
        self.known: dict[str, Value] = {}  # float value -> its quantized integers
        self.sums: dict[str, Sum] = {}  # float value -> the i32 sum it is a multiple of
        self.faults: list[Fault] = []

    def step(self, op: Op) -> None:
        """Add what stands for one op."""
        match op:
            case ops.Input(out=out) if out.name in self.input_types:
                self.new.add(replace(op, out=Value(out.name, self.input_types[out.name])))
            case ops.Dequantize(out=out, x=x):
                self.new.add(op)
                if self.new.array(x) is None and x.type.quant == quant_of(op, self.new.array):
                    self.known[out.name] = x
            case ops.Quantize() if op.axis is None and op.out.type.quant is not None:
                if not self.quantize(op):
                    self.new.add(op)
            case ops.Conv() | ops.Matmul() if not op.out.type.is_integer:
                self.sum(op)
            case ops.ArgReduce(x=x) if x.name in self.known:
                self.new.add(replace(op, x=self.known[x.name]))
            case _:
                self.new.add(op)
                self.move(op)

    def sum(self, op: ops.Conv | ops.Matmul) -> None:
        """An integer sum; the float value is a multiple of it."""
        for value in (op.a, op.b) if isinstance(op, ops.Matmul) else (op.x, op.w):
            self.look_up_exactly(value)
        found = emit_sum(self.new, op, self.known)
        if isinstance(found, Sum):
            self.sums[op.out.name] = found
            emit_real(self.new, found, op.out)
        else:
            self.faults.extend(found)
            self.new.add(op)

    def look_up_exactly(self, value: Value) -> None:
        """Know the integers of a clamped value, say, that nobody quantized again."""
        one = None if value.name in self.known else function_of_one(self.new, value, self.known)
        if one is None:
            return
        x, reals = one
        table = in_type(reals, x.type)
        if (real(table, x.type) == reals).all():
            out = Value(self.new.fresh(f"{value.name}.integers"), x.type)
            self.known[value.name] = emit_lut(self.new, x, table, out)

    def move(self, op: Op) -> None:
        """If the op only moves elements of known integers, move these as well."""
        if isinstance(op, ops.Gather) and op.x.name not in self.known:
            table = quantized_constant(self.new, op.x)
            if table is not None:
                self.known[op.x.name] = table
        integers = moved(self.new, op, self.known)
        if integers is None:
            return
        same = (
            user.out.name
            for user in self.users[op.out.name]
            if isinstance(user, ops.Quantize) and user.out.type == integers.out.type
        )
        name = next(same, None) or self.new.fresh(f"{op.out.name}.integers")
        self.known[op.out.name] = self.new.add(
            replace(integers, out=Value(name, integers.out.type))
        )

    def quantize(self, op: ops.Quantize) -> bool:
        """Add the integer op for what `op` quantizes; False if that stays float."""
        kind, new = op.out.type, self.new
        known = self.known.get(op.x.name)
        if known is not None and known.type == kind:
            new.replace(op.out, known)
            return True
        value, low, high = self.through_clamps(op.x, kind)
        if value.name in self.sums and self.sums[value.name].offset is None:
            emit_requant(new, self.sums[value.name], op.out, low, high, op.nodes)
            return True
        if value.name in self.known and self.clamped_at_source(op, value, low, high):
            return True
        one = function_of_one(new, op.x, self.known)
        if one is not None:
            emit_lut(new, one[0], in_type(one[1], kind), op.out, op.nodes)
            return True
        if emit_steps(new, op, self.sums):
            return True
        if value.name in self.sums:
            emit_requant(new, self.sums[value.name], op.out, low, high, op.nodes)
            return True
        if value.name in self.known:
            emit_rescaled(new, self.known[value.name], op.out, low, high, op.nodes)
            return True
        maker = new.maker(value)
        vector = None if maker is None else vector_op(new, maker, self.known, kind)
        if vector is not None:
            emit_clamped(new, vector, op.out, low, high, op.nodes)
        return vector is not None

    def through_clamps(self, value: Value, kind: Type) -> tuple[Value, int, int]:
        """What is clamped before it is quantized, and the integers that it is clamped to."""
        clamps: list[tuple[float, float]] = []
        while value.name not in self.sums and value.name not in self.known:
            maker = self.new.maker(value)
            if not isinstance(maker, ops.Unary) or maker.fn not in ("relu", "clip"):
                break
            clip = (maker.alpha, maker.beta) if maker.fn == "clip" else (0.0, math.inf)
            clamps.append(clip)
            value = maker.x
        low, high = -math.inf, math.inf
        for least, most in reversed(clamps):
            low, high = min(most, max(least, low)), min(most, max(least, high))
        limits = int_range(kind.dtype)
        bounds = [
            int(element(bound, kind)) if math.isfinite(bound) else limit
            for bound, limit in zip((low, high), limits, strict=True)
        ]
        return value, bounds[0], bounds[1]

    def clamped_at_source(self, op: ops.Quantize, value: Value, low: int, high: int) -> bool:
        """Narrow the clamp of the requant or binary op that made the integers for this use only."""
        x = self.known[value.name]
        maker = self.new.maker(x)
        if x.type != op.out.type or not isinstance(maker, ops.Requant | ops.Binary):
            return False
        uses = self.users.get(x.name, ())
        if len(uses) != 1 or len(self.users.get(value.name, ())) != 1:
            return False
        limits = int_range(x.type.dtype)
        before = tuple(
            limit if bound is None else bound
            for bound, limit in zip((maker.low, maker.high), limits, strict=True)
        )
        narrowed = (min(high, max(low, before[0])), min(high, max(low, before[1])))
        self.new.add(
            with_nodes(replace(maker, out=op.out, low=narrowed[0], high=narrowed[1]), op.nodes)
        )
        return True


def _input_types(graph: Graph) -> Iterator[tuple[str, Type]]:
    """Quantized types of the inputs that are only ever dequantized with one scale."""
    users = graph.users()
    for value in graph.inputs:
        uses = users[value.name]
        quants = {
            quant_of(use, graph.tensor) if isinstance(use, ops.Dequantize) else None for use in uses
        }
        if len(quants) == 1 and value.type.quant is None and value not in graph.outputs:
            (quant,) = quants
            if quant is not None:
                yield value.name, replace(value.type, quant=quant)


def quant_of(op: ops.Dequantize, array: Callable[[Value], Array | None]) -> Quant | None:
    """Scale and zero point of a dequantize where both are single constants."""
    scale = array(op.scale)
    zero = None if op.zero is None else array(op.zero)
    if scale is None or scale.size != 1 or (zero is None and op.zero is not None):
        return None
    return Quant(float(scale.reshape(())), 0 if zero is None else int(zero.reshape(())))
