"""Small integer graphs on which machines are tried; every run draws the same numbers.

Each sample is what the graph passes leave of a quantized model: exact sums, requantizations, and
ops on quantized integers. Extents are odd on purpose, so that tiles have tails.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value, digest_of
from cimc.ir.types import Array, Quant, Type, int_range, numpy_dtype


@dataclass
class Sketch:
    """A graph under construction; methods add ops and return their results."""

    name: str
    ternary: bool = False
    fixed: bool = False  # requantize with integer multipliers and shifts
    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Array] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)  # standard deviation of sums, by name

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(math.prod(self.name.encode()) % 2**32)

    def input(self, shape: tuple[int, ...], zero: int = 3, dtype: str = "i8") -> Value:
        """An input of quantized integers."""
        return self._add(
            ops.Input(Value(f"x{len(self.ops)}", Type(dtype, shape, Quant(0.25, zero))))
        )

    def constant(self, array: Array, dtype: str, quant: Quant | None = None) -> Value:
        """A tensor known at compile time."""
        array.flags.writeable = False
        digest = digest_of(array)
        self.tensors[digest] = array
        kind = Type(dtype, array.shape, quant)
        return self._add(ops.Constant(Value(f"c{len(self.ops)}", kind), digest))

    def weights(self, shape: tuple[int, ...]) -> Value:
        """Random weights: -127 .. 127, or -1, 0, 1."""
        low, high = (-1, 1) if self.ternary else (-127, 127)
        return self.constant(self.random.integers(low, high + 1, shape).astype(np.int8), "i8")

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: tuple[int, ...],
        *,
        strides: tuple[int, ...] = (),
        pads: tuple[int, ...] = (),
        dilations: tuple[int, ...] = (),
        group: int = 1,
        bias: bool = True,
    ) -> Value:
        """A convolution with its exact sums."""
        axes = len(kernel)
        strides, dilations = strides or (1,) * axes, dilations or (1,) * axes
        pads = pads or (0,) * (2 * axes)
        extents = tuple(
            (extent + pads[a] + pads[a + axes] - dilations[a] * (kernel[a] - 1) - 1) // strides[a]
            + 1
            for a, extent in enumerate(x.shape[2:])
        )
        w = self.weights((channels, x.shape[1] // group, *kernel))
        b = self._bias(channels) if bias else None
        out = self._value(Type("i32", (x.shape[0], channels, *extents)))
        self._note_spread(out, math.prod(w.shape[1:]))
        return self._add(ops.Conv(out, x, w, b, strides, pads, dilations, group))

    def matmul(self, a: Value, b: Value | int, bias: bool = True) -> Value:
        """A product with `b`: computed, or so many columns of random weights."""
        if isinstance(b, int):
            b = self.weights((a.shape[-1], b))
        c = self._bias(b.shape[-1]) if bias else None
        out = self._value(Type("i32", (*a.shape[:-1], b.shape[-1])))
        self._note_spread(out, a.shape[-1], computed=not self._is_constant(b))
        return self._add(ops.Matmul(out, a, b, c))

    def _is_constant(self, value: Value) -> bool:
        return any(op.out == value and op.mnemonic == "constant" for op in self.ops)

    def _note_spread(self, out: Value, terms: int, computed: bool = False) -> None:
        """Of sums of products of uniform numbers: -128 .. 127 deviate by 74, -1, 0, 1 by 0.82."""
        weight = 0.82 if self.ternary and not computed else 74.0
        self.spread[out.name] = 74.0 * weight * math.sqrt(terms)

    def _bias(self, channels: int) -> Value:
        return self.constant(self.random.integers(-500, 500, channels).astype(np.int32), "i32")

    def requant(
        self, x: Value, *, per_channel: bool = True, relu: bool = False, axis: int = 1
    ) -> Value:
        """Bring sums back to eight bits, such that most of the range is used."""
        count = x.shape[axis] if per_channel else 1
        factor = 45 / self.spread[x.name] * self.random.uniform(0.5, 1.0, count)
        quant = Quant(0.5, -5)
        low, high = (quant.zero, 127) if relu else (-128, 127)
        out = self._value(Type("i8", x.shape, quant))
        if not self.fixed:
            multiplier = self.constant(factor.astype(np.float32), "f32")
            return self._add(ops.Requant(out, x, multiplier, None, axis, low, high))
        shift = np.full(count, 24, np.int32)
        multiplier = self.constant(np.rint(factor * 2.0**24).astype(np.int32), "i32")
        shifts = self.constant(shift, "i32")
        return self._add(ops.Requant(out, x, multiplier, shifts, axis, low, high, "fixed"))

    def add(self, a: Value, b: Value, relu: bool = False) -> Value:
        """The sum of two quantized values."""
        quant = Quant(0.75, 2)
        out = self._value(Type("i8", a.shape, quant))
        return self._add(ops.Binary(out, a, b, "add", quant.zero if relu else None))

    def pool(self, x: Value, fn: str, kernel: tuple[int, int], strides: tuple[int, int]) -> Value:
        """A pooling without pads."""
        extents = tuple((x.shape[2 + a] - kernel[a]) // strides[a] + 1 for a in range(2))
        out = self._value(Type("i8", (*x.shape[:2], *extents), x.type.quant))
        return self._add(ops.Pool(out, x, fn, kernel, strides, (0,) * 4, (1, 1)))

    def concat(self, xs: tuple[Value, ...], axis: int) -> Value:
        """Join values along an axis."""
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        out = self._value(Type("i8", tuple(shape), xs[0].type.quant))
        return self._add(ops.Concat(out, xs, axis))

    def reshape(self, x: Value, shape: tuple[int, ...]) -> Value:
        """The same elements in another shape."""
        out = self._value(Type(x.type.dtype, shape, x.type.quant))
        return self._add(ops.Reshape(out, x))

    def _value(self, kind: Type) -> Value:
        return Value(f"v{len(self.ops)}", kind)

    def _add(self, op: Op) -> Value:
        if op.mnemonic not in ("input", "constant"):
            op = dataclasses.replace(op, nodes=(f"{op.mnemonic}_{len(self.ops)}",))
        self.ops.append(op)
        return op.out

    def graph(self, *outputs: Value) -> Graph:
        """The finished graph."""
        return Graph(self.name, tuple(self.ops), outputs, self.tensors)


Drawing = Callable[[Sketch], Graph]


def conv_plain(s: Sketch) -> Graph:
    """3 x 3 with padding and an input zero point."""
    x = s.input((1, 5, 7, 6))
    return s.graph(s.requant(s.conv(x, 9, (3, 3), pads=(1, 1, 1, 1))))


def conv_strided(s: Sketch) -> Graph:
    """Stride 2, pads that differ from side to side, no bias, one scale for all channels."""
    x = s.input((1, 4, 9, 8), zero=-128)
    sums = s.conv(x, 6, (3, 2), strides=(2, 2), pads=(0, 1, 1, 0), bias=False)
    return s.graph(s.requant(sums, per_channel=False, relu=True))


def conv_pointwise(s: Sketch) -> Graph:
    """1 x 1, two samples."""
    return s.graph(s.requant(s.conv(s.input((2, 7, 3, 5), dtype="u8"), 5, (1, 1))))


def conv_dilated(s: Sketch) -> Graph:
    """Dilation 2 and 3."""
    x = s.input((1, 3, 9, 11))
    return s.graph(s.requant(s.conv(x, 4, (3, 3), dilations=(2, 3), pads=(1, 2, 1, 2))))


def conv_grouped(s: Sketch) -> Graph:
    """Three groups."""
    return s.graph(s.requant(s.conv(s.input((1, 6, 5, 5)), 9, (3, 3), group=3)))


def conv_depthwise(s: Sketch) -> Graph:
    """One channel per group."""
    x = s.input((1, 7, 6, 6))
    return s.graph(s.requant(s.conv(x, 7, (3, 3), group=7, pads=(1, 1, 1, 1)), relu=True))


def conv_one_axis(s: Sketch) -> Graph:
    """One spatial axis."""
    return s.graph(s.requant(s.conv(s.input((1, 4, 11)), 6, (3,), strides=(2,), pads=(1, 1))))


def conv_large(s: Sketch) -> Graph:
    """More rows and columns than one small array has."""
    x = s.input((1, 40, 4, 4))
    return s.graph(s.requant(s.conv(x, 70, (3, 3), pads=(1, 1, 1, 1)), relu=True))


def matmul_fixed(s: Sketch) -> Graph:
    """A fully connected layer."""
    return s.graph(s.requant(s.matmul(s.input((1, 77)), 10)))


def matmul_rows(s: Sketch) -> Graph:
    """Many rows share the weights."""
    return s.graph(s.requant(s.matmul(s.input((2, 5, 19)), 13), axis=2))


def matmul_computed(s: Sketch) -> Graph:
    """Both operands change with the input, as in attention."""
    a, b = s.input((2, 5, 9)), s.input((2, 9, 7), zero=-1)
    return s.graph(s.requant(s.matmul(a, b, bias=False), per_channel=False))


def residual(s: Sketch) -> Graph:
    """Two convolutions around a shortcut, then relu."""
    x = s.input((1, 6, 6, 6))
    first = s.requant(s.conv(x, 6, (3, 3), pads=(1, 1, 1, 1)), relu=True)
    second = s.requant(s.conv(first, 6, (3, 3), pads=(1, 1, 1, 1)))
    return s.graph(s.add(second, x, relu=True))


def shortcut_conv(s: Sketch) -> Graph:
    """A block whose shortcut is a strided 1 x 1 convolution."""
    x = s.input((1, 4, 8, 8))
    first = s.requant(s.conv(x, 8, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1)), relu=True)
    second = s.requant(s.conv(first, 8, (3, 3), pads=(1, 1, 1, 1)))
    side = s.requant(s.conv(x, 8, (1, 1), strides=(2, 2)))
    return s.graph(s.add(second, side, relu=True))


def pooled(s: Sketch) -> Graph:
    """Convolution, max pool, global average pool, fully connected."""
    x = s.input((1, 3, 9, 9))
    a = s.requant(s.conv(x, 8, (3, 3), pads=(1, 1, 1, 1)), relu=True)
    b = s.pool(a, "max", (2, 2), (2, 2))
    c = s.pool(b, "average", (4, 4), (4, 4))
    return s.graph(s.requant(s.matmul(s.reshape(c, (1, 8)), 5)))


def branches(s: Sketch) -> Graph:
    """Two branches joined along channels, both outputs wanted."""
    x = s.input((1, 4, 5, 5))
    a = s.requant(s.conv(x, 3, (1, 1)))
    b = s.requant(s.conv(x, 5, (3, 3), pads=(1, 1, 1, 1)))
    return s.graph(s.concat((a, b), 1), a)


SAMPLES: tuple[Drawing, ...] = (
    conv_plain,
    conv_strided,
    conv_pointwise,
    conv_dilated,
    conv_grouped,
    conv_depthwise,
    conv_one_axis,
    conv_large,
    matmul_fixed,
    matmul_rows,
    matmul_computed,
    residual,
    shortcut_conv,
    pooled,
    branches,
)


def sample_graphs(fixed: bool = False) -> Iterator[Graph]:
    """Every sample with weights of eight bits, then with ternary ones."""
    for ternary in (False, True):
        for draw in SAMPLES:
            name = draw.__name__ + ("_ternary" if ternary else "")
            yield draw(Sketch(name, ternary, fixed))


def sample_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Random values for a graph's inputs, over the whole range of their types."""
    random = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for value in graph.inputs:
        kind = numpy_dtype(value.type.dtype)
        if value.type.is_integer:
            low, high = int_range(value.type.dtype)
            found[value.name] = random.integers(low, high + 1, value.shape).astype(kind)
        else:
            found[value.name] = random.normal(size=value.shape).astype(kind)
    return found
