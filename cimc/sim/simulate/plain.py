"""The plain engine: the meaning of `cimc.sim.simulate`'s rules, one instruction after the other."""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from cimc.ir.program import holds
from cimc.sim.simulate.outcome import Blocked, Outcome, Snapshot, too_long
from cimc.sim.simulate.plan import Await, Conditions, Node, Plan, Publish, Repeat, Step

Cause: TypeAlias = tuple[str, str]  # "unit", "data", "space" or "progress"; unit or buffer


@dataclass
class _Frame:
    """A body that a stream is in, and where in it."""

    body: tuple[Node, ...]
    repeat: Repeat | None = None
    position: int = 0
    iteration: int = 0


@dataclass
class _Control:
    """The control of one stream."""

    number: int
    stack: list[_Frame] = field(default_factory=list)
    sample: int = 0
    order: int = 0  # its place in line: no step is taken before others of lower order
    front: int = 0  # latest start so far
    step: Step | None = None  # the next one, if it is known
    blocked: Await | str | None = None  # what it waits for: progress, or readers of a buffer
    finished: bool = False


@dataclass(frozen=True, slots=True)
class _Event:
    """Progress on a buffer: `total` parts since the first sample, there at `time`."""

    total: int
    time: int
    order: int
    stream: int


class PlainEngine:
    """Simulates a plan without any shortcut."""

    def __init__(
        self, plan: Plan, *, samples: int, max_cycles: int | None = None, trace: int = 0
    ) -> None:
        self.plan = plan
        self.samples = samples
        self.max_cycles = max_cycles
        self.controls = [_Control(number) for number in range(len(plan.bodies))]
        self.free = [0] * len(plan.units)
        # Of a buffer, as one stream sees it:
        self.ready: dict[tuple[int, str], int] = {}  # when all written to it is there
        self.released: dict[tuple[int, str], list[int]] = {}  # of each slot, the latest fill first
        self.is_read: set[tuple[int, str]] = set()  # a read followed its latest write
        self.done: dict[tuple[int, str], int] = {}  # when all accesses to it are over
        self.waited: dict[tuple[int, str], int] = {}  # when the progress waited for was there
        self.taken: dict[tuple[int, str], int] = {}  # progress waited for so far
        self.given: dict[tuple[int, str], int] = {}  # when other streams let go of it
        self.events: dict[str, list[_Event]] = {}
        self.let_go: dict[tuple[int, str], list[tuple[int, int]]] = {}  # per sample: time, order
        self.handed_on = [plan.handed_on(stream) for stream in range(len(plan.bodies))]
        self.taken_over: list[set[str]] = [set() for _ in plan.bodies]
        for handed_on in self.handed_on:
            for name, readers in handed_on.items():
                for reader in readers:
                    self.taken_over[reader].add(name)
        self.iterations: dict[int, int] = {}
        self.pause_at = -1  # samples of the first stream
        self.lowest = 2**62  # earliest start or publication since the last snapshot
        self.outcome = Outcome.empty(plan, samples, trace)

    # --- the order of things ---

    def run(self, until: int, time_limit_s: float | None = None) -> None:
        """Go on until the first stream has finished `until` samples, or all have finished.

        raises  StallError if nothing can go on, or a limit is exceeded
        """
        started = time.monotonic()
        self.pause_at = until if until < self.samples else -1
        for turn in range(2**62):
            if turn % 4096 == 0 and time_limit_s and time.monotonic() - started > time_limit_s:
                raise too_long(self.plan, f"{time_limit_s} s", "time_limit_s", self.outcome)
            candidates = [
                (key, control.number)
                for control in self.controls
                if (key := self._key(control)) is not None
            ]
            if not candidates:
                if not all(control.finished for control in self.controls):
                    raise Blocked.stall(self.plan, self._blocked())
                return
            control = self.controls[min(candidates)[1]]
            if control.step is None:
                self._advance(control)
            else:
                self._execute(control, control.step)
                self._advance(control)
            if self._pauses(control):
                self.pause_at = -1
                return

    def _key(self, control: _Control) -> int | None:
        """When the stream's next action has its turn; None if it cannot go on."""
        if control.finished:
            return None
        if control.step is not None:
            return max(control.order, self._start(control.step)[0])
        if isinstance(control.blocked, Await) and not self._reached(control, control.blocked):
            return None
        if isinstance(control.blocked, str) and not self._has_let_go(control, control.blocked):
            return None
        return control.order

    def _advance(self, control: _Control) -> None:
        """Pass loops, signals and waits up to the next step, or to where the stream must wait."""
        control.step = None
        while not control.finished:
            if not control.stack:
                begun = self._begin(control)
                if begun != "blocked":
                    control.stack.append(_Frame(self.plan.bodies[control.number]))
                if begun != "goes on":
                    return
            frame = control.stack[-1]
            if frame.position == len(frame.body):
                self._close(control, frame)
                if self._pauses(control):
                    return
                continue
            node = frame.body[frame.position]
            if isinstance(node, Await) and self._applies(node.conditions):
                if not self._reached(control, node):
                    control.blocked = node
                    return
                control.blocked = None
                frame.position += 1
                if self._wait(control, node):
                    return
                continue
            frame.position += 1
            if isinstance(node, Repeat) and node.count > 0:
                control.stack.append(_Frame(node.body, node))
                self.iterations[node.number] = 0
            elif isinstance(node, Publish) and self._applies(node.conditions):
                self._publish(control, node)
            elif isinstance(node, Step) and self._applies(node.conditions):
                control.step = node
                return

    def _pauses(self, control: _Control) -> bool:
        return control.number == 0 and control.sample == self.pause_at

    def _close(self, control: _Control, frame: _Frame) -> None:
        """The end of a body: next iteration, end of the loop, or end of the sample."""
        if frame.repeat is None:
            control.stack.pop()
            self._finish_sample(control)
        elif frame.iteration + 1 < frame.repeat.count:
            frame.iteration += 1
            frame.position = 0
            self.iterations[frame.repeat.number] = frame.iteration
        else:
            control.stack.pop()

    def _applies(self, conditions: Conditions) -> bool:
        return all(
            holds(word, self.iterations[loop], self.plan.repeats[loop].count)
            for loop, word in conditions
        )

    # --- one instruction ---

    def _constraints(self, step: Step) -> Iterator[tuple[int, Cause]]:
        """When each thing that the step needs is there."""
        plan, stream = self.plan, step.stream
        for unit, _ in step.units:
            yield self.free[unit], ("unit", plan.units[unit])
        for name in (*step.reads, *step.updates):
            yield self.ready.get((stream, name), 0), ("data", name)
            yield self.waited.get((stream, name), 0), ("progress", name)
        for name in (*step.updates, *step.writes):
            slots = self._slots(stream, name)
            fresh = name in step.writes and (stream, name) in self.is_read
            yield slots[-1 if fresh else 0], ("space", name)
            yield self.given.get((stream, name), 0), ("space", name)
            for other in plan.before.get((stream, name), ()):
                yield self.done.get((stream, other), 0), ("space", name)

    def _slots(self, stream: int, name: str) -> list[int]:
        slots = 1 if self.plan.is_shared(name) else self.plan.slots[name]
        return self.released.setdefault((stream, name), [0] * slots)

    def _start(self, step: Step) -> tuple[int, Cause]:
        """When the step can start, and which constraint says so (the first of the latest)."""
        start, cause = 0, ("", "")
        for moment, why in self._constraints(step):
            if moment > start:
                start, cause = moment, why
        return start, cause

    def _execute(self, control: _Control, step: Step) -> None:
        start, cause = self._start(step)
        if self.max_cycles is not None and start > self.max_cycles:
            raise too_long(self.plan, f"{self.max_cycles} cycles", "max_cycles", self.outcome)
        end = start + step.cost.cycles
        over = max(end, start + step.release)
        self.outcome.note(step.number, start, end)
        if start > control.front:
            self.outcome.stall(step.number, cause, start - control.front)
            control.front = start
        control.order = max(control.order, start)
        self.lowest = min(self.lowest, start)
        for unit, cycles in step.units:
            self.free[unit] = start + cycles
        for name in step.writes:
            if (step.stream, name) in self.is_read:  # a new fill, in the slot that is longest free
                slots = self._slots(step.stream, name)
                slots.insert(0, slots.pop())
                self.is_read.discard((step.stream, name))
        for name in (*step.updates, *step.writes):
            self._raise(self.ready, (step.stream, name), end)
        for name in (*step.reads, *step.updates):
            slots = self._slots(step.stream, name)
            slots[0] = max(slots[0], start + step.release)
        self.is_read.update((step.stream, name) for name in step.reads)
        for name in (*step.reads, *step.updates, *step.writes):
            self._raise(self.done, (step.stream, name), over)

    def _raise(self, times: dict[tuple[int, str], int], key: tuple[int, str], moment: int) -> None:
        times[key] = max(times.get(key, 0), moment)

    # --- progress ---

    def _publish(self, control: _Control, node: Publish) -> None:
        if node.buffer not in self.plan.waiters:
            return
        events = self.events.setdefault(node.buffer, [])
        last = events[-1] if events else _Event(0, 0, 0, control.number)
        moment = max(last.time, self.ready.get((control.number, node.buffer), 0))
        self.lowest = min(self.lowest, moment)
        events.append(_Event(last.total + node.count, moment, control.order, control.number))

    def _need(self, control: _Control, node: Await) -> int:
        """Progress since the first sample that a wait asks for; 0 if it asks for none."""
        moves = sum(factor * self.iterations[loop] for loop, factor in node.terms)
        wanted = min(node.const + moves, node.limit)
        if wanted <= 0 or self.plan.is_complete(node.buffer):
            return 0
        return control.sample * self.plan.progress.get(node.buffer, 0) + wanted

    def _event(self, control: _Control, node: Await) -> _Event | None:
        events = self.events.get(node.buffer, [])
        place = bisect.bisect_left(events, self._need(control, node), key=lambda e: e.total)
        return events[place] if place < len(events) else None

    def _reached(self, control: _Control, node: Await) -> bool:
        return self._need(control, node) == 0 or self._event(control, node) is not None

    def _wait(self, control: _Control, node: Await) -> bool:
        """Take the progress; True if the stream has to get in line again."""
        event = self._event(control, node)
        if self._need(control, node) == 0 or event is None:
            return False
        key = (control.number, node.buffer)
        self._raise(self.waited, key, event.time)
        self._raise(self.taken, key, event.total)
        return self._line_up(control, event.order, event.stream)

    def _line_up(self, control: _Control, order: int, stream: int) -> bool:
        """Go behind what another stream did; True if that changes the place in line."""
        if stream == control.number or order + 1 <= control.order:
            return False
        control.order = order + 1
        return True

    # --- samples ---

    def _begin(self, control: _Control) -> Literal["blocked", "in line", "goes on"]:
        """Start a sample, if other streams have let go of what it overwrites."""
        kept = {
            name: readers
            for name, readers in self.handed_on[control.number].items()
            if control.sample >= self.plan.slots[name]
        }
        for name in kept:
            if not self._has_let_go(control, name):
                control.blocked = name
                return "blocked"
        moved = False
        for name, readers in kept.items():
            for reader in readers:
                moment, order = self.let_go[reader, name][control.sample - self.plan.slots[name]]
                self._raise(self.given, (control.number, name), moment)
                moved |= self._line_up(control, order, reader)
        control.blocked = None
        return "in line" if moved else "goes on"

    def _has_let_go(self, control: _Control, name: str) -> bool:
        earlier = control.sample - self.plan.slots[name]
        return all(
            len(self.let_go.get((reader, name), ())) > earlier
            for reader in self.handed_on[control.number][name]
        )

    def _finish_sample(self, control: _Control) -> None:
        for name in self.taken_over[control.number]:
            slots = self.released.get((control.number, name), [0])
            self.let_go.setdefault((control.number, name), []).append((max(slots), control.order))
        self.outcome.finish(control.number, control.sample)
        control.sample += 1
        control.finished = control.sample == self.samples

    # --- for those who watch ---

    @property
    def simulated(self) -> int:
        """Instructions executed so far."""
        return self.outcome.simulated

    @property
    def finished(self) -> int:
        """Samples that all streams are through with."""
        return min(control.sample for control in self.controls)

    def _blocked(self) -> list[Blocked]:
        found = []
        for control in self.controls:
            if isinstance(control.blocked, Await):
                need = self._need(control, control.blocked)
                events = self.events.get(control.blocked.buffer, [])
                have = events[-1].total if events else 0
                found.append(Blocked(control.number, control.blocked.buffer, need, have))
            elif isinstance(control.blocked, str):
                found.append(Blocked(control.number, control.blocked))
        return found

    def snapshot(self) -> Snapshot:
        """All that the future depends on: times, and the rest relative to the first stream."""
        base = self.controls[0].sample
        times: list[int] = list(self.free)
        shape: list[object] = []
        for table in (self.ready, self.done, self.waited, self.given):
            shape.append(sorted(table))
            times += [table[key] for key in sorted(table)]
        for key in sorted(self.released):
            times += self.released[key]
        shape += [sorted(self.released), sorted(self.is_read)]
        for control in self.controls:
            times += [control.order, control.front]
            place = [(frame.position, frame.iteration) for frame in control.stack]
            step = control.step.number if control.step else -1
            shape += [place, step, control.sample - base]
        for name, events in sorted(self.events.items()):
            start = base * self.plan.progress[name]
            takers = [self.taken.get((s, name), 0) for s in self.plan.waiters.get(name, {})]
            pending = [event for event in events if event.total > min(takers, default=2**62)]
            shape += [name, events[-1].total - start, [total - start for total in takers]]
            for event in pending:
                shape += [event.total - start, event.stream]
                times += [event.time, event.order]
            times.append(events[-1].time)
        for control in self.controls:
            for name, readers in self.handed_on[control.number].items():
                earlier = max(0, control.sample - self.plan.slots[name])
                for reader in readers:
                    for record in self.let_go.get((reader, name), [])[earlier:]:
                        times += record
        lowest, self.lowest = self.lowest, 2**62
        return Snapshot(np.array(times, np.int64), repr(shape), lowest)
