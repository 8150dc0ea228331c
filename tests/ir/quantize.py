"""A plain QDQ quantizer for random graphs: what onnxruntime's would write, in the graph IR."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, Op, Value, digest_of, with_operands
from cimc.ir.types import Array, Quant, Type, dtype_of, int_range, numpy_dtype
from tests.ir.graphs import random_inputs

Floats = NDArray[np.float32]
HEAVY = (ops.Conv, ops.Matmul)
SHARED = (ops.Reshape, ops.Transpose, ops.Slice, ops.Pad)  # result and operand share a scale


@dataclass
class _Writer:
    """The QDQ graph so far; `real` maps a float value to its dequantized one."""

    dtype: str
    per_channel: bool
    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Array] = field(default_factory=dict)
    real: dict[str, Value] = field(default_factory=dict)
    quants: dict[str, Quant] = field(default_factory=dict)

    def constant(self, name: str, array: Array, dtype: str | None = None) -> Value:
        """A constant."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        self.tensors[digest_of(array)] = array
        kind = Type(dtype or dtype_of(array), array.shape)
        self.ops.append(ops.Constant(Value(name, kind), digest_of(array)))
        return self.ops[-1].out

    def quantized(self, value: Value, quant: Quant) -> Value:
        """Quantize and dequantize a float value."""
        scale = self.constant(f"{value.name}.s", np.array(quant.scale, np.float32))
        zero = self.constant(
            f"{value.name}.z", np.array(quant.zero, numpy_dtype(self.dtype)), self.dtype
        )
        kind = Type(self.dtype, value.shape, quant)
        q = Value(f"{value.name}.q", kind)
        self.ops.append(ops.Quantize(q, value, scale, zero, nodes=(f"q {value.name}",)))
        out = Value(f"{value.name}.dq", value.type)
        self.ops.append(ops.Dequantize(out, q, scale, zero, nodes=(f"dq {value.name}",)))
        self.real[value.name], self.quants[value.name] = out, quant
        return out

    def weights(self, value: Value, array: Floats, axis: int) -> tuple[Value, Floats]:
        """Symmetric 8-bit weights, dequantized."""
        inner = tuple(i for i in range(array.ndim) if i != axis)
        most = np.abs(array).max(axis=inner if self.per_channel else None)
        scale = np.where(most == 0, 1, most / 127).astype(np.float32)
        spread = scale.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        spread = spread if self.per_channel else scale
        integers = np.clip(np.rint(array / spread), -127, 127).astype(np.int8)
        held = self.constant(f"{value.name}.i8", integers)
        scales = self.constant(f"{value.name}.s", scale)
        out = Value(f"{value.name}.dq", value.type)
        along = axis if self.per_channel else None
        self.ops.append(ops.Dequantize(out, held, scales, None, along, nodes=(f"dq {value.name}",)))
        return out, scale

    def bias(self, value: Value, array: Floats, scale: Floats) -> Value:
        """A 32-bit bias in units of input scale * weight scale."""
        integers = np.clip(np.rint(array / scale), -(2**31), 2**31 - 1).astype(np.int32)
        held = self.constant(f"{value.name}.i32", integers)
        scales = self.constant(f"{value.name}.s", scale)
        out = Value(f"{value.name}.dq", value.type)
        along = 0 if scale.size > 1 else None
        self.ops.append(ops.Dequantize(out, held, scales, None, along, nodes=(f"dq {value.name}",)))
        return out


def quantized_graph(graph: Graph, dtype: str = "u8", per_channel: bool = True) -> Graph:
    """Every value quantized and dequantized, weights and biases of heavy ops stored as integers.

    A relu or clip behind a heavy op shares that op's quantize, as onnxruntime's quantizer does it.
    """
    seen = evaluate(graph, random_inputs(graph), keep=[op.out.name for op in graph.ops])
    writer = _Writer(dtype, per_channel)
    users = graph.users()
    for op in graph.ops:
        if isinstance(op, ops.Constant):
            continue
        _write(writer, graph, op, seen, users)
    outputs = tuple(writer.real[value.name] for value in graph.outputs)
    return Graph(graph.name, tuple(writer.ops), outputs, writer.tensors)


def _write(
    w: _Writer,
    graph: Graph,
    op: Op,
    seen: dict[str, Array],
    users: dict[str, tuple[Op, ...]],
) -> None:
    def read(value: Value) -> Value:
        if value.name not in w.real and graph.tensor(value) is not None:
            array = graph.tensor(value)
            assert array is not None
            w.real[value.name] = w.constant(value.name, array)
        return w.real.get(value.name, value)

    if isinstance(op, ops.ConvTranspose):
        op = replace(op, x=read(op.x), w=w.weights(op.w, _floats(graph, op.w), 1)[0])
    elif isinstance(op, ops.Conv | ops.Matmul):
        x, weight = (op.a, op.b) if isinstance(op, ops.Matmul) else (op.x, op.w)
        array = _floats(graph, weight)
        axis = array.ndim - 1 if isinstance(op, ops.Matmul) else 0
        dequantized, scale = w.weights(weight, array, axis)
        bias = None
        if op.bias is not None:
            bias = w.bias(
                op.bias, _floats(graph, op.bias), np.float32(w.quants[x.name].scale) * scale
            )
        if isinstance(op, ops.Matmul):
            op = replace(op, a=read(x), b=dequantized, bias=bias)
        else:
            op = replace(op, x=read(x), w=dequantized, bias=bias)
    else:
        op = with_operands(op, read)
    w.ops.append(op)
    following = users[op.out.name]
    fused = isinstance(op, HEAVY) and len(following) == 1 and op.out not in graph.outputs
    if fused and isinstance(following[0], ops.Unary) and following[0].fn in ("relu", "clip"):
        return
    if isinstance(op, SHARED) and op.x.name.removesuffix(".dq") in w.quants:
        w.quantized(op.out, w.quants[op.x.name.removesuffix(".dq")])
        return
    w.quantized(op.out, _quant(seen[op.out.name], w.dtype))


def _floats(graph: Graph, value: Value) -> Floats:
    array = graph.tensor(value)
    assert array is not None
    return array.astype(np.float32)


def _quant(array: Array, dtype: str) -> Quant:
    """The scale and zero point that cover what was seen."""
    low, high = int_range(dtype)
    least, most = min(0.0, float(array.min())), max(0.0, float(array.max()))
    scale = float(np.float32(max(most - least, 1e-3) / (high - low)))
    return Quant(scale, int(np.clip(round(low - least / scale), low, high)))
