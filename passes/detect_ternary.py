"""Find weights that are only -a, 0 and +a, and write them as -1, 0 and +1.

before   %w : i8[16,64] ...                          each column holds -a, 0 and +a only
         %s : i32[1,64] = matmul %x, %w, %b
         %y : i8[1,64]<0.1,0> = requant %s, %m, _
after    %w.signs : i2[16,64] ...
         %s : i32[1,64] = matmul %x, %w.signs, %b.units
         %y : i8[1,64]<0.1,0> = requant %s, %m.units, _

The factor a goes into the multiplier where no sum that can occur is then rounded differently; that
is proven by comparing all thresholds. Elsewhere the requant restores the exact sum first:

         %s : i32[1,64] = matmul %x, %w.signs, _
         %y : i8[1,64]<0.1,0> = requant %s, %m, _, %a, %b

A sum that anything but a requant reads is restored by ops of its own:

         %s.signs : i32[1,64] = matmul %x, %w.signs, _
         %s.scaled : i32[1,64] = binary %s.signs, %a {fn="mul"}
         %s : i32[1,64] = binary %s.scaled, %b {fn="add"}
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Array, Type, int_range
from cimc.passes._absorb import weight_axis, weight_value
from cimc.passes._thresholds import Scale, Sums, same_results
from cimc.pipeline.passes import graph_pass

Integers = NDArray[np.int64]
Product: TypeAlias = ops.Conv | ops.Matmul


@dataclass(frozen=True, slots=True)
class _Ternary:
    """Signs, and per output channel: the factor, and the least and largest sum of signed inputs."""

    signs: NDArray[np.int8]
    factor: Integers
    least: Integers
    most: Integers
    axis: int  # of the result, along which the factors lie


@dataclass(frozen=True, slots=True)
class _Restored:
    """The gain and bias that bring sums of signs back."""

    gain: Value
    bias: Value | None


@graph_pass("detect-ternary")
def detect_ternary(graph: Graph) -> Graph:
    """Write ternary weights of integer convolutions and matrix products in two bits."""
    state = _DetectTernary(graph)
    for old in graph.ops:
        state.step(state.new.current(old))
    return state.new.finish()


class _DetectTernary:
    """The new graph, and what becomes of requants whose sums count signs now."""

    def __init__(self, graph: Graph) -> None:
        self.new = Rewrite(graph)
        self.users = graph.users()
        self.outputs = {value.name for value in graph.outputs}
        self.arrays: dict[str, Array] = {
            op.out.name: graph.tensors[op.digest]
            for op in graph.ops
            if isinstance(op, ops.Constant) and op.digest in graph.tensors
        }
        self.changes: dict[str, tuple[Scale | _Restored, int]] = {}  # and the axis of their tables

    def step(self, op: Op) -> None:
        """Add what stands for one op."""
        if isinstance(op, ops.Requant) and op.out.name in self.changes:
            self.new.add(self.changed(op, *self.changes[op.out.name]))
            return
        found = self.ternary(op) if isinstance(op, ops.Conv | ops.Matmul) else None
        if found is None or not isinstance(op, ops.Conv | ops.Matmul):
            self.new.add(op)
        elif (found.factor == 1).all():
            self.add(op, found, op.out, op.bias)
        else:
            requants = self.requants(op, found)
            if not self.folded(op, found, requants) and not self.restored(op, found, requants):
                self.scaled(op, found)

    def ternary(self, op: Product) -> _Ternary | None:
        """The signs of constant weights with one magnitude per output channel."""
        value = weight_value(op)
        x = op.a if isinstance(op, ops.Matmul) else op.x
        array = self.arrays.get(value.name)
        bias_is_known = op.bias is None or op.bias.name in self.arrays
        if array is None or array.ndim < 2 or not array.size or not bias_is_known:
            return None
        if not op.out.type.is_integer or value.type.dtype == "i2":
            return None
        axis = weight_axis(op)
        inner = tuple(i for i in range(array.ndim) if i != axis)
        most, least = (np.asarray(f(array, axis=inner)).astype(np.int64) for f in (np.max, np.min))
        factor = np.maximum(np.maximum(most, -least), 1)
        spread = factor.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        zeros = array == 0
        plus, minus = array == spread, array == -spread
        if not (zeros | plus | minus).all():
            return None
        zero = x.type.quant.zero if x.type.quant else 0
        low, high = (bound - zero for bound in int_range(x.type.dtype))
        count = [np.count_nonzero(where, axis=inner).astype(np.int64) for where in (plus, minus)]
        return _Ternary(
            plus.astype(np.int8) - minus,
            factor,
            count[0] * low - count[1] * high,
            count[0] * high - count[1] * low,
            len(op.out.shape) - 1 if isinstance(op, ops.Matmul) else 1,
        )

    def requants(self, op: Product, found: _Ternary) -> list[ops.Requant]:
        """The requants that read a sum; none if anything else does."""
        readers = () if op.out.name in self.outputs else self.users[op.out.name]
        rank = len(op.out.shape)
        fitting = [
            reader
            for reader in readers
            if isinstance(reader, ops.Requant)
            and reader.gain is None
            and reader.bias is None
            and (reader.multiplier.type.elements == 1 or reader.axis % rank == found.axis)
        ]
        bias_fits = op.bias is None or op.bias.type.elements in (1, found.factor.size)
        return fitting if bias_fits and len(fitting) == len(readers) else []

    def folded(self, op: Product, found: _Ternary, requants: list[ops.Requant]) -> bool:
        """Count sums in units of a, if every requant that reads them can give the same results."""
        plain = np.zeros_like(found.factor)
        if op.bias is not None:
            plain = plain + self.arrays[op.bias.name].reshape(-1).astype(np.int64)
        units = plain // found.factor
        if not requants or (units * found.factor != plain).any():
            return False
        before = Sums(found.least, found.most, found.factor, plain)
        after = Sums(found.least, found.most, np.ones_like(found.factor), units)
        matching: dict[str, tuple[Scale | _Restored, int]] = {}
        for requant in requants:
            multiplier = self.arrays.get(requant.multiplier.name)
            shift = None if requant.shift is None else self.arrays.get(requant.shift.name)
            same = same_results(requant, multiplier, shift, before, after)
            if same is None:
                return False
            matching[requant.out.name] = (same, found.axis)
        self.changes.update(matching)
        counted = None
        if op.bias is not None:
            held = units.astype(np.int32)
            counted = self.new.constant(held, self.new.fresh(f"{op.bias.name}.units"))
        self.add(op, found, op.out, counted)
        return True

    def restored(self, op: Product, found: _Ternary, requants: list[ops.Requant]) -> bool:
        """Let every requant that reads the sums begin with the factor and the bias."""
        if not requants:
            return False
        name = self.new.fresh(f"{op.out.name}.factor")
        gain = self.new.constant(found.factor.astype(np.int32), name)
        change = _Restored(gain, op.bias)
        self.changes |= {requant.out.name: (change, found.axis) for requant in requants}
        self.add(op, found, op.out, None)
        return True

    def scaled(self, op: Product, found: _Ternary) -> None:
        """The product with the signs, then times a, then plus the bias: the same i32 numbers."""
        new, kind = self.new, op.out.type
        along = [-1 if i == found.axis else 1 for i in range(len(op.out.shape))]
        name = op.out.name
        signs = self.add(op, found, Value(new.fresh(f"{name}.signs"), kind), None)
        factor = found.factor.astype(np.int32).reshape(along)
        gain = new.constant(factor, new.fresh(f"{name}.factor"))
        scaled = op.out if op.bias is None else Value(new.fresh(f"{name}.scaled"), kind)
        new.add(ops.Binary(scaled, signs, gain, "mul"))
        if op.bias is not None:
            bias = op.bias
            if isinstance(op, ops.Conv):
                held = self.arrays[bias.name].reshape(along)
                bias = new.constant(held, new.fresh(f"{name}.bias"))
            new.add(ops.Binary(op.out, scaled, bias, "add"))

    def add(self, op: Product, found: _Ternary, out: Value, bias: Value | None) -> Value:
        """The product with the signs."""
        name = self.new.fresh(f"{weight_value(op).name}.signs")
        signs = self.new.constant(found.signs, name, Type("i2", found.signs.shape))
        if isinstance(op, ops.Matmul):
            return self.new.add(replace(op, out=out, b=signs, bias=bias))
        return self.new.add(replace(op, out=out, w=signs, bias=bias))

    def changed(self, op: ops.Requant, change: Scale | _Restored, axis: int) -> ops.Requant:
        """The requant of a sum of signs."""
        if isinstance(change, _Restored):
            return replace(op, gain=change.gain, bias=change.bias, axis=axis)
        new, name = self.new, f"{op.out.name}.units"
        if change.shift is None:
            held = new.constant(change.multiplier.astype(np.float32), new.fresh(name))
            return replace(op, multiplier=held, axis=axis)
        multiplier = new.constant(change.multiplier.astype(np.int32), new.fresh(name))
        shift = new.constant(change.shift.astype(np.int32), new.fresh(f"{name}.shift"))
        return replace(op, multiplier=multiplier, shift=shift, axis=axis)
