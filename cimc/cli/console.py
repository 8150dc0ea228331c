"""What a verb says and where: results to stdout, messages to stderr, faults as blocks or JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO, TypeAlias

import click

from cimc.errors import CimcError, CimcWarning, Fault, UsageError

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | dict[str, Json] | None"


@dataclass
class Console:
    """The two streams of a command and how much goes to them; one per invocation."""

    json: bool = False
    verbosity: int = 0  # -1 quiet, 0 normal, 1 and more: details
    debug: bool = False
    color: bool | None = None  # None: only on a terminal
    fatal_warnings: bool = False
    warnings: list[Fault] = field(default_factory=list)
    answered: bool = False  # a --json answer was given, so a failure adds none

    def result(self, data: Json, text: str | Callable[[], str]) -> None:
        """The answer of a verb: `data` with --json, else `text`."""
        if self.json:
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
            self.answered = True
        else:
            click.echo(text if isinstance(text, str) else text(), color=self.color)

    def note(self, message: str) -> None:
        """A message for people, silent with -q."""
        if self.verbosity >= 0:
            click.echo(message, err=True, color=self.color)

    def detail(self, message: str) -> None:
        """A message that only -v shows."""
        if self.verbosity >= 1:
            click.echo(message, err=True, color=self.color)

    @property
    def is_live(self) -> bool:
        """True where a person watches: progress may redraw its line."""
        return self.verbosity >= 0 and sys.stderr.isatty()

    def fault(self, fault: Fault, severity: str = "error") -> None:
        """One fault as a block, its first word coloured."""
        body = str(fault).removeprefix("error")
        tint = "red" if severity == "error" else "yellow"
        click.echo(click.style(severity, fg=tint, bold=True) + body, err=True, color=self.color)

    def failure(self, problem: CimcError) -> None:
        """All faults of an error, then how many there were; with --json as an object, too."""
        for fault in problem.faults:
            self.fault(fault)
        count, warned = len(problem.faults), len(self.warnings)
        if count > 1 or warned:
            self.note(f"{count} {_plural('error', count)}, {warned} {_plural('warning', warned)}")
        if self.json and not self.answered:
            faults: list[Json] = [fault_json(fault) for fault in problem.faults]
            click.echo(json.dumps({"ok": False, "exit": problem.exit_code, "faults": faults}))

    def raise_warnings(self) -> None:
        """With -Werror, end here if there was a warning: called before anything is written."""
        if self.fatal_warnings and self.warnings:
            raise UsageError(
                dataclasses.replace(fault, help=fault.help or "leave out -Werror")
                for fault in self.warnings
            )

    def take_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Stands in for `warnings.showwarning` while a verb runs."""
        if isinstance(message, CimcWarning):
            self.warnings.append(message.fault)
            if self.verbosity >= 0:
                self.fault(message.fault, "warning")
        elif self.debug:
            self.note(warnings.formatwarning(message, category, filename, lineno, line).rstrip())


def fault_json(fault: Fault) -> dict[str, Json]:
    """The parts of a fault that are set."""
    found: dict[str, Json] = {
        item.name: str(getattr(fault, item.name))
        for item in dataclasses.fields(fault)
        if item.name != "context" and getattr(fault, item.name)
    }
    if fault.context:
        found["context"] = dict(fault.context)
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Plain columns as wide as their widest cell; columns in `right` are flushed right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"
