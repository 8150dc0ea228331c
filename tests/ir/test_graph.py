"""The text form of graphs, and what `verify` catches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import cimc.ir
from cimc.errors import InternalError
from cimc.ir.graph import (
    Graph,
    attribute_fields,
    digest_of,
    operand_fields,
    parse_graph,
    registered_ops,
)
from cimc.ir.text import TextError
from tests.ir.graphs import float_graphs
from tests.ir.quantize import quantized_graph

EVERY_OP = """
graph "every op"
%x : f32[1,4,6,6] = input
%q : u8[1,4,6,6]<0.05,3> = input
%i : i64[2] = constant {value=(1, -1)}
%t : bool[1,4,6,6] = unary %x {fn="is_nan"}
%s : f32[] = constant {value=(0.05,)}
%z : u8[] = constant {value=(3,)}
%qx : u8[1,4,6,6]<0.05,3> = quantize %x, %s, %z @("Quantize_0",)
%dx : f32[1,4,6,6] = dequantize %qx, %s, %z
%w : i8[2,4,1,1] = constant {value=(1, -2, 3, 4, 5, 6, 7, -8)}
%a : i32[1,2,6,6] = conv %q, %w, _ {strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)}
%m : f32[1] = constant {value=(0.01,)}
%r : i8[1,2,6,6]<0.5,0> = requant %a, %m, _ {layer="a", low=0, high=100}
%c : f32[1,4,6,6] = cast %q
%wt : f32[4,2,1,1] = constant {value=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5)}
%ct : f32[1,2,6,6] = conv_transpose %x, %wt, _ {strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)}
%b : f32[6,3] = input
%mm : f32[1,4,6,3] = matmul %x, %b, _
%u : f32[1,4,6,6] = unary %x {fn="clip", alpha=-inf, beta=6.0}
%table : i8[4] = constant {value=(-1, 0, 1, 5)}
%two : u2[3] = input
%l : i8[3]<1.0,0> = lut %two, %table2
return %l
"""


def test_every_op_can_be_printed_and_parsed() -> None:
    source = EVERY_OP.replace("%table :", "%table2 :").replace("i8[4] =", "i8[4]<1.0,0> =")
    more = """
%bi : u8[1,4,6,6]<0.1,0> = binary %q, %qx {fn="add", low=3}
%wh : f32[1,4,6,6] = where %t, %x, %u
%po : u8[1,4,3,3]<0.05,3> = pool %q {fn="max", kernel=(2, 2), strides=(2, 2),
    pads=(0, 0, 0, 0), dilations=(1, 1)}
