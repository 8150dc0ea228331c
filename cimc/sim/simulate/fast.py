"""The fast engine: the kernel with its image, behind the same methods as the plain engine."""

from __future__ import annotations

import time

import numpy as np

from cimc.sim.simulate import image as col
from cimc.sim.simulate import kernel
from cimc.sim.simulate.image import Integers
from cimc.sim.simulate.outcome import Blocked, Outcome, Snapshot, too_long
from cimc.sim.simulate.pack import new_image
from cimc.sim.simulate.rows import Rows

STEPS_PER_CALL = 4_000_000  # between looks at the clock


class FastEngine:
    """Simulates a plan in Numba; with `fast_forward`, loops that settle are added up."""

    def __init__(
        self,
        rows: Rows,
        *,
        samples: int,
        max_cycles: int | None = None,
        trace: int = 0,
        fast_forward: bool = True,
    ) -> None:
        self.rows = rows
        self.plan = rows.plan
        self.samples = samples
        self.max_cycles = max_cycles
        self.image = new_image(rows, samples, trace)
        self.cells = self.image.cells
        self.cells[col.LOWEST] = kernel.FAR
        self.cells[col.MAX_CYCLES] = kernel.FAR if max_cycles is None else max_cycles
        self.cells[col.FORWARD] = int(fast_forward)

    def run(self, until: int, time_limit_s: float | None = None) -> None:
        """Go on until the first stream has finished `until` samples, or all have finished.

        raises  StallError if nothing can go on, or a limit is exceeded
        """
        started = time.monotonic()
        self.cells[col.PAUSE_AT] = until if until < self.samples else -1
        while True:
            reason = kernel.run(self.cells, STEPS_PER_CALL)
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
        image = self.image
        outcome = Outcome.empty(self.plan, self.samples, image.rows["trace"])
        outcome.executed = image.column("step", col.STEP_EXECUTED).tolist()
        outcome.first_start = image.column("step", col.STEP_FIRST_START).tolist()
        outcome.last_end = image.column("step", col.STEP_LAST_END).tolist()
        outcome.ends = image.column("end", 0).tolist()
        outcome.latest = image.column("stream", col.STREAM_LATEST).tolist()
        outcome.simulated = int(self.cells[col.SIMULATED])
        stalls = image.column("need", col.NEED_STALL)
        ends = image.row("need", image.column("step", col.STEP_NEEDS_END))
        needs = np.flatnonzero(stalls)
        steps = np.searchsorted(ends, needs, side="right")
        for need, step in zip(needs.tolist(), steps.tolist(), strict=True):
            outcome.stall(step, self.rows.causes[need], int(stalls[need]))
        traced = (int(self.cells[col.TRACE]) - image.bases["trace"]) // col.TRACE_ROW
        trace = image.table("trace")[:traced]
        steps = image.row("step", trace[:, col.TRACE_STEP])
        outcome.trace = list(zip(steps.tolist(), trace[:, col.TRACE_START].tolist(), strict=True))
        return outcome

    @property
    def simulated(self) -> int:
        """Instructions executed one by one so far."""
        return int(self.cells[col.SIMULATED])

    @property
    def finished(self) -> int:
        """Samples that all streams are through with."""
        return int(self.image.column("stream", col.STREAM_SAMPLE).min())

    def _blocked(self) -> list[Blocked]:
        found = []
        for number, stream in enumerate(self.image.table("stream")):
            if stream[col.STREAM_STATUS] == col.WAITS_PROGRESS:
                wait = self.cells[stream[col.STREAM_PLACE] + col.PLACE_ARG]
                address = self.image.bases["stream"] + number * col.STREAM
                need, have = kernel.progress(self.cells, address, wait)
                events = int(self.image.row("list", stream[col.STREAM_LIST]))
                found.append(Blocked(number, list(self.rows.lists)[events], need, have))
            elif stream[col.STREAM_STATUS] == col.WAITS_READERS:
                found.append(Blocked(number, self._unreleased(number)))
        return found

    def _unreleased(self, stream: int) -> str:
        """A buffer whose readers are not done with the sample that `stream` would overwrite."""
        done = self.image.column("stream", col.STREAM_SAMPLE)
        for name, readers in self.plan.handed_on(stream).items():
            if any(done[reader] <= done[stream] - self.plan.slots[name] for reader in readers):
                return name
        return ""

    def snapshot(self) -> Snapshot:
        """All that the future depends on: times, and the rest relative to the first stream."""
        image = self.image
        stream = image.table("stream").T
        base = int(stream[col.STREAM_SAMPLE][0])
        times = [image.column("moment", 0), stream[col.STREAM_ORDER], stream[col.STREAM_FRONT]]
        shape = [stream[col.STREAM_PLACE], stream[col.STREAM_STATUS]]
        shape += [stream[col.STREAM_SAMPLE] - base, image.column("flag", 0)]
        shape.append(image.column("loop", col.LOOP_TRIP))
        taker = image.table("taker")
        numbers = image.row("list", taker[:, col.TAKER_LIST])
        lists = image.table("list")
        shape.append(taker[:, col.TAKER_TOTAL] - base * lists[numbers, col.LIST_TOTAL])
        for number, events in enumerate(lists):
            first = int(taker[numbers == number, col.TAKER_COUNT].min())
            ring = np.arange(first, events[col.LIST_COUNT]) % events[col.LIST_RING]
            start = image.row("event", events[col.LIST_EVENTS])
            pending = image.table("event")[start + ring]
            times += [pending[:, col.EVENT_TIME], pending[:, col.EVENT_ORDER]]
            total = pending[:, col.EVENT_TOTAL] - base * events[col.LIST_TOTAL]
            shape += [total, pending[:, col.EVENT_STREAM]]
        times += self._pending_records()
        lowest = int(self.cells[col.LOWEST])
        self.cells[col.LOWEST] = kernel.FAR
        text = b"|".join(part.tobytes() for part in shape)
        return Snapshot(np.concatenate(times), text, lowest)

    def _pending_records(self) -> list[Integers]:
        """When readers let go of buffers that are still to be overwritten."""
        image = self.image
        sample = image.column("stream", col.STREAM_SAMPLE)
        let_go = image.table("let_go").reshape(-1, self.samples, col.LET_GO)
        gate = image.table("gate").T
        streams, readers = image.table("stream"), image.table("reader").T
        reading = image.row("stream", readers[col.READER_STREAM])
        records = image.row("record", readers[col.READER_RECORD])
        low = image.row("reader", gate[col.GATE_READERS])
        high = image.row("reader", gate[col.GATE_READERS_END])
        found: list[Integers] = []
        for stream, row in enumerate(streams):
            first, end = image.row("gate", row[col.STREAM_GATES : col.STREAM_GATES_END + 1])
            for number in range(first, end):
                earlier = max(0, int(sample[stream] - gate[col.GATE_SLOTS, number]))
                for reader in range(low[number], high[number]):
                    kept = let_go[records[reader], earlier : sample[reading[reader]]]
                    found.append(kept.reshape(-1))
        return found
