"""Where a model can be cut so that the rest runs."""

from __future__ import annotations

from cimc.ir.graph import Graph, parse_graph
from cimc.legality import cuts

GRAPH = """
graph "g"
%x : f32[4] = input
%a : f32[4] = unary %x {fn="relu"}
%b : f32[4] = unary %a {fn="exp"}
%bad : f32[4] = unary %b {fn="erf"}
%sum : f32[4] = binary %bad, %b {fn="add"}
%c : f32[4] = unary %sum {fn="relu"}
%d : f32[4] = unary %c {fn="relu"}
return %d
"""


def found(graph: Graph, *bad: str) -> tuple[str, ...]:
    return cuts(graph, [op for op in graph.ops if op.out.name in bad])


def test_before_and_after() -> None:
    graph = parse_graph(GRAPH)
    assert found(graph, "bad") == ("b", "sum")
    assert found(graph, "a") == ("a",)
    assert found(graph, "d") == ("c",)
    assert found(graph, "bad", "d") == ("b",)
    assert found(graph) == ()


def test_no_cut_where_two_tensors_cross() -> None:
    text = GRAPH.replace("binary %sum", "binary %sum").replace(
        "%d : f32[4] = unary %c", '%e : f32[4] = binary %c, %x {fn="add"}\n%d : f32[4] = unary %e'
    )
    graph = parse_graph(text)
    assert found(graph, "bad") == ("e",)
