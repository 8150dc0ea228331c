"""Observers of a pipeline: dumps, printing, timing, reproducers."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from cimc.errors import CimcError, Fault, InternalError
from cimc.pipeline.passes import State
from cimc.pipeline.phases import phase_of
from cimc.pipeline.run import Observer, Place
from cimc.pipeline.spec import pipeline_text
from cimc.pipeline.state import save_state


@dataclass
class Dump(Observer):
    """Writes `NN-phase-pass.cir` after each pass; all files of `folder` share their tensors."""

    folder: Path
    offset: int = 0  # dumps written before this pipeline began

    def after(self, place: Place, before: State, state: State, seconds: float) -> None:
        """Write the state with a note of what comes next."""
        phase = phase_of(place.known)
        stem = phase if phase == place.name else f"{phase}-{place.name}"
        path = self.folder / f"{self.offset + place.number:02d}-{stem}.cir"
        save_state(state, path, (f"after: {place.step}", f"next: {pipeline_text(place.steps[1:])}"))


@dataclass
class Print(Observer):
    """Prints states as MLIR tools do: after some passes, after all, on change, on failure."""

    write: Callable[[str], None]
    names: Collection[str] = ()
    all: bool = False
    change: bool = False
    failure: bool = False

    def after(self, place: Place, before: State, state: State, seconds: float) -> None:
        """Print the state if it was asked for."""
        if self.all or place.name in self.names or (self.change and str(state) != str(before)):
            self.write(f"# ----- after {place.step} -----\n{state}")
        elif self.change:
            self.write(f"# ----- after {place.step}: no change -----")

    def failed(self, place: Place, before: State, problem: Exception) -> Fault | None:
        """Print the state that the pass could not take."""
        if self.failure:
            self.write(f"# ----- before {place.step}, which failed -----\n{before}")
        return None


@dataclass
class Timing(Observer):
    """Collects how long each pass took."""

    rows: list[tuple[str, str, float]] = field(default_factory=list)  # phase, pass, seconds

    def after(self, place: Place, before: State, state: State, seconds: float) -> None:
        """Note the time."""
        self.rows.append((phase_of(place.known), place.name, seconds))

    def table(self) -> str:
        """One line per pass, and the sum."""
        total = sum(seconds for _, _, seconds in self.rows)
        lines = [
            f"{seconds:9.3f} s  {100 * seconds / (total or 1):5.1f} %  {phase:9} {name}"
            for phase, name, seconds in self.rows
        ]
        return "\n".join([*lines, f"{total:9.3f} s  100.0 %  total"])


@dataclass
class Reproducer(Observer):
    """On an internal error, saves the state before the pass and says how to replay it."""

    folder: Path
    target: str | None = None  # name or path, as -t takes it
    command: str = ""  # the command line that a person gave

    def failed(self, place: Place, before: State, problem: Exception) -> Fault | None:
        """Write the reproducer; a person's own mistake needs none."""
        if isinstance(problem, CimcError) and not isinstance(problem, InternalError):
            return None
        path = self.folder / f"cimc-reproducer-{place.name}.cir"
        rest = pipeline_text(place.steps)
        machine = ["-t", self.target] if self.target else []
        replay = shlex.join(["cimc", "opt", str(path), *machine, "-p", rest, "--verify-each"])
        try:
            notes = (f"replay: {replay}", f"command: {self.command}", f"next: {rest}")
            save_state(before, path, notes)
        except OSError as refused:
            return Fault("no reproducer could be written", have=str(refused), code="CIM9000")
        return Fault(
            f"a reproducer is in {path}",
            help=replay,
            code="CIM9000",
        )
