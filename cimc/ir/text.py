"""The words of every text form: a scanner for reading, `literal` for writing.

All dumps share these words: names (`%conv1.out`), types (`i8[1,64]<0.5,0>`), numbers, quoted
strings, tuples in parentheses, `none`, `true`, `false`. What `literal` writes, `Scanner.literal`
reads back equal.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TypeAlias

from cimc.errors import CimcError, Fault
from cimc.ir.types import DTYPES, Quant, Type

Literal: TypeAlias = "int | float | bool | str | tuple[Literal, ...] | None"

_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*\n\s*)*(?:
      (?P<name>%(?:[A-Za-z0-9_./$-]+|"(?:[^"\\]|\\.)*"))
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<number>[-+]?(?:inf\b|nan\b|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))
    | (?P<word>[A-Za-z_][A-Za-z0-9_.-]*)
    | (?P<mark>->|[\[\](){}<>,:=@*+;|/-])
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"[A-Za-z0-9_./$-]+\Z")


class TextError(CimcError):
    """A dump or a mapping that cannot be read, with line and column."""

    exit_code = 2


def name(value_name: str) -> str:
    """The name of a value as text: `%conv1`, or `%"odd name"` where it holds other characters."""
    return f"%{value_name}" if _PLAIN.match(value_name) else f"%{json.dumps(value_name)}"


def literal(value: Literal) -> str:
    """One attribute value as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    return f"({', '.join(literal(item) for item in value)}{',' if len(value) == 1 else ''})"


@dataclass(slots=True)
class Scanner:
    """Reads a text form word by word; every error names file, line and column."""

    text: str
    path: str = "<text>"
    position: int = 0
    _kind: str = field(default="", init=False)
    _token: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._advance()

    def _advance(self) -> None:
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            rest = self.text[self.position :]
            self._token = rest.lstrip()[:1]
            self.position += len(rest) - len(rest.lstrip()) + len(self._token)
            raise self.error("a word, a name or a number")
        self._kind = kind = match.lastgroup or "end"
        self._token = match[kind]
        self.position = match.end()

    @property
    def done(self) -> bool:
        """True at the end of the text."""
        return self._kind == "end"

    def error(self, need: str, have: str | None = None) -> TextError:
        """A fault at the current place."""
        start = self.position - len(self._token)
        line = self.text.count("\n", 0, start) + 1
        column = start - (self.text.rfind("\n", 0, start) + 1) + 1
        shown = self._token if have is None else have
        return TextError(
            Fault(
                f"{self.path}:{line}:{column}: cannot read this",
                need=need,
                have=shown or "end of text",
                code="CIM1001",
            )
        )

    def peek(self, *tokens: str) -> bool:
        """True if the next word is one of `tokens`."""
        return self._token in tokens and self._kind in ("word", "mark")

    def peek_kind(self, kind: str) -> bool:
        """True if the next word is a `name`, `string`, `number`, `word` or `mark`."""
        return self._kind == kind

    def take(self, *tokens: str) -> str:
        """The next word, which must be one of `tokens` (any plain word if none is given)."""
        ok = (
            self._token in tokens and self._kind in ("word", "mark")
            if tokens
            else self._kind == "word"
        )
        if not ok:
            raise self.error(" or ".join(repr(token) for token in tokens) if tokens else "a word")
        token = self._token
        self._advance()
        return token

    def accept(self, token: str) -> bool:
        """Take `token` if it is next."""
        if self._token == token and self._kind in ("word", "mark"):
            self._advance()
            return True
        return False

    def name(self) -> str:
        """A value's name without its `%`."""
        if self._kind != "name":
            raise self.error("a value such as %x")
        token = self._token[1:]
        self._advance()
        return str(json.loads(token)) if token.startswith('"') else token

    def string(self) -> str:
        """A quoted string."""
        if self._kind != "string":
            raise self.error("a quoted string")
        token = self._token
        self._advance()
        return str(json.loads(token))

    def number(self) -> int | float:
        """An integer or a float."""
        if self._kind != "number":
            raise self.error("a number")
        token = self._token
        self._advance()
        try:
            return int(token)
        except ValueError:
            return float(token)

    def integer(self) -> int:
        """An integer."""
        value = self.number()
        if isinstance(value, float):
            raise self.error("an integer", str(value))
        return value

    def literal(self) -> Literal:
        """Whatever `literal` writes."""
        if self._kind == "string":
            return self.string()
        if self._kind == "number":
            return self.number()
        if self.peek("none", "true", "false"):
            return {"none": None, "true": True, "false": False}[self.take("none", "true", "false")]
        self.take("(")
        items: list[Literal] = []
        while not self.accept(")"):
            items.append(self.literal())
            if not self.peek(")"):
                self.take(",")
        return tuple(items)

    def attributes(self) -> dict[str, Literal]:
        """`{a=1, b="x"}`, or nothing at all."""
        found: dict[str, Literal] = {}
        if self.accept("{"):
            while not self.accept("}"):
                key = self.take()
                self.take("=")
                found[key] = self.literal()
                if not self.peek("}"):
                    self.take(",")
        return found

    def type(self) -> Type:
        """A value's type."""
        dtype = self.take()
        if dtype not in DTYPES:
            raise self.error(f"an element type ({', '.join(DTYPES)})", dtype)
        self.take("[")
        shape: list[int] = []
        while not self.accept("]"):
            shape.append(self.integer())
            if not self.peek("]"):
                self.take(",")
        quant = None
        if self.accept("<"):
            scale = float(self.number())
            self.take(",")
            quant = Quant(scale, self.integer())
            self.take(">")
        return Type(dtype, tuple(shape), quant)


def attributes(values: dict[str, Literal]) -> str:
    """`{a=1, b="x"}` in the given order, or nothing for none."""
    if not values:
        return ""
    return "{" + ", ".join(f"{key}={literal(value)}" for key, value in values.items()) + "}"
