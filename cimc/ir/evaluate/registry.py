"""Which function says what an op computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from cimc.errors import Fault, InternalError
from cimc.ir.evaluate.numbers import Numbers
from cimc.ir.graph import Op
from cimc.ir.types import Array

Held = Mapping[str, Numbers]  # arrays of all values made so far, by name (conditions are bool)
OpT = TypeVar("OpT", bound=Op)
_MEANINGS: dict[str, Callable[[Op, Held], Array]] = {}


def meaning(
    op: type[OpT],
) -> Callable[[Callable[[OpT, Held], Array]], Callable[[OpT, Held], Array]]:
    """Decorator: the function computes `op`'s result from the values it reads."""

    def register(function: Callable[[OpT, Held], Array]) -> Callable[[OpT, Held], Array]:
        _MEANINGS[op.mnemonic] = function  # type: ignore[assignment]  # only called with OpT
        return function

    return register


def meaning_of(op: Op) -> Callable[[Op, Held], Array]:
    """The function that computes `op`."""
    if op.mnemonic not in _MEANINGS:
        raise InternalError(Fault(f"{op.out}: nothing says what {op.mnemonic} computes"))
    return _MEANINGS[op.mnemonic]
