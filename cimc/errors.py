"""What can be wrong, as data first and as text second.

A `Fault` is one thing a person has to fix: where it is, what is needed, what there is, what would
help. Checks collect faults; whoever stops the work raises them together in one `CimcError`, so that
a person sees all of them at once. The subclass says which exit code the command line ends with.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One problem: where, need, have, help. `code` is documented, `context` adds labelled lines."""

    where: str  # what does not work, in the user's words: "Softmax is not supported on rtm-ap"
    need: str = ""
    have: str = ""
    help: str = ""
    code: str = ""
    node: str = ""  # ONNX node name, with operator, opset and shapes where known
    context: tuple[tuple[str, str], ...] = field(default=())  # further (label, text) lines

    def __str__(self) -> str:
        """The block that a terminal shows."""
        head = f"error {self.code}: {self.where}" if self.code else f"error: {self.where}"
        lines = [
            ("node", self.node),
            *self.context,
            ("need", self.need),
            ("have", self.have),
            ("help", self.help),
        ]
        shown = [f"  {label + ':':<9}{text}" for label, text in lines if text]
        return "\n".join([head, *shown])


class CimcError(Exception):
    """A problem that is the user's to fix; ends the program with `exit_code` and no traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, faults: Fault | Iterable[Fault] | str) -> None:
        if isinstance(faults, str):
            faults = Fault(where=faults)
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class InternalError(CimcError):
    """A broken promise of our own; ends with 1 and names the reproducer."""

    exit_code = 1


class UsageError(CimcError):
    """Arguments, files or folders that cannot be used as asked."""

    exit_code = 2


class UnsupportedError(CimcError):
    """A model that is broken or uses what the tool or the target cannot do."""

    exit_code = 3


class FitError(CimcError):
    """A model that is understood but larger than the target."""

    exit_code = 4


class VerifyError(CimcError):
    """Two results that must agree and do not, or a program that reads what was never written."""

    exit_code = 5


class StallError(CimcError):
    """A simulation that cannot go on, or took longer than allowed."""

    exit_code = 6


class CimcWarning(UserWarning):
    """Something a person should know although the work goes on."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault).removeprefix("error "))


def warn(fault: Fault) -> None:
    """Issue `fault` as a warning; -Werror makes it an error."""
    warnings.warn(CimcWarning(fault), stacklevel=2)


def raise_if(faults: Iterable[Fault], error: type[CimcError] = CimcError) -> None:
    """Raise all `faults` together as `error`; do nothing where there are none."""
    found = tuple(faults)
    if found:
        raise error(found)
