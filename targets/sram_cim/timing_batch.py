"""The closed form of `timing` for many mappings at once, compiled, rows shared among threads.

All mappings share workload, machine and spatial choice; each row of the arrays is one mapping.
Plain twin: `timing.evaluate`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cimc import jit
from cimc.mapping.machine import OPERANDS
from cimc.mapping.nest import DIMS, Mapped
from cimc.targets.sram_cim import search_kernel as base
from cimc.targets.sram_cim import timing_kernel as kernel
from cimc.targets.sram_cim.search_kernel import Floats, Ints, Machine
from cimc.targets.sram_cim.timing_kernel import evaluate, measure, room_for, tables_of

njit = jit.compiler(__file__, base.__file__, kernel.__file__)


@dataclass(frozen=True, slots=True)
class Mappings:
    """Many mappings with one spatial choice; arrays as in `timing_kernel`, one mapping in a row."""

    factors: Ints  # [axes, dims]
    count: Ints  # [rows] loops
    dim: Ints  # [rows, loops]
    bound: Ints  # [rows, loops]
    cut: Ints  # [rows, 3, positions]
    use: Ints  # [rows, 3, positions]
    double: Ints  # [rows, 3, positions]

    def __len__(self) -> int:
        return len(self.count)


def mappings_of(nests: Sequence[Mapped], m: Machine) -> Mappings:
    """Mappings of one layer with one spatial choice as arrays."""
    rows, longest = len(nests), max(1, *(len(nest.loops) for nest in nests))
    factors = np.ones((len(nests[0].spatial), len(DIMS)), np.int64)
    for axis, own in enumerate(nests[0].spatial):
        for dim, factor in own:
            factors[axis, DIMS.index(dim)] *= factor
    found = Mappings(
        factors,
        np.array([len(nest.loops) for nest in nests], np.int64),
        np.zeros((rows, longest), np.int64),
        np.ones((rows, longest), np.int64),
        *(np.zeros((rows, *m.chain.shape), np.int64) for _ in range(3)),
    )
    for row, nest in enumerate(nests):
        for place, (dim, bound) in enumerate(nest.loops):
            found.dim[row, place], found.bound[row, place] = DIMS.index(dim), bound
        for o in OPERANDS:
            for block in nest.chain(o):
                j = m.chain[o].tolist().index(block.level)
                found.use[row, o, j], found.cut[row, o, j] = 1, block.begin
                found.double[row, o, j] = (block.level, o) in nest.double
    return found


def figures(mappings: Mappings, m: Machine, workers: int = 1) -> tuple[Floats, Floats]:
    """Cycles and pJ of all mappings; `workers` threads share the rows."""
    rows = len(mappings)
    cycles, pj = np.empty(rows), np.empty(rows)

    def run(part: slice) -> None:
        evaluations(
            m,
            mappings.factors,
            mappings.count[part],
            mappings.dim[part],
            mappings.bound[part],
            mappings.cut[part],
            mappings.use[part],
            mappings.double[part],
            cycles[part],
            pj[part],
        )

    edges = [rows * worker // workers for worker in range(workers + 1)]
    parts = [slice(low, high) for low, high in itertools.pairwise(edges)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, parts))
    return cycles, pj


@njit
def evaluations(
    m: Machine,
    factors: Ints,
    count: Ints,
    dim: Ints,
    bound: Ints,
    cut: Ints,
    use: Ints,
    double: Ints,
    cycles: Floats,
    pj: Floats,
) -> None:
    """Fill `cycles` and `pj` of all mappings."""
    ways, kept, chip, relevant, length = tables_of(m, factors)
    cover, work = room_for(m, dim.shape[1])
    for row in range(len(count)):
        n = count[row]
        measure(relevant, n, dim[row], bound[row], cover)
        cycles[row], pj[row] = evaluate(
            ways,
            kept,
            chip,
            relevant,
            length,
            n,
            dim[row],
            bound[row],
            cut[row],
            use[row],
            double[row],
            cover,
            work,
        )
