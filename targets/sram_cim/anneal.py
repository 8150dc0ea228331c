"""Search for mappings: annealing of loop orders and levels on every promising spatial choice."""

from __future__ import annotations

from functools import cache

import numpy as np

from cimc.mapping.machine import INPUT, OPERANDS, OUTPUT, WEIGHT, Machine
from cimc.mapping.nest import DIMS, WORD, Mapped
from cimc.mapping.workload import Workload
from cimc.targets.sram_cim import anneal_kernel
from cimc.targets.sram_cim import search_kernel as kernel
from cimc.targets.sram_cim.energy import activation_pj, leakage_pj
from cimc.targets.sram_cim.pieces import SHORT
from cimc.targets.sram_cim.placing import Factors, Loops
from cimc.targets.sram_cim.spatial import spatial_choices
from cimc.targets.sram_cim.stationary import primes, remaining
from cimc.targets.sram_cim_spec import SramCimSpec

OBJECTIVES = {
    "latency": anneal_kernel.LATENCY_FIRST,
    "energy": anneal_kernel.ENERGY_FIRST,
    "edp": anneal_kernel.PRODUCT,
}
ORDERS = ("gkcrsnpq", "gnpqkcrs")  # from outside: weights stay, results stay
CHOICES = 16
ROUNDS = ((56, 40, 0.3), (20, 110, 0.2), (6, 440, 0.1), (1, 1800, 0.05))  # starts, steps, heat
Start = tuple[Factors, Loops, bool]  # spatial choice, order, whether all buffers are double
SMOOTH = 7  # largest prime factor of a loop that is split


def packed(
    workload: Workload, machine: Machine, spec: SramCimSpec, epilogue: int
) -> kernel.Machine:
    """A machine and a workload as the kernels read them."""
    chains = [machine.chain(o) for o in OPERANDS]
    longest = max(len(chain) for chain in chains)
    chain = np.full((3, longest), -1, np.int64)
    may_double = np.zeros((3, longest), np.int64)
    for o, places in enumerate(chains):
        chain[o, : len(places)] = places
        for j, place in enumerate(places[1:], 1):
            may_double[o, j] = machine.levels[place].double[o]
    level = np.array(
        [
            [
                item.size_bits,
                item.read_bits,
                item.write_bits,
                spec.memory[item.name].latency_cycles,
                spec.memory[item.name].per == "chip",
                spec.memory[item.name].ports == "shared",
                sum(item.holds) > 1,
            ]
            for item in machine.levels
        ],
        np.int64,
    )
    bits, shape = workload.bits, workload.shape
    relevant = [[dim in "ngcpqrs", dim in "gkcrs", dim in "ngkpq"] for dim in DIMS]
    vector = spec.vector
    return kernel.Machine(
        chain=chain,
        length=np.array([len(places) for places in chains], np.int64),
        level=level,
        along=np.array(
            [[axis.name in item.along for axis in machine.axes] for item in machine.levels],
            np.int64,
        ),
        pj=np.array([[item.read_pj, item.write_pj] for item in machine.levels]),
        source=np.array([axis.source for axis in machine.axes], np.int64),
        may_double=may_double,
        relevant=np.array(relevant, np.int64).T.copy(),
        reduced=np.array([dim in "crs" for dim in DIMS], np.int64),
        steps=np.array(
            [shape.strides[0], shape.dilations[0], shape.strides[1], shape.dilations[1]], np.int64
        ),
        numbers=np.array(
            [
                bits[INPUT],
                bits[WEIGHT],
                bits[OUTPUT],
                machine.psum_bits,
                machine.weight_bits,
                WORD,
                machine.activation_cycles(bits[INPUT], bits[WEIGHT]),
                spec.link.bits_per_cycle,
                spec.link.hop_cycles,
                vector.lanes,
                vector.per == "core",
                epilogue,
                SHORT,
            ],
            np.int64,
        ),
        prices=np.array(
            [
                spec.link.pj_per_bit,
                activation_pj(spec, bits[INPUT], bits[WEIGHT]),
                vector.op_pj,
                leakage_pj(spec),
            ]
        ),
    )


