"""Patterns that exporters write around an op and that mean nothing, removed at import.

before   %s = softmax %x    %n = unary %s {fn="is_nan"}    %y = where %n, 0, %s
after    %s = softmax %x, standing for all three nodes; users of %y read %s

The guard is for rows that a mask closes completely; our softmax gives zeros there by itself.
"""

from __future__ import annotations

from dataclasses import replace

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value, operands, with_operands


def simplified(graph: Graph) -> Graph:
    """Drop the guards of safe softmax."""
    producers = graph.producers()
    outputs = {value.name for value in graph.outputs}
    forward: dict[str, Value] = {}
    extra: dict[str, tuple[str, ...]] = {}
    for op in graph.ops:
        guard = producers.get(op.condition.name) if isinstance(op, ops.Where) else None
        if not (isinstance(op, ops.Where) and isinstance(guard, ops.Unary)):
            continue
        soft = producers.get(op.b.name)
        if (
            guard.fn == "is_nan"
            and guard.x == op.b
            and isinstance(soft, ops.Softmax)
            and op.out.type == soft.out.type
            and op.out.name not in outputs
            and _is_zero(graph, op.a)
        ):
            forward[op.out.name] = soft.out
            extra[soft.out.name] = (*guard.nodes, *op.nodes)
    if not forward:
        return graph
    kept: list[Op] = []
    for op in graph.ops:
        if op.out.name not in forward:
            op = with_operands(op, lambda value: forward.get(value.name, value))
            kept.append(replace(op, nodes=(*op.nodes, *extra.get(op.out.name, ()))))
    read = {value.name for op in kept for value in operands(op)} | outputs
    alive = [op for op in kept if op.out.name in read or op.mnemonic == "input"]
    return replace(graph, ops=tuple(alive))


def _is_zero(graph: Graph, value: Value) -> bool:
    array = graph.tensor(value)
    return array is not None and not array.any()
