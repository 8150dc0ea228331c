"""Convolutions and matrix products of quantized numbers as exact sums of integers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault
from cimc.ir import ops
from cimc.ir.graph import Value, digest_of
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Array, Type, bits_of, int_range, numpy_dtype
from cimc.passes._absorb import Heavy, channels, weight_axis, weight_value
from cimc.passes._steps import Chain, fitted, leaf_of
from cimc.passes._weights import Floats, Weights, weights_of

Integers = NDArray[np.int64]
Number = TypeVar("Number", bound=np.number)


@dataclass(frozen=True, slots=True)
class Sum:
    """An exact i32 sum; real number = sum * scale + offset, both single or along `axis`."""

    value: Value
    scale: Floats
    axis: int
    reach: Integers  # largest absolute sum, single or along `axis`
    offset: Floats | None = None  # a bias of floats, which no whole number of sums is


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
    bias, offset = _bias(new, op, scale)
    if op.bias is not None and bias is None and offset is None:
        return [_unquantized(op, "bias", op.bias)]
    reach = _largest_sums(left, right, new.array(right), new.array(bias), op)
    if reach.max(initial=0) > int_range("i32")[1]:
        need = f"sums of up to {reach.max():.3g}"
        return [
            Fault(_where(op), need=need, have="32-bit accumulators", node=_node(op), code="CIM1404")
        ]
    name = new.fresh(f"{op.out.name}.sum")
    out = Value(name, Type("i32", op.out.shape))
    nodes = (*op.nodes, *(weights.nodes if weights else ()))
    if isinstance(op, ops.Matmul):
        new.add(replace(op, out=out, a=left, b=right, bias=bias, nodes=nodes))
        return Sum(out, scale, len(out.shape) - 1, reach.astype(np.int64), offset)
    new.add(replace(op, out=out, x=left, w=right, bias=bias, nodes=nodes))
    return Sum(out, scale, 1, reach.astype(np.int64), offset)


def emit_real(new: Rewrite, total: Sum, out: Value) -> Value:
    """The sum as real numbers."""
    scale = _vector(new, total.scale, f"{out.name}.scale")
    axis = None if total.scale.size == 1 else total.axis
    if total.offset is None:
        return new.add(ops.Dequantize(out, total.value, scale, None, axis))
    scaled = Value(new.fresh(f"{out.name}.scaled"), out.type)
    new.add(ops.Dequantize(scaled, total.value, scale, None, axis))
    rank = len(out.shape)
    along = [-1 if i == total.axis else 1 for i in range(rank)]
    offset = total.offset.reshape(() if total.offset.size == 1 else along)
    held = new.constant(offset, new.fresh(f"{out.name}.offset"))
    return new.add(ops.Binary(out, scaled, held, "add"))


def emit_requant(
    new: Rewrite, total: Sum, out: Value, low: int, high: int, nodes: tuple[str, ...]
) -> Value:
    """The sum in few bits, rounded as onnxruntime does: multiplier = (sx * sw) / sy in float32.

    An offset is rounded to a part of the sum's unit, as fine as float32 holds the total.
    """
    assert out.type.quant is not None
    multiplier = total.scale / np.float32(out.type.quant.scale)
    gain = bias = None
    if total.offset is not None:
        units = total.offset.astype(np.float64) / total.scale
        most = float(np.max(total.reach + np.abs(units), initial=1.0))
        by = 2 ** max(0, math.floor(math.log2(2**24 / most)))
        lowest, highest = int_range("i32")
        whole = np.clip(np.rint(units * by), lowest, highest).astype(np.int32)
        gain = new.constant(np.array([by], np.int32), new.fresh(f"{out.name}.gain"))
        bias = new.constant(whole, new.fresh(f"{out.name}.bias"))
        multiplier = multiplier / np.float32(by)
    held = _vector(new, np.asarray(multiplier, np.float32), f"{out.name}.multiplier")
    requant = ops.Requant(
        out,
        total.value,
        held,
        None,
        total.axis,
        low,
        high,
        gain=gain,
        bias=bias,
        nodes=nodes,
    )
    return new.add(requant)


def emit_steps(new: Rewrite, op: ops.Quantize, sums: Mapping[str, Sum]) -> bool:
    """A requant for what `op` makes of functions of one sum, equal for every sum; False if none."""
    kind = op.out.type
    leaf = leaf_of(new, op.x, set(sums))
    if leaf is None or kind.quant is None or bits_of(kind.dtype) > 8:
        return False
    total = sums[leaf.name]
    offset = np.zeros(1, np.float32) if total.offset is None else total.offset
    chain = Chain(new, op.x, leaf, total.axis)
    line = fitted(
        chain, total.scale.astype(np.float64), offset.astype(np.float64), total.reach, kind
    )
    if line is None:
        return False
    name = op.out.name
    gain = bias = None
    if (line.gain != 1).any():
        gain = new.constant(_shared(line.gain), new.fresh(f"{name}.gain"))
    if line.bias.any():
        bias = new.constant(_shared(line.bias), new.fresh(f"{name}.bias"))
    held = new.constant(_shared(line.multiplier), new.fresh(f"{name}.multiplier"))
    requant = ops.Requant(
        op.out,
        total.value,
        held,
        None,
        total.axis,
        line.low,
        line.high,
        gain=gain,
        bias=bias,
        nodes=op.nodes,
    )
    new.add(requant)
    return True


def _shared(array: NDArray[Number]) -> NDArray[Number]:
    """A single element where all are equal."""
    return array[:1] if (array == array[:1]).all() else array


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


def _bias(new: Rewrite, op: Heavy, scale: Floats) -> tuple[Value | None, Floats | None]:
    """The bias in units of the sum where it is given so, else as a number for each channel."""
    held = None if op.bias is None else weights_of(new, op.bias)
    if op.bias is None or held is None:
        return None, None
    if held.scale is not None and held.zero is not None and not held.zero.any():
        near = np.abs(held.scale / scale.astype(np.float64) - 1) < 1e-5
        if near.all() and held.dtype == "i32":
            maker = new.maker(op.bias)
            if isinstance(maker, ops.Dequantize):
                return maker.x, None
            return new.constant(held.elements, new.fresh(f"{op.out.name}.bias")), None
    shape = held.elements.shape
    if held.elements.size == 1 or (shape[-1] == held.elements.size == channels(op)):
        return None, held.real.reshape(-1)
    low, high = int_range("i32")  # another number for each row
    units = np.rint(held.real.astype(np.float64) / scale.astype(np.float64))
    integers = np.clip(units, low, high).astype(np.int32)
    return new.constant(integers, new.fresh(f"{op.out.name}.bias")), None


def _largest_sums(
    x: Value, w: Value, weights: Array | None, bias: Array | None, op: ops.Conv | ops.Matmul
) -> NDArray[np.float64]:
    """A bound of the sums' absolute values, for all or for each output channel."""

    def reach(value: Value) -> float:
        low, high = int_range(value.type.dtype)
        zero = value.type.quant.zero if value.type.quant else 0
        return float(max(high - zero, zero - low))

    if weights is None:
        terms = w.type.elements // w.shape[0] if isinstance(op, ops.Conv) else w.shape[-2]
        return np.array([reach(x) * reach(w) * terms])
    axis = weight_axis(op)
    inner = tuple(i for i in range(weights.ndim) if i != axis)
    unsigned = np.dtype(f"u{weights.dtype.itemsize}")  # |-128| is -128 in i8, but 128 in u8
    sizes = np.abs(weights).view(unsigned)
    if isinstance(op, ops.Matmul):  # a stack of matrices: any of them
        sizes, inner = sizes.sum(axis=weights.ndim - 2, dtype=np.int64), inner[:-1]
        most = sizes.max(axis=inner, initial=0)
    else:
        most = sizes.sum(axis=inner, dtype=np.int64)
    more = np.zeros(1) if bias is None else np.abs(bias.astype(np.float64))
    if more.size > 1:
        more = more.reshape(-1, most.size).max(axis=0)
    return np.asarray(most * reach(x) + more, np.float64).reshape(-1)


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
