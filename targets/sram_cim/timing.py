"""Cycles and energy of a mapped nest in closed form: what searches minimize.

From the innermost loop outwards, one iteration of loop i takes

    B(i) = max( S(i+1) + exposed(i) + blocked(i), ahead(i), busy(i, p) of every port p )
    S(i) = bound(i) * B(i)

S: all iterations inside. exposed: transfers of loop i that the macro waits for, those into single
buffers; ahead: those into second buffers; of both the longest of the three operands', each
operand's adding up. busy: cycles that port p is held in one iteration, everything inside included;
ports are shared by all operands. blocked: a long transfer ahead keeps a port from transfers of
loops inside, which can wait no longer than the one tile they are ahead. Before the first activation
every tile is fetched once, after the last one the last results go out. Energy is transfers,
activations and vector operations at their prices, and leakage.
"""

from __future__ import annotations

from dataclasses import dataclass

from cimc.mapping.flows import Flow, flows
from cimc.mapping.machine import INPUT, NAMES, OUTPUT, WEIGHT
from cimc.mapping.nest import Mapped
from cimc.mapping.objective import Objective
from cimc.targets.sram_cim.cost import port, width
from cimc.targets.sram_cim.energy import activation_pj, leakage_pj
from cimc.targets.sram_cim.instructions import second_banks
from cimc.targets.sram_cim_spec import SramCimSpec

Ports = dict[str, float]


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
    """One transfer: cycles until its data are there, cycles that it holds each port, its pJ."""

    cycles: float
    ports: tuple[tuple[str, float], ...]
    pj: float


def evaluate(mapped: Mapped, spec: SramCimSpec, epilogue: int = 1) -> Figures:
    """Figures of one layer; `epilogue` counts the vector operations on each result."""
    return _Evaluation(mapped, spec, epilogue).figures()


