"""Which function lowers which ONNX operator. This table is what `cimc ops` prints as supported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from cimc.errors import InternalError
from cimc.frontend.lowering.site import Site

# Versions of operators up to this opset were read when the functions were written; a newer version
# of an operator may mean something else and is refused.
KNOWN_OPSET = 28
MICROSOFT = "com.microsoft"

Function = Callable[[Site], None]


@dataclass(frozen=True, slots=True)
class Lowering:
    """How one operator comes into the graph."""

    domain: str
    op_type: str
    function: Function
    note: str  # what is not supported of it, or how it is treated; for the support table
    constants_only: bool  # computed at import, from operands known at import


_LOWERINGS: dict[tuple[str, str], Lowering] = {}


def lowers(
    *op_types: str, note: str = "", domain: str = "", constants_only: bool = False
) -> Callable[[Function], Function]:
    """Decorator: the function lowers these operators; it emits ops through its `Site`."""

    def add(function: Function) -> Function:
        for op_type in op_types:
            key = (domain, op_type)
            if key in _LOWERINGS:
                raise InternalError(f"two functions lower {op_type}")
            _LOWERINGS[key] = Lowering(domain, op_type, function, note, constants_only)
        return function

    return add


def lowering_of(domain: str, op_type: str) -> Lowering | None:
    """The lowering of an operator, if there is one."""
    return _LOWERINGS.get((domain, op_type))


def supported_operators() -> tuple[tuple[str, str], ...]:
    """Domain and name of every operator that has a lowering."""
    return tuple(sorted(_LOWERINGS))


@dataclass(frozen=True, slots=True)
class Support:
    """One row of the support table."""

    domain: str
    op_type: str
    since: int  # first opset (of the domain) that has it
    until: int  # last opset whose version of the operator is known here
    note: str


def support_table() -> tuple[Support, ...]:
    """Every supported operator, ONNX's own first, in alphabetical order."""
    rows: list[Support] = []
    newest = min(KNOWN_OPSET, onnx.defs.onnx_opset_version())
    histories: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            histories.setdefault(schema.name, []).append(schema)
    for (domain, op_type), lowering in sorted(_LOWERINGS.items()):
        since, until = (7, newest) if not domain else (1, 1)
        if not domain:
            history = histories.get(op_type)
            if history is None:
                continue  # an operator newer than the installed onnx package
            since = max(since, min(schema.since_version for schema in history))
            last = max(history, key=lambda schema: schema.since_version)
            until = last.since_version - 1 if last.deprecated else newest
        rows.append(Support(domain, op_type, since, until, lowering.note))
    return tuple(rows)
