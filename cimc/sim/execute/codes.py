"""What the encoder and the kernels of the fast engine agree on.

A program is one row of int64. A loop is LOOP, end, slot, count ... END, body, slot, count; an
instruction is
    opcode, next, index, memory    begin of the next one; its number; the memory it writes or -1
    n, (slot, condition, count) * n                          conditions on loops
    n, (base, low, high, const, m, (slot, factor) * m) * n   positions
    payload                                                  by opcode, see the kernels
A position is an affine value that must lie in low .. high, plus `base`: the first element of a view
counted in elements of its width over all memories, or a coordinate.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Int: TypeAlias = "int | np.int64"
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class Cells(NamedTuple):
    """All cells, seen as every element type, and their marks, as bytes and as words."""

    i8: NDArray[np.int8]
    u8: NDArray[np.uint8]
    i16: NDArray[np.int16]
    u16: NDArray[np.uint16]
    i32: NDArray[np.int32]
    u32: NDArray[np.uint32]
    f32: NDArray[np.float32]
    marks: NDArray[np.uint8]
    marks32: NDArray[np.uint32]


MARK32 = np.uint32(0x07060504)  # of a written element of four bytes

# opcodes
LOOP, END, STOP, PLAIN, WAIT, SIGNAL = range(6)
COPY, FILL, PATCH, MVM, ACCUMULATE, RESCALE, LOOKUP, COMBINE, CONVERT = range(6, 15)

# conditions
FIRST, LAST, NOT_FIRST, NOT_LAST = range(4)

# why the interpreter comes back
DONE, STALLED, ASIDE, PACK = range(4)

# what a stream does
READY, BLOCKED, FINISHED = range(3)

# element types that kernels compute with
I8, U8, I16, U16, I32, U32, F32 = range(7)

# how two views lie to each other: APART never share a cell, SAME_AXES are one view if they begin
# at one place (element by element then reads before it writes)
UNKNOWN, SAME_AXES, APART = range(3)

# functions of COMBINE
ADD, SUB, MUL, MAX, MIN, FUSED_ADD, FUSED_MUL = range(7)

FREE = 1 << 62  # no limit
MOST_POSITIONS = 48  # of one instruction; also the most axes
