"""What an engine hands back, the same for both, and how it says that it cannot go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cimc.errors import Fault, StallError
from cimc.sim.simulate.image import Integers
from cimc.sim.simulate.plan import Plan

StallKey: TypeAlias = tuple[int, str, str]  # step, cause ("unit" ...), unit or buffer


@dataclass
class Outcome:
    """Counts and times of one run; all lists are by step but `ends`, which is by sample."""

    streams: list[int]  # of each step
    executed: list[int]
    first_start: list[int]
    last_end: list[int]
    ends: list[int]  # when all of a sample was done
    stalls: dict[StallKey, int] = field(default_factory=dict)
    trace_limit: int = 0
    trace: list[tuple[int, int]] = field(default_factory=list)  # step, start
    simulated: int = 0  # instructions executed one by one, not by arithmetic
    latest: list[int] = field(default_factory=list)  # of each stream: latest end so far

    @classmethod
    def empty(cls, plan: Plan, samples: int, trace: int) -> Outcome:
        """Nothing executed yet."""
        count = len(plan.steps)
        streams = [step.stream for step in plan.steps]
        none = [0] * count
        outcome = cls(streams, none.copy(), none.copy(), none.copy(), [0] * samples)
        outcome.trace_limit = trace
        outcome.latest = [0] * len(plan.bodies)
        return outcome

    def note(self, step: int, start: int, end: int) -> None:
        """One execution of a step."""
        if not self.executed[step]:
            self.first_start[step] = start
        self.executed[step] += 1
        self.simulated += 1
        self.last_end[step] = end
        stream = self.streams[step]
        self.latest[stream] = max(self.latest[stream], end)
        if len(self.trace) < self.trace_limit:
            self.trace.append((step, start))

    def stall(self, step: int, cause: tuple[str, str], cycles: int) -> None:
        """A step pushed its stream's front by some cycles because of `cause`."""
        key = (step, *cause)
        self.stalls[key] = self.stalls.get(key, 0) + cycles

    def finish(self, stream: int, sample: int) -> None:
        """A stream is through with a sample."""
        self.ends[sample] = max(self.ends[sample], self.latest[stream])


@dataclass(frozen=True)
class Snapshot:
    """An engine's state: moments, and everything else as text or bytes that must be equal."""

    times: Integers
    shape: object
    lowest: int  # earliest start since the snapshot before


def repeats(earlier: Snapshot, later: Snapshot, lowest: int) -> int:
    """By how many cycles `later` is `earlier` all over again; 0 if it is not.

    Every moment must have moved by the same amount, or not at all and lie before `lowest`, the
    earliest start in between: then it has decided nothing, and never will again.
    """
    if earlier.shape != later.shape or earlier.times.shape != later.times.shape:
        return 0
    moved = later.times - earlier.times
    shift = int(moved.max(initial=0))
    is_still = (moved == 0) & (later.times < lowest)
    return shift if bool(((moved == shift) | is_still).all()) else 0


@dataclass(frozen=True, slots=True)
class Blocked:
    """A stream that cannot go on: it needs progress on a buffer, or its readers to be done."""

    stream: int
    buffer: str
    need: int | None = None
    have: int | None = None

    @staticmethod
    def stall(plan: Plan, blocked: Sequence[Blocked]) -> StallError:
        """The error that says who waits for what."""
        return StallError([_blocked_fault(plan, item) for item in blocked])


def _blocked_fault(plan: Plan, item: Blocked) -> Fault:
    name = plan.names[item.stream]
    if item.need is None:
        return Fault(
            f"stream {name} waits forever to overwrite %{item.buffer}",
            need="all readers of an earlier sample to be done",
            code="CIM6002",
        )
    sources = [plan.names[number] for number in plan.publishers.get(item.buffer, {})]
    return Fault(
        f"stream {name} waits forever for %{item.buffer}",
        need=f"progress {item.need}",
        have=f"progress {item.have} (signalled by {', '.join(sources) or 'nobody'})",
        code="CIM6001",
    )


def too_long(plan: Plan, limit: str, option: str, outcome: Outcome) -> StallError:
    """The error of a simulation that exceeds a limit of the caller."""
    return StallError(
        Fault(
            f"{plan.program.name}: simulation takes longer than allowed",
            need=f"more than {limit}",
            have=f"{sum(outcome.executed)} of {sum(plan.executions)} instructions of a sample",
            help=f"raise {option}",
            code="CIM6004",
        )
    )
