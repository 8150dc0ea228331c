"""Random graphs for hypothesis: float networks, and the same ones quantized as QDQ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value, digest_of
from cimc.ir.types import Array, Quant, Type, dtype_of, int_range, numpy_dtype

SMOOTH = ("relu", "sigmoid", "tanh", "leaky_relu", "hard_swish", "clip", "gelu", "abs")


@dataclass
class Sketch:
    """A graph being drawn: ops so far, tensors, and what may be read next."""

    draw: st.DrawFn
    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Array] = field(default_factory=dict)
    count: int = 0

    def name(self, stem: str) -> str:
        """A new name."""
        self.count += 1
        return f"{stem}{self.count}"

    def add(self, op: Op) -> Value:
        """Append an op, with an ONNX node of its own."""
        self.ops.append(op)
        return op.out

    def constant(self, array: Array, dtype: str | None = None, quant: Quant | None = None) -> Value:
        """A constant."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        digest = digest_of(array)
        self.tensors[digest] = array
        kind = Type(dtype or dtype_of(array), array.shape, quant)
        return self.add(ops.Constant(Value(self.name("c"), kind), digest))

    def numbers(self, *shape: int) -> Array:
        """Normal random numbers; the seed is drawn, so that examples shrink well."""
        seed = self.draw(st.integers(0, 2**16))
        return np.random.default_rng(seed).standard_normal(shape, np.float32)

    def out(self, *shape: int) -> Value:
        """A float result."""
        return Value(self.name("v"), Type("f32", shape))

    @property
    def node(self) -> tuple[str, ...]:
        """The next ONNX node's name."""
        return (f"node{self.count + 1}",)


