"""The fast engine: the kernel with its state, behind the same methods as the plain engine."""

from __future__ import annotations

import time

import numpy as np

from cimc.sim import simulate_kernel as kernel
from cimc.sim import simulate_tables as tables
from cimc.sim.simulate_outcome import Blocked, Outcome, Snapshot, too_long
from cimc.sim.simulate_pack import Packed, pack
from cimc.sim.simulate_plan import Plan
from cimc.sim.simulate_tables import Integers, State

STEPS_PER_CALL = 4_000_000  # between looks at the clock


class FastEngine:
    """Simulates a plan in Numba; with `fast_forward`, loops that settle are added up."""

    def __init__(
        self,
        plan: Plan,
        *,
        samples: int,
        max_cycles: int | None = None,
        trace: int = 0,
        fast_forward: bool = True,
    ) -> None:
        self.plan = plan
        self.samples = samples
        self.max_cycles = max_cycles
        self.packed = pack(plan)
        self.state = _state(plan, self.packed, samples, trace)
        control = self.state.control
        control["current"] = -1
        control["pause_at"] = -1
        control["samples"] = samples
        control["lowest"] = kernel.FAR
        control["max_cycles"] = kernel.FAR if max_cycles is None else max_cycles
        control["forward"] = int(fast_forward)
        control["heap"] = len(plan.bodies)

    def run(self, until: int, time_limit_s: float | None = None) -> None:
        """Go on until the first stream has finished `until` samples, or all have finished.

        raises  StallError if nothing can go on, or a limit is exceeded
        """
        started = time.monotonic()
        self.state.control["pause_at"] = until if until < self.samples else -1
        while True:
            reason = kernel.run(self.packed.code, self.state, STEPS_PER_CALL)
            if reason in (kernel.PAUSED, kernel.DONE):
                return
            if reason == kernel.STALLED:
                raise Blocked.stall(self.plan, self._blocked())
            if reason == kernel.TOO_LATE:
                limit = f"{self.max_cycles} cycles"
                raise too_long(self.plan, limit, "max_cycles", self.outcome)
            if time_limit_s is not None and time.monotonic() - started > time_limit_s:
                raise too_long(self.plan, f"{time_limit_s} s", "time_limit_s", self.outcome)

    @property
    def outcome(self) -> Outcome:
        """Counts and times so far."""
        state = self.state
        outcome = Outcome.empty(self.plan, self.samples, state.trace.size)
        outcome.executed = state.steps["executed"].tolist()
        outcome.first_start = state.steps["first_start"].tolist()
        outcome.last_end = state.steps["last_end"].tolist()
        outcome.ends = state.ends.tolist()
        outcome.latest = state.streams["latest"].tolist()
        outcome.simulated = int(state.control["simulated"][0])
        ends = self.packed.code.steps["needs_to"]
        needs = np.flatnonzero(state.stalls)
        steps = np.searchsorted(ends, needs, side="right")
        for need, step in zip(needs.tolist(), steps.tolist(), strict=True):
            outcome.stall(step, self.packed.causes[need], int(state.stalls[need]))
        outcome.trace = state.trace[: int(state.control["traced"][0])].tolist()
        return outcome

    def _blocked(self) -> list[Blocked]:
        code, state = self.packed.code, self.state
        found = []
        for stream, status in enumerate(state.streams["status"].tolist()):
            if status == tables.WAITS_PROGRESS:
                wait = int(code.places["arg"][state.streams["place"][stream]])
                events = int(code.awaits["list"][wait])
                need = kernel.wanted_progress(code, state, stream, wait)
                have = kernel.last_total(code, state, events)
                found.append(Blocked(stream, self.packed.lists[events], need, have))
            elif status == tables.WAITS_READERS:
                found.append(Blocked(stream, self._unreleased(stream)))
        return found

    def _unreleased(self, stream: int) -> str:
        """A buffer whose readers are not done with the sample that `stream` would overwrite."""
        done = self.state.streams["sample"]
        for name, readers in self.plan.handed_on(stream).items():
            if any(done[reader] <= done[stream] - self.plan.slots[name] for reader in readers):
                return name
        return ""

    def snapshot(self) -> Snapshot:
        """All that the future depends on: times, and the rest relative to the first stream."""
        code, state = self.packed.code, self.state
        streams = state.streams
        base = int(streams["sample"][0])
        times: list[Integers] = [state.moments, streams["order"], streams["front"]]
        shape: list[Integers] = [streams["place"], streams["status"], streams["sample"] - base]
        shape += [state.loops["trip"], state.flags]
        oldest: dict[int, int] = {}  # list -> first event that somebody has not taken
        for (_, events), taken in zip(self.packed.takers, state.takers.tolist(), strict=True):
            oldest[events] = min(oldest.get(events, taken[0]), taken[0])
            shape.append(np.array([taken[1] - base * int(code.lists["total"][events])]))
        for events, first in oldest.items():
            total, start, ring, _ = code.lists[events].tolist()
            pending = state.events[start + np.arange(first, state.published[events]) % ring]
            times += [pending["time"], pending["order"]]
            shape += [pending["total"] - base * total, pending["stream"]]
        times += self._pending_records()
        lowest = int(state.control["lowest"][0])
        state.control["lowest"] = kernel.FAR
        text = b"|".join(part.astype(np.int64).tobytes() for part in shape)
        return Snapshot(np.concatenate(times), text, lowest)

    def _pending_records(self) -> list[Integers]:
        """When readers let go of buffers that are still to be overwritten."""
        code, state = self.packed.code, self.state
        sample = state.streams["sample"]
        found: list[Integers] = []
        for stream, row in enumerate(code.streams):
            for gate in code.gates[row["gates_from"] : row["gates_to"]]:
                earlier = max(0, int(sample[stream] - gate["slots"]))
                for reader in code.readers[gate["readers_from"] : gate["readers_to"]]:
                    kept = state.let_go[reader["record"], earlier : sample[reader["stream"]]]
                    found += [kept["time"], kept["order"]]
        return found


def _state(plan: Plan, packed: Packed, samples: int, trace: int) -> State:
    """The state before the first step: all streams in line, nothing has happened."""
    code = packed.code
    streams = np.zeros(len(plan.bodies), tables.STREAM_STATE)
    streams["place"] = code.streams["entry"]
    line = np.zeros(len(plan.bodies) + 1, tables.LINE)
    line["stream"] = np.arange(line.size)
    return State(
        moments=np.zeros(packed.moments, np.int64),
        flags=np.zeros(packed.flags, np.int64),
        users=np.bincount(code.uses, minlength=len(plan.units)).astype(np.int64),
        control=np.zeros(1, tables.CONTROL),
        streams=streams,
        line=line,
        loops=np.zeros(len(plan.repeats), tables.LOOP_STATE),
        events=np.zeros(int(code.lists["ring"].sum()), tables.EVENT),
        published=np.zeros(len(packed.lists), np.int64),
        takers=np.zeros(len(packed.takers), tables.TAKER),
        let_go=np.zeros((code.records.size, samples), tables.LET_GO),
        steps=np.zeros(len(plan.steps), tables.STEP_STATE),
        stalls=np.zeros(code.needs.size, np.int64),
        ends=np.zeros(samples, np.int64),
        trace=np.zeros(trace, tables.TRACE),
        snap=np.zeros(packed.snap, np.int64),
    )
