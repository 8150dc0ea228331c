"""What all lowerings share: geometry, folded zero points, buffers, epilogues of cut tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from cimc.conformance.samples import Sketch, sample_inputs
from cimc.errors import InternalError
from cimc.ir import ops
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, Value
from cimc.ir.program import Affine, Copy, Item, Loop, Program, Stream, View, var
from cimc.ir.tiles import Layer
from cimc.ir.types import Array, Type
from cimc.lowering import (
    Builder,
    OutAxis,
    OutTile,
    Progress,
    can_fuse,
    conv_shape,
    effective_bias,
    epilogue,
    heavy_fault,
    needed_bits,
    vector_layer,
    weight_matrix,
    window_offsets,
)
from cimc.passes.allocate import allocate
from cimc.sim.execute import execute
from cimc.target import Target, load_target


def conv_of(graph: Graph) -> ops.Conv:
    return next(op for op in graph.ops if isinstance(op, ops.Conv))


def exact_sums(op: ops.Conv, graph: Graph, x: Array) -> NDArray[np.int64]:
    """Raw sums of x times w, without bias and with the zero point's share, as [k, p, q]."""
    bare = dataclasses.replace(op.x.type, quant=None)
    kind = Value(op.x.name, bare)
    pads = [(0, 0), (0, 0), (op.pads[0], op.pads[2]), (op.pads[1], op.pads[3])]
    assert op.x.type.quant is not None
    padded = np.pad(x, pads, constant_values=op.x.type.quant.zero)
    kind = Value(op.x.name, Type(bare.dtype, padded.shape))
    raw = dataclasses.replace(op, x=kind, bias=None, pads=(0, 0, 0, 0))
    sums = evaluate(
        Graph("raw", (ops.Input(kind), *_constants(graph), raw), (op.out,), graph.tensors),
        {op.x.name: padded},
    )
    found: NDArray[np.int64] = sums[op.out.name][0].astype(np.int64)
    return found


def folded_bias(graph: Graph) -> NDArray[np.int32] | None:
    """What the graph's conv adds to raw sums."""
    op = conv_of(graph)
    assert op.bias is not None
    weights, bias = graph.tensor(op.w), graph.tensor(op.bias)
    assert weights is not None
    assert op.x.type.quant is not None
    return effective_bias(op.x.type.quant.zero, weight_matrix(op, weights), bias)


def _constants(graph: Graph) -> tuple[ops.Constant, ...]:
    return tuple(op for op in graph.ops if isinstance(op, ops.Constant))


def residual(relu: bool = True) -> tuple[Graph, Layer]:
    """conv, requant per channel, look-up, sum with the input; the look-up is an output, too."""
    s = Sketch("residual_lut")
    x = s.input((1, 6, 5, 7), zero=3)
    y = s.requant(s.conv(x, 6, (3, 3), pads=(1, 1, 1, 1)), relu=relu)
    table = s.constant(s.random.integers(-128, 128, 256).astype(np.int8), "i8")
    looked = Value("looked", y.type)
    s.ops.append(ops.Lut(looked, y, table))
    total = s.add(looked, x)
    graph = s.graph(total, looked)
    conv = conv_of(graph)
    names = [op.out.name for op in graph.ops if op.mnemonic not in ("input", "constant")]
    return graph, Layer(conv.out.name, "macro", tuple(names))