class _Evaluation:
    """The recurrence, and the energy added up on the way."""

    def __init__(self, mapped: Mapped, spec: SramCimSpec, epilogue: int) -> None:
        self.mapped, self.spec, self.epilogue = mapped, spec, epilogue
        moves = flows(mapped)
        self.at: dict[int, list[Flow]] = {}
        for flow in moves:
            self.at.setdefault(flow.loop, []).append(flow)
        outward = [flow for flow in moves if flow.operand == OUTPUT]
        complete = [flow for flow in outward if not flow.partial]
        self.finishing = complete[-1] if complete else outward[0]
        self.fills = {flow.inner.level: flow.loop for flow in outward}
        self.loads_ahead = {
            (flow.operand, flow.inner.level): flow.loop
            for flow in moves
            if flow.double and flow.loop >= 0 and flow.operand != OUTPUT
        }
        self.busy: Ports = {}
        self.pj = 0.0
        self.first, self.last = [0.0, 0.0, 0.0], 0.0
        self.exposed, self.ahead = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
        self.waited: Ports = {}  # cycles of this loop's transfers that the macro waits for
        self.bursts: Ports = {}  # and of those that it does not
        self.slack: Ports = {}  # how long loops inside can do without a port

    def figures(self) -> Figures:
        """From the innermost loop outwards."""
        mapped, bits = self.mapped, self.mapped.workload.bits
        total = float(mapped.machine.activation_cycles(bits[INPUT], bits[WEIGHT]))
        self.busy = {"macro": total}
        for place in range(len(mapped.loops) - 1, -2, -1):
            self.exposed, self.ahead = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
            self.waited, self.bursts = {}, {}
            for flow in self.at.get(place, []):
                if flow.operand == OUTPUT:
                    self.results(flow)
                else:
                    self.fetch(flow)
            blocked = max(
                (
                    held - self.slack[unit]
                    for unit, held in self.bursts.items()
                    if unit in self.slack
                ),
                default=0.0,
            )
            for ports in (self.waited, self.bursts):
                for unit, held in ports.items():
                    self.busy[unit] = self.busy.get(unit, 0.0) + held
            total += max(self.exposed) + max(blocked, 0.0)
            total = max(total, *self.ahead, *self.busy.values())
            for unit, held in self.bursts.items():
                self.slack[unit] = min(self.slack.get(unit, total), max(total - held, 0.0))
            self.slack.update(dict.fromkeys(self.waited, 0.0))
            if place >= 0:
                bound = mapped.loops[place][1]
                total *= bound
                self.busy = {unit: held * bound for unit, held in self.busy.items()}
        total += max(self.first) + self.last
        activation = activation_pj(self.spec, bits[INPUT], bits[WEIGHT])
        self.pj += mapped.activations * mapped.used(0) * activation
        return Figures(total, self.pj + total * leakage_pj(self.spec))

    def fetch(self, flow: Flow) -> None:
        """A tile of inputs or weights comes in."""
        o, mapped = flow.operand, self.mapped
        read = flow.outer_elements * mapped.workload.bits[o]
        stored = flow.inner_elements * mapped.bits(o, flow.inner.level)
        ahead = flow.double and flow.loop >= 0
        behind = self.loads_ahead.get((o, flow.outer.level)) == flow.loop
        banks = second_banks(ahead, ahead and behind)
        move = self.passage(o, flow.outer.level, flow.inner.level, read, stored, banks)
        self.hold(move, 1.0, self.bursts if ahead else self.waited)
        self.pj += flow.inward * move.pj
        if ahead:
            self.first[o] += move.cycles
            self.ahead[o] += move.cycles
        else:
            self.exposed[o] += move.cycles

    def results(self, flow: Flow) -> None:
        """A tile of results goes out, and partial sums come back in."""
        mapped = self.mapped
        outer = flow.outer_elements * mapped.bits(OUTPUT, flow.outer.level)
        inner = flow.inner_elements * mapped.bits(OUTPUT, flow.inner.level)
        share = flow.inward / flow.outward
        outside = self.fills.get(flow.outer.level, -1)  # the loop that fills the level outside
        later = flow.double and not flow.partial and flow.loop > outside
        back = self.passage(OUTPUT, flow.outer.level, flow.inner.level, outer, inner)
        banks = second_banks(False, later)
        out = self.passage(OUTPUT, flow.inner.level, flow.outer.level, inner, outer, banks)
        if share:
            self.hold(back, share, self.waited)
        self.hold(out, 1.0, self.bursts if later else self.waited)
        self.pj += flow.inward * back.pj + flow.outward * out.pj
        leaving = out.cycles
        if flow is self.finishing:
            leaving = max(leaving, self.finish(flow, 1.0 - share))
        self.exposed[OUTPUT] += share * back.cycles
        if later:
            self.last += leaving
        else:
            self.exposed[OUTPUT] += leaving

    def finish(self, flow: Flow, share: float) -> float:
        """Vector operations on a tile, on this share of its visits; their cycles."""
        vector, mapped = self.spec.vector, self.mapped
        results = flow.inner_elements * mapped.instances(flow.inner.level) * self.epilogue
        lanes = vector.lanes * (mapped.used(0) if vector.per == "core" else 1)
        cycles = -(-results // lanes)
        self.waited["vector"] = share * cycles
        self.pj += flow.outward * share * results * vector.op_pj
        return share * cycles

    def passage(
        self, operand: int, source: int, sink: int, read: int, stored: int, banks: str = ""
    ) -> Passage:
        """`read` bits of one instance of a level to `stored` bits of one of another."""
        spec, mapped = self.spec, self.mapped
        names = [level.name for level in mapped.machine.levels]
        outer, inner = spec.memory[names[source]], spec.memory[names[sink]]
        reading, writing = port(names[source], outer, "read"), port(names[sink], inner, "write")
        read_cycles, write_cycles = (
            -(-read // width(outer, "read")),
            -(-stored // width(inner, "write")),
        )
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
        return Passage(cycles + latency, tuple(held.items()), pj)

    def hold(self, move: Passage, share: float, ports: Ports) -> None:
        """Add what a passage holds."""
        for unit, held in move.ports:
            ports[unit] = ports.get(unit, 0.0) + share * held
