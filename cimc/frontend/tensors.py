"""Stored tensors: from ONNX's TensorProto to NumPy arrays, checked before anything is allocated.

External data is memory-mapped, one map per file; the arrays are views of it. Elements narrower than
a byte are unpacked into one byte each, as the IR holds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from cimc.errors import Fault, UnsupportedError
from cimc.frontend import codes
from cimc.ir.types import Array, bits_of, int_range, is_integer, numpy_dtype

MAX_ELEMENTS = 2**31 - 1  # of any tensor, stored or computed, also along one axis
MAX_AXES = 32  # what NumPy 1 can hold
LIMITS = f"at most {MAX_ELEMENTS} elements and {MAX_AXES} axes"

# ONNX element type -> the IR's; what is not here (strings, complex, bfloat16, float8) is refused
ELEMENT_TYPES: dict[int, str] = {
    number: dtype
    for name, dtype in {
        "FLOAT": "f32",
        "UINT8": "u8",
        "INT8": "i8",
        "UINT16": "u16",
        "INT16": "i16",
        "INT32": "i32",
        "INT64": "i64",
        "BOOL": "bool",
        "FLOAT16": "f16",
        "DOUBLE": "f64",
        "UINT32": "u32",
        "UINT64": "u64",
        "UINT4": "u4",
        "INT4": "i4",
        "UINT2": "u2",
        "INT2": "i2",
    }.items()
    if (number := dict(TensorProto.DataType.items()).get(name)) is not None
}
# the field that holds an element type's values where `raw_data` does not; others: int32_data
_TYPED_FIELDS: dict[str, str] = {
    "f32": "float_data",
    "f64": "double_data",
    "i64": "int64_data",
    "u32": "uint64_data",
    "u64": "uint64_data",
}


def is_too_large(shape: tuple[int, ...]) -> bool:
    """True for shapes beyond `LIMITS`."""
    longest = max(shape, default=0)
    return len(shape) > MAX_AXES or max(longest, math.prod(shape)) > MAX_ELEMENTS


def element_name(number: int) -> str:
    """ONNX's own name of an element type: float32, uint8, bfloat16 ..."""
    names: dict[int, str] = {value: key for key, value in TensorProto.DataType.items()}
    name = names.get(number, f"#{number}")
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(name, name.lower())


@dataclass(slots=True)
class ExternalFiles:
    """The files beside the model that hold its large tensors, mapped once each."""

    folder: Path
    maps: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def path(self, location: str) -> Path | None:
        """The file that `location` names; None if that lies outside the model's folder."""
        if not location or "\0" in location or Path(location).is_absolute():
            return None
        folder = self.folder.resolve()
        try:
            resolved = (folder / location).resolve()
        except (OSError, RuntimeError):
            return None
        return resolved if resolved.is_relative_to(folder) else None

    def bytes(self, location: str) -> NDArray[np.uint8]:
        """All bytes of one file, memory-mapped."""
        if location not in self.maps:
            path = self.path(location)
            if path is None:
                raise UnsupportedError(_outside(location))
            if path.stat().st_size == 0:
                self.maps[location] = np.zeros(0, np.uint8)
            else:
                self.maps[location] = np.memmap(path, np.uint8, "r")
        return self.maps[location]


def is_external(tensor: TensorProto) -> bool:
    """True if the tensor's bytes are in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def external_place(tensor: TensorProto) -> tuple[str, int, int | None]:
    """Location, offset and length of an external tensor; ValueError if they are no numbers."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    length = int(entries["length"]) if "length" in entries else None
    return entries.get("location", ""), int(entries.get("offset", "0") or "0"), length


def stored_bytes(dtype: str, elements: int) -> int:
    """Bytes of `elements` stored as ONNX packs them."""
    return elements if dtype == "bool" else (elements * bits_of(dtype) + 7) // 8


