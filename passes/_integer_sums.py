"""Convolutions and matrix products of quantized numbers as exact sums of integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault
from cimc.ir import ops
from cimc.ir.graph import Value, digest_of
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Array, Type, bits_of, int_range, numpy_dtype
from cimc.passes._absorb import Heavy, weight_axis, weight_value
from cimc.passes._weights import Floats, Weights, weights_of

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sum:
    """An exact i32 sum; real number = sum * scale, one scale or one for each place on `axis`."""

    value: Value
    scale: Floats
    axis: int


def emit_sum(
    new: Rewrite, op: ops.Conv | ops.Matmul, known: Mapping[str, Value]
) -> Sum | list[Fault]:
    """Add the integer op that computes what the float op does; what forbids it if it cannot be."""
    x, weight = (op.a, op.b) if isinstance(op, ops.Matmul) else (op.x, op.w)
    faults: list[Fault] = []
    weights = weights_of(new, weight)
    if weights is None and (x.name not in known or weight.name not in known):
        return faults  # two computed floats: that product is left to the vector unit
    if x.name not in known:
        faults.append(_unquantized(op, "input", x))
    if weights is not None and weights.scale is None:
        faults.append(_unquantized(op, "weights", weight))
    if faults:
        return faults
    left = known[x.name]
    assert left.type.quant is not None
    left_scale = np.float32(left.type.quant.scale)
    if weights is None:
        right = known[weight.name]
        assert right.type.quant is not None
        right_scale = np.array([right.type.quant.scale], np.float32)
    else:
        found = weights.along(weight_axis(op))
        if found is None:
            need = f"one scale, or one for each place on axis {weight_axis(op)}"
            return [Fault(_where(op), need=f"weights with {need}", node=_node(op), code="CIM1403")]
        right_scale, zeros = found
        right = _integer_weights(new, op, weights, zeros)
    scale = np.asarray(left_scale * right_scale)
    bias = None if op.bias is None else _integer_bias(new, op, scale)
    if op.bias is not None and bias is None:
        return [_unquantized(op, "bias", op.bias)]
    bound = _largest_sum(left, right, new.array(right), new.array(bias), op)
    if bound > int_range("i32")[1]:
        need = f"sums of up to {bound:.3g}"
        return [
            Fault(_where(op), need=need, have="32-bit accumulators", node=_node(op), code="CIM1404")
        ]
    name = new.fresh(f"{op.out.name}.sum")
    out = Value(name, Type("i32", op.out.shape))
    nodes = (*op.nodes, *(weights.nodes if weights else ()))
    if isinstance(op, ops.Matmul):
        new.add(replace(op, out=out, a=left, b=right, bias=bias, nodes=nodes))
        return Sum(out, scale, len(out.shape) - 1)
    new.add(replace(op, out=out, x=left, w=right, bias=bias, nodes=nodes))
    return Sum(out, scale, 1)


def emit_real(new: Rewrite, total: Sum, out: Value) -> Value:
    """The sum as real numbers."""
    scale = _vector(new, total.scale, f"{out.name}.scale")
    axis = None if total.scale.size == 1 else total.axis
    return new.add(ops.Dequantize(out, total.value, scale, None, axis))


def emit_requant(
    new: Rewrite, total: Sum, out: Value, low: int, high: int, nodes: tuple[str, ...]
) -> Value:
    """The sum in few bits, rounded as onnxruntime does: multiplier = (sx * sw) / sy in float32."""
    assert out.type.quant is not None
    multiplier = total.scale / np.float32(out.type.quant.scale)
    held = _vector(new, np.asarray(multiplier, np.float32), f"{out.name}.multiplier")
    return new.add(
        ops.Requant(out, total.value, held, None, total.axis, low, high, "float", nodes=nodes)
    )


def _vector(new: Rewrite, array: Floats, name: str) -> Value:
    return new.constant(array.reshape(-1), new.fresh(name))


def _integer_weights(new: Rewrite, op: Heavy, weights: Weights, zeros: NDArray[np.int32]) -> Value:
    """Weights less their zero point, in the fewest bits that hold them."""
    axis = weight_axis(op)
    shape = [-1 if i == axis else 1 for i in range(weights.elements.ndim)]
    centered = weights.elements
    if zeros.any():
        wide = np.int16 if bits_of(weights.dtype) <= 8 else np.int64
        centered = centered.astype(wide) - zeros.reshape(shape).astype(wide)
    low, high = (int(centered.min()), int(centered.max())) if centered.size else (0, 0)
    given = bits_of(weights.dtype)
    dtype = next(
        dtype
        for dtype in ("i2", "i4", "i8", "i16", "i32")
        if bits_of(dtype) >= given and int_range(dtype)[0] <= low and high <= int_range(dtype)[1]
    )
    held = centered.astype(numpy_dtype(dtype), copy=False)
    maker = new.maker(weight_value(op))
    stored = maker.x if isinstance(maker, ops.Dequantize) else None
    unchanged = stored is not None and stored.type.dtype == dtype
    if stored is not None and unchanged and digest_of(held) == digest_of(_array(new, stored)):
        return stored
    name = stored.name if stored is not None else f"{op.out.name}.weight"
    return new.constant(held, new.fresh(name), Type(dtype, held.shape))


def _array(new: Rewrite, value: Value) -> Array:
    array = new.array(value)
    assert array is not None
    return array


def _integer_bias(new: Rewrite, op: Heavy, scale: Floats) -> Value | None:
    """The bias in units of the sum, to the nearest integer where it is not given so."""
    assert op.bias is not None
    held = weights_of(new, op.bias)
    if held is None:
        return None
    units = scale.astype(np.float64)
    if held.scale is not None and held.zero is not None and not held.zero.any():
        near = np.abs(held.scale / units - 1) < 1e-5
        if near.all() and held.dtype == "i32":
            maker = new.maker(op.bias)
            if isinstance(maker, ops.Dequantize):
                return maker.x
            return new.constant(held.elements, new.fresh(f"{op.out.name}.bias"))
    low, high = int_range("i32")
    integers = np.clip(np.rint(held.real.astype(np.float64) / units), low, high).astype(np.int32)
    return new.constant(integers, new.fresh(f"{op.out.name}.bias"))


def _largest_sum(
    x: Value, w: Value, weights: Array | None, bias: Array | None, op: ops.Conv | ops.Matmul
) -> float:
    """A bound of the sums' absolute values."""

    def reach(value: Value) -> float:
        low, high = int_range(value.type.dtype)
        zero = value.type.quant.zero if value.type.quant else 0
        return float(max(high - zero, zero - low))

    if weights is None:
        terms = w.type.elements // w.shape[0] if isinstance(op, ops.Conv) else w.shape[-2]
        return reach(x) * reach(w) * terms
    axis = weight_axis(op)
    inner = tuple(i for i in range(weights.ndim) if i != axis)
    inner = inner if isinstance(op, ops.Conv) else (weights.ndim - 2,)
    unsigned = np.dtype(f"u{weights.dtype.itemsize}")  # |-128| is -128 in i8, but 128 in u8
    most = np.abs(weights).view(unsigned).sum(axis=inner, dtype=np.int64) * reach(x)
    more = 0 if bias is None else np.abs(bias.astype(np.int64))
    return float(np.max(most + more, initial=0))


def _where(op: Heavy) -> str:
    return f"{op.mnemonic} {op.out} cannot be computed with integers"


def _node(op: Heavy) -> str:
    return ", ".join(op.nodes)


def _unquantized(op: Heavy, role: str, value: Value) -> Fault:
    return Fault(
        _where(op),
        need=f"its {role} quantized: DequantizeLinear before it",
        have=f"{value} of type {value.type}",
        help="quantize the model with all Conv, Gemm and MatMul included",
        code="CIM1402",
        node=_node(op),
    )
