"""Rewrite: names of outputs, dead ops, ONNX nodes."""

from __future__ import annotations

from cimc.ir import ops
from cimc.ir.graph import Graph, parse_graph
from cimc.ir.rewrite import Rewrite, carry_nodes

CHAIN = """
graph "g"
%x : f32[2] = input @("In",)
%a : f32[2] = unary %x {fn="exp"} @("A",)
%b : f32[2] = unary %a {fn="neg"} @("B",)
%c : f32[2] = unary %b {fn="abs"} @("C",)
%dead : f32[2] = unary %b {fn="abs"} @("D",)
"""


def without(graph: Graph, *names: str) -> Graph:
    """Forward the operand of unary ops wherever their result is read."""
    new = Rewrite(graph)
    for old in graph.ops:
        op = new.current(old)
        if isinstance(op, ops.Unary) and op.out.name in names:
            new.replace(op.out, op.x)
        else:
            new.add(op)
    return new.finish()


def shown(graph: Graph) -> list[tuple[str, str, tuple[str, ...]]]:
    """Name, mnemonic and nodes of each op."""
    return [(op.out.name, op.mnemonic, op.nodes) for op in graph.ops]


def test_nodes_go_to_the_next_op_that_is_left() -> None:
    after = without(parse_graph(CHAIN + "return %c"), "b")
    assert shown(after) == [
        ("x", "input", ("In",)),
        ("a", "unary", ("A",)),
        ("c", "unary", ("C", "B")),
    ]


def test_an_output_that_is_replaced_gives_its_name_to_what_replaces_it() -> None:
    after = without(parse_graph(CHAIN + "return %c"), "b", "c")
    assert shown(after) == [("x", "input", ("In",)), ("c", "unary", ("A", "B", "C"))]


def test_an_output_equal_to_an_input_or_another_output_is_a_copy() -> None:
    after = without(parse_graph(CHAIN + "return %a, %c"), "a", "b", "c")
    assert [(name, mnemonic) for name, mnemonic, _ in shown(after)] == [
        ("x", "input"),
        ("a", "reshape"),
        ("c", "reshape"),
    ]
    after.verify()


def test_dead_ops_go_with_their_nodes_but_inputs_stay() -> None:
    graph = parse_graph(
        CHAIN.replace("= unary %x", "= unary %y").replace("%a :", "%y : f32[2] = input\n%a :")
        + "return %a"
    )
    after = without(graph)
    assert [op.out.name for op in after.ops] == ["x", "y", "a"]
    assert carry_nodes(graph, after) == after


def test_fresh_names_are_new() -> None:
    new = Rewrite(parse_graph(CHAIN + "return %c"))
    assert [new.fresh("a"), new.fresh("a"), new.fresh("z"), new.fresh("z")] == [
        "a.2",
        "a.3",
        "z",
        "z.2",
    ]
