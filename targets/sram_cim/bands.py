"""Fused layers: what one band of rows of the last result takes of every layer before.

    fuse [%a, %b] rows 4        %a a conv of 3 x 3 on %x, %b another on %a; 16 rows in all

    band t    4 rows of %b, 4*t ..         6 rows of %a, 4*t - 1 ..        8 rows of %x, 4*t - 2 ..

A band is a small network of its own: the same ops on tensors of fewer rows, which lie in a level of
the chip. Rows that two bands need are computed twice. Rows outside the tensors are filled with what
padding holds, so that ops have no pads above and below.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value, operands, with_operands
from cimc.ir.tiles import Fused, Layer
from cimc.ir.types import Array, int_range, numpy_dtype

ROWS = 2  # the axis of rows
ANY = 1 << 30  # rows outside a tensor may hold anything


@dataclass(frozen=True, slots=True)
class Span:
    """The rows of a tensor that band t touches: start + step*t .. and `rows` of them."""

    start: int
    step: int
    rows: int

    def before(self, kernel: int, stride: int, dilation: int, pad: int) -> Span:
        """The rows of the input of a window op that gives these rows."""
        rows = (self.rows - 1) * stride + (kernel - 1) * dilation + 1
        return Span(self.start * stride - pad, self.step * stride, rows)


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor's band: `value` is what the small network has for `whole`."""

    value: Value
    whole: Value
    span: Span
    beyond: int  # what rows outside the tensor hold, or ANY

    def outside(self, count: int) -> tuple[int, int]:
        """Rows above the tensor in the first of `count` bands, and below it in the last."""
        last = self.span.start + self.span.step * (count - 1) + self.span.rows
        return max(0, -self.span.start), max(0, last - self.whole.shape[ROWS])


