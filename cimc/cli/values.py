"""Values on the command line: KEY=VALUE, shapes, sizes."""

from __future__ import annotations

from collections.abc import Iterable

from cimc.errors import Fault, UsageError

Scalar = str | int | float | bool | None


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


def parse_sweep(given: str) -> tuple[str, list[Scalar]]:
    """`adc.energy_pj=0.5,1,2`, or `=0.5:2` (five values), or `=0.5:2:3`."""
    key, separator, text = given.partition("=")
    values: list[Scalar] = []
    try:
        if not separator or not key:
            raise ValueError
        if ":" in text:
            first, last, *rest = text.split(":")
            count = int(rest[0]) if rest else 5
            if count < 2 or len(rest) > 1:
                raise ValueError
            low, high = float(first), float(last)
            values += [low + (high - low) * step / (count - 1) for step in range(count)]
        else:
            values += [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            Fault(
                f"--sweep {given}",
                need="KEY=1,2,4 or KEY=FROM:TO or KEY=FROM:TO:COUNT",
                code="CIM2012",
            )
        ) from None
    if all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values if isinstance(value, float)]
    return key, values
