"""Packs a plan into rows of the tables that the kernel reads.

Each moment that `cimc.sim.simulate.plain` keeps under a name gets a number here: of every unit, and
of every buffer as a stream sees it. Moments that can never decide anything (when is a constant
ready, when is a result nobody reads released) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cimc.errors import Fault, StallError
from cimc.sim.simulate import image as col
from cimc.sim.simulate.plan import Await, Conditions, Node, Plan, Publish, Repeat, Step

_KINDS = {
    "first": col.FIRST,
    "last": col.LAST,
    "not-first": col.NOT_FIRST,
    "not-last": col.NOT_LAST,
}
MAX_EVENTS = 1 << 26  # kept at once for one buffer


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
    published: set[tuple[int, ...]] = field(default_factory=set)  # moments of one signal

    def add(self, other: _Touched) -> None:
        self.moments |= other.moments
        self.waited |= other.waited
        self.flags |= other.flags
        self.units |= other.units
        self.waits += other.waits
        self.lists |= other.lists
        self.conditions |= other.conditions
        self.published |= other.published


Row = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Buffer:
    """Numbers of the moments of a buffer as a stream sees it; -1 for one that decides nothing."""

    ready: int
    released: int
    slots: int
    flag: int
    waited: int
    given: int
    done: int
    before: tuple[int, ...]  # done, of those whose cells it takes over


class Rows:
    """Rows of all tables of a plan, which name each other by number; -1 is none."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.numbers: dict[tuple[str, int, str], int] = {}
        self.moments = 0
        self.flags: dict[tuple[int, str], int] = {}
        self.buffers: dict[tuple[int, str], _Buffer] = {}
        self.lists: dict[str, int] = {}
        self.takers: dict[tuple[int, int], int] = {}
        self.causes: list[tuple[str, str]] = []  # of each need: "unit" ..., unit or buffer
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
        self.pack()

    def pack(self) -> None:
        """Fill all tables."""
        for unit in range(len(self.plan.units)):
            self.moment("free", unit, "")
        self.pack_lists()
        entries = []
        for stream, body in enumerate(self.plan.bodies):
            entries.append(len(self.places))
            self.place(col.IS_BEGIN, stream, ())
            self.pack_body(body, stream, -1)
            self.place(col.IS_END, stream, ())
        self.pack_streams(entries)

    # --- numbers of moments ---

    def moment(self, what: str, stream: int, name: str, slots: int = 1) -> int:
        number = self.numbers.setdefault((what, stream, name), self.moments)
        if number == self.moments:
            self.moments += slots
        return number

    def buffer(self, stream: int, name: str) -> _Buffer:
        """What a buffer is to a stream."""
        key = (stream, name)
        if key not in self.buffers:
            self.buffers[key] = self.new_buffer(stream, name)
        return self.buffers[key]

    def new_buffer(self, stream: int, name: str) -> _Buffer:
        plan = self.plan
        slots = 1 if plan.is_shared(name) else plan.slots[name]
        is_written = stream in plan.writers.get(name, ())
        is_kept = stream in plan.readers.get(name, ()) and name in plan.writers
        has_turns = is_kept and slots > 1
        return _Buffer(
            ready=self.moment("ready", stream, name) if is_written else -1,
            released=self.moment("released", stream, name, slots) if is_kept else -1,
            slots=slots,
            flag=self.flags.setdefault((stream, name), len(self.flags)) if has_turns else -1,
            waited=self.moment("waited", stream, name)
            if plan.waits_for_progress(stream, name)
            else -1,
            given=self.moment("given", stream, name) if name in plan.handed_on(stream) else -1,
            done=self.moment("done", stream, name) if (stream, name) in self.aliased else -1,
            before=tuple(
                self.moment("done", stream, other) for other in plan.before.get((stream, name), ())
            ),
        )

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
                self.pack_publish(node, stream, loop, found)
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
        is_tried = forwards and repeat.count >= col.MIN_TRIPS
        runs = self.members_of(touched, first_step) if is_tried else ((),) * 6
        bounds = [len(self.members)]
        for run in runs:
            self.members += [(member,) for member in run]
            bounds.append(len(self.members))
        end_step = len(self.steps)
        self.loops[number] = (
            *(repeat.count, start, parent, int(is_tried), int(has_last), first_step, end_step),
            *(*bounds, self.snap),
        )
        if is_tried and end_step > first_step:
            self.snap += self.steps[-1][col.STEP_NEEDS_END] - self.steps[first_step][col.STEP_NEEDS]
        if is_tried:
            self.snap += sum(len(run) for run in (*runs[:3], runs[5])) + end_step - first_step
        return touched

    def members_of(self, touched: _Touched, first_step: int) -> tuple[Sequence[int], ...]:
        """What fast-forward looks at: moments, waited ones, flags, units, waits, lists."""
        return (
            self.groups(touched, first_step),
            sorted(touched.waited),
            sorted(touched.flags),
            sorted(unit for unit in touched.units if self.plan.units[unit]),
            touched.waits,
            sorted(touched.lists),
        )

    def groups(self, touched: _Touched, first_step: int) -> list[int]:
        """The moments of a loop in groups that do not depend on each other, with -1 between.

        Two moments belong together where a step of the loop needs or raises both; one that no step
        raises stays as it is and connects nothing.
        """
        parent: dict[int, int] = {}

        def root(moment: int) -> int:
            while parent[moment] != moment:
                parent[moment] = parent[parent[moment]]
                moment = parent[moment]
            return moment

        links = [self.links(step) for step in range(first_step, len(self.steps))]
        links += [(list(moments), []) for moments in touched.published]
        for raised, _ in links:
            parent.update((moment, moment) for moment in raised)
        for raised, needed in links:
            roots = {root(moment) for moment in (*raised, *needed) if moment in parent}
            parent.update((other, min(roots)) for other in roots)
        found: dict[int, list[int]] = {}
        for moment in sorted(touched.moments):
            found.setdefault(root(moment) if moment in parent else -1, []).append(moment)
        return [moment for group in found.values() for moment in (*group, -1)]

    def links(self, step: int) -> tuple[list[int], list[int]]:
        """Moments that a step raises, and those that it needs."""
        row = self.steps[step]
        needs = self.needs[row[col.STEP_NEEDS] : row[col.STEP_NEEDS_END]]
        effects = self.effects[row[col.STEP_EFFECTS] : row[col.STEP_EFFECTS_END]]
        turns = self.turns[row[col.STEP_TURNS] : row[col.STEP_TURNS_END]]
        raised = [moment for moment, _ in effects]
        raised += [first + slot for _, first, slots in turns if first >= 0 for slot in range(slots)]
        needed = [first + slot for first, flag, n in needs for slot in range(n if flag >= 0 else 1)]
        return raised, needed

    def pack_step(self, step: Step, loop: int, found: _Touched) -> None:
        stream, cycles, release = step.stream, step.cost.cycles, step.release
        needs, effects, turns = len(self.needs), len(self.effects), len(self.turns)
        for unit, held in step.units:
            self.need(unit, ("unit", self.plan.units[unit]))
            self.effect(unit, held)
            found.units.add(unit)
        for name in (*step.reads, *step.updates):
            buffer = self.buffer(stream, name)
            self.need(buffer.ready, ("data", name))
            self.need(buffer.waited, ("progress", name))
            self.effect(buffer.released, release)
            self.effect(buffer.done, max(cycles, release))
        for name in (*step.updates, *step.writes):
            buffer = self.buffer(stream, name)
            flag = buffer.flag if name in step.writes else -1
            self.need(buffer.released, ("space", name), flag, buffer.slots)
            self.need(buffer.given, ("space", name))
            for other in buffer.before:
                self.need(other, ("space", name))
            self.effect(buffer.ready, cycles)
            self.effect(buffer.done, max(cycles, release))
            if flag >= 0:
                self.turns.append((flag, buffer.released, buffer.slots))
        for name in step.reads:
            if self.buffer(stream, name).flag >= 0:
                self.turns.append((self.buffer(stream, name).flag, -1, 0))
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

    def pack_publish(self, node: Publish, stream: int, loop: int, found: _Touched) -> None:
        number = self.lists.get(node.buffer, -1)
        ready = self.buffer(stream, node.buffer).ready
        self.publishes.append((number, node.count, ready, loop))
        if number >= 0:
            found.lists.add(number)
            moments = (self.list_rows[number][col.LIST_MOMENT], *([ready] if ready >= 0 else []))
            found.moments.update(moments)
            found.published.add(moments)

    def pack_await(self, node: Await, stream: int, found: _Touched) -> None:
        number = self.lists.get(node.buffer, -1)
        is_read = stream in self.plan.readers.get(node.buffer, ())
        moment = self.buffer(stream, node.buffer).waited if is_read else -1
        before = len(self.terms)
        self.terms += node.terms
        taker = self.takers.get((stream, number), -1)
        self.awaits.append((number, taker, node.const, node.limit, moment, before, len(self.terms)))
        if moment >= 0:
            found.waited.add(moment)

    # --- streams ---

    def pack_streams(self, entries: Sequence[int]) -> None:
        plan, numbers = self.plan, range(len(self.plan.bodies))
        handed_on = [plan.handed_on(stream) for stream in numbers]
        kept: dict[tuple[int, str], int] = {}
        ends = [0]
        for reader in numbers:
            for made in handed_on:
                for name, others in made.items():
                    if reader in others and (reader, name) not in kept:
                        kept[reader, name] = len(self.records)
                        self.records.append((self.buffer(reader, name).released,))
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
                given = self.buffer(stream, name).given
                self.gates.append((given, plan.slots[name], first, len(self.readers)))
            self.streams.append(
                (
                    *(entries[stream], first_use, len(self.uses), first_gate, len(self.gates)),
                    *(ends[stream], ends[stream + 1]),
                )
            )
