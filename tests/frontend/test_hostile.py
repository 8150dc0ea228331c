"""Damaged and hostile files: always a CimcError, whatever was changed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from google.protobuf.message import Message
from onnx import ModelProto

from cimc.errors import UnsupportedError, UsageError
from cimc.frontend import codes, import_onnx
from cimc.ir.types import Array

from .conftest import Build

INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    -2,
    7,
    127,
    255,
    2**15,
    2**24,
    2**31 - 1,
    2**31,
    2**62,
    -(2**63),
    2**63 - 1,
)
FLOATS = (0.0, -1.0, 0.5, 1e38, 1e-40, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "y", "w", "../x", "SAME_UPPER", "linear", "cubic", "com.microsoft")
BYTES = (b"", b"SAME_LOWER", b"linear", b"reflect", bytes(8), b"\xff\xfe")


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    """Small sound models that reach most lowerings."""
    from .conftest import _model

    ones = np.ones((4, 4, 3, 3), np.float32)
    bodies: list[tuple[str, int, dict[str, Array]]] = [
        ("g (float[1,4,6,6] x) => (float[1,4,3,3] y) "
         "{ c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w) y = Relu (c) }", 17, {"w": ones}),
        ("g (float[1,4,6,6] x) => (float[1,8,6,6] y) "
         "{ a = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1], dilations=[1,1], ceil_mode=1> (x) "
         "b = AveragePool <kernel_shape=[3,3], auto_pad=\"SAME_UPPER\"> (x) "
         "y = Concat <axis=1> (a, b) }", 17, {}),
        ("g (float[2,3,4] x) => (float[2,12] y) { s = Shape (x) i = Constant <value_int=0> () "
         "n = Gather (s, i) a = Constant <value_ints=[0]> () u = Unsqueeze (n, a) "
         "m = Constant <value_ints=[-1]> () t = Concat <axis=0> (u, m) y = Reshape (x, t) }",
         17, {}),
        ("g (float[1,4,6,6] x) => (float[1,2,12,9] y) { a, b = Split <axis=1> (x, s) "
         "c = Slice (b, b0, e0, x0, t0) d = Resize <mode=\"linear\"> (c, , r) "
         "y = Pad (d, p, v) }", 17,
         {"s": np.array([2, 2]), "b0": np.array([0, 1]), "e0": np.array([2, 9]),
          "x0": np.array([1, 2]), "t0": np.array([1, 1]), "r": np.array([1, 1, 2, 1.5], np.float32),
          "p": np.array([0, 0, 1, 0, 0, 0, 1, 0]), "v": np.array(0.5, np.float32)}),
        ("g (float[1,4,6,6] x) => (uint8[1,4,6,6] y) { q = QuantizeLinear (x, s, z) "
         "d = DequantizeLinear (q, s, z) r = DequantizeLinear <axis=0> (w, k) c = Conv "
         "<pads=[1,1,1,1]> (d, r) y = QuantizeLinear (c, s, z) }", 17,
         {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8), "w": ones.astype(np.int8),
          "k": np.ones(4, np.float32)}),
        ("g (float[3,12] x) => (float[3,7] y) { a = Gemm <transB=1, alpha=0.5> (x, w, b) "
         "c = Softmax <axis=1> (a) d = ReduceMean <axes=[1]> (c) e = Sub (c, d) f = Clip (e, l) "
         "y = Where (m, f, c) }", 17,
         {"w": np.ones((7, 12), np.float32), "b": np.ones(7, np.float32),
          "l": np.array(-1, np.float32), "m": np.ones((3, 7), np.bool_)}),
        ("g (float[1,4,3,3] x) => (float[1,2,7,7] y) { a = LayerNormalization <axis=-1> (x, s, s) "
         "b = InstanceNormalization (a, i, i) c = LRN <size=3> (b) y = ConvTranspose "
         "<strides=[2,2], output_padding=[0,0]> (c, w) }", 17,
         {"s": np.ones(3, np.float32), "i": np.ones(4, np.float32),
          "w": np.ones((4, 2, 3, 3), np.float32)}),
        ("g (float[N,4] x) => (float[N,4] y) { y = own.twice (x) } "
         "<domain: \"own\", opset_import: [\"\" : 17]> twice (a) => (b) { b = Add (a, a) }",
         17, {}),
    ]  # fmt: skip
    return [
        _model(body, opset, 8, **weights).SerializeToString() for body, opset, weights in bodies
    ]


def _check(content: bytes) -> bool:
    """True if the file was accepted; anything but a person's error is a failure."""
    try:
        imported = import_onnx(content)
    except (UnsupportedError, UsageError) as problem:
        faults = problem.faults
    else:
        imported.graph.verify()
        return True
    assert faults
    assert all(fault.code in codes.CODES for fault in faults)
    return False


