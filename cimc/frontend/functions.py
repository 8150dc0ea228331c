"""Local functions of a model: checked for cycles and explosive growth, then inlined."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, helper, inliner

from cimc.errors import Fault, UnsupportedError
from cimc.frontend import codes

MAX_NODES = 1_000_000  # after inlining

Key = tuple[str, str]  # domain, name


def inlined(model: ModelProto, graph: GraphProto, stored: Collection[str]) -> GraphProto:
    """`graph`, without weights, with the calls of local functions replaced by their nodes."""
    _check_growth(model)
    shell = ModelProto(ir_version=model.ir_version, graph=graph)
    shell.opset_import.extend(model.opset_import)
    shell.functions.extend(model.functions)
    shell.graph.input.extend(  # so that the inliner knows the names of the weights
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tuple(tensor.dims))
        for tensor in model.graph.initializer
    )
    try:
        result: GraphProto = inliner.inline_local_functions(shell, True).graph
    except Exception as problem:  # whatever the C++ inliner finds wrong with a user's functions
        first = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise UnsupportedError(
            Fault("the local functions cannot be inlined", have=first, code=codes.INVALID)
        ) from None
    inputs = [entry for entry in result.input if entry.name not in stored]
    del result.input[:]
    result.input.extend(inputs)
    return result


def _check_growth(model: ModelProto) -> None:
    """Raise if functions call each other in a cycle, or expand to more than MAX_NODES nodes."""
    bodies: dict[Key, list[Key]] = {
        (entry.domain, entry.name): [(node.domain, node.op_type) for node in all_nodes(entry)]
        for entry in model.functions
    }
    sizes: dict[Key, int] = {}
    for start in bodies:
        trail = [start]
        while trail:
            here = trail[-1]
            waiting = [key for key in bodies[here] if key in bodies and key not in sizes]
            if not waiting:
                sizes[here] = sum(sizes.get(key, 1) for key in bodies[here])
                trail.pop()
            elif waiting[0] in trail:
                names = " -> ".join(name for _, name in [*trail, waiting[0]])
                raise UnsupportedError(
                    Fault(f"local functions call each other: {names}", code=codes.CYCLE)
                )
            else:
                trail.append(waiting[0])
    nodes = sum(sizes.get((node.domain, node.op_type), 1) for node in all_nodes(model.graph))
    if nodes > MAX_NODES:
        raise UnsupportedError(
            Fault(
                "the model's local functions expand to too many nodes",
                f"at most {MAX_NODES}",
                f"{nodes}",
                code=codes.TOO_LARGE,
            )
        )


def all_nodes(holder: FunctionProto | GraphProto) -> Iterator[NodeProto]:
    """Nodes of a function or a graph, and of the graphs inside their attributes."""
    for node in holder.node:
        yield node
        for attribute in node.attribute:
            yield from all_nodes(attribute.g)
            for inner in attribute.graphs:
                yield from all_nodes(inner)
