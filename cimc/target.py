"""Target files: one TOML file says everything about one machine, each number with its unit and its
source.

A file names its machine `kind`; the kind's module adds the schema of its own tables (array, adc, ap
...) to the common ones here. Unknown keys and wrong types are faults that name the key's path and
the nearest known one. The table-level key `source` says where the numbers of that table come from;
`source = "assumed"` marks what nobody published, and so does a key-level entry `assumed =
["read_pj_per_bit", ...]` inside a table with a source. No other place in the project holds a
physical constant.
"""

from __future__ import annotations

import difflib
import functools
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cimc.errors import Fault, UsageError
from cimc.target_files import target_files

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]

KINDS_GROUP = "cimc.kinds"  # entry points: a machine kind


class Table(BaseModel):
    """A table of a target file; every table says where its numbers come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    error: str = ""  # known uncertainty of the numbers, "25 % (read off a plot)"
    assumed: tuple[str, ...] = ()  # keys of this table that nobody published


class Clock(Table):
    """The digital clock that all cycles count in."""

    period_ns: PositiveFloat


class Memory(Table):
    """One level of the memory hierarchy."""

    size_bits: PositiveInt
    per: Literal["chip", "core"]
    ports: Literal["shared", "separate"] = "shared"  # one read-write port, or one of each
    read_bits_per_cycle: PositiveInt
    write_bits_per_cycle: PositiveInt
    latency_cycles: Annotated[int, Field(ge=0)] = 0
    read_pj_per_bit: NonNegative
    write_pj_per_bit: NonNegative
    leakage_pj_per_cycle: NonNegative = 0.0
    area_mm2: NonNegative = 0.0
    holds: tuple[Literal["I", "W", "O"], ...] = ("I", "W", "O")


class Vector(Table):
    """The digital unit for all that is no matrix product; one per core, or one per chip."""

    per: Literal["chip", "core"]
    lanes: PositiveInt  # elements per cycle for simple integer operations
    float_lanes: PositiveInt  # elements per cycle for float32 operations (exp, divide ...)
    op_pj: NonNegative  # per element, simple integer operation
    float_op_pj: NonNegative  # per element, float32 operation
    area_mm2: NonNegative = 0.0


class Link(Table):
    """The on-chip network between cores and shared memories."""

    bits_per_cycle: PositiveInt
    hop_cycles: Annotated[int, Field(ge=0)] = 1
    pj_per_bit: NonNegative
    area_mm2: NonNegative = 0.0


class TargetSpec(BaseModel):
    """What every target file holds. A machine kind subclasses this with its own tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reductions: ClassVar[tuple[str, ...]] = ()  # passes after map that make less arithmetic

    kind: str
    summary: str
    source: str
    requant: Literal["float", "fixed"] = "float"
    cores: PositiveInt
    clock: Clock
    memory: dict[str, Memory]  # outermost level first
    vector: Vector
    link: Link


@dataclass(frozen=True, slots=True)
class Target:
    """A machine: its name, where it was read, its kind's name, and its validated content."""

    name: str
    path: str
    spec: TargetSpec

    @property
    def kind(self) -> str:
        """Name of the machine kind."""
        return self.spec.kind

    def assumed_keys(self) -> tuple[str, ...]:
        """Dotted keys of every constant that nobody published."""
        return tuple(_assumed(self.spec, ""))

    def cycles_to_ms(self, cycles: float) -> float:
        """Cycles of this machine's clock in milliseconds."""
        return cycles * self.spec.clock.period_ns * 1e-6


def _assumed(node: BaseModel, prefix: str) -> Iterator[str]:
    for key in type(node).model_fields:
        value = getattr(node, key)
        children = value.items() if isinstance(value, dict) else [("", value)]
        for name, child in children:
            path = ".".join(part for part in (prefix, key, name) if part)
            if isinstance(child, BaseModel):
                yield from _assumed(child, path)
            elif isinstance(node, Table) and key not in ("source", "error", "assumed"):
                given = key in node.model_fields_set
                if given and (node.source == "assumed" or key in node.assumed):
                    yield path


