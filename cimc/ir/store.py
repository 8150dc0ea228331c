"""A program on disk: `program.bin`, the packed instructions, and `weights.safetensors` beside it.

program.bin is `CIMC`, the format version (u32), the length of the rest (u64), its BLAKE2b digest
(16 bytes), and the program without its tensors as zlib-packed JSON rows: names once, in a table;
instructions as lists in the order of their fields. 30,000 instructions load in a fraction of a
second. The weights are mapped, not read, but for checking their digests.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import typing
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cimc.errors import Fault, InternalError, UsageError
from cimc.ir.graph import Value, digest_of, op_text, operands, scan_op
from cimc.ir.program import (
    FORMAT_VERSION,
    Affine,
    Bound,
    Buffer,
    Instr,
    Item,
    Loop,
    Program,
    Stream,
    VectorOp,
    View,
    instr_named,
)
from cimc.ir.text import Scanner
from cimc.ir.types import Array, Type

PROGRAM_FILE = "program.bin"
WEIGHTS_FILE = "weights.safetensors"

Json: TypeAlias = "int | float | bool | str | Sequence[Json] | dict[str, Json] | None"
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
    payload = zlib.compress(json.dumps(_program_rows(program), separators=(",", ":")).encode(), 6)
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


def _unpacked(content: bytes, path: Path) -> dict[str, list[Json]]:
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
    rows: dict[str, list[Json]] = json.loads(zlib.decompress(payload))
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


# --- rows ---


def _program_rows(program: Program) -> dict[str, Json]:
    return {
        "name": program.name,
        "target": program.target,
        "inputs": [[name, str(kind)] for name, kind in program.inputs],
        "outputs": [[name, str(kind)] for name, kind in program.outputs],
        "buffers": [list(dataclasses.astuple(buffer)) for buffer in program.buffers],
        "setup": _item_rows(program.setup),
        "streams": [[stream.name, _item_rows(stream.body)] for stream in program.streams],
    }


def _item_rows(items: Iterable[Item]) -> list[Json]:
    return [
        [item.var, item.count, _item_rows(item.body)] if isinstance(item, Loop) else _row(item)
        for item in items
    ]


def _row(instr: Instr) -> list[Json]:
    if isinstance(instr, VectorOp):
        known = [[value.name, str(value.type)] for value in dict.fromkeys(operands(instr.op))]
        fields: list[Json] = [known, op_text(instr.op), instr.unit]
        return [instr.mnemonic, fields, instr.when, instr.layer]
    packed = [_field_row(getattr(instr, name)) for name in _fields(type(instr))]
    return [instr.mnemonic, packed, instr.when, instr.layer]


def _fields(instr: type[Instr]) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(instr) if f.name not in ("when", "layer"))


def _field_row(held: object) -> Json:
    """Views, expressions and bounds as tagged objects, tuples as lists, the rest as it is."""
    if isinstance(held, View):
        return {"v": [held.buffer, held.offset.const, held.offset.terms, held.dims]}
    if isinstance(held, Affine):
        return {"a": [held.const, held.terms]}
    if isinstance(held, Bound):
        return {"b": [[held.start.const, held.start.terms], held.steps, held.limit]}
    if isinstance(held, tuple):
        return [_field_row(item) for item in held]
    if held is None or isinstance(held, bool | int | float | str):
        return held
    raise InternalError(f"no packed form for {held!r}")


def _program(rows: dict[str, typing.Any], tensors: Mapping[str, Array]) -> Program:
    return Program(
        rows["name"],
        rows["target"],
        tuple((name, _type(kind)) for name, kind in rows["inputs"]),
        tuple((name, _type(kind)) for name, kind in rows["outputs"]),
        tuple(Buffer(*row) for row in rows["buffers"]),
        _items(rows["setup"]),
        tuple(Stream(name, _items(body)) for name, body in rows["streams"]),
        tensors,
    )


def _type(kind: str) -> Type:
    return Scanner(kind).type()


def _items(rows: Sequence[typing.Any]) -> tuple[Item, ...]:
    return tuple(
        Loop(row[0], row[1], _items(row[2])) if len(row) == 3 else _instr(*row) for row in rows
    )


def _instr(mnemonic: str, fields: list[Json], when: list[list[str]], layer: str) -> Instr:
    conditions = tuple((loop, condition) for loop, condition in when)
    if mnemonic == VectorOp.mnemonic:
        known, line, unit = typing.cast(tuple[list[list[str]], str, str], fields)
        values = {name: Value(name, _type(kind)) for name, kind in known}
        op = scan_op(Scanner(line), values, {})
        return VectorOp(op, unit, when=conditions, layer=layer)
    kind = instr_named(mnemonic)
    make: Callable[..., Instr] = kind
    given = dict(zip(_fields(kind), map(_held, fields), strict=True))  # some are keyword-only
    return make(**given, when=conditions, layer=layer)


def _held(row: typing.Any) -> object:
    if isinstance(row, list):
        return tuple([_held(item) for item in row])
    if not isinstance(row, dict):
        return row
    ((kind, packed),) = row.items()
    if kind == "v":
        buffer, const, terms, dims = packed
        return View(buffer, _affine(const, terms), tuple([(e, s) for e, s in dims]))
    if kind == "a":
        return _affine(*packed)
    start, steps, limit = packed
    return Bound(_affine(*start), tuple(steps), limit)


def _affine(const: int, terms: list[list[typing.Any]]) -> Affine:
    return Affine(const, tuple([(var, factor) for var, factor in terms]))
