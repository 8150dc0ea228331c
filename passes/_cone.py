"""Elementwise expressions over values and numbers: which values they read, what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from cimc.ir import ops
from cimc.ir.evaluate.functions import BINARY, UNARY
from cimc.ir.graph import Op, Value
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Array
from cimc.passes._weights import Floats

Elementwise: TypeAlias = ops.Unary | ops.Binary


def is_number(new: Rewrite, value: Value) -> bool:
    """True for a constant of one element."""
    array = new.array(value)
    return array is not None and array.size == 1


def read(new: Rewrite, op: Op | None) -> dict[str, Value]:
    """What an elementwise float op reads, numbers aside; nothing if it broadcasts or converts."""
    if not isinstance(op, ops.Unary | ops.Binary):
        return {}
    operands = (op.x,) if isinstance(op, ops.Unary) else (op.a, op.b)
    found = {value.name: value for value in operands if not is_number(new, value)}
    alike = op.out.type.dtype == "f32" and all(v.type == op.out.type for v in found.values())
    return found if alike else {}


def computed(new: Rewrite, op: Elementwise, known: Mapping[str, Floats]) -> Floats:
    """The op's result in float32 where the values it comes from are `known` by name."""

    def number(value: Value) -> Floats:
        if value.name in known:
            return known[value.name]
        array: Array | None = new.array(value)
        if array is not None:
            return array.reshape(()).astype(np.float32)
        maker = new.maker(value)
        assert isinstance(maker, ops.Unary | ops.Binary)
        return computed(new, maker, known)

    with np.errstate(all="ignore"):
        if isinstance(op, ops.Unary):
            return np.asarray(UNARY[op.fn](number(op.x), op.alpha, op.beta), np.float32)
        return np.asarray(BINARY[op.fn](number(op.a), number(op.b)), np.float32)
