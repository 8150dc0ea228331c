"""Packs a plan into the tables that the kernel reads.

Each moment that `cimc.sim.simulate_plain` keeps under a name gets a number here: of every unit, and
of every buffer as a stream sees it. Moments that can never decide anything (when is a constant
ready, when is a result nobody reads released) are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cimc.errors import Fault, StallError
from cimc.sim import simulate_tables as tables
from cimc.sim.simulate_plan import Await, Conditions, Node, Plan, Publish, Repeat, Step
from cimc.sim.simulate_tables import Code, Integers, Table

_KINDS = {
    "first": tables.FIRST,
    "last": tables.LAST,
    "not-first": tables.NOT_FIRST,
    "not-last": tables.NOT_LAST,
}
MAX_EVENTS = 1 << 26  # kept at once for one buffer


@dataclass(frozen=True)
class Packed:
    """The kernel's code, and what is needed to make its state and to read it."""

    code: Code
    moments: int
    flags: int
    snap: int
    causes: tuple[tuple[str, str], ...]  # of each need: "unit" ..., unit or buffer
    takers: tuple[tuple[int, int], ...]  # stream, list of events
    lists: tuple[str, ...]  # buffers


def pack(plan: Plan) -> Packed:
    """The tables of a plan."""
    packer = _Packer(plan)
    return packer.pack()


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
        self.snap = 0
        self.members: list[int] = []
        self.publishes: list[Row] = []
        self.awaits: list[Row] = []
        self.terms: list[Row] = []
        self.event_lists: list[Row] = []

    def pack(self) -> Packed:
        plan = self.plan
        for unit in range(len(plan.units)):
            self.moment("free", unit, "")
        self.pack_lists()
        entries = []
        for stream, body in enumerate(plan.bodies):
            entries.append(len(self.places))
            self.place(tables.BEGIN, stream, ())
            self.pack_body(body, stream, -1)
            self.place(tables.END, stream, ())
        streams, uses, gates, readers, records = self.pack_streams(entries)
        code = Code(
            places=_table(self.places, tables.PLACE),
            conds=_table(self.conds, tables.COND),
            steps=_table(self.steps, tables.STEP_ROW),
            needs=_table(self.needs, tables.NEED),
            effects=_table(self.effects, tables.EFFECT),
            turns=_table(self.turns, tables.TURN),
            loops=_table(self.loops, tables.LOOP_ROW),
            members=_integers(self.members),
            publishes=_table(self.publishes, tables.PUBLISH_ROW),
            awaits=_table(self.awaits, tables.AWAIT_ROW),
            terms=_table(self.terms, tables.TERM),
            lists=_table(self.event_lists, tables.LIST),
            streams=_table(streams, tables.STREAM),
            uses=_integers(uses),
            gates=_table(gates, tables.GATE),
            readers=_table(readers, tables.READER),
            records=_table(records, tables.RECORD),
        )
        return Packed(
            code,
            self.moments,
            len(self.flags),
            self.snap,
            tuple(self.causes),
            tuple(self.takers),
            tuple(self.lists),
        )

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
                self.place(tables.STEP, node.number, node.conditions)
                self.pack_step(node, loop, found)
            elif isinstance(node, Publish):
                self.place(tables.PUBLISH, node.number, node.conditions)
                self.pack_publish(node, stream, found)
            else:
                found.waits.append(len(self.places))
                self.place(tables.AWAIT, node.number, node.conditions)
                self.pack_await(node, stream, found)
        return found

    def pack_loop(self, repeat: Repeat, stream: int, parent: int) -> _Touched:
        number = repeat.number
        self.place(tables.LOOP, number, ())
        start, first_step = len(self.places), len(self.steps)
        touched = self.pack_body(repeat.body, stream, number)
        self.place(tables.NEXT, number, ())
        names = list(self.lists)
        forwards = all(len(self.plan.publishers[names[q]]) == 1 for q in touched.lists)
        has_last = bool({(number, "last"), (number, "not-last")} & touched.conditions)
        ranges: list[int] = []
        for members in (
            sorted(touched.moments),
            sorted(touched.waited),
            sorted(touched.flags),
            sorted(unit for unit in touched.units if self.plan.units[unit]),
            touched.waits,
            sorted(touched.lists),
        ):
            before = len(self.members)
            self.members += members
            ranges += [before, len(self.members)]
        end_step = len(self.steps)
        self.loops[number] = (
            *(repeat.count, start, parent, int(forwards), int(has_last), first_step, end_step),
            *ranges,
            self.snap,
        )
        needs = self.steps[-1][3] - self.steps[first_step][2] if end_step > first_step else 0
        self.snap += ranges[5] - ranges[0] + len(touched.lists) + end_step - first_step + needs
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
        plan, kept_so_far = self.plan, 0
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
            progress = self.moment("progress", -1, name)
            self.event_lists.append((plan.progress.get(name, 0), kept_so_far, kept, progress))
            kept_so_far += kept
            for stream in waiters:
                self.takers.setdefault((stream, number), len(self.takers))

    def pack_publish(self, node: Publish, stream: int, found: _Touched) -> None:
        number = self.lists.get(node.buffer, -1)
        ready = self.ready(stream, node.buffer)
        self.publishes.append((number, node.count, ready))
        if number >= 0:
            found.lists.add(number)
            found.moments.add(self.event_lists[number][3])
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

    def pack_streams(
        self, entries: Sequence[int]
    ) -> tuple[list[Row], list[int], list[Row], list[Row], list[Row]]:
        """Rows of streams, uses, gates, readers and records."""
        plan = self.plan
        numbers = range(len(plan.bodies))
        handed_on = [plan.handed_on(stream) for stream in numbers]
        kept: dict[tuple[int, str], int] = {}
        records: list[Row] = []
        record_ends = [0]
        for reader in numbers:
            for made in handed_on:
                for name, others in made.items():
                    if reader in others and (reader, name) not in kept:
                        kept[reader, name] = len(records)
                        records.append((self.released(reader, name),))
            record_ends.append(len(records))
        used: list[set[int]] = [set() for _ in numbers]
        for step in plan.steps:
            used[step.stream].update(unit for unit, _ in step.units)
        streams: list[Row] = []
        uses: list[int] = []
        gates: list[Row] = []
        readers: list[Row] = []
        for stream in numbers:
            before = len(uses), len(gates)
            uses += sorted(used[stream])
            for name, others in handed_on[stream].items():
                first = len(readers)
                readers += [(reader, kept[reader, name]) for reader in others]
                row = (self.given(stream, name), plan.slots[name], first, len(readers))
                gates.append(row)
            rows = (before[0], len(uses), before[1], len(gates), *record_ends[stream : stream + 2])
            streams.append((entries[stream], *rows))
        return streams, uses, gates, readers, records


def _integers(values: Iterable[int]) -> Integers:
    return np.array(list(values), np.int64)


def _table(rows: Sequence[Row], kind: np.dtype[np.void]) -> Table:
    """One structured row for each tuple."""
    flat: Integers = np.array(rows, np.int64).reshape(len(rows), len(kind.names or ()))
    return np.ascontiguousarray(flat).view(kind).reshape(len(rows))
