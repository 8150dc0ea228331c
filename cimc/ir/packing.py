"""Ternary weights in two bits each: two's complement, four to a byte, the first in the low bits."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cimc.ir.types import Array


def pack_ternary(weights: Array) -> NDArray[np.uint8]:
    """Weights -1, 0 and 1 in row-major order, ceil(n / 4) bytes.

    raises  ValueError for any other weight
    """
    flat = weights.reshape(-1).astype(np.int64)
    if flat.size and np.abs(flat).max() > 1:
        raise ValueError("a ternary weight is -1, 0 or 1")
    padded = np.zeros(math.ceil(flat.size / 4) * 4, np.uint8)
    padded[: flat.size] = flat & 3
    fields = padded.reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)
    return np.asarray(np.bitwise_or.reduce(fields, axis=1), np.uint8)


def unpack_ternary(packed: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """What `pack_ternary` packed."""
    fields = (packed[:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    flat = fields.reshape(-1)[: math.prod(shape)].astype(np.int8)
    return np.where(flat == 3, np.int8(-1), flat).reshape(shape)
