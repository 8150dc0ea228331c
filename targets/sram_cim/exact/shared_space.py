"""One choice of spatial loops as the kernels of shared ports see it, and mappings made of steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from cimc.ir.tiles import Nest
from cimc.mapping.flows import Flow, flows
from cimc.mapping.machine import OPERANDS, WEIGHT, Machine
from cimc.mapping.nest import DIMS, Mapped
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim import search_kernel
from cimc.targets.sram_cim.anneal import packed, with_levels
from cimc.targets.sram_cim.energy import activation_pj
from cimc.targets.sram_cim.exact import shared_costs as costs
from cimc.targets.sram_cim.exact.choices import remaining
from cimc.targets.sram_cim.exact.shared_costs import Floats, Ints
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import Factors, nest_of
from cimc.targets.sram_cim.stationary import primes

TABLE_BITS = 32  # of an entry of a bias or a multiplier


class Columns:
    """What stands where in a row of costs: the chain, units of the chip, pJ, bits of levels."""

    def __init__(self, target: Target) -> None:
        spec = spec_of(target)
        names = list(spec.memory)
        self.units = np.full(2 * len(names) + 1, -1, np.int64)
        count = 1
        for place, name in enumerate(names):
            level = spec.memory[name]
            if level.per != "chip":
                continue
            self.units[2 * place] = count
            if level.ports != "shared":
                count += 1
                self.units[2 * place + 1] = count
            count += 1
        self.units[-1] = count
        self.pj = count + 1
        self.bits = np.full(len(names), -1, np.int64)
        count = self.pj + 1
        for place, name in enumerate(names):
            if place and len(spec.memory[name].holds) > 1:
                self.bits[place] = count
                count += 1
        self.risk = count
        self.count = count + 1
        self.capacity = np.full(self.count, np.inf)
        for place, name in enumerate(names):
            if self.bits[place] >= 0:
                self.capacity[self.bits[place]] = spec.memory[name].size_bits

    @property
    def cycles(self) -> slice:
        """Columns none of which the latency goes below."""
        return slice(0, self.pj)


def ways(machine: Machine) -> Ints:
    """All ways of all operands."""
    found = []
    for o in OPERANDS:
        chain = machine.chain(o)
        may = [place > 0 and machine.levels[level].double[o] for place, level in enumerate(chain)]
        for j, i in itertools.combinations(range(len(chain) - 1, -1, -1), 2):
            for between in _subsets(range(i + 1, j)):
                places = (j, *between) if o <= WEIGHT else (min((j, *between)),)
                doubled = [p for p in places if may[p]]
                for double in _subsets(doubled):
                    by, twice = sum(1 << p for p in between), sum(1 << p for p in double)
                    found.append((o, j, i, by, twice))
    return np.array(found, np.int64)


def places_of(machine: Machine, table: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Number, positions and near ends of all places, and where ways lead between them."""
    places: list[list[tuple[int, int]]] = []
    for o in OPERANDS:
        last = len(machine.chain(o)) - 1
        near = [(-1,)] * last if o == WEIGHT else [tuple(range(j, last)) for j in range(last)]
        places.append([*((j, source) for j in range(last) for source in near[j]), (last, -1)])
    longest = max(map(len, places))
    position, filled = np.full((3, longest), -1, np.int64), np.full((3, longest), -1, np.int64)
    for o in OPERANDS:
        for number, (j, source) in enumerate(places[o]):
            position[o, number], filled[o, number] = j, source
    leads = np.full((len(table), longest), -1, np.int64)
    for way, (o, j, i, by, _) in enumerate(table.tolist()):
        last = len(machine.chain(o)) - 1
        for number, (here, source) in enumerate(places[o]):
            if here != j:
                continue
            if j == last and o != WEIGHT:
                source = max([p for p in range(j) if by >> p & 1], default=i)
            leads[way, number] = places[o].index((i, source))
    return np.array([len(own) for own in places], np.int64), position, filled, leads