class Band:
    """One group of fused layers."""

    def __init__(self, fused: Fused, layers: Sequence[Layer], producers: Mapping[str, Op]) -> None:
        self.fused, self.whole_layers, self.producers = fused, tuple(layers), producers
        self.parts: dict[str, Part] = {}  # by name of the value that they are a band of
        self.inputs: dict[str, Part] = {}  # those that come from elsewhere, by their own name
        self.made = {name for layer in layers for name in layer.ops}
        last = producers[layers[-1].ops[-1]].out
        self.count = -(-last.shape[ROWS] // fused.rows) if len(last.shape) > ROWS else 0
        self.ops: list[Op] = []

    # --- the small network ---

    def build(self) -> str:
        """Make the small network; what hinders it, or ""."""
        spans: dict[str, Span] = {}
        beyond: dict[str, int] = {}
        reversed_ops = [self.producers[n] for y in reversed(self.whole_layers) for n in y.ops[::-1]]
        last = set(self.whole_layers[-1].ops)
        for op in reversed_ops:
            reason = self.hindrance(op)
            if reason:
                return reason
            rest = Span(0, self.fused.rows, self.fused.rows)
            span = spans.get(op.out.name, rest if op.out.name in last else None)
            if span is None:
                return f"%{op.out.name} is read by none of the layers"
            spans[op.out.name] = span
            for value, needed, fill in _reads(op, span):
                if value.name not in self.made:
                    continue
                if spans.get(value.name, needed) != needed:
                    return f"%{value.name} is read in two ways"
                if fill != ANY and beyond.get(value.name, ANY) not in (ANY, fill):
                    return f"%{value.name} is padded in two ways"
                spans[value.name] = needed
                if fill != ANY:
                    beyond[value.name] = fill
        self.ops = []
        for op in reversed(reversed_ops):
            part = self.part(op.out, spans[op.out.name], beyond.get(op.out.name, ANY))
            self.parts[op.out.name] = part
            self.ops.append(self.small(op, part.value, spans[op.out.name]))
        for part in self.parts.values():
            if self.is_uneven(part):
                return f"padding of %{part.whole.name} reaches past the first or last band"
        return ""

    def hindrance(self, op: Op) -> str:
        """Why an op cannot run in bands."""
        shape = op.out.shape
        if len(shape) != 4 or shape[0] != 1:
            return f"%{op.out.name} is not one sample of two axes"
        if not op.out.type.is_integer:
            return f"%{op.out.name} is not quantized"
        match op:
            case ops.Conv():
                known = self.producers[op.w.name].mnemonic == "constant"
                return "" if known else f"%{op.w.name} is computed"
            case ops.Pool():
                known = op.fn == "max" and op.out.type.dtype == op.x.type.dtype
                return "" if known else f"%{op.out.name} is no maximum"
            case ops.Requant() | ops.Lut():
                return ""
            case ops.Binary():
                others = (value for value in (op.a, op.b) if not self.is_constant(value))
                same = all(value.shape == shape for value in others)
                return "" if same else f"%{op.out.name} repeats an operand"
        return f"%{op.out.name} is a {op.mnemonic}"

    def is_constant(self, value: Value) -> bool:
        """Whether a value is there from the start."""
        made = self.producers.get(value.name)
        return made is not None and made.mnemonic == "constant"

    def is_uneven(self, part: Part) -> bool:
        """Whether rows outside the tensor occur in bands that are neither first nor last."""
        span, height = part.span, part.whole.shape[ROWS]
        if self.count == 1 or part.beyond == ANY:
            return False
        second, before_last = span.start + span.step, span.start + span.step * (self.count - 2)
        return second < 0 or before_last + span.rows > height

    def part(self, value: Value, span: Span, beyond: int, suffix: str = "band") -> Part:
        """The band of a value."""
        shape = (*value.shape[:ROWS], span.rows, *value.shape[ROWS + 1 :])
        kind = dataclasses.replace(value.type, shape=shape)
        return Part(Value(f"{value.name}.{suffix}", kind), value, span, beyond)

    def small(self, op: Op, out: Value, span: Span) -> Op:
        """The op on bands."""
        needed = {value.name: (at, fill) for value, at, fill in _reads(op, span)}

        def forward(value: Value) -> Value:
            if self.is_constant(value):
                return value
            if value.name in self.parts:
                return self.parts[value.name].value
            at, fill = needed[value.name]
            for known in self.inputs.values():
                if (known.whole, known.span, known.beyond) == (value, at, fill):
                    return known.value
            suffix = f"band.in{len(self.inputs)}" if self.inputs else "band.in"
            part = self.part(value, at, fill, suffix)
            self.inputs[part.value.name] = part
            return part.value

        changed = with_operands(op, forward)
        changed = dataclasses.replace(changed, out=out)
        if isinstance(changed, ops.Conv | ops.Pool):
            _, left, _, right = changed.pads
            changed = dataclasses.replace(changed, pads=(0, left, 0, right))
        return changed

    # --- views of it ---

    def graph(self, results: Sequence[str], tensors: Mapping[str, Array]) -> Graph:
        """The small network, with bands of `results`; constants are those of the large one."""
        read = {v.name: v for op in self.ops for v in operands(op) if self.is_constant(v)}
        constants = [self.producers[name] for name in read]
        inputs = [ops.Input(part.value) for part in self.inputs.values()]
        outputs = tuple(self.parts[name].value for name in results)
        return Graph("band", (*constants, *inputs, *self.ops), outputs, tensors)

    def layer(self, whole: Layer) -> Layer:
        """A layer of the small network."""
        names = tuple(self.parts[name].value.name for name in whole.ops)
        return Layer(names[0], whole.place, names, whole.nest)

    def op_of(self, name: str) -> Op:
        """The op that makes the band of a value."""
        return next(op for op in self.ops if op.out == self.parts[name].value)

    def heavy_op(self, whole: Layer) -> Op:
        """The first op of a layer, on bands."""
        return self.op_of(whole.ops[0])


def _reads(op: Op, span: Span) -> Iterator[tuple[Value, Span, int]]:
    """The tensors that an op reads, which rows of them, and what lies beyond their edges."""
    match op:
        case ops.Conv():
            kernel = op.w.shape[2]
            at = span.before(kernel, op.strides[0], op.dilations[0], op.pads[0])
            yield op.x, at, op.x.type.quant.zero if op.x.type.quant is not None else 0
        case ops.Pool():
            dilation = op.dilations[0] if op.dilations else 1
            at = span.before(op.kernel[0], op.strides[0], dilation, op.pads[0])
            yield op.x, at, int_range(op.x.type.dtype)[0]
        case ops.Requant() | ops.Lut():
            yield op.x, span, ANY
        case ops.Binary():
            yield op.a, span, ANY
            yield op.b, span, ANY


def part_bytes(part: Part) -> int:
    """Bytes that a band of a tensor takes."""
    return math.prod(part.value.shape) * numpy_dtype(part.value.type.dtype).itemsize
