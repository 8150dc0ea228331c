"""Types of values: element type, shape, and how integers stand for real numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cimc.errors import CimcError

Array: TypeAlias = NDArray[np.generic]

# element type -> (NumPy type that holds it, bits in a memory, lowest, highest)
_INTEGERS: dict[str, tuple[type[np.generic], int, int, int]] = {
    "i2": (np.int8, 2, -2, 1),
    "u2": (np.uint8, 2, 0, 3),
    "i4": (np.int8, 4, -8, 7),
    "u4": (np.uint8, 4, 0, 15),
    "i8": (np.int8, 8, -128, 127),
    "u8": (np.uint8, 8, 0, 255),
    "i16": (np.int16, 16, -(2**15), 2**15 - 1),
    "u16": (np.uint16, 16, 0, 2**16 - 1),
    "i32": (np.int32, 32, -(2**31), 2**31 - 1),
    "u32": (np.uint32, 32, 0, 2**32 - 1),
    "i64": (np.int64, 64, -(2**63), 2**63 - 1),
    "u64": (np.uint64, 64, 0, 2**64 - 1),
    "bool": (np.bool_, 8, 0, 1),
}
_FLOATS: dict[str, tuple[type[np.generic], int]] = {
    "f16": (np.float16, 16),
    "f32": (np.float32, 32),
    "f64": (np.float64, 64),
}
DTYPES: tuple[str, ...] = (*_INTEGERS, *_FLOATS)
_NUMPY: dict[str, np.dtype[np.generic]] = {
    **{name: np.dtype(known[0]) for name, known in _INTEGERS.items()},
    **{name: np.dtype(known[0]) for name, known in _FLOATS.items()},
}


def numpy_dtype(dtype: str) -> np.dtype[np.generic]:
    """The NumPy type that holds an element of `dtype`; a narrow integer (i4) takes a whole byte."""
    return _NUMPY[dtype]


def bits_of(dtype: str) -> int:
    """Bits that one element takes in a machine's memory."""
    return _INTEGERS[dtype][1] if dtype in _INTEGERS else _FLOATS[dtype][1]


def is_integer(dtype: str) -> bool:
    """True for integers and booleans."""
    return dtype in _INTEGERS


def int_range(dtype: str) -> tuple[int, int]:
    """Lowest and highest value of an integer type."""
    return _INTEGERS[dtype][2], _INTEGERS[dtype][3]


def dtype_of(array: Array) -> str:
    """Our name of a NumPy array's element type (a byte is i8 or u8, never i4)."""
    for name in ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool", "f16", "f32", "f64"):
        if array.dtype == numpy_dtype(name):
            return name
    raise CimcError(f"element type {array.dtype} has no counterpart in the IR")


@dataclass(frozen=True, slots=True)
class Quant:
    """How integers q of a tensor stand for real numbers: real = scale * (q - zero).

    `scale` is rounded to a float32 and printed as short as that allows. Per-channel scales of
    weights are operands of the ops that use them (`requant`'s multiplier, `dequantize`'s scale),
    never part of a type.
    """

    scale: float
    zero: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", float(np.float32(self.scale)))

    def __str__(self) -> str:
        return f"<{np.float32(self.scale)!s},{self.zero}>"


@dataclass(frozen=True, slots=True)
class Type:
    """Type of a value, printed `i8[1,64,56,56]`, or `u8[1,10]<0.25,128>` with scale and zero."""

    dtype: str
    shape: tuple[int, ...]
    quant: Quant | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        """Bits of the whole tensor in a memory."""
        return self.elements * bits_of(self.dtype)

    @property
    def is_integer(self) -> bool:
        """True where elements are integers."""
        return is_integer(self.dtype)

    def __str__(self) -> str:
        text = f"{self.dtype}[{','.join(str(extent) for extent in self.shape)}]"
        if self.quant is not None:
            text += str(self.quant)
        return text
