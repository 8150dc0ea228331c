"""Cycles and energy of a mapped nest in closed form: what searches minimize.

From the innermost loop outwards, all iterations of loop i take

    run(i) = max( bound(i) run(i+1) + (bound(i) - 1) gap(i), of every port the cycles it is held )

from the begin of the first activation to the end of the last. gap(i) is what lies between two
activations where loop i steps: the results of loop i and of all loops inside go out, new inputs,
weights and partial sums come in. These few transfers are put one after the other on their ports, in
the program's order, each as soon as its tile is there and the one before in its place was used. On
the way

  - a level in between is free when its last tile went on, while the macro still works on that
  - tiles for second buffers are waited for by nobody, but keep their ports from those that follow,
    and a loop takes at least as long as its own (cut into pieces, they are taken to keep out of
    others' way)
  - complete results leave behind the back of what comes next, up to its first result; those that
    pass their level wait for their port, with room for two, and so for tiles ahead that are there
  - where loops further out reduce, sums come and go; whether a step begins or ends a tile of
    results is counted by how often it does

Before the first activation every tile is fetched once, after the last one the last results go out.
Energy is transfers, activations and vector operations at their prices, and leakage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cimc.mapping.flows import Flow, flows
from cimc.mapping.machine import INPUT, NAMES, OPERANDS, OUTPUT, REDUCED, WEIGHT
from cimc.mapping.nest import Mapped
from cimc.mapping.objective import Objective
from cimc.targets.sram_cim.cost import port, width
from cimc.targets.sram_cim.energy import activation_pj, leakage_pj
from cimc.targets.sram_cim.instructions import second_banks
from cimc.targets.sram_cim.pieces import SHORT
from cimc.targets.sram_cim_spec import Level, SramCimSpec

Ports = dict[str, float]
NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Figures:
    """Cycles and pJ of one layer."""

    cycles: float
    energy_pj: float

    def score(self, objective: str) -> float:
        """What a search minimizes: "latency", "energy", "edp" or a weighted sum."""
        return Objective.parse(objective).score(self.cycles, self.energy_pj)


@dataclass(frozen=True, slots=True)
class Passage:
    """One transfer: how long it holds each port, cycles until its data are there, its pJ."""

    ports: tuple[tuple[str, float], ...]
    cycles: float
    pj: float

    @property
    def held(self) -> float:
        """Cycles until what it read may be overwritten."""
        return max((cycles for _, cycles in self.ports), default=0.0)


NOTHING = Passage((), 0.0, 0.0)


@dataclass(slots=True)
class _Move:
    """A flow with its transfers."""

    flow: Flow
    outer: _Move | None  # the same operand's flow next to it further out
    is_innermost: bool
    aside: bool = False  # by a second buffer: nobody waits
    base: int = -1  # of I, W: the loop at whose steps that begins anew, for want of the next tile
    spread: float = 0.0  # share of an iteration in which its pieces go on; 0: all at once
    come: Passage = NOTHING
    go: Passage = NOTHING  # of sums that are not complete
    end: Passage = NOTHING  # of complete ones
    passes: Passage | None = None  # complete sums of one register, that go straight on
    way_in: float = 0.0  # of I, W: cycles of the transfers further in
    early: float = 0.0  # of I, W: how long before an activation ends the place is free
    later: float = 0.0  # of O: how long after one begins the place is needed

    @property
    def place(self) -> int:
        """The loop in whose iterations it goes on."""
        return self.flow.loop

    @property
    def share(self) -> float:
        """Of the visits to a tile of O, those that do not complete it."""
        return self.flow.inward / self.flow.outward


class _Queues:
    """Ports that serve one transfer after the other."""

    def __init__(self) -> None:
        self.free: Ports = {}

    def take(self, passage: Passage, ready: float) -> float:
        """When a transfer starts, after all that its ports serve before."""
        start = self.when(passage, ready)
        for unit, cycles in passage.ports:
            self.free[unit] = start + cycles
        return start

    def when(self, passage: Passage, ready: float) -> float:
        """When it could start."""
        return max(ready, *(self.free.get(unit, NEVER) for unit, _ in passage.ports), NEVER)


def evaluate(mapped: Mapped, spec: SramCimSpec, epilogue: int = 1) -> Figures:
    """Figures of one layer; `epilogue` counts the vector operations on each result."""
    return _Evaluation(mapped, spec, epilogue).figures()


class _Evaluation:
    """The recurrence, and the energy added up on the way."""

    def __init__(self, mapped: Mapped, spec: SramCimSpec, epilogue: int) -> None:
        self.mapped, self.spec, self.epilogue = mapped, spec, epilogue
        self.names = [level.name for level in mapped.machine.levels]
        self.pj = 0.0
        self.busy: Ports = {}
        self.once: Ports = {}  # of that, before the first activation or after the last
        self.runs: dict[int, float] = {}  # of the loops inside each
        moves = flows(mapped)
        inputs, weights, results = ([f for f in moves if f.operand == o] for o in OPERANDS)
        self.fetches = [*self.chain(inputs), *self.chain(weights)]
        self.results = self.chain(results)
        for move in self.fetches:
            self.price_fetch(move)
        complete = [move for move in self.results if not move.flow.partial]
        self.last_sums = complete[-1] if complete else self.results[0]
        for move in self.results:
            self.price_results(move)
        inner: _Move | None = None
        for move in reversed([*self.fetches, *self.results]):
            is_next = inner is not None and inner.outer is move
            if move.aside:
                move.spread = self.spread(move, inner if is_next else None)
            inner = move
        self.in_order = sorted(
            [*self.fetches, *self.results], key=lambda move: (move.place, self.rank(move))
        )

    def chain(self, own: Sequence[Flow]) -> list[_Move]:
        """An operand's flows, from the outermost level inwards."""
        found: list[_Move] = []
        for flow in own:
            found.append(_Move(flow, found[-1] if found else None, flow is own[-1]))
        return found

    def rank(self, move: _Move) -> int:
        """The order of what comes in at one loop; before all loops weights come first."""
        if move.flow.operand == OUTPUT:
            return 3 if move.aside else 2
        return int((move.flow.operand == WEIGHT) == (move.place >= 0))

    def reduced(self, places: Iterable[int]) -> int:
        """Visits to a tile of results by some loops."""
        loops = (self.mapped.loops[place] for place in places)
        return math.prod(bound for dim, bound in loops if dim in REDUCED)

    # --- time ---

    def figures(self) -> Figures:
        """From the innermost loop outwards."""
        mapped, bits = self.mapped, self.mapped.workload.bits
        run = float(mapped.machine.activation_cycles(bits[INPUT], bits[WEIGHT]))
        self.busy = {"macro": run}
        coming = [0.0, 0.0]  # transfers of I, W that an activation waits for
        for place in range(len(mapped.loops) - 1, -1, -1):
            run = self.step_in(place, run, coming)
            ahead = [0.0, 0.0]
            for move in self.fetches:
                if move.place == place and move.aside:
                    ahead[move.flow.operand] += move.come.cycles
            dim, bound = mapped.loops[place]
            complete = 0.0 if dim in REDUCED else 1.0 / self.reduced(range(place))
            gap = 0.0
            if complete > 0.0:
                gap += complete * self.gap(place, is_complete=True)
            if complete < 1.0:
                gap += (1.0 - complete) * self.gap(place, is_complete=False)
            self.busy = {unit: held * bound for unit, held in self.busy.items()}
            run = max(
                bound * run + (bound - 1) * gap,
                (bound - 1) * max(ahead) + run,
                *(held - self.once.get(unit, 0.0) for unit, held in self.busy.items()),
            )
        run = self.step_in(-1, run, coming)
        total = self.begin() + run + self.finish()
        activation = activation_pj(self.spec, bits[INPUT], bits[WEIGHT])
        self.pj += mapped.activations * mapped.used(0) * activation
        return Figures(total, self.pj + total * leakage_pj(self.spec))

    def step_in(self, place: int, run: float, coming: list[float]) -> float:
        """Enter what moves at a loop; `run` of what is inside, and what that takes then."""
        self.runs[place] = run
        for move in reversed(self.fetches):
            if move.place == place:
                self.hold(move.come, 1.0, 1.0)
                move.way_in = coming[move.flow.operand]
                if move.outer is not None:
                    early = run + coming[move.flow.operand]
                    move.outer.early = 2.0 * run if move.aside else early
                if not move.aside:
                    coming[move.flow.operand] += move.come.cycles
        for move in reversed(self.results):
            if move.place == place:
                self.hold(move.go, move.share, 0.0)
                self.hold(move.end, 1.0 - move.share, 0.0 if move.passes else 1.0)
                self.hold(move.come, move.share, 0.0)
                if move.outer is not None:
                    move.outer.later = self.runs[place]
                if move.passes:
                    run += self.held_up(move, run)
        return run

    def held_up(self, move: _Move, run: float) -> float:
        """How much longer the last visits to a tile take whose sums pass their level."""
        visits = self.reduced(range(move.place + 1, len(self.mapped.loops)))
        both = 2.0 * self.runs[self.results[-1].place]  # registers that may wait
        ports = dict(move.end.ports)
        longest = max(ports.values())
        waited = 0.0
        for other in self.fetches:
            if other.aside and not other.spread and other.place > move.place:
                places = range(move.place + 1, other.place + 1)
                loops = [self.mapped.loops[place] for place in places]
                times = math.prod(bound for dim, bound in loops if dim not in REDUCED)
                for unit, held in other.come.ports:
                    if unit in ports:
                        longest = max(longest, ports[unit] + times * held)
                        waited += times * max(0.0, held - both)
        return max(0.0, longest - run / visits, waited)

    def hold(self, passage: Passage, share: float, once: float) -> None:
        """Add what a transfer holds in one iteration; `once`: how much of it beside the run."""
        for unit, held in passage.ports:
            self.busy[unit] = self.busy.get(unit, 0.0) + share * held
            self.once[unit] = self.once.get(unit, 0.0) + once * held

    def gap(self, place: int, *, is_complete: bool) -> float:
        """Cycles from the end of an activation to the begin of the next where a loop steps."""
        queues = self.queues(place)
        gone: dict[int, float] = {}  # when a tile of O may be overwritten, by level
        data, ready = 0.0, 0.0
        for move in reversed(self.results):
            if move.place < place or move.passes:
                continue
            if move.aside:
                data = gone[move.flow.inner.level] = NEVER
                continue
            passage = move.end if is_complete else move.go
            start = queues.take(passage, max(data, 0.0))
            data = start + passage.cycles
            gone[move.flow.inner.level] = start + passage.held
            if is_complete and not move.is_innermost:
                ready = max(ready, start + passage.held - move.later)
        there: dict[tuple[int, int], float] = {}  # when a tile has come, by operand and level
        ahead: dict[tuple[int, int], float] = {}  # the same of the one after it
        for move in self.in_order:
            o, level = move.flow.operand, move.flow.inner.level
            if move.place < place:
                continue
            if move.aside and (o == OUTPUT or place > move.base):
                ready = max(ready, self.beside(move, place, queues, gone, ahead))
                continue
            if o == OUTPUT and is_complete:
                if move.is_innermost:
                    ready = max(ready, gone[level])
                continue
            space = gone.get(level, 0.0) if o == OUTPUT else -move.early
            if move.aside:
                space = -self.runs[move.place]
            start = queues.take(move.come, max(space, there.get((o, move.flow.outer.level), NEVER)))
            there[o, level] = start + move.come.cycles
            if move.is_innermost:
                ready = max(ready, there[o, level])
        return ready

    def queues(self, place: int) -> _Queues:
        """Ports with what came in last where a loop, and all loops inside, stepped before."""
        found = _Queues()
        for move in self.in_order:
            if move.place >= place:
                for unit, held in move.come.ports:
                    last = -self.runs[move.place] + (held if move.aside else 0.0)
                    found.free[unit] = max(found.free.get(unit, NEVER), last)
        return found

    def beside(
        self,
        move: _Move,
        place: int,
        queues: _Queues,
        gone: dict[int, float],
        ahead: dict[tuple[int, int], float],
    ) -> float:
        """A transfer by a second buffer where a loop steps; what waits for it all the same."""
        found, o = 0.0, move.flow.operand
        if o == OUTPUT:
            passage, ready = move.end, 0.0
            for inner in self.results:
                if inner.outer is move:
                    ready = max(0.0, gone.get(inner.flow.inner.level, 0.0))
            start = (queues.when if move.spread else queues.take)(passage, ready)
        else:
            passage, ready = move.come, 0.0 if move.is_innermost else -move.early
            if move.outer is not None and move.outer.place == move.place:
                ready = max(ready, ahead.get((o, move.flow.outer.level), NEVER))
            start = (queues.when if move.spread else queues.take)(passage, ready)
            if not move.spread:  # its tile is used after the iteration that begins
                arrival = start + passage.cycles
                ahead[o, move.flow.inner.level] = arrival
                found = arrival - self.runs[move.place]
                if move.place == place:  # and its way further in lies in the gap after that
                    found = max(found, (found + move.way_in) / 2)
        window = move.spread * self.runs[move.place]
        for unit, held in passage.ports:
            for inner in self.in_order:
                if inner.place <= move.place or inner.passes:
                    continue
                of_results = inner.flow.operand == OUTPUT
                other = inner.end if of_results else inner.come
                if (of_results or move.spread or inner.spread) and unit in dict(other.ports):
                    after = 0.0  # the next is needed after one iteration; what leaves late has two
                    if of_results or inner.aside:
                        after = self.runs[inner.place]
                    if inner.aside:
                        after = after * (2.0 if of_results else 1.0) - other.cycles
                    found = max(found, start + held - max(after, window))
        return found

    def begin(self) -> float:
        """Cycles until all is there for the first activation."""
        queues, ready = _Queues(), 0.0
        there: dict[tuple[int, int], float] = {}
        for move in self.in_order:
            o = move.flow.operand
            if o != OUTPUT:
                data = there.get((o, move.flow.outer.level), 0.0)
                there[o, move.flow.inner.level] = queues.take(move.come, data) + move.come.cycles
                ready = max(ready, there[o, move.flow.inner.level])
        return ready

    def finish(self) -> float:
        """Cycles from the last activation until all results are out."""
        queues, data, latest = _Queues(), 0.0, 0.0
        for move in reversed(self.results):
            passage = move.passes or move.end
            data = queues.take(passage, data) + passage.cycles
            latest = max(latest, data)
        return latest

    # --- prices ---

    def price_fetch(self, move: _Move) -> None:
        """Tiles of inputs or weights come in."""
        flow, mapped, outer = move.flow, self.mapped, move.outer
        o = flow.operand
        ahead = flow.double and flow.loop >= 0
        behind = False
        if outer is not None:
            behind = outer.flow.double and outer.place == flow.loop
            move.base = outer.base if outer.flow.double and outer.place >= 0 else outer.place
        move.aside = ahead and move.place > move.base
        move.come = self.passage(
            o,
            flow.outer.level,
            flow.inner.level,
            flow.outer_elements * mapped.workload.bits[o],
            flow.inner_elements * mapped.bits(o, flow.inner.level),
            second_banks(ahead, ahead and behind),
        )
        self.pj += flow.inward * move.come.pj

    def price_results(self, move: _Move) -> None:
        """Tiles of results go out, sums that are not complete come back in."""
        flow, mapped = move.flow, self.mapped
        outside = -1 if move.outer is None else move.outer.place
        move.aside = flow.double and not flow.partial and flow.loop > outside
        outer = flow.outer_elements * mapped.bits(OUTPUT, flow.outer.level)
        inner = flow.inner_elements * mapped.bits(OUTPUT, flow.inner.level)
        banks = second_banks(False, move.aside)
        move.come = self.passage(OUTPUT, flow.outer.level, flow.inner.level, outer, inner)
        out = self.passage(OUTPUT, flow.inner.level, flow.outer.level, inner, outer, banks)
        move.go = move.end = out
        if move is self.last_sums:
            move.end = self.epilogue_of(flow, flow.inner_elements, flow.outer_elements)
            if self.can_pass(move):
                register = self.results[-1].flow
                union = register.inner_elements * mapped.instances(register.inner.level)
                parts = mapped.instances(flow.outer.level)
                move.passes = self.epilogue_of(
                    flow, register.outer_elements, -(-union // parts), union
                )
        self.pj += flow.inward * move.come.pj
        self.pj += flow.outward * (move.share * move.go.pj + (1.0 - move.share) * move.end.pj)

    def union(self, flow: Flow) -> int:
        """Results of a tile in all instances."""
        return flow.inner_elements * self.mapped.instances(flow.inner.level)

    def spread(self, move: _Move, inner: _Move | None) -> float:
        """Over how much of an iteration a transfer is spread (as `pieces` cuts it, nearly)."""
        flow, mapped, levels = move.flow, self.mapped, self.mapped.machine.levels
        ends = levels[flow.outer.level], levels[flow.inner.level]
        if any(level.along for level in ends):
            return 0.0
        bits = mapped.workload.bits[flow.operand]
        if flow.operand == OUTPUT:
            bits = mapped.bits(OUTPUT, flow.inner.level)
        width = min(*(level.read_bits for level in ends), *(level.write_bits for level in ends))
        is_read_ahead = inner is not None and inner.flow.double and flow.operand != OUTPUT
        until = inner.place if is_read_ahead and inner is not None else len(mapped.loops) - 1
        count, at_first = 1, 1
        for _, bound in mapped.loops[move.place + 1 : until + 1]:
            if flow.inner_elements * bits <= count * SHORT * width:
                break
            if any(n % (count * bound) for n in (flow.inner_elements, flow.outer_elements)):
                at_first *= bound
            else:
                count *= bound
        return 1.0 / at_first if count > 1 else 0.0

    def can_pass(self, move: _Move) -> bool:
        """Whether complete sums go straight on from the registers (see `Results.can_pass`)."""
        register, mapped = self.results[-1], self.mapped
        if register.outer is not move or move.flow.partial or move.aside or register.place < 0:
            return False
        level = mapped.machine.levels[move.flow.inner.level]
        landing = mapped.machine.levels[move.flow.outer.level]
        waiting = 2 * register.flow.outer_elements * mapped.machine.psum_bits
        taken = sum(mapped.occupied()[move.flow.inner.level].values())
        union, parts = self.union(register.flow), mapped.instances(move.flow.outer.level)
        return (
            taken + waiting <= level.size_bits
            and union * mapped.workload.bits[OUTPUT] % (parts * landing.write_bits) == 0
            and union % self.lanes() == 0
        )

    def lanes(self) -> int:
        """Results that the vector units work on in a cycle."""
        vector = self.spec.vector
        return vector.lanes * (self.mapped.used(0) if vector.per == "core" else 1)

    def epilogue_of(self, flow: Flow, inner: int, outer: int, union: int | None = None) -> Passage:
        """Vector operations on a tile: elements in one instance inside and outside, and in all.

        Other tensors that are added come from the outermost memory, one after the other.
        """
        mapped, home = self.mapped, self.spec.memory[self.names[0]]
        union = self.union(flow) if union is None else union
        source, sink = self.level(flow.inner.level), self.level(flow.outer.level)
        sums, results = inner * mapped.machine.psum_bits, outer * mapped.workload.bits[OUTPUT]
        reading = port(self.names[flow.inner.level], source, "read")
        writing = port(self.names[flow.outer.level], sink, "write")
        work = max(1, -(-union // self.lanes()))
        ports: Ports = {"vector": float(work * self.epilogue)}
        ports[reading] = float(-(-sums // width(source, "read")))
        written = float(-(-results // width(sink, "write")))
        reads = ports[reading]
        ports[writing] = ports.get(writing, 0.0) + written
        pj = sums * mapped.instances(flow.inner.level) * source.read_pj_per_bit
        pj += results * mapped.instances(flow.outer.level) * sink.write_pj_per_bit
        pj += union * self.epilogue * self.spec.vector.op_pj
        cycles = max(reads, written, work)
        cycles += max(source.latency_cycles, sink.latency_cycles)
        if self.epilogue > 1:
            others = union * mapped.workload.bits[OUTPUT]
            fetched = -(-others // width(home, "read"))
            read = port(self.names[0], home, "read")
            ports[read] = ports.get(read, 0.0) + (self.epilogue - 1) * fetched
            pj += (self.epilogue - 1) * others * home.read_pj_per_bit
            cycles = max(reads, work) + source.latency_cycles
            cycles += (self.epilogue - 2) * (max(fetched, work) + home.latency_cycles)
            cycles += max(fetched, work, written)
            cycles += max(home.latency_cycles, sink.latency_cycles)
            ports["vector"] = cycles  # the units' own store holds one tile
        return Passage(tuple(ports.items()), cycles, pj)

    def level(self, number: int) -> Level:
        """A level's constants."""
        return self.spec.memory[self.names[number]]

    def passage(
        self, operand: int, source: int, sink: int, read: int, stored: int, banks: str = ""
    ) -> Passage:
        """`read` bits of one instance of a level to `stored` bits of one of another."""
        spec, mapped = self.spec, self.mapped
        outer, inner = self.level(source), self.level(sink)
        reading = port(self.names[source], outer, "read")
        writing = port(self.names[sink], inner, "write")
        read_cycles = -(-read // width(outer, "read"))
        write_cycles = -(-stored // width(inner, "write"))
        held: Ports = {} if banks in ("src", "both") else {reading: read_cycles}
        if banks not in ("dst", "both"):
            held[writing] = held.get(writing, 0) + write_cycles
        cycles = max(read_cycles, write_cycles, *held.values())
        pj = read * mapped.instances(source) * outer.read_pj_per_bit
        pj += stored * mapped.instances(sink) * inner.write_pj_per_bit
        latency = max(outer.latency_cycles, inner.latency_cycles)
        if outer.per != inner.per:
            crossing = read if outer.per == "chip" else stored
            link = -(-crossing // spec.link.bits_per_cycle)
            held[f"link.{NAMES[operand]}"] = link
            cycles = max(cycles, link)
            pj += crossing * spec.link.pj_per_bit
            latency += spec.link.hop_cycles
        cells = mapped.machine.chain(WEIGHT)[-1]
        if sink == cells and not mapped.machine.levels[cells].double[WEIGHT]:
            held["macro"] = cycles
        return Passage(tuple(held.items()), cycles + latency, pj)
