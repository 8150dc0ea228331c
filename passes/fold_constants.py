"""Compute at compile time what depends on constants only.

before   %w : f32[2] = constant ...
         %s : f32[2] = unary %w {fn="sqrt"}
         %y : f32[4,2] = binary %x, %s {fn="mul"}
after    %s : f32[2] = constant ...
         %y : f32[4,2] = binary %x, %s {fn="mul"}

A `dequantize` stays: its integers are what the arrays of the machine hold.
"""

from __future__ import annotations

from cimc.ir import ops
from cimc.ir.evaluate import evaluate_op
from cimc.ir.graph import Graph, Op, operands
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Array
from cimc.pipeline.passes import graph_pass


@graph_pass("fold-constants")
def fold_constants(graph: Graph, *, max_elements: int = 1 << 16) -> Graph:
    """Replace ops whose operands are all constant by their result, unless that grows large.

    A result that is larger than `max_elements` and than all operands together is not worth keeping.
    """
    new = Rewrite(graph)
    for old in graph.ops:
        op = new.current(old)
        result = _computed(new, op, max_elements)
        if result is None:
            new.add(op)
        else:
            new.constant(result, op.out.name, op.out.type)
    return new.finish()


def _computed(new: Rewrite, op: Op, max_elements: int) -> Array | None:
    if isinstance(op, ops.Input | ops.Constant | ops.Dequantize):
        return None
    held: dict[str, Array] = {}
    for value in operands(op):
        array = new.array(value)
        if array is None:
            return None
        held[value.name] = array
    size = op.out.type.elements
    if size > max_elements and size > sum(array.size for array in held.values()):
        return None
    return evaluate_op(op, held)
