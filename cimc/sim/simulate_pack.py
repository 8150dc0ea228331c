"""Packs a plan into the tables that the kernel reads.

Each moment that `cimc.sim.simulate_plain` keeps under a name gets a number here: of every unit, and
of every buffer as a stream sees it. Moments that can never decide anything (when is a constant
ready, when is a result nobody reads released) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cimc.errors import Fault, StallError
from cimc.sim import simulate_image as col
from cimc.sim.simulate_image import Image, assemble
from cimc.sim.simulate_plan import Await, Conditions, Node, Plan, Publish, Repeat, Step

_KINDS = {
    "first": col.FIRST,
    "last": col.LAST,
    "not-first": col.NOT_FIRST,
    "not-last": col.NOT_LAST,
}
# What the argument of a place names.
_ARGUMENTS = {
    col.IS_STEP: "step",
    col.IS_LOOP: "loop",
    col.IS_NEXT: "loop",
    col.IS_PUBLISH: "publish",
    col.IS_AWAIT: "await",
    col.IS_BEGIN: "stream",
    col.IS_END: "stream",
}
MAX_EVENTS = 1 << 26  # kept at once for one buffer


@dataclass(frozen=True)
class Packed:
    """The memory image before the first step, and names for what it holds."""

    image: Image
    causes: tuple[tuple[str, str], ...]  # of each need: "unit" ..., unit or buffer
    lists: tuple[str, ...]  # buffers


def pack(plan: Plan, samples: int, trace: int) -> Packed:
    """The image of a plan: for so many samples, with room for a trace of so many steps."""
    packer = _Packer(plan)
    image = packer.pack(samples, trace)
    _start(plan, image, samples)
    return Packed(image, tuple(packer.causes), tuple(packer.lists))


def _start(plan: Plan, image: Image, samples: int) -> None:
    """Nothing has happened, and all streams are in line."""
    cells, bases = image.cells, image.bases
    cells[col.PAUSE_AT] = -1
    cells[col.SAMPLES] = samples
    cells[col.STREAMS] = bases["stream"]
    cells[col.STREAMS_END] = bases["stream"] + len(plan.bodies) * col.STREAM
    cells[col.LINE] = bases["line"]
    cells[col.TRACE] = bases["trace"]
    cells[col.TRACE_END] = bases["trace"] + image.rows["trace"] * col.TRACE_ROW
    cells[col.SAMPLE_ENDS] = bases["end"]
    cells[col.HEAP] = len(plan.bodies)
    streams = np.arange(len(plan.bodies))
    uses = image.row("unit", image.column("use", 0))
    image.column("unit", col.UNIT_USERS)[:] = np.bincount(uses, minlength=len(plan.units))
    image.column("line", col.LINE_STREAM)[:] = image.address("stream", streams)
    image.column("stream", col.STREAM_PLACE)[:] = image.column("stream", col.STREAM_ENTRY)
    arguments = image.table("place")
    for op, table in _ARGUMENTS.items():
        chosen = arguments[:, col.PLACE_OP] == op
        numbers = arguments[chosen, col.PLACE_ARG]
        arguments[chosen, col.PLACE_ARG] = image.address(table, numbers)
    members = image.column("member", 0)
    tables = ("moment", "moment", "flag", "unit", "place", "list")
    for loop in image.table("loop"):
        ends = loop[col.LOOP_MOMENTS : col.LOOP_LISTS_END + 1] - bases["member"]
        for table, low, high in zip(tables, ends, ends[1:], strict=False):
            members[low:high] = image.address(table, members[low:high])


@dataclass
class _Touched:
    """What the body of a loop touches."""

    moments: set[int] = field(default_factory=set)
    waited: set[int] = field(default_factory=set)
    flags: set[int] = field(default_factory=set)
    units: set[int] = field(default_factory=set)
    waits: list[int] = field(default_factory=list)  # places
    lists: set[int] = field(default_factory=set)
    conditions: set[tuple[int, str]] = field(default_factory=set)

    def add(self, other: _Touched) -> None:
        self.moments |= other.moments
        self.waited |= other.waited
        self.flags |= other.flags
        self.units |= other.units
        self.waits += other.waits
        self.lists |= other.lists
        self.conditions |= other.conditions


Row = tuple[int, ...]


class _Packer:
    """Rows of all tables, which name each other by number."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.numbers: dict[tuple[str, int, str], int] = {}
        self.moments = 0
        self.flags: dict[tuple[int, str], int] = {}
        self.lists: dict[str, int] = {}
        self.takers: dict[tuple[int, int], int] = {}
        self.causes: list[tuple[str, str]] = []
        self.aliased = {(stream, name) for (stream, _), on in plan.before.items() for name in on}
        self.places: list[Row] = []
        self.conds: list[Row] = []
        self.steps: list[Row] = []
        self.needs: list[Row] = []
        self.effects: list[Row] = []
        self.turns: list[Row] = []
        self.loops: list[Row] = [()] * len(plan.repeats)
        self.members: list[Row] = []
        self.publishes: list[Row] = []
        self.awaits: list[Row] = []
        self.terms: list[Row] = []
        self.list_rows: list[Row] = []
        self.streams: list[Row] = []
        self.uses: list[Row] = []
        self.gates: list[Row] = []
        self.readers: list[Row] = []
        self.records: list[Row] = []
        self.events = 0
        self.snap = 0

    def pack(self, samples: int, trace: int) -> Image:
        for unit in range(len(self.plan.units)):
            self.moment("free", unit, "")
        self.pack_lists()
        entries = []
        for stream, body in enumerate(self.plan.bodies):
            entries.append(len(self.places))
            self.place(col.IS_BEGIN, stream, ())
            self.pack_body(body, stream, -1)
            self.place(col.IS_END, stream, ())
        self.pack_streams(entries, samples)
        rows: dict[str, list[Row]] = {
            "place": self.places,
            "cond": self.conds,
            "step": self.steps,
            "need": self.needs,
            "effect": self.effects,
            "turn": self.turns,
            "loop": self.loops,
            "member": self.members,
            "publish": self.publishes,
            "await": self.awaits,
            "term": self.terms,
            "list": self.list_rows,
            "taker": list(self.takers),
            "stream": self.streams,
            "use": self.uses,
            "gate": self.gates,
            "reader": self.readers,
            "record": self.records,
        }
        empty = {
            "event": self.events,
            "unit": len(self.plan.units),
            "let_go": len(self.records) * samples,
            "line": len(self.streams),
            "trace": trace,
            "end": samples,
            "moment": self.moments,
            "flag": len(self.flags),
            "snap": self.snap,
        }
        return assemble(rows, empty)

    # --- numbers of moments; -1 for one that decides nothing ---

    def moment(self, what: str, stream: int, name: str, slots: int = 1) -> int:
        number = self.numbers.setdefault((what, stream, name), self.moments)
        if number == self.moments:
            self.moments += slots
        return number

    def slots(self, name: str) -> int:
        return 1 if self.plan.is_shared(name) else self.plan.slots[name]

    def ready(self, stream: int, name: str) -> int:
        is_written = stream in self.plan.writers.get(name, ())
        return self.moment("ready", stream, name) if is_written else -1

    def released(self, stream: int, name: str) -> int:
        if stream not in self.plan.readers.get(name, ()) or name not in self.plan.writers:
            return -1
        return self.moment("released", stream, name, self.slots(name))

    def done(self, stream: int, name: str) -> int:
        return self.moment("done", stream, name) if (stream, name) in self.aliased else -1

    def waited(self, stream: int, name: str) -> int:
        waits = self.plan.waits_for_progress(stream, name)
        return self.moment("waited", stream, name) if waits else -1

    def given(self, stream: int, name: str) -> int:
        is_kept = self.plan.waits_for_readers(stream, name)
        return self.moment("given", stream, name) if is_kept else -1

    def flag(self, stream: int, name: str) -> int:
        if self.released(stream, name) < 0 or self.slots(name) == 1:
            return -1
        return self.flags.setdefault((stream, name), len(self.flags))

    # --- places, in the order of the program ---

    def place(self, op: int, arg: int, conditions: Conditions) -> None:
        before = len(self.conds)
        self.conds += [(loop, _KINDS[word]) for loop, word in conditions]
        self.places.append((op, arg, before, len(self.conds)))

    def pack_body(self, body: Sequence[Node], stream: int, loop: int) -> _Touched:
        found = _Touched()
        for node in body:
            if isinstance(node, Repeat):
                found.add(self.pack_loop(node, stream, loop))
                continue
            found.conditions.update(node.conditions)
            if isinstance(node, Step):
                self.place(col.IS_STEP, node.number, node.conditions)
                self.pack_step(node, loop, found)
            elif isinstance(node, Publish):
                self.place(col.IS_PUBLISH, node.number, node.conditions)
                self.pack_publish(node, stream, found)
            else:
                found.waits.append(len(self.places))
                self.place(col.IS_AWAIT, node.number, node.conditions)
                self.pack_await(node, stream, found)
        return found

    def pack_loop(self, repeat: Repeat, stream: int, parent: int) -> _Touched:
        number = repeat.number
        self.place(col.IS_LOOP, number, ())
        start, first_step = len(self.places), len(self.steps)
        touched = self.pack_body(repeat.body, stream, number)
        self.place(col.IS_NEXT, number, ())
        names = list(self.lists)
        forwards = all(len(self.plan.publishers[names[q]]) == 1 for q in touched.lists)
        has_last = bool({(number, "last"), (number, "not-last")} & touched.conditions)
        runs = (
            sorted(touched.moments),
            sorted(touched.waited),
            sorted(touched.flags),
            sorted(unit for unit in touched.units if self.plan.units[unit]),
            touched.waits,
            sorted(touched.lists),
        )
        bounds = [len(self.members)]
        for run in runs:
            self.members += [(member,) for member in run]
            bounds.append(len(self.members))
        end_step = len(self.steps)
        self.loops[number] = (
            *(repeat.count, start, parent, int(forwards), int(has_last), first_step, end_step),
            *(*bounds, self.snap),
        )
        kept = sum(len(run) for run in (*runs[:3], runs[5])) + end_step - first_step
        if end_step > first_step:
            kept += self.steps[-1][col.STEP_NEEDS_END] - self.steps[first_step][col.STEP_NEEDS]
        self.snap += kept
        return touched

    def pack_step(self, step: Step, loop: int, found: _Touched) -> None:
        stream, cycles, release = step.stream, step.cost.cycles, step.release
        needs, effects, turns = len(self.needs), len(self.effects), len(self.turns)
        for unit, held in step.units:
            self.need(unit, ("unit", self.plan.units[unit]))
            self.effect(unit, held)
            found.units.add(unit)
        for name in (*step.reads, *step.updates):
            self.need(self.ready(stream, name), ("data", name))
            self.need(self.waited(stream, name), ("progress", name))
            self.effect(self.released(stream, name), release)
        for name in (*step.updates, *step.writes):
            released = self.released(stream, name)
            flag = self.flag(stream, name) if name in step.writes else -1
            self.need(released, ("space", name), flag, self.slots(name))
            self.need(self.given(stream, name), ("space", name))
            for other in self.plan.before.get((stream, name), ()):
                self.need(self.done(stream, other), ("space", name))
            self.effect(self.ready(stream, name), cycles)
            if flag >= 0:
                self.turns.append((flag, released, self.slots(name)))
        for name in step.reads:
            if self.flag(stream, name) >= 0:
                self.turns.append((self.flag(stream, name), -1, 0))
        for name in (*step.reads, *step.updates, *step.writes):
            self.effect(self.done(stream, name), max(cycles, release))
        for (moment, flag, slots), cause in zip(
            self.needs[needs:], self.causes[needs:], strict=True
        ):
            touched = found.waited if cause[0] == "progress" else found.moments
            touched.update(range(moment, moment + slots) if flag >= 0 else (moment,))
        found.moments.update(moment for moment, _ in self.effects[effects:])
        found.flags.update(flag for flag, _, _ in self.turns[turns:])
        self.steps.append(
            (
                *(cycles, loop, needs, len(self.needs)),
                *(effects, len(self.effects), turns, len(self.turns)),
            )
        )

    def need(self, moment: int, cause: tuple[str, str], flag: int = -1, slots: int = 1) -> None:
        if moment >= 0:
            self.needs.append((moment, flag, slots))
            self.causes.append(cause)

    def effect(self, moment: int, cycles: int) -> None:
        if moment >= 0:
            self.effects.append((moment, cycles))

    # --- progress ---

    def pack_lists(self) -> None:
        plan = self.plan
        for name, waiters in plan.waiters.items():
            if plan.is_complete(name):
                continue
            number = self.lists.setdefault(name, len(self.lists))
            samples = plan.slots[name] + 1  # that are under way at once
            kept = samples * plan.signals.get(name, 0) + 1
            if kept > MAX_EVENTS:
                raise StallError(
                    Fault(
                        f"%{name} is signalled too often",
                        need=f"at most {MAX_EVENTS // samples} signals in a sample",
                        have=str(plan.signals[name]),
                        help="signal larger parts",
                        code="CIM6005",
                    )
                )
            made = self.moment("progress", -1, name)
            self.list_rows.append((plan.progress.get(name, 0), self.events, kept, made))
            self.events += kept
            for stream in waiters:
                self.takers.setdefault((stream, number), len(self.takers))

    def pack_publish(self, node: Publish, stream: int, found: _Touched) -> None:
        number = self.lists.get(node.buffer, -1)
        ready = self.ready(stream, node.buffer)
        self.publishes.append((number, node.count, ready))
        if number >= 0:
            found.lists.add(number)
            found.moments.add(self.list_rows[number][col.LIST_MOMENT])
            found.moments.update(moment for moment in (ready,) if moment >= 0)

    def pack_await(self, node: Await, stream: int, found: _Touched) -> None:
        number = self.lists.get(node.buffer, -1)
        is_read = stream in self.plan.readers.get(node.buffer, ())
        moment = self.waited(stream, node.buffer) if is_read else -1
        before = len(self.terms)
        self.terms += node.terms
        taker = self.takers.get((stream, number), -1)
        self.awaits.append((number, taker, node.const, node.limit, moment, before, len(self.terms)))
        if moment >= 0:
            found.waited.add(moment)

    # --- streams ---

    def pack_streams(self, entries: Sequence[int], samples: int) -> None:
        plan, numbers = self.plan, range(len(self.plan.bodies))
        handed_on = [plan.handed_on(stream) for stream in numbers]
        kept: dict[tuple[int, str], int] = {}
        ends = [0]
        for reader in numbers:
            for made in handed_on:
                for name, others in made.items():
                    if reader in others and (reader, name) not in kept:
                        number = kept[reader, name] = len(self.records)
                        self.records.append((self.released(reader, name), number * samples))
            ends.append(len(self.records))
        used: list[set[int]] = [set() for _ in numbers]
        for step in plan.steps:
            used[step.stream].update(unit for unit, _ in step.units)
        for stream in numbers:
            first_use, first_gate = len(self.uses), len(self.gates)
            self.uses += [(unit,) for unit in sorted(used[stream])]
            for name, others in handed_on[stream].items():
                first = len(self.readers)
                self.readers += [(reader, kept[reader, name]) for reader in others]
                given = self.given(stream, name)
                self.gates.append((given, plan.slots[name], first, len(self.readers)))
            self.streams.append(
                (
                    *(entries[stream], first_use, len(self.uses), first_gate, len(self.gates)),
                    *(ends[stream], ends[stream + 1]),
                )
            )
