"""Bring every network to one form, so that later passes meet one spelling of each thing.

before   %t : f32[64,10] = transpose %w {perm=(1, 0)}      (%w a dequantized constant)
         %m : f32[1,10] = matmul %x, %t, _
         %y : f32[1,10] = binary %m, %b {fn="add"}         (%b a constant)
after    %y : f32[1,10] = matmul %x, %t.2, %y.bias         (%t.2 stored transposed)

- transposes and reshapes of weights are done now, also where the weights are dequantized integers
- constant weights are the right operand of a matmul, a matrix where they can be
- mul, div, add and sub with a constant per output channel go into the weights and bias before them
- conv_transpose is a conv of the input with zeros between its elements
- means and maxima over all spatial axes are pools over the whole plane
- activation functions that are spelled out become one unary op
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value
from cimc.ir.rewrite import Rewrite, with_nodes
from cimc.ir.types import Array
from cimc.passes._absorb import absorbed, channels, used_once
from cimc.passes._spelled import spelled
from cimc.passes._upsample import as_conv
from cimc.passes._weights import Floats, put, weights_of
from cimc.pipeline.passes import graph_pass


@graph_pass("canonicalize")
def canonicalize(graph: Graph) -> Graph:
    """Apply every rule until none applies."""
    while True:
        simpler = _once(graph)
        if simpler == graph:
            return simpler
        graph = simpler


def _once(graph: Graph) -> Graph:
    new = Rewrite(graph)
    once = used_once(graph)
    for old in graph.ops:
        op = new.current(old)
        if not _rewritten(new, op, once):
            new.add(op)
    return new.finish()


def _rewritten(new: Rewrite, op: Op, once: set[str]) -> bool:
    """Add the canonical form of `op`; False if it has it already."""
    match op:
        case ops.Transpose() | ops.Reshape():
            return _moved_weights(new, op)
        case ops.ConvTranspose():
            return as_conv(new, op)
        case ops.Matmul():
            return _weights_right(new, op) or _weights_flat(new, op)
        case ops.Reduce():
            return _as_pool(new, op)
        case ops.Binary():
            return _absorbed(new, op, once) or _as_clip(new, op) or _named(new, op)
        case ops.Unary():
            return _named(new, op)
    return False


def _moved_weights(new: Rewrite, op: ops.Transpose | ops.Reshape) -> bool:
    """Move the elements of weights now."""
    weights = weights_of(new, op.x)
    if weights is None:
        return False
    moved = weights.map(
        lambda array: (
            array.transpose(op.perm)
            if isinstance(op, ops.Transpose)
            else array.reshape(op.out.shape)
        )
    )
    moved = replace(moved, nodes=(*moved.nodes, *op.nodes))
    if moved.scale is None:
        new.constant(moved.elements, op.out.name, op.out.type)
        return True
    for axis in range(len(op.out.shape)):
        value = put(new, moved, op.out.name, axis)
        if value is not None:
            new.replace(op.out, value)
            return True
    return False


def _weights_right(new: Rewrite, op: ops.Matmul) -> bool:
    """a @ b with weights a is (b' @ a')' ."""
    if weights_of(new, op.a) is None or weights_of(new, op.b) is not None:
        return False
    if len(op.a.shape) < 2 or math.prod(op.a.shape[:-2]) != 1 or len(op.b.shape) < 2:
        return False

    def turned(value: Value) -> Value:
        rank = len(value.shape)
        perm = (*range(rank - 2), rank - 1, rank - 2)
        kind = replace(value.type, shape=tuple(value.shape[axis] for axis in perm))
        out = Value(new.fresh(f"{value.name}.t"), kind)
        return new.add(ops.Transpose(out, value, perm))

    matrix = Value(new.fresh(f"{op.a.name}.matrix"), replace(op.a.type, shape=op.a.shape[-2:]))
    new.add(ops.Reshape(matrix, op.a))
    left, right = turned(op.b), turned(matrix)
    kind = replace(op.out.type, shape=(*left.shape[:-1], right.shape[-1]))
    product = Value(new.fresh(f"{op.out.name}.product"), kind)
    new.add(ops.Matmul(product, left, right, None, nodes=op.nodes))
    rank = len(kind.shape)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    if op.bias is None:
        new.add(ops.Transpose(op.out, product, perm))
        return True
    turned_back = Value(new.fresh(f"{op.out.name}.turned"), op.out.type)
    new.add(ops.Transpose(turned_back, product, perm))
    new.add(ops.Binary(op.out, turned_back, op.bias, "add"))
    return True


