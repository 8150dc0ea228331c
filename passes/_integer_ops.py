"""Ops between heavy ones on quantized integers: luts, moves, vector ops with quantized types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.evaluate.numbers import dequantized, element, quantized, real
from cimc.ir.graph import Op, Value
from cimc.ir.rewrite import Rewrite, with_nodes
from cimc.ir.types import Array, Quant, Type, bits_of, int_range
from cimc.passes._cone import computed, read
from cimc.passes._weights import weights_of

Known = Mapping[str, Value]  # float value -> the quantized integers that it stands for


def reals_of(kind: Type) -> NDArray[np.float32]:
    """The real numbers that the integers of a type stand for, ascending."""
    assert kind.quant is not None
    low, high = int_range(kind.dtype)
    scale, zero = np.float32(kind.quant.scale), np.int64(kind.quant.zero)
    return dequantized(np.arange(low, high + 1), scale, zero)


def in_type(reals: Array, kind: Type) -> Array:
    """Real numbers as integers of a quantized type."""
    assert kind.quant is not None
    scale, zero = np.float32(kind.quant.scale), np.int64(kind.quant.zero)
    return quantized(reals, scale, zero, kind.dtype)


def emit_lut(
    new: Rewrite, x: Value, table: Array, out: Value, nodes: tuple[str, ...] = ()
) -> Value:
    """out[i] = table of x[i]."""
    kind = Type(out.type.dtype, table.shape, out.type.quant)
    held = new.constant(table, new.fresh(f"{out.name}.table"), kind)
    return new.add(ops.Lut(out, x, held, nodes=nodes))


def emit_rescaled(
    new: Rewrite, x: Value, out: Value, low: int, high: int, nodes: tuple[str, ...] = ()
) -> Value:
    """The same real numbers in the type of out, clamped to low .. high."""
    if bits_of(x.type.dtype) <= 8:
        table = in_type(reals_of(x.type), out.type)
        return emit_lut(new, x, np.clip(table, low, high).astype(table.dtype), out, nodes)
    bounds = real(np.array([low, high]), replace(out.type, shape=(2,)))
    clip = ops.Unary(out, x, "clip", float(bounds[0]), float(bounds[1]), nodes=nodes)
    return new.add(clip)


def function_of_one(
    new: Rewrite, value: Value, known: Known
) -> tuple[Value, NDArray[np.float32]] | None:
    """The 8-bit value that `value` is a function of, and the function at each of its integers."""
    leaves: dict[str, Value] = {}
    todo = {value.name: value}
    while todo:
        name, item = todo.popitem()
        if name in known and new.array(known[name]) is None:
            leaves[name] = known[name]
            continue
        more = read(new, new.maker(item))
        if not more:
            return None
        todo.update({n: v for n, v in more.items() if n not in leaves})
    if len(leaves) != 1:
        return None
    ((name, x),) = leaves.items()
    if bits_of(x.type.dtype) > 8:
        return None
    reals = reals_of(x.type)
    maker = new.maker(value)
    if name == value.name:
        return x, reals
    assert isinstance(maker, ops.Unary | ops.Binary)
    return x, computed(new, maker, {name: reals})


def quantized_constant(new: Rewrite, value: Value) -> Value | None:
    """The integers of a dequantized constant with one scale, as a value of quantized type."""
    held = weights_of(new, value)
    if held is None or held.scale is None or held.zero is None or held.dtype == "i32":
        return None
    if (held.scale != held.scale.flat[0]).any() or (held.zero != held.zero.flat[0]).any():
        return None
    quant = Quant(float(held.scale.flat[0]), int(held.zero.flat[0]))
    kind = Type(held.dtype, held.elements.shape, quant)
    return new.constant(held.elements, new.fresh(f"{value.name}.integers"), kind)


def float_constant(new: Rewrite, value: Value) -> Value | None:
    """A constant as plain float32, dequantized now where it must be."""
    held = weights_of(new, value)
    if held is None:
        return None
    if held.scale is None:
        return value
    return new.constant(held.real, new.fresh(f"{value.name}.real"))


def moved(new: Rewrite, op: Op, known: Known) -> Op | None:
    """An op that only moves elements, on integers; None for other ops and other operands."""
    match op:
        case ops.Concat(xs=xs):
            parts = [known[x.name] for x in xs if x.name in known]
            if len(parts) < len(xs) or len({(p.type.dtype, p.type.quant) for p in parts}) > 1:
                return None
            kind = replace(parts[0].type, shape=op.out.shape)
            return replace(op, out=Value(op.out.name, kind), xs=tuple(parts))
        case (
            ops.Reshape(x=x) | ops.Transpose(x=x) | ops.Slice(x=x) | ops.Gather(x=x)
            | ops.Broadcast(x=x) | ops.Tile(x=x) | ops.Pad(x=x)
            | ops.Resize(x=x, mode="nearest") | ops.Pool(x=x, fn="max")
            | ops.Reduce(x=x, fn="max" | "min")
        ) if x.name in known:  # fmt: skip
            integers = known[x.name]
            if isinstance(op, ops.Pad) and not _representable(op.value, integers.type):
                return None
            kind = replace(integers.type, shape=op.out.shape)
            return replace(op, out=Value(op.out.name, kind), x=integers)
    return None


def _representable(number: float, kind: Type) -> bool:
    return float(real(element(number, kind), replace(kind, shape=()))) == np.float32(number)


def vector_op(new: Rewrite, op: Op, known: Known, kind: Type) -> Op | None:
    """The op with quantized operands and a result of `kind`; None if nothing it reads is quantized.

    Its result keeps the name of the float one until the caller renames it.
    """
    out = Value(op.out.name, kind)

    def operand(value: Value) -> Value:
        """Integers where there are, else the float value itself."""
        if value.name in known:
            return known[value.name]
        return quantized_constant(new, value) or float_constant(new, value) or value

    match op:
        case ops.Binary(a=a, b=b):
            if a.name not in known and b.name not in known:
                return None
            return replace(op, out=out, a=operand(a), b=operand(b))
        case ops.Pool(x=x) | ops.Reduce(x=x) | ops.Softmax(x=x) | ops.Lrn(x=x) | ops.Resize(x=x):
            return replace(op, out=out, x=known[x.name]) if x.name in known else None
        case ops.Unary(x=x) if x.name in known:
            return replace(op, out=out, x=known[x.name])
        case ops.LayerNorm(x=x, scale=scale, bias=bias) if x.name in known:
            scale = scale and (float_constant(new, scale) or scale)
            bias = bias and (float_constant(new, bias) or bias)
            return replace(op, out=out, x=known[x.name], scale=scale, bias=bias)
        case ops.Pad(x=x) if x.name in known:
            return replace(op, out=out, x=_in_type(new, known[x.name], kind))
        case ops.Concat(xs=xs):
            parts = [known.get(x.name) or quantized_constant(new, x) for x in xs]
            if any(part is None for part in parts):
                return None
            return replace(op, out=out, xs=tuple(_in_type(new, p, kind) for p in parts if p))
        case ops.Where(a=a, b=b) if a.name in known or b.name in known:
            chosen = [_chosen(new, value, known, kind) for value in (a, b)]
            if chosen[0] is None or chosen[1] is None:
                return None
            return replace(op, out=out, a=chosen[0], b=chosen[1])
    return None


def _in_type(new: Rewrite, x: Value, kind: Type) -> Value:
    """A value in another scale, so that the op that reads it only moves it."""
    kind = replace(kind, shape=x.shape)
    if x.type == kind:
        return x
    out = Value(new.fresh(f"{x.name}.rescaled"), kind)
    return emit_rescaled(new, x, out, *int_range(kind.dtype))


def _chosen(new: Rewrite, value: Value, known: Known, kind: Type) -> Value | None:
    if value.name in known:
        return _in_type(new, known[value.name], kind)
    held = weights_of(new, value)
    if held is None:
        return None
    kind = replace(kind, shape=held.elements.shape)
    return new.constant(in_type(held.real, kind), new.fresh(f"{value.name}.integers"), kind)


def emit_clamped(
    new: Rewrite, op: Op, out: Value, low: int, high: int, nodes: tuple[str, ...]
) -> Value:
    """Add the op under the name `out`, its result clamped to low .. high."""
    limits = int_range(out.type.dtype)
    if isinstance(op, ops.Binary) and (low, high) != limits:
        op = replace(op, low=low, high=high)
        low, high = limits
    if (low, high) == limits:
        return new.add(with_nodes(replace(op, out=out), nodes))
    raw = Value(new.fresh(f"{out.name}.unclamped"), out.type)
    new.add(replace(op, out=raw))
    return emit_rescaled(new, raw, out, low, high, nodes)
