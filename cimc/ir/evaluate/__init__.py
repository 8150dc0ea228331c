"""What a graph computes: a slow, obvious NumPy evaluator, the meaning of all that follows.

Float ops compute in float32. Ops on quantized integers compute on the real numbers they stand for,
in float32, and round half to even into the result's type. `conv` and `matmul` of integers are exact
sums; `requant` rounds them as onnxruntime's CPU kernels do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import cast

import numpy as np

from cimc.errors import Fault, InternalError, UsageError, raise_if
from cimc.ir.evaluate import elementwise, heavy, move, windows  # noqa: F401  # they register
from cimc.ir.evaluate.functions import BINARY, REDUCE, UNARY
from cimc.ir.evaluate.registry import Held, meaning_of
from cimc.ir.graph import Graph, Op, constant_array, operands
from cimc.ir.types import Array, int_range, numpy_dtype

__all__ = ["BINARY", "REDUCE", "UNARY", "evaluate", "evaluate_op"]


def evaluate(
    graph: Graph, inputs: Mapping[str, Array], keep: Collection[str] | None = None
) -> dict[str, Array]:
    """The graph's outputs by name, and the values named in `keep`."""
    raise_if(_input_faults(graph, inputs), UsageError)
    wanted = {value.name for value in graph.outputs} | set(keep or ())
    last = {value.name: place for place, op in enumerate(graph.ops) for value in operands(op)}
    held: dict[str, Array] = {}
    for place, op in enumerate(graph.ops):
        if op.mnemonic == "input":
            held[op.out.name] = inputs[op.out.name]
        elif op.mnemonic == "constant":
            held[op.out.name] = constant_array(op, graph.tensors)
        else:
            held[op.out.name] = evaluate_op(op, held)
        for value in operands(op):
            if last[value.name] == place and value.name not in wanted:
                held.pop(value.name, None)
    return {name: array for name, array in held.items() if name in wanted}


def evaluate_op(op: Op, held: Mapping[str, Array]) -> Array:
    """The result of one op from the values it reads."""
    with np.errstate(all="ignore"):  # inf and nan are results like any others
        result = meaning_of(op)(op, cast(Held, held))
    want = (op.out.shape, numpy_dtype(op.out.type.dtype))
    if (result.shape, result.dtype) != want:
        raise InternalError(
            Fault(
                f"{op.mnemonic} {op.out} computes another type than it declares",
                need=str(op.out.type),
                have=f"{result.dtype}{list(result.shape)}",
                code="CIM9005",
            )
        )
    return result


def _input_faults(graph: Graph, inputs: Mapping[str, Array]) -> Iterator[Fault]:
    names = {value.name for value in graph.inputs}
    for name in sorted(set(inputs) - names):
        yield Fault(f"input {name} is not one of the graph's", have=", ".join(sorted(names)))
    for value in graph.inputs:
        if value.name not in inputs:
            yield Fault(f"input {value.name} is missing", need=str(value.type))
            continue
        array = inputs[value.name]
        if array.shape != value.shape or array.dtype != numpy_dtype(value.type.dtype):
            have = f"{array.dtype}[{','.join(map(str, array.shape))}]"
            yield Fault(f"input {value.name} has another type", need=str(value.type), have=have)
        elif value.type.is_integer and array.size:
            low, high = int_range(value.type.dtype)
            if int(array.min()) < low or int(array.max()) > high:
                yield Fault(f"input {value.name} leaves its range", need=f"{low} .. {high}")