def tiled_program(
    graph: Graph,
    layer: Layer,
    target: Target,
    sums: NDArray[np.int64],
    bias: NDArray[np.int32] | None,
    tile: tuple[int, int, int],
) -> Program:
    """The layer's epilogue over tiles of k, p, q channels, rows and columns of ready sums."""
    builder = Builder(graph, target)
    shape = conv_shape(conv_of(graph))
    k, p, q = tile
    extents = (shape.k, shape.p, shape.q)
    trips = tuple(-(-extent // size) for extent, size in zip(extents, tile, strict=True))
    padded = np.zeros([size * count for size, count in zip(tile, trips, strict=True)], np.int32)
    padded[: shape.k, : shape.p, : shape.q] = sums
    held = builder.table("sums", padded.reshape(-1), "host")
    acc = builder.local("acc", "core0.or", "i32", k * p * q)
    plane, row = padded.shape[1] * padded.shape[2], padded.shape[2]
    first = var("a") * (k * plane) + var("b") * (p * row) + var("c") * q
    fetch = Copy(
        View(acc, Affine(), ((p, q), (k, p * q), (q, 1))),
        View(held, first, ((p, row), (k, plane), (q, 1))),
    )
    out = OutTile(
        shape,
        acc,
        (OutAxis("p", p, q), OutAxis("k", k, p * q), OutAxis("q", q, 1)),
        (("k", var("a") * k), ("p", var("b") * p), ("q", var("c") * q)),
    )
    loops: Mapping[str, int] = dict(zip("abc", trips, strict=True))
    made = epilogue(
        builder, layer, out, bias=bias, scratch="core0.or", tables="core0.tables", loops=loops
    )
    body: tuple[Item, ...] = (fetch, *made)
    for name, count in reversed(list(loops.items())):
        body = (Loop(name, count, body),)
    builder.add(Stream(layer.name, body))
    return builder.program(target.name)


@pytest.mark.parametrize("tile", [(6, 5, 7), (1, 1, 1), (4, 2, 3), (6, 1, 4), (5, 5, 1)])
def test_epilogue_on_tiles_whole_and_cut(tile: tuple[int, int, int]) -> None:
    target = load_target("isaac")
    graph, layer = residual()
    op = conv_of(graph)
    inputs = sample_inputs(graph)
    bias = folded_bias(graph)
    sums = exact_sums(op, graph, inputs[op.x.name])
    program = allocate(tiled_program(graph, layer, target, sums, bias, tile), target=target)
    found = execute(program, target, inputs, engine="plain")
    for name, array in evaluate(graph, inputs).items():
        assert (found[name] == array).all(), name


def test_sums_that_others_read_are_written_with_their_bias() -> None:
    s = Sketch("bare")
    x = s.input((1, 3, 4, 4), zero=-7)
    graph = s.graph(s.conv(x, 5, (3, 3)))
    op, target = conv_of(graph), load_target("isaac")
    inputs = sample_inputs(graph)
    bias = folded_bias(graph)
    layer = Layer(op.out.name, "macro", (op.out.name,))
    sums = exact_sums(op, graph, inputs[op.x.name])
    for tile in ((5, 2, 2), (3, 2, 1)):
        program = allocate(tiled_program(graph, layer, target, sums, bias, tile), target=target)
        found = execute(program, target, inputs, engine="plain")[op.out.name]
        assert (found == evaluate(graph, inputs)[op.out.name]).all()


def test_effective_bias_folds_the_zero_point() -> None:
    w = np.array([[1, 2, -3], [4, 0, 5]], np.int8)
    x, bias = np.array([7, -1, 2]), np.array([10, 20], np.int32)
    folded = effective_bias(-5, w, bias)
    assert folded is not None
    assert (w @ x + folded == w @ (x + 5) + bias).all()
    assert effective_bias(0, w, None) is None
    with pytest.raises(InternalError):
        effective_bias(2**31, w, None)


def test_needed_bits() -> None:
    for values, bits, symmetric in (
        ([-128, 127], 8, 9),
        ([-127, 127], 8, 8),
        ([-1, 1], 2, 2),
        ([-2, 1], 2, 3),
        ([0], 2, 2),
        ([-2049, 4], 13, 13),
    ):
        assert needed_bits(np.array(values)) == bits
        assert needed_bits(np.array(values), symmetric=True) == symmetric


def test_window_offsets_pick_the_window() -> None:
    s = Sketch("offsets")
    graph = s.graph(s.conv(s.input((1, 4, 8, 9)), 6, (3, 2), dilations=(2, 3), group=2))
    op = conv_of(graph)
    shape = conv_shape(op)
    x = sample_inputs(graph)[op.x.name]
    group, row, column = 1, 2, 4
    first = shape.x_strides["g"] * group + shape.x_strides["h"] * row + column
    window = x.reshape(-1)[first + window_offsets(shape)]
    expected = x[0, 2:4, row : row + 5 : 2, column : column + 4 : 3]
    assert (window == expected.reshape(-1)).all()
    assert shape.macs == 6 * 2 * 3 * 2 * op.out.shape[2] * op.out.shape[3]


def test_matmul_as_a_conv() -> None:
    s = Sketch("matmul")
    graph = s.graph(s.matmul(s.input((2, 3, 8)), 5))
    op = next(op for op in graph.ops if isinstance(op, ops.Matmul))
    shape = conv_shape(op)
    assert (shape.p, shape.k, shape.c, shape.window) == (6, 5, 8, 8)
    assert (shape.result, shape.channel) == ((1, 6, 5), 2)
    assert shape.progress == Progress("m", 6)
    weights = graph.tensor(op.b)
    assert weights is not None
    assert (weight_matrix(op, weights) == weights.T).all()


def test_three_spatial_axes_are_refused_with_their_node() -> None:
    x = Value("x", Type("i8", (1, 2, 4, 4, 4)))
    w = Value("w", Type("i8", (3, 2, 1, 1, 1)))
    out = Value("y", Type("i32", (1, 3, 4, 4, 4)))
    op = ops.Conv(out, x, w, None, (1,) * 3, (0,) * 6, (1,) * 3, nodes=("Conv_7",))
    fault = heavy_fault(op)
    assert fault is not None
    assert str(fault) == (
        "error CIM3001: %y: conv over 3 spatial axes\n"
        "  node:    Conv_7\n"
        "  need:    one or two spatial axes\n"
        "  help:    run it in the vector unit, or split the third axis into channels"
    )


def test_can_fuse() -> None:
    graph, layer = residual()
    by_name = graph.producers()
    conv = by_name[layer.name]
    inside = [layer.name]
    for name in layer.ops[1:]:
        assert can_fuse(by_name[name], conv, inside)
        inside.append(name)
    requant, lut, add = (by_name[name] for name in layer.ops[1:])
    assert not can_fuse(add, conv, [layer.name, requant.out.name])  # nothing of it is there yet
    assert isinstance(lut, ops.Lut)
    assert not can_fuse(dataclasses.replace(lut, x=conv.out), conv, inside)  # a table for sums
    assert isinstance(requant, ops.Requant)
    assert not can_fuse(dataclasses.replace(requant, axis=2), conv, inside)
    assert isinstance(add, ops.Binary)
    assert not can_fuse(dataclasses.replace(add, fn="greater"), conv, inside)


def test_equal_tables_are_kept_once() -> None:
    graph, _ = residual()
    builder = Builder(graph, load_target("isaac"))
    first = builder.table("a", np.arange(4), "host")
    assert builder.table("b", np.arange(4), "host") == first
    assert builder.table("b", np.arange(4), "core0.tables") != first
    assert builder.table("b", np.arange(4).astype(np.int8), "host") != first


def test_names_are_unique() -> None:
    graph, layer = residual()
    builder = Builder(graph, load_target("isaac"))
    names = [builder.local(name, "core0.or", "i8", 1) for name in ("t", "t", layer.name, "t.1")]
    assert len({*names, *graph.producers()}) == len(names) + len(graph.ops)


def test_vector_layers_wait_for_rows_counted_otherwise() -> None:
    s = Sketch("pooled")
    x = s.input((1, 4, 6, 6))
    y = s.requant(s.conv(x, 4, (3, 3), pads=(1, 1, 1, 1)))
    graph = s.graph(s.pool(y, "max", (2, 2), (2, 2)))
    builder = Builder(graph, load_target("isaac"))
    builder.announce(y, Progress("p", 6))
    pool = graph.ops[-1].out
    stream = vector_layer(builder, Layer(pool.name, "vector", (pool.name,)))
    shown = [str(item) for item in builder.wait(y)]
    assert [item.mnemonic for item in stream.body if not isinstance(item, Loop)] == [
        "wait",
        "vector",
        "signal",
    ]
    assert builder.wait(x) == ()
    assert shown == [str(stream.body[0])]
    (rows,) = builder.wait(y, var("p") + 2, "p")
    assert (str(rows.count), rows.limit) == ("2 + 1*p", 6)
    (everything,) = builder.wait(y, var("p") + 2, "m")
    assert (str(everything.count), everything.limit) == ("6", 6)
