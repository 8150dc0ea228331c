"""Running passes one after the other, with verification and observers.

    state = run_pipeline(graph, parse_pipeline("canonicalize,tile,map"), target=target)

Observers see each state: dumps, printing, timing and reproducers are in `cimc.pipeline.observe`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cimc.errors import CimcError, Fault, InternalError
from cimc.ir.program import Program
from cimc.pipeline.passes import Pass, State
from cimc.pipeline.spec import Step, resolve
from cimc.pipeline.state import parse_state
from cimc.pipeline.tell import Searching, listening
from cimc.target import Target

Verify: TypeAlias = Literal["none", "final", "each"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a pipeline a pass is: its number from 1, and the steps from it on."""

    number: int
    count: int
    step: Step
    known: Pass
    steps: tuple[Step, ...]  # this one and those after it

    @property
    def name(self) -> str:
        """Name of the pass."""
        return self.step.name


class Observer:
    """Sees what a pipeline does; subclasses override what they need."""

    def before(self, place: Place, state: State) -> None:
        """`state` is about to be given to the pass."""

    def told(self, place: Place, news: Searching) -> None:
        """The pass, which still runs, says how far it is."""

    def after(self, place: Place, before: State, state: State, seconds: float) -> None:
        """The pass made `state` from `before`."""

    def failed(self, place: Place, before: State, problem: Exception) -> Fault | None:
        """The pass ended with `problem`; a fault returned here is added to an internal error."""
        return None


def run_pipeline(
    state: State,
    steps: Iterable[Step],
    *,
    target: Target | None = None,
    verify: Verify = "final",
    observers: Sequence[Observer] = (),
    done: int = 0,
    later: Sequence[Step] = (),
) -> State:
    """Apply the passes in order.

    Of a longer pipeline, `done` passes ran before and `later` ones are still to come.
    `verify` "each" checks every state and that its text reads back equal, "final" only the last.
    raises  UsageError before the first pass if a pass or an option is unknown; InternalError if a
            pass breaks, with what observers note about it; what else a pass raises
    """
    known = resolve(steps)
    count = done + len(known) + len(later)
    for number, (step, item) in enumerate(known, 1):
        rest = tuple(following for following, _ in known[number - 1 :])
        place = Place(done + number, count, step, item, (*rest, *later))
        state = _run(place, state, target, verify, observers)
    if verify == "final" and known:
        verify_state(state, known[-1][0].name)
    return state


def _run(
    place: Place,
    before: State,
    target: Target | None,
    verify: Verify,
    observers: Sequence[Observer],
) -> State:
    for observer in observers:
        observer.before(place, before)

    def told(news: Searching) -> None:
        for observer in observers:
            observer.told(place, news)

    start = time.perf_counter()
    try:
        with listening(told):
            state = place.known.run(before, dict(place.step.options), target)
        seconds = time.perf_counter() - start
        if verify == "each":
            verify_state(state, place.name)
    except Exception as problem:
        notes = [observer.failed(place, before, problem) for observer in observers]
        if isinstance(problem, CimcError) and not isinstance(problem, InternalError):
            raise
        raise _broken(place, problem, [note for note in notes if note is not None]) from problem
    for observer in observers:
        observer.after(place, before, state, seconds)
    return state


def _broken(place: Place, problem: Exception, notes: list[Fault]) -> InternalError:
    if isinstance(problem, InternalError):
        faults = list(problem.faults)
    else:
        faults = [
            Fault(
                f"pass {place.name} broke: {type(problem).__name__}: {problem}",
                have=_line(problem),
                help="--debug shows the traceback",
                code="CIM9000",
            )
        ]
    return InternalError([*faults, *notes])


def _line(problem: Exception) -> str:
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}"


def verify_state(state: State, made_by: str) -> None:
    """Raise InternalError if `state` is not sound or its text does not read back equal."""
    if not isinstance(state, Program):
        state.verify()
    source = str(state)
    again = parse_state(source, dict(state.tensors), f"after {made_by}")
    if again != state:
        first = next(
            (
                (old, new)
                for old, new in zip(source.splitlines(), str(again).splitlines(), strict=False)
                if old != new
            ),
            ("the same text", "another state"),
        )
        raise InternalError(
            Fault(
                f"the text after pass {made_by} does not read back equal",
                need=first[0],
                have=first[1],
                code="CIM9014",
            )
        )
