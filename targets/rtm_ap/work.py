"""Heavy ops as this kind sees them: stored inputs, weights, and what the sums are offset by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, InternalError
from cimc.ir.graph import Graph, Op, Value
from cimc.ir.ops import Conv, Matmul
from cimc.ir.tiles import Layer, Tiles
from cimc.ir.types import Type, bits_of
from cimc.lowering import ConvShape, conv_shape, heavy_fault, weight_matrix
from cimc.target import Target
from cimc.targets.rtm_ap.ranges import input_range
from cimc.targets.rtm_ap_spec import RtmApSpec

Ints = NDArray[np.int64]
WIDEST = 8  # bits of an operand


@dataclass(frozen=True)
class Work:
    """A conv or matmul with what its lowering needs to know.

    An input x is stored as x + `lift`, unsigned, in `input_bits` bits.
    """

    op: Conv | Matmul
    shape: ConvShape
    weights: Ints | None  # [g*k, c*r*s]; None: computed, or one matrix per batch
    bias: Ints | None  # [g*k]
    input_bits: int
    lift: int

    @property
    def x(self) -> Value:
        """The input."""
        return self.op.x if isinstance(self.op, Conv) else self.op.a

    @property
    def w(self) -> Value:
        """The weights, or the right operand."""
        return self.op.w if isinstance(self.op, Conv) else self.op.b

    @property
    def zero(self) -> int:
        """Zero point of the input; beyond its edges lies this."""
        return zero_of(self.x.type)

    @property
    def channels(self) -> int:
        """Output channels, or columns of the result."""
        return self.shape.g * self.shape.k if self.weights is not None else self.shape.k

    def corrected(self, offset: Ints, weights: Ints, first: int) -> Ints:
        """What channels from `first` on lack, whose read-out is offset + weights @ stored.

        sum (x - zero)*w + bias = sum stored*w - (lift + zero) * sum w + bias
        """
        found: Ints = -offset - (self.lift + self.zero) * weights.sum(axis=1)
        if self.bias is not None:
            found = found + self.bias[first : first + len(offset)]
        return found


def zero_of(kind: Type) -> int:
    """Zero point of a type."""
    return kind.quant.zero if kind.quant is not None else 0


def place(op: Op, graph: Graph) -> str | Fault:
    """Where an op runs: products of integers in the arrays, everything else in the vector unit."""
    if not isinstance(op, Conv | Matmul):
        return "vector"
    x, w = (op.x, op.w) if isinstance(op, Conv) else (op.a, op.b)
    if heavy_fault(op) is not None or not op.out.type.is_integer:
        return "vector"
    if any(not value.type.is_integer or bits_of(value.type.dtype) > 8 for value in (x, w)):
        return "vector"
    if isinstance(op, Conv) and graph.tensor(w) is None:
        return "vector"
    if op.bias is not None and graph.tensor(op.bias) is None:
        return "vector"
    return "macro"


def work_of(layer: Layer, tiles: Tiles) -> Work:
    """The heavy op of a macro layer."""
    graph = tiles.graph
    op = graph.producers()[layer.ops[0]]
    if not isinstance(op, Conv | Matmul):
        raise InternalError(f"layer {layer.name} starts with {op.mnemonic}, which arrays cannot do")
    shape = conv_shape(op)
    x, w = (op.x, op.w) if isinstance(op, Conv) else (op.a, op.b)
    array = graph.tensor(w)
    weights = None
    if array is not None and (isinstance(op, Conv) or shape.g == 1):
        weights = (weight_matrix(op, array) - zero_of(w.type)).astype(np.int64)
    bias = None
    if op.bias is not None:
        given = graph.tensor(op.bias)
        if given is None:
            raise InternalError(f"the bias of {op.out} is computed")
        count = shape.g * shape.k if weights is not None else shape.k
        bias = np.broadcast_to(given.astype(np.int64).reshape(-1), count)
    low, high = input_range(x, graph)
    zero = zero_of(x.type)  # what lies beyond the edges
    low, high = min(low, zero), max(high, zero)
    lift = 1 << (-low - 1).bit_length() if low < 0 else 0  # flips the sign bit of as many bits
    return Work(op, shape, weights, bias, max(1, (high + lift).bit_length()), lift)


def spec_of(target: Target) -> RtmApSpec:
    """The target's tables."""
    if not isinstance(target.spec, RtmApSpec):
        raise InternalError(f"{target.name} is no rtm-ap target")
    return target.spec