def tensor_faults(tensor: TensorProto, files: ExternalFiles, weights: bool) -> Iterator[Fault]:
    """What is wrong with a stored tensor; with `weights` off, external files need not be there."""
    where = f"tensor {tensor.name!r} is damaged"
    shape = tuple(tensor.dims)
    elements = math.prod(shape)
    if any(extent < 0 for extent in shape):
        yield Fault(where, "dimensions >= 0", str(shape), code=codes.BROKEN_TENSOR)
        return
    if is_too_large(shape):
        yield Fault(
            f"tensor {tensor.name!r} is too large",
            LIMITS,
            f"shape {shape}",
            code=codes.TOO_LARGE,
        )
        return
    dtype = ELEMENT_TYPES.get(tensor.data_type)
    if dtype is None:
        return  # refused where a node reads it, and harmless where none does
    expected = stored_bytes(dtype, elements)
    if is_external(tensor):
        yield from _external_faults(tensor, files, expected, weights)
    elif tensor.HasField("raw_data"):
        if len(tensor.raw_data) != expected:
            yield Fault(
                where,
                f"{expected} bytes for {dtype} {shape}",
                f"{len(tensor.raw_data)} bytes",
                code=codes.BROKEN_TENSOR,
            )
    else:
        name = _TYPED_FIELDS.get(dtype, "int32_data")
        stored = len(getattr(tensor, name))
        packed = expected if dtype in ("i4", "u4", "i2", "u2") else elements
        if stored != packed:
            yield Fault(
                where,
                f"{packed} values in {name} for {dtype} {shape}",
                f"{stored} values",
                code=codes.BROKEN_TENSOR,
            )


def _outside(location: str) -> Fault:
    return Fault(
        f"the path of external weights {location!r} leaves the model's folder",
        need="a relative path to a file beside the model",
        help="move the weights beside the model and save it again with that relative path",
        code=codes.OUTSIDE_DATA,
    )


def _external_faults(
    tensor: TensorProto, files: ExternalFiles, expected: int, weights: bool
) -> Iterator[Fault]:
    try:
        location, offset, length = external_place(tensor)
    except ValueError:
        yield Fault(
            f"tensor {tensor.name!r} is damaged",
            need="whole numbers as offset and length of external data",
            code=codes.BROKEN_TENSOR,
        )
        return
    path = files.path(location)
    if path is None:
        yield _outside(location)
        return
    if offset < 0 or (length is not None and length != expected):
        yield Fault(
            f"tensor {tensor.name!r} is damaged",
            f"{expected} bytes at an offset >= 0 of {location}",
            f"{length} bytes at offset {offset}",
            code=codes.BROKEN_TENSOR,
        )
        return
    if not path.is_file():
        if weights:
            yield Fault(
                f"the file of external weights {location!r} is missing",
                need=f"{path}",
                help="put it beside the model, or import shapes only",
                code=codes.MISSING_DATA,
            )
    elif path.stat().st_size < offset + expected:
        yield Fault(
            f"the file of external weights {location!r} is too short for tensor {tensor.name!r}",
            f"{offset + expected} bytes",
            f"{path.stat().st_size} bytes",
            "copy the file again, or export the model again",
            code=codes.MISSING_DATA,
        )


def read_tensor(tensor: TensorProto, files: ExternalFiles) -> Array:
    """The array of a sound tensor in the IR's element type; external data stays on disk."""
    dtype = ELEMENT_TYPES[tensor.data_type]
    shape = tuple(tensor.dims)
    elements = math.prod(shape)
    expected = stored_bytes(dtype, elements)
    if is_external(tensor):
        location, offset, _ = external_place(tensor)
        return _elements(files.bytes(location)[offset : offset + expected], dtype, shape)
    if tensor.HasField("raw_data"):
        return _elements(np.frombuffer(tensor.raw_data, np.uint8), dtype, shape)
    if dtype in ("i4", "u4", "i2", "u2"):
        packed = np.array(tensor.int32_data, np.int64).astype(np.uint8)
        return _elements(packed, dtype, shape)
    array = numpy_helper.to_array(tensor).astype(numpy_dtype(dtype), copy=False)
    return array.reshape(shape)


def _elements(raw: NDArray[np.uint8], dtype: str, shape: tuple[int, ...]) -> Array:
    """Little-endian bytes as an array; a view unless elements are narrower than a byte."""
    if dtype == "bool":
        return np.not_equal(raw, 0).reshape(shape)
    bits = bits_of(dtype)
    if bits >= 8:
        return np.frombuffer(raw.data, numpy_dtype(dtype).newbyteorder("<")).reshape(shape)
    parts = [(raw >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    unpacked = np.stack(parts, axis=-1).reshape(-1)[: math.prod(shape)]
    if is_integer(dtype) and int_range(dtype)[0] < 0:
        unpacked = ((unpacked ^ (1 << (bits - 1))).astype(np.int8)) - (1 << (bits - 1))
    return unpacked.astype(numpy_dtype(dtype)).reshape(shape)
