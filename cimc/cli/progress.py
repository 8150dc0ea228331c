"""What a person sees while long work goes on: numbered phases, and a bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from cimc.cli.console import Console
from cimc.pipeline.passes import State
from cimc.pipeline.phases import PHASES, phase_of
from cimc.pipeline.run import Observer, Place

T = TypeVar("T")


class Phases(Observer):
    """One line for each phase of a compilation, with -v one for each pass."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds = 0.0

    def done(self, phase: str, seconds: float) -> None:
        """Say that a phase is over."""
        number = PHASES.index(phase) + 1
        self.console.note(f"[{number}/{len(PHASES)}] {phase:<10}{seconds:6.2f} s")

    def after(self, place: Place, before: State, state: State, seconds: float) -> None:
        """Say what was done."""
        self.seconds += seconds
        self.console.detail(f"      {place.step}  {seconds:.2f} s")
        phase = phase_of(place.known)
        following = place.steps[1:2]
        if not following or _phase(following[0].name) != phase:
            self.done(phase, self.seconds)
            self.seconds = 0.0


def _phase(name: str) -> str:
    from cimc.pipeline.passes import pass_named

    return phase_of(pass_named(name))


def followed(console: Console, items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, with a bar on stderr where a person watches and it takes more than a moment."""
    if not console.is_live or total < 2:
        yield from items
        return
    from rich.console import Console as Terminal
    from rich.progress import track

    yield from track(
        items, description=what, total=total, console=Terminal(stderr=True), transient=True
    )
