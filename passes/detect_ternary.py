"""Find weights that are only -a, 0 and +a, and write them as -1, 0 and +1.

before   %w : i8[16,64] ...                          each column holds -a, 0 and +a only
         %s : i32[1,64] = matmul %x, %w, %b
         %y : i8[1,64]<0.1,0> = requant %s, %m, _
after    %w.signs : i2[16,64] ...
         %s : i32[1,64] = matmul %x, %w.signs, %b.units
         %y : i8[1,64]<0.1,0> = requant %s, %m.units, _

The factor a goes into the multiplier where no sum that can occur is then rounded differently; that
is proven by comparing all thresholds. Elsewhere exact ops for it follow the sum:

         %s.signs : i32[1,64] = matmul %x, %w.signs, _
         %s.scaled : i32[1,64] = binary %s.signs, %a {fn="mul"}
         %s : i32[1,64] = binary %s.scaled, %b {fn="add"}
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Type, int_range
from cimc.passes._absorb import weight_axis, weight_value
from cimc.passes._thresholds import Scale, Sums, same_results
from cimc.pipeline.passes import graph_pass

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Ternary:
    """Signs, and per output channel: the factor, and the least and largest sum of signed inputs."""

    signs: NDArray[np.int8]
    factor: Integers
    least: Integers
    most: Integers


@graph_pass("detect-ternary")
def detect_ternary(graph: Graph) -> Graph:
    """Write ternary weights of integer convolutions and matrix products in two bits."""
    new = Rewrite(graph)
    users = graph.users()
    outputs = {value.name for value in graph.outputs}
    scales: dict[str, Scale] = {}  # of requants whose sums are smaller now
    for old in graph.ops:
        op = new.current(old)
        if isinstance(op, ops.Conv | ops.Matmul):
            found = _ternary(new, op)
            readers = None if op.out.name in outputs else users[op.out.name]
            if found is None:
                new.add(op)
            elif not _folded(new, op, found, readers, scales):
                _scaled(new, op, found)
        elif isinstance(op, ops.Requant) and op.out.name in scales:
            new.add(_with_scale(new, op, scales[op.out.name]))
        else:
            new.add(op)
    return new.finish()


def _ternary(new: Rewrite, op: ops.Conv | ops.Matmul) -> _Ternary | None:
    """The signs of constant weights with one magnitude per output channel."""
    value = weight_value(op)
    array = new.array(value)
    x = op.a if isinstance(op, ops.Matmul) else op.x
    if array is None or array.ndim < 2 or not op.out.type.is_integer or value.type.dtype == "i2":
        return None
    weights = array.astype(np.int64)
    axis = weight_axis(op)
    inner = tuple(i for i in range(weights.ndim) if i != axis)
    factor = np.abs(weights).max(axis=inner, initial=0)
    factor = np.where(factor == 0, 1, factor)
    spread = factor.reshape([-1 if i == axis else 1 for i in range(weights.ndim)])
    signs = np.sign(weights)
    bias_is_known = op.bias is None or new.array(op.bias) is not None
    if (signs * spread != weights).any() or not bias_is_known:
        return None
    zero = x.type.quant.zero if x.type.quant else 0
    low, high = (bound - zero for bound in int_range(x.type.dtype))
    plus, minus = ((signs == sign).sum(axis=inner) for sign in (1, -1))
    least, most = plus * low - minus * high, plus * high - minus * low
    return _Ternary(signs.astype(np.int8), factor, least, most)


def _signs(new: Rewrite, op: ops.Conv | ops.Matmul, found: _Ternary) -> Value:
    name = new.fresh(f"{weight_value(op).name}.signs")
    return new.constant(found.signs, name, Type("i2", found.signs.shape))


def _with_weights(
    op: ops.Conv | ops.Matmul, out: Value, weights: Value, bias: Value | None
) -> ops.Conv | ops.Matmul:
    if isinstance(op, ops.Matmul):
        return replace(op, out=out, b=weights, bias=bias)
    return replace(op, out=out, w=weights, bias=bias)


def _folded(
    new: Rewrite,
    op: ops.Conv | ops.Matmul,
    found: _Ternary,
    readers: tuple[Op, ...] | None,
    scales: dict[str, Scale],
) -> bool:
    """Count sums in units of a, if every requant that reads them can give the same results."""
    bias = None if op.bias is None else new.array(op.bias)
    if op.bias is not None and (bias is None or bias.size != found.factor.size):
        return False
    if (found.factor == 1).all():
        new.add(_with_weights(op, op.out, _signs(new, op, found), op.bias))
        return True
    plain = np.zeros_like(found.factor) if bias is None else bias.reshape(-1).astype(np.int64)
    units = plain // found.factor
    if readers is None or (units * found.factor != plain).any():
        return False
    before = Sums(found.least, found.most, found.factor, plain)
    after = Sums(found.least, found.most, np.ones_like(found.factor), units)
    matching: dict[str, Scale] = {}
    for reader in readers:
        same = same_results(new, reader, before, after) if isinstance(reader, ops.Requant) else None
        if same is None:
            return False
        matching[reader.out.name] = same
    scales.update(matching)
    counted = None
    if op.bias is not None and bias is not None:
        held = units.astype(np.int32).reshape(bias.shape)
        counted = new.constant(held, new.fresh(f"{op.bias.name}.units"))
    new.add(_with_weights(op, op.out, _signs(new, op, found), counted))
    return True


def _with_scale(new: Rewrite, op: ops.Requant, scale: Scale) -> ops.Requant:
    name = f"{op.out.name}.units"
    if scale.shift is None:
        held = new.constant(scale.multiplier.astype(np.float32), new.fresh(name))
        return replace(op, multiplier=held)
    multiplier = new.constant(scale.multiplier.astype(np.int32), new.fresh(name))
    shift = new.constant(scale.shift.astype(np.int32), new.fresh(f"{op.out.name}.units.shift"))
    return replace(op, multiplier=multiplier, shift=shift)


def _scaled(new: Rewrite, op: ops.Conv | ops.Matmul, found: _Ternary) -> None:
    """The product with the signs, then times a, then plus the bias: the same i32 numbers."""
    axis = (len(op.out.shape) - 1) if isinstance(op, ops.Matmul) else 1
    along = [-1 if i == axis else 1 for i in range(len(op.out.shape))]
    name, kind = op.out.name, op.out.type
    signs = Value(new.fresh(f"{name}.signs"), kind)
    new.add(_with_weights(op, signs, _signs(new, op, found), None))
    factor = new.constant(found.factor.astype(np.int32).reshape(along), new.fresh(f"{name}.factor"))
    scaled = op.out if op.bias is None else Value(new.fresh(f"{name}.scaled"), kind)
    new.add(ops.Binary(scaled, signs, factor, "mul"))
    if op.bias is not None:
        held = new.array(op.bias)
        bias = op.bias
        assert held is not None
        if isinstance(op, ops.Conv):
            bias = new.constant(held.reshape(along), new.fresh(f"{name}.bias"))
        new.add(ops.Binary(op.out, scaled, bias, "add"))
