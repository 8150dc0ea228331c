"""Heavy ops as one form: a conv of up to two spatial axes or a matmul, by loop bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, InternalError
from cimc.ir import ops
from cimc.ir.graph import Op
from cimc.ir.types import Array
from cimc.lowering.builder import Progress


@dataclass(frozen=True, slots=True)
class ConvShape:
    """Loop bounds and strides of a heavy op; k and c count within one of the g groups.

    A conv of one spatial axis has p = h = r = 1, its length is q (and w, s). A matmul
    [..., m, c] @ [c, k] has p = all leading extents times m; with a batched right operand g counts
    the batches and p = m.
    """

    n: int
    g: int
    k: int
    c: int
    p: int
    q: int
    r: int
    s: int
    h: int
    w: int
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)  # before the first row, before the first column
    dilations: tuple[int, int] = (1, 1)
    matmul: bool = False

    @property
    def window(self) -> int:
        """Elements of one window within a group: c*r*s, the reduced extent."""
        return self.c * self.r * self.s

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole op."""
        return self.n * self.g * self.k * self.p * self.q * self.window

    @property
    def dims(self) -> tuple[tuple[str, int], ...]:
        """The bounds as a nest's `dims`."""
        return tuple((dim, int(getattr(self, dim))) for dim in "gnkcpqrs")

    @property
    def x_strides(self) -> dict[str, int]:
        """Distance in the input tensor of one step of n, g, c, h (row) and w (column)."""
        if self.matmul:
            return {"n": 0, "g": self.h * self.c, "c": 1, "h": self.c, "w": 0}
        plane = self.h * self.w
        return {
            "n": self.g * self.c * plane,
            "g": self.c * plane,
            "c": plane,
            "h": self.w,
            "w": 1,
        }

    @property
    def result(self) -> tuple[int, ...]:
        """The result's shape, leading axes folded: (n, g*k, p, q), of a matmul (g, p, k)."""
        if self.matmul:
            return (self.g, self.p, self.k)
        return (self.n, self.g * self.k, self.p, self.q)

    @property
    def channel(self) -> int:
        """The axis of `result` that per-channel tables follow."""
        return 2 if self.matmul else 1

    @property
    def progress(self) -> Progress:
        """Rows of the result, as a pipelined producer signals them."""
        return Progress("m", self.g * self.p) if self.matmul else Progress("p", self.n * self.p)

    def step(self, dim: str) -> tuple[int, ...]:
        """How the coordinates in `result` move with one step of loop dimension `dim`."""
        moves = (
            {"g": (0, 1), "p": (1, 1), "k": (2, 1)}
            if self.matmul
            else {"n": (0, 1), "g": (1, self.k), "k": (1, 1), "p": (2, 1), "q": (3, 1)}
        )
        axis, size = moves.get(dim, (0, 0))
        return tuple(size if place == axis else 0 for place in range(len(self.result)))


def heavy_fault(op: Op) -> Fault | None:
    """Why no loop nest can be made of `op`; None if one can."""
    if isinstance(op, ops.Conv):
        if len(op.x.shape) > 4:
            return Fault(
                f"{op.out}: conv over {len(op.x.shape) - 2} spatial axes",
                need="one or two spatial axes",
                help="run it in the vector unit, or split the third axis into channels",
                code="CIM3001",
                node=", ".join(op.nodes),
            )
        return None
    if isinstance(op, ops.Matmul):
        a, b = op.a.shape, op.b.shape
        if len(a) < 1 or len(b) < 2:
            need = "a right operand of two axes or more"
        elif math.prod(b[:-2]) != 1 and (len(a) < 2 or a[:-2] != b[:-2]):
            need = "a right operand without batches, or the same batches on both sides"
        elif op.bias is not None and op.bias.type.elements not in (1, b[-1]):
            need = f"a bias of 1 or {b[-1]} elements"
        else:
            return None
        return Fault(
            f"{op.out}: matmul of {list(a)} and {list(b)}",
            need=need,
            code="CIM3002",
            node=", ".join(op.nodes),
        )
    return Fault(f"{op.out}: {op.mnemonic} is no matrix product", code="CIM3003")


