"""Values on the command line: KEY=VALUE, shapes, sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cimc.errors import Fault, UsageError

Scalar = str | int | float | bool | None
Constant = Scalar | Sequence[Scalar]


def parse_overrides(given: Iterable[str]) -> dict[str, object]:
    """`memory.gb.size_bits=65536` as key and value; values are read as TOML, else as plain text."""
    import tomllib

    found: dict[str, object] = {}
    for item in given:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise UsageError(
                Fault(
                    f"--set {item}", need="KEY=VALUE, such as clock.period_ns=2.0", code="CIM2010"
                )
            )
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value
    return found


def parse_shapes(given: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """`x=1x3x224x224` as name and extents."""
    found: dict[str, tuple[int, ...]] = {}
    for item in given:
        name, separator, extents = item.rpartition("=")
        parts = extents.lower().replace(",", "x").split("x")
        if not separator or not name or not all(part.strip().isdigit() for part in parts):
            raise UsageError(
                Fault(f"--shape {item}", need="NAME=EXTENTS, such as x=1x3x224x224", code="CIM2011")
            )
        found[name] = tuple(int(part) for part in parts)
    return found


def parse_sweep(given: str) -> list[dict[str, Constant]]:
    """The variants of `adc.energy_pj=0.5,1,2`, or `=0.5:2` (five values), or `=0.5:2:3`.

    Several keys vary together: `a+b=1,2` gives both the same value, `a+b=1+10,2+20` each its own.
    Values are read as TOML: `memory.macro.double=[],["W"]`.
    """
    names, separator, text = given.partition("=")
    keys = [key.strip() for key in names.split("+")]
    try:
        if not separator or not all(keys):
            raise ValueError
        values = _range(text) if ":" in text else _list(text, len(keys))
    except ValueError:
        raise UsageError(
            Fault(
                f"--sweep {given}",
                need="KEY=1,2,4 or KEY=FROM:TO or KEY=FROM:TO:COUNT or KEY+KEY=1+10,2+20",
                code="CIM2012",
            )
        ) from None
    return [dict(zip(keys, value, strict=True)) for value in values]


def _range(text: str, most: int = 5) -> list[list[Constant]]:
    first, last, *rest = text.split(":")
    count = int(rest[0]) if rest else most
    if count < 2 or len(rest) > 1:
        raise ValueError
    low, high = float(first), float(last)
    values = [low + (high - low) * step / (count - 1) for step in range(count)]
    whole = all(value.is_integer() for value in values)
    return [[int(value) if whole else value] for value in values]


def _list(text: str, keys: int) -> list[list[Constant]]:
    """Values between commas, of all keys or of each; brackets and quotes hold together."""
    found = []
    for part in _split(text, ","):
        own = _split(part, "+") if keys > 1 else [part]
        if len(own) not in (1, keys):
            raise ValueError
        values = [_value(item) for item in own]
        found.append(values * keys if len(own) == 1 else values)
    return found


def _split(text: str, mark: str) -> list[str]:
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += (letter == "[") - (letter == "]")
        if letter == mark and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(text: str) -> Constant:
    import tomllib

    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        raise ValueError(text) from None
    if not isinstance(value, str | int | float | bool | list):
        raise ValueError(text)
    return value