def annealed(
    workload: Workload, machine: Machine, spec: SramCimSpec, epilogue: int, objective: str
) -> Mapped | None:
    """The best mapping found, always the same one; None if nothing fitted."""
    if len(machine.chain(WEIGHT)) == 1 and not spatial_choices(workload, machine, 1):
        return None  # cells that weights have to fit into
    m = packed(workload, machine, spec, epilogue)
    starts, tables = starts_of(workload, machine, m)
    cut = np.zeros(m.chain.shape, np.int64)
    best, score = anneal_kernel.search(
        m,
        tables.factors,
        tables.count,
        tables.dim,
        tables.bound,
        tables.wish,
        tables.use,
        tables.double,
        OBJECTIVES[objective],
        np.array([[kept, steps] for kept, steps, _ in ROUNDS], np.int64),
        np.array([heat for _, _, heat in ROUNDS]),
        1,
        cut,
    )
    if score >= kernel.HUGE:
        return None
    count = tables.count[best]
    loops = [
        (DIMS[d], int(b))
        for d, b in zip(tables.dim[best, :count], tables.bound[best, :count], strict=True)
    ]
    use, double = tables.use[best], tables.double[best]
    return with_levels(workload, machine, starts[best][0], loops, cut, use, double)


def starts_of(
    workload: Workload, machine: Machine, m: kernel.Machine
) -> tuple[list[Start], Tables]:
    """What a search begins with: promising spatial choices in plain orders of loops."""
    starts = [
        (factors, order_loops(remaining(workload, factors, order)), double)
        for factors in spatial_choices(workload, machine, CHOICES)
        for order in ORDERS
        for double in (False, True)
    ]
    return starts, Tables(starts, m)


def order_loops(loops: Loops) -> Loops:
    """Loops split into prime ones, large factors outside; what has large primes is rounded up."""
    return tuple((dim, prime) for dim, bound in loops for prime in _smooth(bound))


@cache
def _smooth(bound: int) -> tuple[int, ...]:
    """Primes, descending, of the bound, or of the next one without large ones less than 5 % off."""
    for candidate in range(bound, bound + bound // 20 + 1):
        found = primes(candidate)
        if max(found, default=1) <= SMOOTH:
            break
    else:
        found = primes(bound)
    return tuple(reversed(found))


class Tables:
    """All starts of a search, as arrays."""

    def __init__(self, starts: list[Start], m: kernel.Machine) -> None:
        count, longest = len(starts), m.chain.shape[1]
        width = max(len(loops) for _, loops, _ in starts)
        self.factors = np.ones((count, m.source.shape[0], len(DIMS)), np.int64)
        self.count = np.array([len(loops) for _, loops, _ in starts], np.int64)
        self.dim = np.zeros((count, width), np.int64)
        self.bound = np.ones((count, width), np.int64)
        self.wish = np.zeros((count, 3), np.int64)
        self.use = np.ones((count, 3, longest), np.int64)
        self.double = np.zeros((count, 3, longest), np.int64)
        for start, (factors, loops, double) in enumerate(starts):
            self.double[start] = m.may_double * double
            for axis, own in enumerate(factors):
                for dim, factor in own:
                    self.factors[start, axis, DIMS.index(dim)] = factor
            for place, (dim, bound) in enumerate(loops):
                self.dim[start, place] = DIMS.index(dim)
                self.bound[start, place] = bound
            self.wish[start] = len(loops)


def with_levels(
    workload: Workload,
    machine: Machine,
    factors: Factors,
    loops: list[tuple[str, int]],
    cut: kernel.Ints,
    use: kernel.Ints,
    double: kernel.Ints,
) -> Mapped:
    """A mapping from positions; a loop of bound 1 stands for a level that no loop is left for."""
    chains = [machine.chain(o) for o in OPERANDS]
    used = [[j for j in range(len(c)) if j == 0 or use[o, j]] for o, c in enumerate(chains)]
    rows: list[tuple[str, int, list[int]]] = []
    for place in range(len(loops) + 1):
        held = [max(j for j in used[o] if cut[o, j] <= place) for o in OPERANDS]
        before = [max((j for j in used[o] if cut[o, j] < place), default=0) for o in OPERANDS]
        for o in OPERANDS:
            for j in used[o]:
                passed = before[o] < j < held[o] and cut[o, j] == place
                if passed and len(chains[o]) - 1 > j > 0:
                    positions = [before[other] if other >= o else held[other] for other in OPERANDS]
                    positions[o] = j
                    rows.append(("n", 1, positions))
        if place < len(loops):
            rows.append((*loops[place], held))
    levels = [tuple(chains[o][row[2][o]] for row in rows) for o in OPERANDS]
    doubled = frozenset((chains[o][j], o) for o in OPERANDS for j in used[o] if j and double[o, j])
    return Mapped(
        workload,
        machine,
        tuple((dim, bound) for dim, bound, _ in rows),
        (levels[INPUT], levels[WEIGHT], levels[OUTPUT]),
        factors,
        doubled,
    )
