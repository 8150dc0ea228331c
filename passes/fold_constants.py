"""Compute at compile time what depends on constants only.

before   %w : f32[2] = constant ...
         %s : f32[2] = unary %w {fn="sqrt"}
         %y : f32[4,2] = binary %x, %s {fn="mul"}
after    %s : f32[2] = constant ...
         %y : f32[4,2] = binary %x, %s {fn="mul"}

A `dequantize` stays: its integers are what the arrays of the machine hold.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cimc.ir import ops
from cimc.ir.evaluate import evaluate_op
from cimc.ir.graph import Graph, Op, Value, operands
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Array
from cimc.passes._weights import distinct
from cimc.pipeline.passes import graph_pass


@graph_pass("fold-constants")
def fold_constants(graph: Graph, *, max_elements: int = 1 << 16) -> Graph:
    """Replace ops whose operands are all constant by their result, unless that grows large.

    A result that is larger than `max_elements` and than all operands together is not worth keeping,
    unless it is what a convolution, a matrix product or a dequantize reads as weights.
    """
    new = Rewrite(graph)
    weights = _weights(graph)
    for old in graph.ops:
        op = new.current(old)
        result = None
        if op.out.name in weights or _is_worth_it(new, op, max_elements):
            result = _computed(new, op)
        if result is None:
            new.add(op)
        else:
            new.constant(result, op.out.name, op.out.type)
    return new.finish()


def _weights(graph: Graph) -> set[str]:
    """Names of the values that are read as weights."""
    found: set[str] = set()
    for op in graph.ops:
        match op:
            case ops.Conv(w=Value(name)) | ops.ConvTranspose(w=Value(name)):
                found.add(name)
            case ops.Matmul(b=Value(name)) | ops.Dequantize(x=Value(name)):
                found.add(name)
    return found


def _is_worth_it(new: Rewrite, op: Op, max_elements: int) -> bool:
    are_known = all(new.array(value) is not None for value in operands(op))
    given = sum(value.type.elements for value in operands(op))
    return are_known and op.out.type.elements <= max(max_elements, given)


def _computed(new: Rewrite, op: Op) -> Array | None:
    """The result of an op whose operands are constants or computed from constants."""
    if isinstance(op, ops.Input | ops.Constant | ops.Dequantize):
        return None
    held: dict[str, Array] = {}
    for value in operands(op):
        array = new.array(value)
        if array is None:
            maker = new.maker(value)
            array = None if maker is None else _computed(new, maker)
        if array is None:
            return None
        held[value.name] = array
    match op:
        case ops.Broadcast(x=x) if x.type.quant == op.out.type.quant:
            return np.broadcast_to(held[x.name], op.out.shape)  # without a copy
        case ops.Quantize(x=x) | ops.Cast(x=x) | ops.Unary(x=x):
            return _each_once(op, x, held)
        case _:
            return evaluate_op(op, held)


def _each_once(op: ops.Quantize | ops.Cast | ops.Unary, x: Value, held: dict[str, Array]) -> Array:
    """A function of each element, computed once where elements of x were repeated."""
    array = held[x.name]
    kept = distinct(array)
    if kept.size == array.size or (isinstance(op, ops.Quantize) and op.axis is not None):
        return evaluate_op(op, held)
    small = replace(x, type=replace(x.type, shape=kept.shape))
    out = replace(op.out, type=replace(op.out.type, shape=kept.shape))
    result = evaluate_op(replace(op, out=out, x=small), held | {x.name: kept})
    return np.broadcast_to(result, op.out.shape)