def _conv(s: Sketch, x: Value) -> Value:
    n, c, h, w = x.shape
    group = s.draw(st.sampled_from([1, c]))
    k = group * s.draw(st.integers(1, 3))
    size = s.draw(st.integers(1, 3))
    stride, pad = s.draw(st.integers(1, 2)), s.draw(st.integers(size // 2, size - 1))
    weight = s.constant(s.numbers(k, c // group, size, size))
    bias = s.constant(s.numbers(k)) if s.draw(st.booleans()) else None
    places = [(extent + 2 * pad - size) // stride + 1 for extent in (h, w)]
    out = s.out(n, k, *places)
    return s.add(
        ops.Conv(out, x, weight, bias, (stride,) * 2, (pad,) * 4, (1, 1), group, nodes=s.node)
    )


def _conv_transpose(s: Sketch, x: Value) -> Value:
    n, c, h, w = x.shape
    size, stride = s.draw(st.integers(1, 3)), s.draw(st.integers(1, 3))
    group = s.draw(st.sampled_from([1, c]))
    k = s.draw(st.integers(1, 2))
    weight = s.constant(s.numbers(c, k, size, size))
    pads = (0, 0, -s.draw(st.integers(0, stride - 1)), min(1, size - 1))
    places = [
        stride * (extent - 1) + size - pads[axis] - pads[2 + axis]
        for axis, extent in enumerate((h, w))
    ]
    if min(places) < 1:
        return x
    out = s.out(n, k * group, *places)
    return s.add(
        ops.ConvTranspose(out, x, weight, None, (stride,) * 2, pads, (1, 1), group, nodes=s.node)
    )


def _batch_norm(s: Sketch, x: Value) -> Value:
    c = x.shape[1]
    scale, bias, mean = (s.constant(s.numbers(c)) for _ in range(3))
    variance = s.constant(np.abs(s.numbers(c)) + np.float32(0.1))
    return s.add(ops.BatchNorm(s.out(*x.shape), x, scale, bias, mean, variance, nodes=s.node))


def _unary(s: Sketch, x: Value) -> Value:
    fn = s.draw(st.sampled_from(SMOOTH))
    a, b = {"clip": (-1.0, 1.5), "leaky_relu": (0.1, 0.0)}.get(fn, (0.0, 0.0))
    return s.add(ops.Unary(s.out(*x.shape), x, fn, a, b, nodes=s.node))


def _scale(s: Sketch, x: Value) -> Value:
    fn = s.draw(st.sampled_from(["add", "mul", "sub", "div"]))
    shape = s.draw(st.sampled_from([(1, x.shape[1], 1, 1), (1,), ()]))
    number = s.constant(np.abs(s.numbers(*shape)) + np.float32(0.5))
    a, b = (x, number) if fn in ("sub", "div") or s.draw(st.booleans()) else (number, x)
    return s.add(ops.Binary(s.out(*x.shape), a, b, fn, nodes=s.node))


def _residual(s: Sketch, x: Value) -> Value:
    known = [op.out for op in s.ops if op.out.shape == x.shape and op.mnemonic != "constant"]
    other = s.draw(st.sampled_from(known))
    fn = s.draw(st.sampled_from(["add", "mul", "max"]))
    return s.add(ops.Binary(s.out(*x.shape), x, other, fn, nodes=s.node))


def _pool(s: Sketch, x: Value) -> Value:
    n, c, h, w = x.shape
    fn = s.draw(st.sampled_from(["max", "average"]))
    size = s.draw(st.integers(1, min(3, h, w)))
    out = s.out(n, c, h - size + 1, w - size + 1)
    return s.add(ops.Pool(out, x, fn, (size, size), (1, 1), (0,) * 4, (1, 1), nodes=s.node))


def _pad(s: Sketch, x: Value) -> Value:
    n, c, h, w = x.shape
    a, b = s.draw(st.integers(0, 2)), s.draw(st.integers(0, 2))
    value = s.draw(st.sampled_from([0.0, 0.0, 0.7]))
    out = s.out(n, c, h + a, w + b)
    return s.add(ops.Pad(out, x, (0, 0, a, 0, 0, 0, 0, b), value=value, nodes=s.node))


def _turn(s: Sketch, x: Value) -> Value:
    perm = tuple(s.draw(st.permutations([1, 2, 3])))
    out = s.out(x.shape[0], *(x.shape[axis] for axis in perm))
    return s.add(ops.Transpose(out, x, (0, *perm), nodes=s.node))


def _slice(s: Sketch, x: Value) -> Value:
    h = x.shape[2]
    step = s.draw(st.sampled_from([1, 2]))
    out = s.out(*x.shape[:2], -(-h // step), x.shape[3])
    return s.add(ops.Slice(out, x, (0,) * 4, (1, 1, step, 1), nodes=s.node))


def _concat(s: Sketch, x: Value) -> Value:
    out = s.out(x.shape[0], 2 * x.shape[1], *x.shape[2:])
    return s.add(ops.Concat(out, (x, x), 1, nodes=s.node))


def _linear(s: Sketch, x: Value) -> Value:
    rows, columns = x.shape[-1], s.draw(st.integers(1, 5))
    weight = s.constant(s.numbers(rows, columns))
    bias = s.constant(s.numbers(columns)) if s.draw(st.booleans()) else None
    return s.add(ops.Matmul(s.out(*x.shape[:-1], columns), x, weight, bias, nodes=s.node))


STEPS: tuple[Callable[[Sketch, Value], Value], ...] = (
    _conv, _conv, _conv_transpose, _batch_norm, _unary, _scale, _residual, _pool, _pad, _turn,
    _slice, _concat, _linear,
)  # fmt: skip


@st.composite
def float_graphs(draw: st.DrawFn, most: int = 6) -> Graph:
    """A chain of common ops with a residual here and there, on a small feature map."""
    s = Sketch(draw)
    shape = (1, draw(st.integers(1, 4)), draw(st.integers(2, 6)), draw(st.integers(2, 6)))
    x = s.add(ops.Input(Value("x", Type("f32", shape))))
    for _ in range(draw(st.integers(1, most))):
        x = draw(st.sampled_from(STEPS))(s, x)
        if x.type.elements > 4000:
            break
    outputs = (x,) if x.name != "x" else (s.add(ops.Reshape(s.out(*x.shape), x)),)
    return Graph("drawn", tuple(s.ops), outputs, s.tensors)


def random_inputs(graph: Graph, seed: int = 0, spread: float = 2.0) -> dict[str, Array]:
    """Inputs of a graph: normal floats, uniform integers."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for value in graph.inputs:
        dtype = numpy_dtype(value.type.dtype)
        if value.type.is_integer:
            low, high = int_range(value.type.dtype)
            found[value.name] = rng.integers(low, high + 1, value.shape).astype(dtype)
        else:
            found[value.name] = (rng.standard_normal(value.shape) * spread).astype(dtype)
    return found
