"""A pipeline as text: `canonicalize,tile{host_fallback=true},map{level=2}`.

What a dump prints as its next passes, `-p` accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cimc.errors import Fault, UsageError, raise_if
from cimc.ir import text
from cimc.ir.text import Literal
from cimc.pipeline.passes import Pass, pass_named


@dataclass(frozen=True, slots=True)
class Step:
    """One pass with the options that are not its defaults."""

    name: str
    options: tuple[tuple[str, Literal], ...] = field(default=())

    def __str__(self) -> str:
        return self.name + text.attributes(dict(self.options))


def step(name: str, options: Mapping[str, Literal] | None = None) -> Step:
    """The step `name` with `options`."""
    return Step(name, tuple((options or {}).items()))


def pipeline_text(steps: Iterable[Step]) -> str:
    """The text that `parse_pipeline` reads back."""
    return ",".join(str(item) for item in steps)


def parse_pipeline(source: str) -> tuple[Step, ...]:
    """Read `pass,pass{option=value}`; an empty text is no passes."""
    scanner = text.Scanner(source, "-p")
    steps: list[Step] = []
    while not scanner.done:
        name = scanner.take()
        options = {key.replace("-", "_"): value for key, value in scanner.attributes().items()}
        steps.append(step(name, options))
        if not scanner.done:
            scanner.take(",")
    return tuple(steps)


def resolve(steps: Iterable[Step]) -> tuple[tuple[Step, Pass], ...]:
    """Each step with its pass; raises UsageError with a fault for every unknown pass or option."""
    found: list[tuple[Step, Pass]] = []
    faults: list[Fault] = []
    for item in steps:
        try:
            known = pass_named(item.name)
        except UsageError as problem:
            faults += problem.faults
            continue
        faults += known.option_faults(dict(item.options))
        found.append((item, known))
    raise_if(faults, UsageError)
    return tuple(found)