%re : f32[1,4] = reduce %x {fn="l2", axes=(2, 3), keep=false}
%ar : i64[1,4,6,1] = arg_reduce %x {fn="max", axis=3, last=true}
%so : f32[1,4,6,6] = softmax %x {axis=-1, log=true}
%g : f32[4] = constant {value=(1.0, 2.0, 3.0, nan)}
%bn : f32[1,4,6,6] = batch_norm %x, %g, %g, %g, %g
%ln : f32[1,4,6,6] = layer_norm %x, %g, _ {groups=2}
%lr : f32[1,4,6,6] = lrn %x {size=3}
%rs : f32[4,36] = reshape %x
%tr : f32[6,1,4,6] = transpose %x {perm=(2, 0, 1, 3)}
%co : f32[1,8,6,6] = concat [%x, %u] {axis=1}
%sl : f32[1,4,3,6] = slice %x {starts=(0, 0, 5, 0), steps=(1, 1, -2, 1)}
%pa : f32[1,4,7,6] = pad %x {pads=(0, 0, 1, 0, 0, 0, 0, 0), mode="edge"}
%ga : f32[1,2,6,6] = gather %x, %i {axis=1}
%br : f32[2,4,6,6] = broadcast %x
%ti : f32[1,8,6,6] = tile %x
%rz : f32[1,4,12,12] = resize %x {scales=(1.0, 1.0, 2.0, 2.0), nearest="floor"}
return %l, %rz
"""
    graph = parse_graph(source.replace("return %l\n", "") + more)
    graph.verify()
    assert {op.mnemonic for op in graph.ops} == {op.mnemonic for op in registered_ops()}
    again = parse_graph(str(graph), graph.tensors)
    assert str(again) == str(graph)
    assert again.ops == graph.ops


@settings(max_examples=25, deadline=None)
@given(float_graphs())
def test_drawn_graphs_survive_the_text_form(graph: Graph) -> None:
    graph.verify()
    assert parse_graph(str(graph), graph.tensors) == graph
    quantized = quantized_graph(graph)
    quantized.verify()
    assert parse_graph(str(quantized), quantized.tensors) == quantized


def test_odd_names_are_quoted() -> None:
    graph = parse_graph('graph "g"\n%"a b/\\"c" : f32[1] = input\nreturn %"a b/\\"c"\n')
    assert graph.outputs[0].name == 'a b/"c'
    assert parse_graph(str(graph)) == graph


def test_a_constant_printed_in_place_is_loaded() -> None:
    graph = parse_graph('graph "g"\n%c : i8[2,1] = constant {value=(3, -4)}\nreturn %c\n')
    array = graph.tensor(graph.outputs[0])
    assert array is not None
    assert array.tolist() == [[3], [-4]]


def test_a_digest_depends_on_type_shape_and_content() -> None:
    array = np.arange(6, dtype=np.int8)
    others = [array.reshape(2, 3), array.astype(np.uint8), array[::-1]]
    assert len({digest_of(a) for a in (array, *others)}) == 4
    assert digest_of(array.reshape(2, 3)[:, ::1]) == digest_of(array.reshape(2, 3))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (
            '%y : f32[2,3] = unary %x {fn="exp"}',
            "error CIM9006: unary %y\n  need:    a result of shape (2, 2)\n  have:    f32[2,3]",
        ),
        (
            '%y : f32[2,2] = unary %x {fn="expp"}',
            "error CIM9007: unary %y\n  need:    a known function instead of 'expp'\n"
            "  have:    f32[2,2] f32[2,2]",
        ),
        (
            "%y : f32[2,2] = transpose %x {perm=(0, 0)}",
            "error CIM9006: transpose %y\n  need:    (0, 0) permutes the axes of f32[2,2]",
        ),
        (
            '%y : i8[2,2]<-1.0,0> = unary %x {fn="exp"}',
            "error CIM9007: unary %y\n  need:    a positive scale\n"
            "  have:    f32[2,2] i8[2,2]<-1.0,0>",
        ),
        (
            "%y : i32[2,2] = matmul %x, %x, _",
            "error CIM9007: matmul %y\n  need:    integers only or floats only\n"
            "  have:    f32[2,2] f32[2,2] i32[2,2]",
        ),
        (
            "%y : f32[2,3] = slice %x {starts=(0, 0), steps=(1, 1)}",
            "error CIM9007: slice %y\n  need:    elements inside of x\n"
            "  have:    f32[2,2] f32[2,3]",
        ),
    ],
)
def test_verify_names_what_does_not_fit(source: str, fault: str) -> None:
    graph = parse_graph(f'graph "g"\n%x : f32[2,2] = input\n{source}\nreturn %y\n')
    with pytest.raises(InternalError) as caught:
        graph.verify()
    assert str(caught.value) == fault


def test_verify_wants_every_value_made_once_and_before_its_use() -> None:
    graph = parse_graph(
        'graph "g"\n%x : f32[2] = input\n%y : f32[2] = unary %x {fn="exp"}\nreturn %y\n'
    )
    x, y = graph.ops
    for ops in ((y, x), (x, y, y), (y,)):
        with pytest.raises(InternalError):
            Graph("g", ops, graph.outputs).verify()


def test_text_errors_name_the_place() -> None:
    with pytest.raises(TextError) as caught:
        parse_graph('graph "g"\n%x : f33[2] = input\nreturn %x\n', path="a.cir")
    assert str(caught.value).startswith("error CIM1001: a.cir:2:9: cannot read this\n  need:    an")


def test_fields_are_operands_or_attributes() -> None:
    for op in registered_ops():
        names = {name for name, _ in operand_fields(op)}
        assert names.isdisjoint(item.name for item in attribute_fields(op))


def test_the_example_of_the_grammar_can_be_read() -> None:
    page = cimc.ir.__doc__ or ""
    source = page[page.index('    graph "example"') :].replace(', digest="..."', "")
    graph = parse_graph(source)
    graph.verify()
    assert parse_graph(str(graph)) == graph