def conv_shape(op: Op) -> ConvShape:
    """The loop bounds of a conv or matmul that has no `heavy_fault`."""
    fault = heavy_fault(op)
    if fault is not None:
        raise InternalError(fault)
    if isinstance(op, ops.Matmul):
        return _matmul_shape(op)
    assert isinstance(op, ops.Conv)
    axes = len(op.x.shape) - 2
    h, w = _pair(op.x.shape[2:], 1)
    r, s = _pair(op.w.shape[2:], 1)
    p, q = _pair(op.out.shape[2:], 1)
    return ConvShape(
        n=op.x.shape[0],
        g=op.group,
        k=op.w.shape[0] // op.group,
        c=op.w.shape[1],
        p=p,
        q=q,
        r=r,
        s=s,
        h=h,
        w=w,
        strides=_pair(op.strides, 1),
        pads=_pair(op.pads[:axes], 0),
        dilations=_pair(op.dilations, 1),
    )


def _pair(given: tuple[int, ...], missing: int) -> tuple[int, int]:
    """Two numbers for rows and columns; `missing` for the axes that an op does not have."""
    padded = (*(missing,) * (2 - len(given)), *given)
    return padded[0], padded[1]


def _matmul_shape(op: ops.Matmul) -> ConvShape:
    c, k = op.b.shape[-2:]
    g = math.prod(op.b.shape[:-2])
    p = op.a.type.elements // (g * c)
    return ConvShape(n=1, g=g, k=k, c=c, p=p, q=1, r=1, s=1, h=p, w=1, matmul=True)


def weight_matrix(op: Op, weights: Array) -> NDArray[np.integer]:
    """Constant weights as [g*k, c*r*s]: one row per output channel."""
    if isinstance(op, ops.Matmul):
        weights = weights.reshape(weights.shape[-2:]).T
    return cast(NDArray[np.integer], weights.reshape(weights.shape[0], -1))


def effective_bias(
    zero: int, weights: NDArray[np.integer], bias: Array | None
) -> NDArray[np.int32] | None:
    """What to add to sums of raw x times w: bias and x's zero point; None for nothing.

        sum (x - zero)*w + bias = sum x*w + (bias - zero * sum w)

    shapes  weights [K, E], bias [K] or broadcastable to it -> int32[K]
    raises  InternalError where a sum leaves 32 bits
    """
    if zero == 0 and bias is None:
        return None
    total: NDArray[np.int64] = -zero * weights.sum(axis=1, dtype=np.int64)
    if bias is not None:
        total = total + bias.astype(np.int64).reshape(-1)
    if total.size and (total.max() >= 2**31 or total.min() < -(2**31)):
        raise InternalError("a bias with its zero point folded in leaves 32 bits")
    return total.astype(np.int32)


def window_offsets(shape: ConvShape) -> NDArray[np.int64]:
    """Offset in the input tensor of each window element (c, r, s) from the window's first one."""
    strides = shape.x_strides
    c, r, s = np.meshgrid(np.arange(shape.c), np.arange(shape.r), np.arange(shape.s), indexing="ij")
    rows, columns = r * shape.dilations[0], s * shape.dilations[1]
    offsets: NDArray[np.int64] = c * strides["c"] + rows * strides["h"] + columns * strides["w"]
    return offsets.reshape(-1).astype(np.int64)


def needed_bits(weights: NDArray[np.integer], symmetric: bool = False) -> int:
    """Smallest width in bits, at least 2, of a signed integer that holds all `weights`.

    `symmetric`: of sign and magnitude, so -2**(bits-1) does not fit.
    """
    low, high = (int(weights.min()), int(weights.max())) if weights.size else (0, 0)
    magnitude = max(high, -low if symmetric else -low - 1)
    return max(2, magnitude.bit_length() + 1)
