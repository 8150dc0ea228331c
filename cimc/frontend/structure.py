"""The soundness of a model's graph: names, order, and what the ONNX checker says of each node."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from onnx import NodeProto, checker

from cimc.errors import Fault
from cimc.frontend import codes
from cimc.frontend.functions import all_nodes
from cimc.frontend.reader import STANDARD_DOMAINS, ModelFile


def node_names(nodes: Sequence[NodeProto]) -> list[str]:
    """A unique name for each node: its own, or `OpType_index` where it has none or shares one."""
    own = Counter(node.name for node in nodes)
    taken = {name for name in own if name}
    names: list[str] = []
    for index, node in enumerate(nodes):
        name = node.name
        if not name or own[name] > 1:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            taken.add(name)
        names.append(name)
    return names


def read_names(node: NodeProto) -> set[str]:
    """All values that a node reads, also those that its subgraphs take from outside."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inner = list(all_nodes(graph))
            made = {name for each in inner for name in each.output}
            made |= {entry.name for entry in graph.input} | {t.name for t in graph.initializer}
            names |= {name for each in inner for name in each.input if name and name not in made}
            names |= {entry.name for entry in graph.output if entry.name not in made}
    return names


def structure_faults(file: ModelFile, names: Sequence[str]) -> Iterator[Fault]:
    """Values made twice, read but never made, nodes in cycles, nodes the ONNX checker refuses."""
    nodes = file.graph.node
    makers = Counter(list(file.initializers))
    makers.update(entry.name for entry in file.graph.input)
    makers.update(name for node in nodes for name in node.output if name)
    for value, count in makers.items():
        if count > 1:
            yield Fault(f"value {value!r} is made {count} times", code=codes.DUPLICATE)
    for name, node in zip(names, nodes, strict=True):
        for value in sorted(read_names(node) - set(makers)):
            yield Fault(
                f"{node.op_type} reads {value!r}, which nothing makes",
                need="an input, an initializer or a node of that name",
                help="export the model again with all its weights",
                code=codes.UNDEFINED,
                node=name,
            )
    for value, count in Counter(entry.name for entry in file.graph.output).items():
        if count > 1:
            yield Fault(f"output {value!r} is listed {count} times", code=codes.DUPLICATE)
    for entry in file.graph.output:
        if entry.name not in makers:
            yield Fault(f"nothing makes the output {entry.name!r}", code=codes.UNDEFINED)
    placed = set(sorted_nodes(nodes))
    cyclic = [name for index, name in enumerate(names) if index not in placed]
    if cyclic:
        shown = ", ".join(cyclic[:8]) + (" ..." if len(cyclic) > 8 else "")
        yield Fault(f"{len(cyclic)} nodes lie on or behind a cycle: {shown}", code=codes.CYCLE)
    yield from _checker_faults(nodes, names, file.opsets, file.ir_version)


def sorted_nodes(nodes: Sequence[NodeProto]) -> list[int]:
    """Indices of nodes, each after those it reads; nodes behind a cycle are left out."""
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    reads = [{maker[name] for name in read_names(node) if name in maker} for node in nodes]
    if all(all(other < index for other in others) for index, others in enumerate(reads)):
        return list(range(len(nodes)))
    import networkx  # slow to import, and exporters sort their nodes

    graph = networkx.DiGraph()
    graph.add_nodes_from(range(len(nodes)))
    graph.add_edges_from((other, index) for index, others in enumerate(reads) for other in others)
    parts = networkx.strongly_connected_components(graph)
    cyclic = {index for part in parts if len(part) > 1 for index in part}
    cyclic.update(networkx.nodes_with_selfloops(graph))
    source = len(nodes)
    graph.add_edges_from((source, index) for index in cyclic)
    if source in graph:
        graph.remove_nodes_from([*networkx.descendants(graph, source), source])
    return list(networkx.lexicographical_topological_sort(graph))


def _checker_faults(
    nodes: Sequence[NodeProto], names: Sequence[str], opsets: Mapping[str, int], ir_version: int
) -> Iterator[Fault]:
    context = checker.C.CheckerContext()
    context.ir_version = ir_version
    context.opset_imports = dict(opsets)
    for name, node in zip(names, nodes, strict=True):
        if node.domain not in STANDARD_DOMAINS or any(
            attribute.HasField("g") or attribute.graphs for attribute in node.attribute
        ):
            continue
        try:
            checker.check_node(node, context)
        except Exception as problem:  # checker.ValidationError, or worse on hostile nodes
            text = str(problem) or type(problem).__name__
            if "No Op registered" in text:
                continue  # the importer names unknown operators itself
            if "is deprecated" in text and node.op_type == "GroupNormalization":
                continue  # opsets 18 to 20 had it with parameters per group; onnxruntime runs it
            yield Fault(
                f"the ONNX checker refuses {node.op_type}",
                have=re.sub(r"\s+", " ", text.split("==> Context")[0]).strip()[:300],
                code=codes.INVALID,
                node=name,
            )
