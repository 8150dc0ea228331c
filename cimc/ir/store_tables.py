"""A program as JSON tables in which everything that recurs stands once.

    objects  what fields hold, each after those that it refers to by number: a number, a text, a
             truth value or null as it is, else a list that begins with a tag:
             "l" a tuple of numbers, texts and tuples    "t" a tuple of objects
             "a" const, [variable, factor, ...]          "v" buffer, offset, axes (three objects)
             "b" start (object), [steps], limit          "o" [[name, type], ...], op as text
    kinds    mnemonics
    order    the kind of each instruction, setup first, then stream by stream
    columns  for each kind: its field names, and for each field the objects of its instructions
    bodies   a number n: the next n instructions; [variable, count, body]: a loop

So each view and affine value is made once, and 30,000 instructions load in a fraction of a second.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from cimc.errors import Fault, InternalError, UsageError
from cimc.ir.graph import Op, Value, op_text, operands, scan_op
from cimc.ir.program import Affine, Bound, Instr, Item, Loop, View, instr_named
from cimc.ir.text import Scanner

Json: TypeAlias = "int | float | bool | str | Sequence[Json] | dict[str, Json] | None"


class Writer:
    """Collects the tables of the instructions of one program."""

    def __init__(self) -> None:
        self._objects: list[Json] = []
        self._numbers: dict[object, int] = {}
        self._kinds: dict[str, int] = {}
        self._order: list[int] = []
        self._fields: list[tuple[str, ...]] = []
        self._columns: list[list[list[int]]] = []

    def tables(self) -> dict[str, Json]:
        """All tables but the bodies."""
        return {
            "objects": self._objects,
            "kinds": list(self._kinds),
            "order": self._order,
            "columns": [
                [fields, columns]
                for fields, columns in zip(self._fields, self._columns, strict=True)
            ],
        }

    def body(self, items: Iterable[Item]) -> list[Json]:
        """Instructions into the tables; their order and their loops as a body."""
        found: list[Json] = []
        run = 0
        for item in items:
            if isinstance(item, Loop):
                found += [run] if run else []
                found.append([item.var, item.count, self.body(item.body)])
                run = 0
            else:
                self._instr(item)
                run += 1
        return [*found, run] if run else found

    def _instr(self, instr: Instr) -> None:
        kind = self._kinds.setdefault(instr.mnemonic, len(self._kinds))
        if kind == len(self._columns):
            self._fields.append(tuple(field.name for field in dataclasses.fields(instr)))
            self._columns.append([[] for _ in self._fields[kind]])
        self._order.append(kind)
        for name, column in zip(self._fields[kind], self._columns[kind], strict=True):
            column.append(self._number(getattr(instr, name)))

    def _number(self, held: object) -> int:
        """The number of an object; objects equal as text have one (1 is not 1.0, 0.0 not -0.0)."""
        key = (type(held), repr(held) if isinstance(held, tuple | float) else held)
        number = self._numbers.get(key)
        if number is None:
            entry = self._entry(held)
            number = self._numbers[key] = len(self._objects)
            self._objects.append(entry)
        return number

    def _entry(self, held: object) -> Json:
        if held is None or isinstance(held, bool | int | float | str):
            return held
        if isinstance(held, View):
            return ["v", *(self._number(part) for part in (held.buffer, held.offset, held.dims))]
        if isinstance(held, Affine):
            return ["a", held.const, [part for term in held.terms for part in term]]
        if isinstance(held, Bound):
            return ["b", self._number(held.start), held.steps, held.limit]
        if isinstance(held, Op):
            known = [[value.name, str(value.type)] for value in dict.fromkeys(operands(held))]
            return ["o", known, op_text(held)]
        if isinstance(held, tuple):
            if _is_literal(held):
                return ["l", held]
            return ["t", *(self._number(part) for part in held)]
        raise InternalError(f"no stored form for {held!r}")


def _is_literal(held: object) -> bool:
    if isinstance(held, tuple):
        return all(map(_is_literal, held))
    return held is None or isinstance(held, bool | int | float | str)


class Reader:
    """Makes the instructions of one program from its tables, in order."""

    def __init__(self, tables: dict[str, typing.Any]) -> None:
        objects: list[object] = []
        for entry in tables["objects"]:
            objects.append(_made(entry, objects) if isinstance(entry, list) else entry)
        makers = [
            _instrs(_class(mnemonic), fields, columns, objects)
            for mnemonic, (fields, columns) in zip(tables["kinds"], tables["columns"], strict=True)
        ]
        self._instrs = (next(makers[kind]) for kind in tables["order"])

    def body(self, rows: Sequence[typing.Any]) -> tuple[Item, ...]:
        """The items of a body; bodies are read in the order in which they were written."""
        items: list[Item] = []
        for row in rows:
            if isinstance(row, int):
                items += [next(self._instrs) for _ in range(row)]
            else:
                var, count, body = row
                items.append(Loop(var, count, self.body(body)))
        return tuple(items)


def _class(mnemonic: str) -> type[Instr]:
    try:
        return instr_named(mnemonic)
    except KeyError:
        raise UsageError(
            Fault(
                f"the program has an instruction {mnemonic} that no machine kind defines",
                help="install the package of the kind that it was compiled for",
                code="CIM2036",
            )
        ) from None


def _instrs(
    make: typing.Callable[..., Instr],
    fields: list[str],
    columns: list[list[int]],
    objects: list[object],
) -> Iterator[Instr]:
    for row in zip(*columns, strict=True):
        yield make(**dict(zip(fields, [objects[number] for number in row], strict=True)))


def _made(entry: list[typing.Any], objects: list[object]) -> object:
    match entry[0]:
        case "v":
            _, buffer, offset, dims = entry
            made: typing.Callable[..., View] = View
            return made(objects[buffer], objects[offset], objects[dims])
        case "a":
            parts = entry[2]
            return Affine(entry[1], tuple(zip(parts[::2], parts[1::2], strict=True)))
        case "l":
            return _tuple(entry[1])
        case "t":
            return tuple([objects[number] for number in entry[1:]])
        case "b":
            start = objects[entry[1]]
            if isinstance(start, Affine):
                return Bound(start, tuple(entry[2]), entry[3])
        case "o":
            values = {name: Value(name, Scanner(kind).type()) for name, kind in entry[1]}
            return scan_op(Scanner(entry[2]), values, {})
    raise ValueError(f"no object has the form {entry!r}")


def _tuple(held: typing.Any) -> typing.Any:
    return tuple([_tuple(part) for part in held]) if isinstance(held, list) else held