def _weights_flat(new: Rewrite, op: ops.Matmul) -> bool:
    """Weights [1, k, n] are a matrix."""
    if len(op.b.shape) <= 2 or math.prod(op.b.shape[:-2]) != 1 or weights_of(new, op.b) is None:
        return False
    if len(op.out.shape) != len(op.a.shape):
        return False
    matrix = Value(new.fresh(f"{op.b.name}.matrix"), replace(op.b.type, shape=op.b.shape[-2:]))
    new.add(ops.Reshape(matrix, op.b))
    new.add(replace(op, b=matrix))
    return True


def _as_pool(new: Rewrite, op: ops.Reduce) -> bool:
    """A mean or maximum over all spatial axes of N C spatial..."""
    rank = len(op.x.shape)
    spatial = tuple(range(2, rank))
    fn = {"mean": "average", "max": "max"}.get(op.fn)
    if fn is None or rank < 4 or tuple(sorted(axis % rank for axis in op.axes)) != spatial:
        return False
    kernel, one = op.x.shape[2:], (1,) * len(spatial)
    kind = replace(op.out.type, shape=(*op.x.shape[:2], *one))
    out = op.out if op.keep else Value(new.fresh(f"{op.out.name}.pool"), kind)
    new.add(ops.Pool(out, op.x, fn, kernel, kernel, (0,) * 2 * len(one), one, nodes=op.nodes))
    if not op.keep:
        new.add(ops.Reshape(op.out, out))
    return True


def _as_clip(new: Rewrite, op: ops.Binary) -> bool:
    """max(x, number) and min(x, number)."""
    if op.fn not in ("max", "min") or op.out.type.dtype != "f32":
        return False
    for x, other in ((op.a, op.b), (op.b, op.a)):
        number = new.array(other)
        if number is not None and number.size == 1 and x.type == op.out.type:
            bound = float(number.reshape(()))
            low, high = (bound, math.inf) if op.fn == "max" else (-math.inf, bound)
            new.add(ops.Unary(op.out, x, "clip", low, high, nodes=op.nodes))
            return True
    return False


def _named(new: Rewrite, op: ops.Unary | ops.Binary) -> bool:
    """One unary op for an activation function that is spelled out."""
    if op.out.type.dtype != "f32":
        return False
    found = spelled(new, op)
    if found is None:
        return False
    x, fn, alpha, beta = found
    new.add(ops.Unary(op.out, x, fn, alpha, beta, nodes=op.nodes))
    return True


def _absorbed(new: Rewrite, op: ops.Binary, once: set[str]) -> bool:
    """mul, div, add or sub of a conv or matmul and a constant per output channel."""
    for heavy_value, other, swapped in ((op.a, op.b, False), (op.b, op.a, True)):
        heavy = new.maker(heavy_value)
        if not isinstance(heavy, ops.Conv | ops.Matmul) or heavy_value.name not in once:
            continue
        held = weights_of(new, other)
        number = None if held is None else _per_channel(held.real, heavy)
        change = None if number is None else _change(op.fn, number, swapped)
        if change is None or heavy_value.type != op.out.type:
            continue
        done = absorbed(new, heavy, change[0], change[1], op.out, op.nodes)
        if done is not None:
            new.add(with_nodes(done, held.nodes if held else ()))
            return True
    return False


def _per_channel(array: Array, heavy: ops.Conv | ops.Matmul) -> Floats | None:
    """A constant that has one number for each output channel; None if it is not of that form."""
    if array.size == 1:
        return np.broadcast_to(array.reshape(()), channels(heavy)).astype(np.float32)
    rank = len(heavy.out.shape)
    axis = rank - 1 if isinstance(heavy, ops.Matmul) else 1
    shape = (1,) * (rank - array.ndim) + array.shape
    if array.ndim > rank or any(extent != 1 for i, extent in enumerate(shape) if i != axis):
        return None
    return array.reshape(-1).astype(np.float32)


def _change(fn: str, number: Floats, swapped: bool) -> tuple[Floats, Floats] | None:
    """Factor and shift that fn with a number amounts to."""
    one, zero = np.ones_like(number), np.zeros_like(number)
    match fn, swapped:
        case "add", _:
            return one, number
        case "sub", False:
            return one, -number
        case "sub", True:
            return -one, number
        case "mul", _:
            return number, zero
        case "div", False if (number != 0).all():
            return (1 / number.astype(np.float64)).astype(np.float32), zero
    return None
