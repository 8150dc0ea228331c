"""Vector layers that work row by row, and so need not wait for whole feature maps.

    loop p {
      wait %x {the rows that this row reads}
      lookup %y <- %x          or pool-row, combine
      signal %y
    }

Pools, look-ups and functions of two tensors do so where a producer reports its rows.
"""

from __future__ import annotations

import math

from cimc.ir.graph import Op, Value, operands
from cimc.ir.ops import Binary, Conv, Lut, Pool
from cimc.ir.program import Affine, Combine, Instr, Item, Lookup, Loop, Stream, View, var
from cimc.ir.tiles import Layer, Tiles
from cimc.ir.types import int_range
from cimc.lowering import Builder, Progress
from cimc.lowering.epilogue import FUSED_FNS
from cimc.targets.crossbar.pool_row import PoolRow


def row_layers(tiles: Tiles) -> frozenset[str]:
    """Names of the vector layers that work row by row."""
    producers = tiles.graph.producers()
    rowwise: set[str] = set()  # values whose producers report rows
    found: set[str] = set()
    for layer in tiles.layers:
        op = producers[layer.ops[0]]
        if layer.place == "macro" and isinstance(op, Conv) and len(op.out.shape) == 4:
            rowwise.update(layer.ops)
        elif (
            layer.place == "vector"
            and len(layer.ops) == 1
            and _has_rows(op)
            and any(value.name in rowwise for value in operands(op))
        ):
            rowwise.add(layer.name)
            found.add(layer.name)
    return frozenset(found)


def _has_rows(op: Op) -> bool:
    if len(op.out.shape) != 4 or op.out.shape[2] == 1:
        return False
    match op:
        case Lut():
            return True
        case Binary():
            kinds = [value.type for value in (op.a, op.b, op.out)]
            return op.fn in FUSED_FNS and all(kind.quant is not None for kind in kinds)
        case Pool():
            reach = (op.kernel[0] - 1) * op.dilations[0] + 1
            inside = max(op.pads[0], op.pads[2]) < reach  # every window sees a real row
            last = (op.out.shape[2] - 1) * op.strides[0] - op.pads[0]
            quantized = op.x.type.quant is not None and op.out.type.quant is not None
            return quantized and inside and last < op.x.shape[2]
        case _:
            return False


def row_stream(builder: Builder, layer: Layer) -> Stream:
    """The stream of a layer in `row_layers`."""
    op = builder.producers[layer.name]
    samples, _, rows, _ = op.out.shape
    body: list[Item] = []
    sample = var("n") if samples > 1 else Affine()
    for value in builder.inputs(layer):
        if len(value.shape) == 4 and value.shape[2] > 1:
            last = _last_row(op) + sample * value.shape[2]
            body += builder.wait(value, last + 1, "p")
        else:
            body += builder.wait(value)
    body.append(_row(builder, layer, op, sample))
    if layer.name in builder.outside(layer):
        builder.announce(op.out, Progress("p", samples * rows))
        body.append(builder.signal(op.out, 1))
    loop = Loop("p", rows, tuple(body))
    return Stream(layer.name, (Loop("n", samples, (loop,)) if samples > 1 else loop,))


def _last_row(op: Op) -> Affine:
    """The last row of the operands that row p reads."""
    if isinstance(op, Pool):
        reach = (op.kernel[0] - 1) * op.dilations[0]
        return var("p") * op.strides[0] + (reach - op.pads[0])
    return var("p")


def _row(builder: Builder, layer: Layer, op: Op, sample: Affine) -> Instr:
    dst = _view(builder, op.out, op.out.shape, sample)
    match op:
        case Pool():
            _, channels, height, width = op.x.shape
            size = channels * height * width
            src = View(builder.value(op.x), sample * size, ((size, 1),))
            return PoolRow(
                dst,
                src,
                var("p"),
                op.fn,
                (op.kernel[0], op.kernel[1]),
                (op.strides[0], op.strides[1]),
                (op.pads[0], op.pads[1], op.pads[2], op.pads[3]),
                (op.dilations[0], op.dilations[1]),
                (channels, height, width),
                _quant(op.x),
                _quant(op.out),
                op.include_pad,
                op.p,
                layer=layer.name,
            )
        case Lut():
            table = View(builder.value(op.table), Affine(), ((op.table.type.elements, 1),))
            src = _view(builder, op.x, op.out.shape, sample)
            return Lookup(dst, src, table, int_range(op.x.type.dtype)[0], layer=layer.name)
        case _:
            assert isinstance(op, Binary)
            return _combined(builder, layer, op, dst, sample)


def _combined(builder: Builder, layer: Layer, op: Binary, dst: View, sample: Affine) -> Combine:
    a, b = (_view(builder, value, op.out.shape, sample) for value in (op.a, op.b))
    low, high = int_range(op.out.type.dtype)
    (a_scale, a_zero), (b_scale, b_zero) = _quant(op.a), _quant(op.b)
    scale, zero = _quant(op.out)
    return Combine(
        dst,
        a,
        b,
        op.fn,
        a_scale,
        a_zero,
        b_scale,
        b_zero,
        scale,
        zero,
        low if op.low is None else op.low,
        high if op.high is None else op.high,
        layer=layer.name,
    )


def _quant(value: Value) -> tuple[float, int]:
    assert value.type.quant is not None
    return value.type.quant.scale, value.type.quant.zero


def _view(builder: Builder, value: Value, result: tuple[int, ...], sample: Affine) -> View:
    """Row p of a tensor that broadcasts to `result`: axes C and W."""
    padded = (*(1,) * (4 - len(value.shape)), *value.shape)
    strides = [math.prod(padded[axis + 1 :]) if padded[axis] > 1 else 0 for axis in range(4)]
    offset = sample * strides[0] + var("p") * strides[2]
    dims = ((result[1], strides[1]), (result[3], strides[3]))
    return View(builder.value(value), offset, dims)
