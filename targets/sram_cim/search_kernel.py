"""A machine and a workload as compiled searches read them, and what follows from them at once.

Arrays: dims in the order g n k c p q r s; `chain[o, j]` is the level at position j of operand o's
chain, operands in the order I W O.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc import jit

njit = jit.compiler(__file__)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

G, N, K, C, P, Q, R, S = range(8)
HUGE = 1e300


class Machine(NamedTuple):
    """A machine and a workload as the kernels read them."""

    chain: Ints  # [3, positions], -1 behind the last
    length: Ints  # [3] positions in use
    level: Ints  # [levels, 7]: size, read and write width, latency, chip, shared port, shared
    along: Ints  # [levels, 3] whether it has an instance at each position of an axis
    pj: Floats  # [levels, 2] per bit read, written
    source: Ints  # [axes, 3]
    may_double: Ints  # [3, positions]
    relevant: Ints  # [3, 8]
    reduced: Ints  # [8]
    steps: Ints  # [4] stride and dilation of rows, of columns
    numbers: Ints  # see the constants below
    prices: Floats  # link bit, activation of one core, vector op, leakage per cycle


SIZE, READ, WRITE, LATENCY, CHIP, ONE_PORT, SHARED = range(7)
INPUT_BITS, WEIGHT_BITS, RESULT_BITS, PSUM_BITS, CELL_BITS, WORD, ACTIVATION = range(7)
LINK_BITS, LINK_HOP, LANES, PER_CORE, EPILOGUE, PIECE = range(7, 13)
LINK_PJ, ACTIVATION_PJ, VECTOR_PJ, LEAKAGE_PJ = range(4)


@njit
def elements(o: int, tile: Ints, steps: Ints) -> int:
    """Elements of operand o's tile with these loop extents."""
    if o == 1:
        return int(tile[G] * tile[K] * tile[C] * tile[R] * tile[S])
    if o == 2:
        return int(tile[G] * tile[N] * tile[K] * tile[P] * tile[Q])
    rows = min((tile[P] - 1) * steps[0] + (tile[R] - 1) * steps[1] + 1, tile[P] * tile[R])
    columns = min((tile[Q] - 1) * steps[2] + (tile[S] - 1) * steps[3] + 1, tile[Q] * tile[S])
    return int(tile[G] * tile[N] * tile[C] * rows * columns)


@njit
def spread_of(m: Machine, factors: Ints) -> Ints:
    """[3, levels, 8] spatial factors that a tile of each operand at each level holds."""
    levels = m.level.shape[0]
    spread = np.ones((3, levels, 8), np.int64)
    for o in range(3):
        for level in range(levels):
            for axis in range(3):
                if m.source[axis, o] >= level:
                    for d in range(8):
                        spread[o, level, d] *= factors[axis, d]
    return spread


@njit
def instances_of(m: Machine, factors: Ints) -> Ints:
    """[levels] instances in use."""
    count = np.ones(m.level.shape[0], np.int64)
    for level in range(m.level.shape[0]):
        for axis in range(3):
            if m.along[level, axis]:
                for d in range(8):
                    count[level] *= factors[axis, d]
    return count


@njit
def bits_at(m: Machine, o: int, level: int, sum_level: int) -> int:
    """Bits of one element of an operand at a level."""
    if o == 0:
        return int(m.numbers[INPUT_BITS])
    if o == 1:
        width = m.numbers[CELL_BITS]
        if level == m.chain[1, m.length[1] - 1]:
            return int(-(-m.numbers[WEIGHT_BITS] // width) * width)
        return int(m.numbers[WEIGHT_BITS])
    if level >= min(sum_level, m.chain[2, m.length[2] - 1]):
        return int(m.numbers[PSUM_BITS] if level else m.numbers[WORD])
    return int(m.numbers[RESULT_BITS])