def test_seeds_are_sound(seeds: list[bytes]) -> None:
    """Before they are damaged, all are accepted."""
    for content in seeds:
        import_onnx(content)


@pytest.mark.parametrize("seed", range(3))
def test_changed_bytes(seed: int, seeds: list[bytes]) -> None:
    """Bytes flipped, dropped, inserted, the end cut off."""
    rng = random.Random(seed)
    for _ in range(300):
        content = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.randrange(len(content))
            match rng.randrange(5):
                case 0:
                    content[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
                case 1:
                    content[place] ^= 1 << rng.randrange(8)
                case 2:
                    del content[place : place + rng.randrange(1, 6)]
                case 3:
                    content[place:place] = rng.randbytes(3)
                case _:
                    content = content[: place + 1]
        _check(bytes(content))


@pytest.mark.parametrize("seed", range(3))
def test_changed_fields(seed: int, seeds: list[bytes]) -> None:
    """Well-formed files with absurd numbers, names, missing and doubled parts."""
    rng = random.Random(seed)
    accepted = 0
    for _ in range(300):
        model = ModelProto.FromString(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 3))):
            _spoil(model, rng)
        accepted += _check(model.SerializeToString())
    assert 10 < accepted < 290  # the changes are neither harmless nor always fatal


def _fields(message: Message) -> Iterator[tuple[Message, str]]:
    for descriptor, held in message.ListFields():
        yield message, descriptor.name
        for inner in [held] if isinstance(held, Message) else held if _many(held) else ():
            if isinstance(inner, Message):
                yield from _fields(inner)


def _many(held: object) -> bool:
    return not isinstance(held, str | bytes | int | float | bool | Message)


def _other(held: object, rng: random.Random) -> object:
    if isinstance(held, bool | int):
        return rng.choice(INTEGERS)
    if isinstance(held, float):
        return rng.choice(FLOATS)
    return rng.choice(TEXTS) if isinstance(held, str) else rng.choice(BYTES)


def _spoil(model: ModelProto, rng: random.Random) -> None:
    """Change one field anywhere in the model."""
    message, name = rng.choice([*_fields(model)])
    held = getattr(message, name)
    try:
        if isinstance(held, Message) or rng.random() < 0.1:
            message.ClearField(name)
        elif not _many(held):
            setattr(message, name, _other(held, rng))
        else:
            place = rng.randrange(len(held))
            if rng.random() < 0.3:
                del held[place]
            elif isinstance(held[place], Message):
                held.add().CopyFrom(held[place])
            else:
                held[place] = _other(held[place], rng)
    except (TypeError, ValueError):
        return  # a number that the field cannot hold


def test_deep_nesting_is_refused(model: Build) -> None:
    """Graphs in attributes of graphs, until the parser gives up."""
    proto = model("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    content = proto.graph.SerializeToString()
    for _ in range(120):  # GraphProto.node.attribute.g, again and again
        attribute = b"\x0a\x01a\x32" + _length(content) + content
        node = b"\x22\x01N\x12\x01y\x2a" + _length(attribute) + attribute
        content = b"\x0a" + _length(node) + node
    assert not _check(b"\x08\x08\x3a" + _length(content) + content)


def _length(content: bytes) -> bytes:
    size, found = len(content), b""
    while size > 127:
        found += bytes([size % 128 + 128])
        size //= 128
    return found + bytes([size])
