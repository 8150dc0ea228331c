"""Find weights that are only -a, 0 and +a, and write them as -1, 0 and +1.

before   %w : i8[16,64] ...                          each column holds -a, 0 and +a only
         %s : i32[1,64] = matmul %x, %w, %b
         %y : i8[1,64]<0.1,0> = requant %s, %m, _
after    %w.signs : i2[16,64] ...
         %s : i32[1,64] = matmul %x, %w.signs, _
         %y : i8[1,64]<0.1,0> = requant %s, %m, _, %s.factor, %b

The requant brings the sum back before it rounds: the same i32 numbers, the same results. A sum that
anything else reads is brought back by ops of its own:

         %s.signs : i32[1,64] = matmul %x, %w.signs, _
         %s.scaled : i32[1,64] = binary %s.signs, %s.factor {fn="mul"}
         %s : i32[1,64] = binary %s.scaled, %b {fn="add"}

Where a is 1 everywhere, nothing but the weights changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Type, dtype_of, int_range
from cimc.passes._absorb import weight_axis, weight_value
from cimc.pipeline.passes import graph_pass

Product: TypeAlias = ops.Conv | ops.Matmul


@dataclass(frozen=True, slots=True)
class _Ternary:
    """Weights as signs, and the factor of each output channel, along `axis` of the result."""

    signs: NDArray[np.int8]
    factor: NDArray[np.int32]
    axis: int


@dataclass(frozen=True, slots=True)
class _GainAndBias:
    """What brings sums of signs back, along `axis`."""

    gain: Value
    bias: Value | None
    axis: int


@graph_pass("detect-ternary")
def detect_ternary(graph: Graph) -> Graph:
    """Write ternary weights of integer convolutions and matrix products in two bits."""
    new = Rewrite(graph)
    users = graph.users()
    outputs = {value.name for value in graph.outputs}
    restoring: dict[str, _GainAndBias] = {}  # by the requant's result
    for old in graph.ops:
        op = new.current(old)
        found = _ternary(new, op) if isinstance(op, ops.Conv | ops.Matmul) else None
        if isinstance(op, ops.Requant) and op.out.name in restoring:
            new.add(_restoring(new, op, restoring[op.out.name]))
        elif found is None or not isinstance(op, ops.Conv | ops.Matmul):
            new.add(op)
        elif (found.factor == 1).all():
            new.add(_with_weights(op, op.out, _signs(new, op, found), op.bias))
        else:
            readers = () if op.out.name in outputs else users[op.out.name]
            if readers and all(_can_restore(reader, op, found) for reader in readers):
                first = _counted(new, op, found)
                restoring |= {reader.out.name: first for reader in readers}
            else:
                _scaled(new, op, found)
    return new.finish()


def _ternary(new: Rewrite, op: Product) -> _Ternary | None:
    """The signs of constant weights with one magnitude per output channel."""
    value = weight_value(op)
    array = new.array(value)
    bias_is_known = op.bias is None or new.array(op.bias) is not None
    if array is None or array.ndim < 2 or not array.size or not bias_is_known:
        return None
    if not op.out.type.is_integer or value.type.dtype == "i2":
        return None
    axis = weight_axis(op)
    inner = tuple(i for i in range(array.ndim) if i != axis)
    most, least = (
        bound.astype(np.int64) for bound in (array.max(axis=inner), array.min(axis=inner))
    )
    factor = np.maximum(np.maximum(most, -least), 1)
    spread = factor.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    if factor.max() <= int_range(dtype_of(array))[1]:  # not 128, whose negative is an i8
        spread = spread.astype(array.dtype)
    signs = np.sign(array)
    if (signs * spread != array).any():
        return None
    channel = len(op.out.shape) - 1 if isinstance(op, ops.Matmul) else 1
    return _Ternary(signs.astype(np.int8, copy=False), factor.astype(np.int32), channel)


def _signs(new: Rewrite, op: Product, found: _Ternary) -> Value:
    name = new.fresh(f"{weight_value(op).name}.signs")
    return new.constant(found.signs, name, Type("i2", found.signs.shape))


def _with_weights(op: Product, out: Value, weights: Value, bias: Value | None) -> Product:
    if isinstance(op, ops.Matmul):
        return replace(op, out=out, b=weights, bias=bias)
    return replace(op, out=out, w=weights, bias=bias)


def _can_restore(reader: Op, op: Product, found: _Ternary) -> bool:
    """Whether an op that reads the sum is a requant whose tables can follow the channels."""
    if not isinstance(reader, ops.Requant):
        return False
    tables = (reader.multiplier, reader.shift, reader.gain, reader.bias)
    follows = reader.axis % len(op.out.shape) == found.axis
    bias_fits = op.bias is None or op.bias.type.elements in (1, found.factor.size)
    shared = all(table is None or table.type.elements == 1 for table in tables)
    return bias_fits and (follows or shared)


def _counted(new: Rewrite, op: Product, found: _Ternary) -> _GainAndBias:
    """The product with the signs, and what its requants do first."""
    gain = new.constant(found.factor, new.fresh(f"{op.out.name}.factor"))
    new.add(_with_weights(op, op.out, _signs(new, op, found), None))
    return _GainAndBias(gain, op.bias, found.axis)


def _restoring(new: Rewrite, op: ops.Requant, first: _GainAndBias) -> ops.Requant:
    """The requant of sums of signs: what brings them back, then its own gain and bias.

    (x*g + b) * gain + bias = x * (g*gain) + (b*gain + bias); like every sum it wraps at 32 bits.
    """
    if op.gain is None and op.bias is None:
        return replace(op, gain=first.gain, bias=first.bias, axis=first.axis)
    gain, bias = (
        np.int64(neutral) if array is None else array.astype(np.int64)
        for array, neutral in ((new.array(op.gain), 1), (new.array(op.bias), 0))
    )
    factor, shift = new.array(first.gain), new.array(first.bias)
    assert factor is not None
    total = bias if shift is None else shift.astype(np.int64) * gain + bias
    name = op.out.name
    by = np.atleast_1d(factor.astype(np.int64) * gain).astype(np.int32)
    plus = np.atleast_1d(total).astype(np.int32)
    return replace(
        op,
        gain=new.constant(by, new.fresh(f"{name}.gain")),
        bias=new.constant(plus, new.fresh(f"{name}.bias")) if plus.any() else None,
        axis=first.axis,
    )


def _scaled(new: Rewrite, op: Product, found: _Ternary) -> None:
    """The product with the signs, then times a, then plus the bias: the same i32 numbers."""
    along = [-1 if i == found.axis else 1 for i in range(len(op.out.shape))]
    name, kind = op.out.name, op.out.type
    signs = Value(new.fresh(f"{name}.signs"), kind)
    new.add(_with_weights(op, signs, _signs(new, op, found), None))
    factor = new.constant(found.factor.reshape(along), new.fresh(f"{name}.factor"))
    scaled = op.out if op.bias is None else Value(new.fresh(f"{name}.scaled"), kind)
    new.add(ops.Binary(scaled, signs, factor, "mul"))
    held = new.array(op.bias)
    if op.bias is not None and held is not None:
        bias = op.bias
        if isinstance(op, ops.Conv):
            bias = new.constant(held.reshape(along), new.fresh(f"{name}.bias"))
        new.add(ops.Binary(op.out, scaled, bias, "add"))