# --- finding and reading -------------------------------------------------------------------------


def load_target(name: str | Path, overrides: Mapping[str, object] | None = None) -> Target:
    """Read the target called `name`, or the file at that path; `overrides` replaces values by
    dotted key.

    raises  UsageError with one fault for each unknown target, unreadable file, unknown key, wrong
    type or unit
    """
    path = _locate(str(name))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise UsageError(
            Fault(f"{path}: cannot read this target file", have=str(problem), code="CIM2001")
        ) from None
    for key, value in (overrides or {}).items():
        _override(content, key, value, path)
    spec = _spec_class(content.get("kind"), path)
    try:
        return Target(path.stem, str(path), spec.model_validate(content))
    except ValidationError as problem:
        raise UsageError(_faults(problem, path, spec)) from None


def _locate(name: str) -> Path:
    path = Path(name)
    if path.suffix == ".toml" or os.sep in name:
        if path.is_file():
            return path
        raise UsageError(Fault(f"{name}: no such target file", code="CIM2002"))
    files = target_files()
    if name in files:
        return files[name]
    near = difflib.get_close_matches(name, files, n=1)
    raise UsageError(
        Fault(
            f"no target is called {name!r}",
            have=", ".join(files),
            help=f"did you mean {near[0]}?"
            if near
            else "`cimc targets` lists them; a path to a .toml file works, too",
            code="CIM2003",
        )
    )


@functools.cache
def kind_entries() -> dict[str, metadata.EntryPoint]:
    """Every machine kind that can be named: name -> entry point (its module is not imported)."""
    return {entry.name: entry for entry in metadata.entry_points(group=KINDS_GROUP)}


def _spec_class(kind: object, path: Path) -> type[TargetSpec]:
    entries = kind_entries()
    if not isinstance(kind, str) or kind not in entries:
        raise UsageError(
            Fault(
                f"{path}: unknown machine kind",
                need=", ".join(sorted(entries)),
                have=repr(kind),
                code="CIM2004",
            )
        )
    module_name = entries[kind].module
    spec_module = __import__(f"{module_name}_spec", fromlist=["SPEC"])
    spec = spec_module.SPEC
    if not (isinstance(spec, type) and issubclass(spec, TargetSpec)):
        raise UsageError(
            Fault(f"kind {kind}: {module_name}_spec.SPEC is no TargetSpec", code="CIM2005")
        )
    return spec


def _override(content: dict[str, object], key: str, value: object, path: Path) -> None:
    *parents, last = key.split(".")
    node: object = content
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise UsageError(
            Fault(
                f"{path}: no key {key}",
                help="`cimc targets show NAME` lists all keys",
                code="CIM2006",
            )
        )
    node[last] = value


def _faults(problem: ValidationError, path: Path, spec: type[BaseModel]) -> list[Fault]:
    found = []
    for item in problem.errors():
        if item["type"] == "value_error":  # keys that contradict each other, by the kind's rules
            rules = item["msg"].removeprefix("Value error, ").split("; ")
            help = "change one of the keys that it names, in the file or with --set"
            found += [Fault(f"{path}: {rule}", help=help, code="CIM2009") for rule in rules]
            continue
        key = ".".join(str(part) for part in item["loc"])
        hint = ""
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), _known_keys(spec), n=1)
            hint = f"did you mean {near[0]}?" if near else ""
        have = "" if item["type"] == "missing" else repr(item["input"])[:80]
        found.append(
            Fault(f"{path}: {key}", need=item["msg"], have=have, help=hint, code="CIM2007")
        )
    return found


def _known_keys(spec: type[BaseModel]) -> set[str]:
    keys: set[str] = set()
    for model in (spec, *_submodels(spec)):
        keys.update(model.model_fields)
    return keys


def _submodels(spec: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for item in spec.model_fields.values():
        for candidate in (item.annotation, *getattr(item.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield candidate
                yield from _submodels(candidate)
