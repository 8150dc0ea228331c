"""Zero points of a matmul whose right operand is computed: corrections of its raw sums.

    sum over c of (a - za)*(b - zb)  =  sum a*b - za * sum b - zb * sum a + C*za*zb

The vector units sum the columns of b and the rows of a, once per inference, in the outermost
memory; the epilogue adds them to each tile of sums. A constant right operand of several matrices is
treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cimc.ir.graph import Value
from cimc.ir.ops import Matmul
from cimc.ir.program import Instr, VectorOp
from cimc.ir.tiles import Layer
from cimc.ir.types import Array, Type, dtype_of
from cimc.lowering import Builder
from cimc.targets.sram_cim.layers import Heavy


@dataclass(frozen=True, slots=True)
class Correction:
    """What is added to the sums; it varies along `dims` only, each with its stride in `buffer`."""

    buffer: str
    dims: dict[str, int]

    def stride(self, dim: str) -> int:
        """Distance of neighbours along a loop."""
        return self.dims.get(dim, 0)


def corrections(
    builder: Builder, layer: Layer, heavy: Heavy
) -> tuple[tuple[Correction, ...], list[Instr]]:
    """The corrections of a layer, and the instructions that compute them; both may be empty."""
    op = heavy.op
    single = heavy.weights is not None and heavy.shape.g == 1
    if not isinstance(op, Matmul) or single:
        return (), []
    zb = op.b.type.quant.zero if op.b.type.quant is not None and heavy.weights is None else 0
    za, c = heavy.zero, heavy.shape.c
    name = layer.name
    found: list[Correction] = []
    instrs: list[Instr] = []
    if za:
        weigh = _constant(builder, f"{name}.columns.factor", np.full((1, c), -za, np.int16))
        out = _sums(builder, f"{name}.columns", (*op.b.shape[:-2], 1, op.b.shape[-1]))
        total = _constant(builder, f"{name}.columns.bias", np.array([c * za * zb], np.int32))
        product = Matmul(out, weigh, _raw(builder, op.b), total)
        instrs.append(VectorOp(product, layer=name))
        found.append(Correction(out.name, {"g": heavy.shape.k, "k": 1}))
    if zb:
        weigh = _constant(builder, f"{name}.rows.factor", np.full((c, 1), -zb, np.int16))
        out = _sums(builder, f"{name}.rows", (*op.a.shape[:-1], 1))
        instrs.append(VectorOp(Matmul(out, _raw(builder, op.a), weigh, None), layer=name))
        found.append(Correction(out.name, {"g": heavy.shape.p, "p": 1}))
    return tuple(found), instrs


def _raw(builder: Builder, value: Value) -> Value:
    """A value's integers, whatever they stand for."""
    return Value(builder.value(value), Type(value.type.dtype, value.shape))


def _constant(builder: Builder, name: str, array: Array) -> Value:
    return Value(builder.table(name, array), Type(dtype_of(array), array.shape))


def _sums(builder: Builder, name: str, shape: tuple[int, ...]) -> Value:
    kind = Type("i32", shape)
    return Value(builder.local(name, builder.outer, "i32", kind.elements), kind)
