"""A program on disk: `program.bin`, the packed instructions, and `weights.safetensors` beside it.

program.bin is `CIMC`, the format version (u32), the length of the rest (u64), its BLAKE2b digest
(16 bytes), and the program without its tensors as zlib-packed JSON tables (`store_tables`). The
weights are mapped, not read, but for checking their digests.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import typing
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cimc.errors import Fault, InternalError, UsageError
from cimc.ir.graph import digest_of
from cimc.ir.program import FORMAT_VERSION, Buffer, Program, Stream
from cimc.ir.store_tables import Json, Reader, Writer
from cimc.ir.text import Scanner
from cimc.ir.types import Array

PROGRAM_FILE = "program.bin"
WEIGHTS_FILE = "weights.safetensors"

_HEAD = struct.Struct("<4sIQ16s")
_MAGIC = b"CIMC"
_SAFE_NAMES = {
    "int8": "I8", "uint8": "U8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "bool": "BOOL",
    "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
_SAFE_DTYPES = {safe: name for name, safe in _SAFE_NAMES.items()}


def save_program(program: Program, folder: Path) -> None:
    """Write both files into an existing folder."""
    payload = zlib.compress(json.dumps(_tables(program), separators=(",", ":")).encode(), 6)
    digest = hashlib.blake2b(payload, digest_size=16).digest()
    head = _HEAD.pack(_MAGIC, FORMAT_VERSION, len(payload), digest)
    (folder / PROGRAM_FILE).write_bytes(head + payload)
    save_tensors(program.tensors, folder / WEIGHTS_FILE)


def load_program(folder: Path) -> Program:
    """Read what `save_program` wrote; the machine kind's instructions must be known by then.

    raises  UsageError for a missing, damaged or cut-off file, or one of another format version
    """
    path = folder / PROGRAM_FILE
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise UsageError(
            Fault(
                f"{folder} holds no program that can be read",
                have=str(problem),
                help="`cimc compile MODEL -t TARGET -o DIR` writes one",
                code="CIM2030",
            )
        ) from None
    rows = _unpacked(content, path)
    return _program(rows, load_tensors(folder / WEIGHTS_FILE))


def _unpacked(content: bytes, path: Path) -> dict[str, Json]:
    if len(content) < _HEAD.size or content[:4] != _MAGIC:
        raise UsageError(Fault(f"{path} is not a cimc program", code="CIM2031"))
    _, version, length, digest = _HEAD.unpack_from(content)
    if version != FORMAT_VERSION:
        raise UsageError(
            Fault(
                f"{path} has another format",
                need=f"format version {FORMAT_VERSION}",
                have=f"format version {version}",
                help="compile the model again with this version of cimc",
                code="CIM2032",
            )
        )
    payload = content[_HEAD.size :]
    if len(payload) != length or hashlib.blake2b(payload, digest_size=16).digest() != digest:
        raise UsageError(
            Fault(
                f"{path} is damaged",
                need=f"{length} bytes with digest {digest.hex()}",
                have=f"{len(payload)} bytes with another digest",
                help="compile the model again",
                code="CIM2033",
            )
        )
    rows: dict[str, Json] = json.loads(zlib.decompress(payload))
    return rows


# --- tensors ---


def save_tensors(tensors: Mapping[str, Array], path: Path) -> None:
    """Write arrays by digest in the safetensors format, without a second copy in memory."""
    header: dict[str, object] = {}
    start = 0
    for digest, array in tensors.items():
        dtype = _SAFE_NAMES.get(array.dtype.name)
        if dtype is None:
            raise InternalError(f"tensor {digest} of type {array.dtype} cannot be stored")
        end = start + array.nbytes
        header[digest] = {"dtype": dtype, "shape": array.shape, "data_offsets": [start, end]}
        start = end
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    part = path.with_name(f".{path.name}.{os.getpid()}")  # `tensors` may be mapped from `path`
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    part.replace(path)


def load_tensors(path: Path) -> dict[str, Array]:
    """Map the arrays of a safetensors file; raises UsageError where one is not what it was."""
    try:
        content = np.memmap(path, np.uint8, "r")
        (length,) = struct.unpack("<Q", content[:8].tobytes())
        header = json.loads(content[8 : 8 + length].tobytes())
        data = np.asarray(content[8 + length :])
        found = {digest: _mapped(data, entry) for digest, entry in header.items()}
        damaged = [digest for digest, array in found.items() if digest_of(array) != digest]
    except (OSError, ValueError, KeyError, TypeError, struct.error) as problem:
        raise UsageError(
            Fault(f"{path} cannot be read", have=str(problem), help="compile again", code="CIM2034")
        ) from None
    if damaged:
        raise UsageError(
            Fault(f"{path} is damaged", have=f"tensors {', '.join(damaged)}", code="CIM2035")
        )
    return found


def _mapped(data: Array, entry: Mapping[str, typing.Any]) -> Array:
    start, end = entry["data_offsets"]
    dtype = np.dtype(_SAFE_DTYPES[entry["dtype"]])
    return np.frombuffer(data[start:end].data, dtype).reshape(entry["shape"])


# --- tables ---


def _tables(program: Program) -> dict[str, Json]:
    writer = Writer()
    setup = writer.body(program.setup)
    streams: list[Json] = [[stream.name, writer.body(stream.body)] for stream in program.streams]
    return {
        "name": program.name,
        "target": program.target,
        "inputs": [[name, str(kind)] for name, kind in program.inputs],
        "outputs": [[name, str(kind)] for name, kind in program.outputs],
        "buffers": [list(dataclasses.astuple(buffer)) for buffer in program.buffers],
        "setup": setup,
        "streams": streams,
        **writer.tables(),
    }


def _program(tables: dict[str, typing.Any], tensors: Mapping[str, Array]) -> Program:
    reader = Reader(tables)
    return Program(
        tables["name"],
        tables["target"],
        tuple((name, Scanner(kind).type()) for name, kind in tables["inputs"]),
        tuple((name, Scanner(kind).type()) for name, kind in tables["outputs"]),
        tuple(Buffer(*row) for row in tables["buffers"]),
        reader.body(tables["setup"]),
        tuple(Stream(name, reader.body(body)) for name, body in tables["streams"]),
        tensors,
    )