def richer_ways(machine: Machine, table: Ints) -> Ints:
    """For each way the one that has second buffers wherever no other operand wants the room."""
    rows = [tuple(row) for row in table.tolist()]
    found = np.full(len(rows), -1, np.int64)
    for way, (o, j, i, by, double) in enumerate(rows):
        chain = machine.chain(o)
        most = double
        for p in (j, *(p for p in range(i + 1, j) if by >> p & 1)):
            level = machine.levels[chain[p]]
            if level.double[o] and sum(level.holds) == 1 and o <= WEIGHT:
                most |= 1 << p
        if most != double:
            found[way] = rows.index((o, j, i, by, most))
    return found


def _subsets(items: range | list[int]) -> Iterator[tuple[int, ...]]:
    for size in range(len(items) + 1):
        yield from itertools.combinations(items, size)


class Choice:
    """One choice of spatial loops."""

    def __init__(
        self,
        workload: Workload,
        epilogue: int,
        factors: Factors,
        target: Target,
        columns: Columns,
        left: dict[str, int] | None = None,  # iterations in time, the fewest if not given
    ) -> None:
        self.workload, self.factors, self.target = workload, factors, target
        self.machine, spec = machine_of(target), spec_of(target)
        self.columns = columns
        m = packed(workload, self.machine, spec, epilogue)
        numbers = np.ones((len(self.machine.axes), len(DIMS)), np.int64)
        for axis, own in enumerate(factors):
            for dim, factor in own:
                numbers[axis, DIMS.index(dim)] *= factor
        spread = search_kernel.spread_of(m, numbers)
        left = left or remaining(workload, factors)
        kinds: list[tuple[int, int, int]] = []
        for dim, bound in left.items():
            found = primes(bound)
            kinds += [(DIMS.index(dim), p, found.count(p)) for p in sorted(set(found))]
        made = np.array(kinds, np.int64).reshape(-1, 3)
        self.dim, self.prime, self.most = (np.ascontiguousarray(made[:, i]) for i in range(3))
        sizes = self.most + 1
        self.stride = np.array([math.prod(sizes[k + 1 :]) for k in range(len(kinds))], np.int64)
        self.points = int(math.prod(sizes))
        levels = len(self.machine.levels)
        placed, reduced = np.empty(self.points), np.empty(self.points)
        tile, union = np.empty((3, levels, self.points)), np.empty(self.points)
        costs.grid(
            m, spread, self.dim, self.prime, self.most, self.stride, self.points,
            placed, reduced, tile, union,
        )  # fmt: skip
        used = [math.prod(factor for _, factor in own) for own in factors]
        names = [axis.name for axis in self.machine.axes]
        cores = np.array(
            [used[0] if "cores" in level.along else 1 for level in self.machine.levels], np.int64
        )
        parts = cores.copy()
        for place, level in enumerate(self.machine.levels):
            for along in level.along:
                if along != "cores":
                    parts[place] *= self.machine.axes[names.index(along)].size
        table = ways(self.machine)
        places = places_of(self.machine, table)
        self.space = costs.Space(
            m=m, dim=self.dim, prime=self.prime, most=self.most, stride=self.stride,
            placed=placed, reduced=reduced, tile=tile, union=union,
            counts=search_kernel.instances_of(m, numbers),
            parts=parts, cores=cores, column=columns.units, shared=columns.bits,
            way=table, places=places[0], position=places[1], near=places[2], leads=places[3],
            richer=richer_ways(self.machine, table),
        )  # fmt: skip
        self.start = self._start(used, left)

    def _start(self, used: list[int], left: dict[str, int]) -> Floats:
        """What every mapping costs: activations, and tables for the epilogue."""
        m, machine, spec = self.space.m, self.machine, spec_of(self.target)
        bits, columns = self.workload.bits, self.columns
        row = np.zeros(columns.count)
        activations = float(self.space.placed[-1])
        row[0] = activations * int(m.numbers[search_kernel.ACTIVATION])
        shape = self.workload.shape
        total = {d: left[d] for d in left}
        for own in self.factors:
            for dim, factor in own:
                total[dim] *= factor
        channels = shape.k if shape.matmul else shape.g * shape.k
        if channels > 1:
            reach = total["k"] if shape.matmul else (total["g"] - 1) * shape.k + total["k"]
            channels = max(channels, reach)
        outer = machine.levels[0]
        tables = (1 if bits[2] == 32 else 2) * channels * TABLE_BITS
        held = (1 if bits[2] == 32 else 2) * -(-channels * TABLE_BITS // outer.read_bits)
        row[columns.units[0]] += held
        cores, rows, cells = used[0], used[1], used[1] * used[2]
        level = [machine.levels[machine.chain(o)[-1]] for o in OPERANDS]
        sums = machine.psum_bits * used[2] * cores
        each = activation_pj(spec, bits[0], bits[1]) * cores
        each += (
            bits[0] * rows * cores * level[0].read_pj + bits[1] * cells * cores * level[1].read_pj
        )
        each += sums * (level[2].read_pj + level[2].write_pj)
        row[columns.pj] = activations * each + tables * outer.read_pj
        return row

    def steps_of(self, mapped: Mapped) -> tuple[Ints, Ints]:
        """The steps of a mapping whose iterations are those of this grid; the reverse of `nest`."""
        taken: dict[tuple[int, int], list[Flow]] = {}
        for flow in flows(mapped):
            taken.setdefault((flow.loop, flow.operand), []).append(flow)
        rows = [tuple(row) for row in self.way_table.tolist()]

        def way(loop: int, o: int) -> int:
            moves = taken.get((loop, o), [])
            if not moves:
                return -1
            chain = self.machine.chain(o)
            inner = [chain.index(flow.inner.level) for flow in moves]
            end = chain.index(moves[0].outer.level)
            doubled = [
                place
                for place, flow in zip(inner, moves, strict=True)
                if flow.double
                and loop >= 0
                and (o <= WEIGHT or (flow is moves[0] and not flow.partial))
            ]
            by, double = sum(1 << p for p in inner[:-1]), sum(1 << p for p in doubled)
            return rows.index((o, inner[-1], end, by, double))

        steps = []
        for place in range(len(mapped.loops) - 1, -1, -1):
            dim, bound = mapped.loops[place]
            for number, prime in enumerate(primes(bound)):
                own = (DIMS.index(dim), prime)
                kind = list(zip(self.dim.tolist(), self.prime.tolist(), strict=True)).index(own)
                fires = [way(place, o) if number == 0 else -1 for o in OPERANDS]
                steps.append((kind, *fires))
        last = [way(-1, o) for o in OPERANDS]
        return np.array(steps, np.int64).reshape(-1, 4), np.array(last, np.int64)

    @cached_property
    def way_table(self) -> Ints:
        """Ways as the kernels number them."""
        return self.space.way

    def nest(self, steps: Ints, last: Ints) -> Nest:
        """The mapping that steps (kind, ways of I, W, O), from the innermost outwards, make."""
        count = len(steps)
        chains = [self.machine.chain(o) for o in OPERANDS]
        longest = max(len(chain) for chain in chains)
        cut = np.full((3, longest), count, np.int64)
        use = np.zeros((3, longest), np.int64)
        double = np.zeros((3, longest), np.int64)
        for o, chain in enumerate(chains):
            cut[o, 0] = 0
            use[o, 0] = use[o, len(chain) - 1] = 1
            taken = [(count - 1 - n, int(step[1 + o])) for n, step in enumerate(steps)]
            taken.append((-1, int(last[o])))
            for place, way in taken:
                if way < 0:
                    continue
                _, j, i, by, twice = (int(x) for x in self.way_table[way])
                for p in range(i + 1, j + 1):
                    if p == j or by >> p & 1:
                        use[o, p] = 1
                        cut[o, p] = place + 1
                        double[o, p] = twice >> p & 1
        loops = [(DIMS[self.dim[k]], int(self.prime[k])) for k in reversed(steps[:, 0].tolist())]
        mapped = with_levels(self.workload, self.machine, self.factors, loops, cut, use, double)
        return nest_of(mapped, merge=False)
