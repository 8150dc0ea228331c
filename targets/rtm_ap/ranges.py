"""Which integers a value can hold: narrower than its type wherever an activation clamps it.

    %a : u8 = requant %s, %m, _ {low=0, high=15}      0 .. 15
    %b : u8 = pool %a {fn="max", ...}                 0 .. 15
    %c : u8 = binary %a, %b {fn="add"}                what the sum of both reaches, in c's scale

Widths of columns rest on these bounds, so they hold for every input of the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from cimc.ir import ops
from cimc.ir.evaluate.numbers import quantized
from cimc.ir.graph import Graph, Op, Value
from cimc.ir.types import Type, int_range

Range = tuple[int, int]
_SLACK = 1  # steps: float32 arithmetic rounds the real number that it comes from


def input_range(value: Value, graph: Graph) -> Range:
    """Lowest and highest integer that `value` can hold."""
    return _Ranges(graph, graph.producers()).of(value)


@dataclass
class _Ranges:
    """Bounds of the values before one value, each worked out once."""

    graph: Graph
    producers: dict[str, Op]
    known: dict[str, Range] = field(default_factory=dict)

    def of(self, value: Value) -> Range:
        """The bounds of a value, within those of its type."""
        if value.name not in self.known:
            low, high = int_range(value.type.dtype)
            found = self._made(self.producers[value.name])
            if found is not None:
                low, high = max(low, found[0]), min(high, found[1])
            self.known[value.name] = (low, high)
        return self.known[value.name]

    def _made(self, op: Op) -> Range | None:
        """What an op can make; None where nothing is known."""
        match op:
            case ops.Requant():
                return op.low, op.high
            case ops.Quantize():
                return self._quantized(op)
            case ops.Binary(low=int(low), high=int(high)):
                return low, high
            case ops.Binary(fn="add" | "sub" | "mul"):
                return self._combined(op)
            case ops.Pool(fn="max" | "average") | ops.Reduce(fn="max" | "min" | "mean"):
                return self._moved(op.out, op.x)
            case ops.Unary(fn="relu"):
                return self._moved(op.out, op.x, zero=True)
            case (
                ops.Reshape() | ops.Transpose() | ops.Slice() | ops.Pad(mode="constant", value=0.0)
                | ops.Gather() | ops.Broadcast() | ops.Tile() | ops.Resize(mode="nearest")
            ):  # fmt: skip
                return self._moved(op.out, op.x)
            case ops.Concat():
                parts = [self._moved(op.out, x) for x in op.xs]
                known = [part for part in parts if part is not None]
                if len(known) < len(parts):
                    return None
                return min(low for low, _ in known), max(high for _, high in known)
        return None

    def _moved(self, out: Value, x: Value, zero: bool = False) -> Range | None:
        """Elements (or means of elements) of x, beside them zeros, in the type of `out`."""
        if not x.type.is_integer or not out.type.is_integer:
            return None
        low, high = self.of(x)
        origin = _zero(x.type)
        low, high = min(low, origin), max(high, origin)
        if zero:
            low = origin
        if x.type.quant == out.type.quant:
            return low, high
        return _steps(*_reals(low, high, x.type), out.type)

    def _combined(self, op: ops.Binary) -> Range | None:
        """The sum, difference or product of two bounded real numbers."""
        kinds = (op.a.type, op.b.type, op.out.type)
        if any(not kind.is_integer or kind.quant is None for kind in kinds):
            return None
        a, b = (_reals(*self.of(value), value.type) for value in (op.a, op.b))
        if op.fn == "add":
            return _steps(a[0] + b[0], a[1] + b[1], op.out.type)
        if op.fn == "sub":
            return _steps(a[0] - b[1], a[1] - b[0], op.out.type)
        products = [one * two for one in a for two in b]
        return _steps(min(products), max(products), op.out.type)

    def _quantized(self, op: ops.Quantize) -> Range | None:
        """A float that was clipped."""
        made = self.producers.get(op.x.name)
        while isinstance(made, ops.Reshape | ops.Transpose):
            made = self.producers.get(made.x.name)
        if not isinstance(made, ops.Unary) or made.fn != "clip" or op.out.type.quant is None:
            return None
        scale, zero = op.out.type.quant.scale, np.int64(op.out.type.quant.zero)
        bounds = np.array([made.alpha, made.beta], np.float32)
        low, high = quantized(bounds, np.float32(scale), zero, op.out.type.dtype).tolist()
        return low, high


def _zero(kind: Type) -> int:
    return kind.quant.zero if kind.quant is not None else 0


def _reals(low: int, high: int, kind: Type) -> tuple[float, float]:
    """The real numbers that integers of a quantized type stand for."""
    scale = kind.quant.scale if kind.quant is not None else 1.0
    return (low - _zero(kind)) * scale, (high - _zero(kind)) * scale


def _steps(low: float, high: float, kind: Type) -> Range:
    """Integers of a quantized type that real numbers in low .. high round to, one to spare."""
    scale, zero = kind.quant.scale if kind.quant is not None else 1.0, _zero(kind)
    return math.floor(low / scale) + zero - _SLACK, math.ceil(high / scale) + zero + _SLACK
