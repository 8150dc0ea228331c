"""What both engines simulate: a program with its costs looked up and its names resolved.

Each instruction becomes a `Step`: the units it holds, the buffers it reads, updates and writes;
`signal` and `wait` become `Publish` and `Await`, loops `Repeat`. Which buffers several streams
share, how much progress one sample makes on each, and which buffers take over the cells of which
others is worked out here, once.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cimc.errors import Fault, InternalError, VerifyError, raise_if
from cimc.ir.graph import operands
from cimc.ir.program import (
    Buffer,
    Instr,
    Item,
    Loop,
    Program,
    Signal,
    VectorOp,
    Wait,
    holds,
    view_fields,
)
from cimc.ir.types import numpy_dtype
from cimc.kind import Cost, Kind, load_kind
from cimc.target import Target

Conditions: TypeAlias = tuple[tuple[int, str], ...]  # (number of a Repeat, condition)


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of the program, as often as it executes."""

    number: int
    stream: int
    instr: Instr
    cost: Cost
    conditions: Conditions
    units: tuple[tuple[int, int], ...]  # unit, cycles it is held
    release: int  # cycles until what it reads may be overwritten
    reads: tuple[str, ...]
    updates: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """`count` more parts of `buffer` are written."""

    number: int
    buffer: str
    count: int
    conditions: Conditions


@dataclass(frozen=True, slots=True)
class Await:
    """Go on when progress on `buffer` has reached min(const + sum of factor * iteration, limit)."""

    number: int
    buffer: str
    const: int
    terms: tuple[tuple[int, int], ...]  # (number of a Repeat around it, factor): all, some with 0
    limit: int
    conditions: Conditions


@dataclass(frozen=True, slots=True)
class Repeat:
    """Run `body` `count` times."""

    number: int
    count: int
    body: tuple[Node, ...]


Node: TypeAlias = "Step | Publish | Await | Repeat"


@dataclass
class Plan:
    """A program, or its setup, ready to be simulated."""

    program: Program
    names: tuple[str, ...]  # of the streams
    bodies: tuple[tuple[Node, ...], ...] = ()
    units: list[str] = field(default_factory=list)  # "" for the order of what holds no unit
    steps: list[Step] = field(default_factory=list)
    executions: list[int] = field(default_factory=list)  # of each step, in one sample
    repeats: list[Repeat] = field(default_factory=list)
    publishes: list[Publish] = field(default_factory=list)
    awaits: list[Await] = field(default_factory=list)
    slots: Mapping[str, int] = field(default_factory=dict)
    readers: dict[str, dict[int, None]] = field(default_factory=dict)  # buffer -> streams
    writers: dict[str, dict[int, None]] = field(default_factory=dict)
    publishers: dict[str, dict[int, None]] = field(default_factory=dict)
    waiters: dict[str, dict[int, None]] = field(default_factory=dict)
    progress: dict[str, int] = field(default_factory=dict)  # parts one sample makes
    signals: dict[str, int] = field(default_factory=dict)  # `Publish`es one sample executes
    before: dict[tuple[int, str], tuple[str, ...]] = field(default_factory=dict)

    hand_overs: tuple[dict[str, tuple[int, ...]], ...] = ()  # of each stream: `handed_on`

    def is_shared(self, buffer: str) -> bool:
        """Whether streams pass the buffer on to each other: one writes it, another touches it."""
        writers = self.writers.get(buffer, {})
        return bool(writers) and len({**writers, **self.readers.get(buffer, {})}) > 1

    def is_complete(self, buffer: str) -> bool:
        """Whether all of the buffer is there from the start."""
        return buffer not in self.publishers and buffer not in self.writers

    def waits_for_progress(self, stream: int, buffer: str) -> bool:
        """Whether reads of the buffer in this stream must have been waited for."""
        return stream in self.waiters.get(buffer, ()) and not self.is_complete(buffer)

    def handed_on(self, stream: int) -> dict[str, tuple[int, ...]]:
        """Buffers that this stream makes for others, with those others.

        They must be done with an earlier sample before this stream overwrites it.
        """
        return self.hand_overs[stream]


def plan_streams(program: Program, target: Target, kind: Kind | None = None) -> Plan:
    """The plan of what runs for every sample.

    raises  VerifyError where a stream reads what another one writes without ever waiting for it
    """
    streams = [(stream.name, stream.body) for stream in program.streams]
    plan = _plan(program, target, kind, streams)
    raise_if(_races(plan), VerifyError)
    return plan


def plan_setup(program: Program, target: Target, kind: Kind | None = None) -> Plan:
    """The plan of what runs once, before the first sample."""
    return _plan(program, target, kind, [("setup", program.setup)])


def _hand_overs(plan: Plan) -> tuple[dict[str, tuple[int, ...]], ...]:
    found: tuple[dict[str, tuple[int, ...]], ...] = tuple({} for _ in plan.bodies)
    for name in {**plan.writers, **plan.publishers}:
        takers = {**plan.readers.get(name, {}), **plan.waiters.get(name, {})}
        for maker in {**plan.writers.get(name, {}), **plan.publishers.get(name, {})}:
            others = tuple(taker for taker in takers if taker != maker)
            if others:
                found[maker][name] = others
    return found


def accesses(instr: Instr) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Buffers that an instruction reads, updates and writes, each buffer once.

    What it reads and writes through different views counts as updated. An update that starts afresh
    (its field `fresh` is true) reads nothing of what was there: a write.
    """
    if isinstance(instr, VectorOp):
        read = {value.name for value in operands(instr.op)}
        written = {instr.op.out.name}
    else:
        read, written = set(), set()
        fresh = bool(getattr(instr, "fresh", False))
        for name in view_fields(type(instr)):
            view = getattr(instr, name)
            if view is None:
                continue
            updated = name in instr.updates
            if updated or name in instr.writes:
                written.add(view.buffer)
            if name not in instr.writes and not (updated and fresh):
                read.add(view.buffer)
    both = read & written
    return tuple(sorted(read - both)), tuple(sorted(both)), tuple(sorted(written - both))


def _plan(
    program: Program,
    target: Target,
    kind: Kind | None,
    streams: Sequence[tuple[str, Sequence[Item]]],
) -> Plan:
    plan = Plan(program, tuple(name for name, _ in streams))
    plan.slots = {buffer.name: buffer.slots for buffer in program.buffers}
    builder = _Builder(plan, program.buffer_map(), kind or load_kind(target.kind), target)
    plan.bodies = tuple(
        tuple(builder.nodes(body, number, ())) for number, (_, body) in enumerate(streams)
    )
    plan.hand_overs = _hand_overs(plan)
    for stream, body in enumerate(plan.bodies):
        plan.before.update(_occupants(plan, builder.buffers, stream, body))
    return plan


@dataclass
class _Builder:
    plan: Plan
    buffers: Mapping[str, Buffer]
    kind: Kind
    target: Target
    units: dict[str, int] = field(default_factory=dict)

    def nodes(
        self, items: Sequence[Item], stream: int, loops: tuple[tuple[Loop, int], ...]
    ) -> Iterator[Node]:
        for item in items:
            if isinstance(item, Loop):
                if any(item.var == loop.var for loop, _ in loops):
                    raise InternalError(f"loop {item.var} stands within a loop of the same name")
                number = len(self.plan.repeats)
                repeat = Repeat(number, item.count, ())
                self.plan.repeats.append(repeat)
                body = tuple(self.nodes(item.body, stream, (*loops, (item, number))))
                self.plan.repeats[number] = repeat = Repeat(number, item.count, body)
                yield repeat
            else:
                yield self.node(item, stream, loops)

    def node(self, instr: Instr, stream: int, loops: tuple[tuple[Loop, int], ...]) -> Node:
        plan = self.plan
        numbers = {loop.var: number for loop, number in loops}
        conditions = tuple((self.loop(numbers, var, instr), word) for var, word in instr.when)
        count = math.prod(loop.count for loop, _ in loops)
        if conditions:
            count = executions_of(conditions, [(number, loop.count) for loop, number in loops])
        if isinstance(instr, Signal):
            publish = Publish(len(plan.publishes), instr.buffer, instr.count, conditions)
            plan.publishes.append(publish)
            plan.publishers.setdefault(instr.buffer, {})[stream] = None
            parts = plan.progress.get(instr.buffer, 0)
            plan.progress[instr.buffer] = parts + count * instr.count
            plan.signals[instr.buffer] = plan.signals.get(instr.buffer, 0) + count
            return publish
        if isinstance(instr, Wait):
            factors = dict.fromkeys(numbers.values(), 0)
            for var, factor in instr.count.terms:
                factors[self.loop(numbers, var, instr)] += factor
            terms = tuple(factors.items())
            wait = Await(
                len(plan.awaits), instr.buffer, instr.count.const, terms, instr.limit, conditions
            )
            plan.awaits.append(wait)
            plan.waiters.setdefault(instr.buffer, {})[stream] = None
            return wait
        step = self.step(instr, stream, conditions)
        plan.steps.append(step)
        plan.executions.append(count)
        return step

    def step(self, instr: Instr, stream: int, conditions: Conditions) -> Step:
        cost = self.kind.cost(instr, self.buffers, self.target)
        cycles: dict[int, int] = {}
        for name, held in cost.holds:
            unit = self.units.setdefault(name, len(self.plan.units))
            if unit == len(self.plan.units):
                self.plan.units.append(name)
            cycles[unit] = cycles.get(unit, 0) + held
        release = max(cycles.values(), default=cost.cycles)
        if not cycles:  # holds nothing: its own executions keep their order
            cycles[len(self.plan.units)] = 0
            self.plan.units.append("")
        reads, updates, writes = accesses(instr)
        for name in (*reads, *updates):
            self.plan.readers.setdefault(name, {})[stream] = None
        for name in (*updates, *writes):
            self.plan.writers.setdefault(name, {})[stream] = None
        number = len(self.plan.steps)
        units = tuple(cycles.items())
        return Step(number, stream, instr, cost, conditions, units, release, reads, updates, writes)

    def loop(self, numbers: Mapping[str, int], var: str, instr: Instr) -> int:
        if var not in numbers:
            raise InternalError(f"{instr.mnemonic} of {instr.layer} names {var}, no loop around it")
        return numbers[var]


def executions_of(conditions: Conditions, loops: Sequence[tuple[int, int]]) -> int:
    """How often something under `conditions` executes within (number, count) loops."""
    product = 1
    for number, count in loops:
        wanted = {word for loop, word in conditions if loop == number}
        ends = {0, count - 1} if count else set()
        middle = 0 if wanted & {"first", "last"} else count - len(ends)
        product *= middle + sum(all(holds(word, end, count) for word in wanted) for end in ends)
    return product


def _races(plan: Plan) -> Iterator[Fault]:
    for buffer, readers in plan.readers.items():
        for reader in readers:
            others = [other for other in plan.writers.get(buffer, {}) if other != reader]
            if others and reader not in plan.waiters.get(buffer, {}):
                yield Fault(
                    f"stream {plan.names[reader]} reads %{buffer} without waiting for it",
                    have=f"stream {plan.names[others[0]]} writes it",
                    help="streams meet only at wait and signal",
                    code="CIM6003",
                )


def _occupants(
    plan: Plan, buffers: Mapping[str, Buffer], stream: int, body: Sequence[Node]
) -> dict[tuple[int, str], tuple[str, ...]]:
    """Whose cells each written buffer of a stream takes over: (stream, buffer) -> buffers.

    Buffers are seen in the order of their first use, the last ones standing before the first, since
    a next sample follows. Within one outermost loop any order may occur, so there all that overlap
    count.
    """
    order: dict[str, set[int]] = {}  # buffer -> positions of the outermost nodes that touch it
    for position, node in enumerate(body):
        for step in _steps(node):
            for name in (*step.reads, *step.updates, *step.writes):
                order.setdefault(name, set()).add(position if isinstance(node, Repeat) else -1)
    cells = {name: _cells(buffers[name]) for name in order if buffers[name].address is not None}
    found: dict[str, dict[str, None]] = {name: {} for name in cells}
    standing: dict[str, tuple[list[int], list[tuple[int, str]]]] = {}  # starts; ends and names
    for name in (*cells, *cells):
        starts, ends = standing.setdefault(buffers[name].memory, ([], []))
        for other in _take_cells(*cells[name], name, starts, ends):
            if other != name:
                found[name][other] = None
    _add_loop_mates(order, cells, buffers, found)
    return {
        (stream, name): tuple(others)
        for name, others in found.items()
        if others and stream in plan.writers.get(name, {})
    }


def _take_cells(
    low: int, high: int, name: str, starts: list[int], ends: list[tuple[int, str]]
) -> list[str]:
    """Put `name` into cells low .. high-1 of a memory; returns who stood there."""
    first = bisect.bisect_right(starts, low)
    if first and ends[first - 1][0] > low:
        first -= 1
    last = bisect.bisect_left(starts, high)
    taken = list(zip(starts[first:last], ends[first:last], strict=True))
    left = [(start, (low, other)) for start, (_, other) in taken[:1] if start < low]
    right = [(high, (end, other)) for _, (end, other) in taken[-1:] if end > high]
    kept = [*left, (low, (high, name)), *right]
    starts[first:last] = [start for start, _ in kept]
    ends[first:last] = [end for _, end in kept]
    return [other for _, (_, other) in taken]


def _add_loop_mates(
    order: Mapping[str, set[int]],
    cells: Mapping[str, tuple[int, int]],
    buffers: Mapping[str, Buffer],
    found: dict[str, dict[str, None]],
) -> None:
    mates: dict[tuple[int, str], list[str]] = {}
    for name in cells:
        for position in order[name] - {-1}:
            mates.setdefault((position, buffers[name].memory), []).append(name)
    for group in mates.values():
        group.sort(key=lambda name: cells[name])
        for place, name in enumerate(group):
            for other in group[place + 1 :]:
                if cells[other][0] >= cells[name][1]:
                    break
                found[name][other] = None
                found[other][name] = None


def _steps(node: Node) -> Iterator[Step]:
    if isinstance(node, Step):
        yield node
    elif isinstance(node, Repeat):
        for inner in node.body:
            yield from _steps(inner)


def _cells(buffer: Buffer) -> tuple[int, int]:
    address = buffer.address or 0
    size = buffer.elements * buffer.slots * numpy_dtype(buffer.dtype).itemsize
    return address, address + size
