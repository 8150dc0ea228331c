"""The mapping of least latency under private ports, for one choice of spatial loops, with a proof.

All nests of the layer's prime factors (or products of them) in every order, with every assignment
of levels and second buffers that fits, are built from the innermost loop outwards, one more prime
at a time. Nests that agree in all that decides their future are compared, and only those are kept
that no other is at least as good as. Nests that cannot beat the best one known are dropped: each of
the iterations that remain takes at least as long as a timer's own entry in the nest's matrix.

What is kept of each size may be limited; then the lowest bound of what was dropped is what is
proven.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.lowering import ConvShape
from cimc.mapping.machine import NAMES, OPERANDS, Machine
from cimc.mapping.nest import DIMS
from cimc.mapping.workload import Workload
from cimc.sim import private_ports_labels as kernel
from cimc.sim.private_ports_schedule import published_elements
from cimc.target import Target
from cimc.targets.sram_cim.anneal import packed
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.search_kernel import Floats, Ints, spread_of
from cimc.targets.sram_cim.stationary import primes

CHUNK = 16384  # labels made at a time


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best nest found; no mapping of this spatial choice takes less than `bound` cycles."""

    nest: Nest
    latency: float
    bound: float
    labels: int  # nests looked at, whole ones and parts
    seconds: float

    @property
    def is_proven(self) -> bool:
        """Whether nothing can be better."""
        return self.bound >= self.latency


def optimum(
    shape: ConvShape,
    target: Target,
    spatial: Sequence[Spatial],
    *,
    width: int = 100_000,
    first_width: int = 100,
) -> Optimum:
    """The mapping of least latency; at most `width` parts of each size are kept.

    A first pass that keeps `first_width` finds a latency to beat.
    """
    began = time.monotonic()
    search = _Search(shape, target, tuple(spatial))
    search.run(first_width)
    search.run(width)
    return search.result(time.monotonic() - began)


class _Search:
    def __init__(self, shape: ConvShape, target: Target, spatial: tuple[Spatial, ...]) -> None:
        self.machine, self.spatial, self.shape = machine_of(target), spatial, shape
        workload = Workload(shape)
        self.m = packed(workload, self.machine, spec_of(target), 1)
        self.factors = np.ones((3, len(DIMS)), np.int64)
        left = workload.dims
        for axis in spatial:
            place = [item.name for item in self.machine.axes].index(axis.axis)
            for dim, factor in axis.factors:
                self.factors[place, DIMS.index(dim)] *= factor
                left[dim] = -(-left[dim] // factor)
        self.kinds = [(dim, prime) for dim in DIMS for prime in sorted({*primes(left[dim])})]
        self.most = [primes(left[dim]).count(prime) for dim, prime in self.kinds]
        self.steps = list(_steps(self.kinds, self.most))
        self.two_at = np.zeros(self.m.chain.shape, np.int64)
        for o in OPERANDS:
            for j, level in enumerate(self.machine.chain(o)):
                self.two_at[o, j] = self.machine.levels[level].double[o]
        length = self.m.length
        self.base = np.concatenate([[0], np.cumsum(length + 1)[:2]]).astype(np.int64)
        self.size = int(length.sum()) + 3
        total = {dim: left[dim] * int(self.factors[:, i].prod()) for i, dim in enumerate(DIMS)}
        self.boots = np.array([_boot(workload, self.machine, o, total) for o in OPERANDS])
        self.best = np.array([math.inf])
        self.best_label = np.zeros(kernel.COUNT + len(self.kinds), np.int64)
        self.chain: list[list[int]] = []  # of the best nest: labels from the innermost loop on
        self.bound = math.inf
        self.seen = 0

    def run(self, width: int) -> None:
        """One pass over all sizes, the smallest first."""
        count = sum(self.most)
        columns = kernel.COUNT + len(self.kinds)
        empty = kernel.root(self.m, len(self.kinds))[np.newaxis]
        layers: list[list[tuple[Ints, Ints, Floats]]] = [[] for _ in range(count + 1)]
        start = np.zeros((1, self.size, self.size), np.int64)
        layers[0].append((empty, start, np.zeros(1)))
        kept: list[Ints] = []
        self.bound = math.inf
        before = float(self.best[0])
        for size in range(count):
            labels, matrices = self.select(layers[size], width)
            layers[size] = []
            kept.append(labels)
            for made in self.expanded(labels, matrices, columns):
                sizes = made[0][:, kernel.COUNT :].sum(axis=1)
                for larger in np.unique(sizes):
                    rows = np.flatnonzero(sizes == larger)
                    layers[larger].append((made[0][rows], made[1][rows], made[2][rows]))
        if self.best[0] < before:
            self.chain = self.trace(kept)

    def expanded(
        self, labels: Ints, matrices: Ints, columns: int
    ) -> Iterator[tuple[Ints, Ints, Floats]]:
        """Labels with one loop more, chunk by chunk."""
        limits = np.array([self.shape.h, self.shape.w], np.int64)
        kinds = np.array([[DIMS.index(d), prime] for d, prime in self.kinds], np.int64)
        steps = np.array([[DIMS.index(d), f, *used] for d, f, used in self.steps], np.int64)
        spread = spread_of(self.m, self.factors)
        at = 0
        while at < len(labels):
            out = (
                np.empty((CHUNK, columns), np.int64),
                np.empty((CHUNK, self.size, self.size), np.int64),
                np.empty(CHUNK),
            )
            at, made = kernel.expand(
                self.m,
                limits,
                spread,
                self.two_at,
                self.base,
                kinds,
                np.array(self.most, np.int64),
                steps,
                self.boots,
                labels,
                matrices,
                at,
                *out,
                self.best,
                self.best_label,
            )
            self.seen += made
            if made:
                yield out[0][:made], out[1][:made], out[2][:made]

    def select(self, chunks: list[tuple[Ints, Ints, Floats]], width: int) -> tuple[Ints, Ints]:
        """What is worth going on with: undominated, able to win, and no more than `width`."""
        columns = kernel.COUNT + len(self.kinds)
        if not chunks:
            return np.empty((0, columns), np.int64), np.empty((0, self.size, self.size), np.int64)
        labels, matrices, floors = (
            np.concatenate([chunk[part] for chunk in chunks]) for part in range(3)
        )
        alive = np.flatnonzero(floors < self.best[0])
        labels, matrices, floors = labels[alive], matrices[alive], floors[alive]
        if len(labels) > 1:
            key = [*range(kernel.KEYED), kernel.SUMS, *range(kernel.COUNT, columns)]
            group = np.unique(labels[:, key], axis=0, return_inverse=True)[1].reshape(-1)
            weight = matrices.clip(min=0).sum(axis=(1, 2))
            order = np.lexsort((weight, group))
            kept = kernel.undominated(group, labels, matrices, floors, order)
            labels, matrices, floors = labels[kept], matrices[kept], floors[kept]
        if len(labels) > width:
            order = np.argsort(floors, kind="stable")
            self.bound = min(self.bound, float(floors[order[width]]))
            labels, matrices = labels[order[:width]], matrices[order[:width]]
        return labels, matrices

    # --- the nest ---

    def trace(self, kept: list[Ints]) -> list[list[int]]:
        """The labels that led to the best nest, from the innermost loop on."""
        label, found = self.best_label, list[list[int]]()
        while label[kernel.FACTOR]:
            found.append([int(number) for number in label])
            own = len(primes(int(label[kernel.FACTOR])))
            size = int(label[kernel.COUNT :].sum()) - own
            label = kept[size][label[kernel.PARENT]]
        return found[::-1]

    def result(self, seconds: float) -> Optimum:
        """The best nest by names."""
        names = [level.name for level in self.machine.levels]
        loops, double = list[TemporalLoop](), set[tuple[str, str]]()
        for label in reversed(self.chain):
            held = []
            for o in OPERANDS:
                level = names[self.machine.chain(o)[label[kernel.POS + o]]]
                held.append(level)
                if label[kernel.TWO + o]:
                    double.add((level, NAMES[o]))
            dim = DIMS[label[kernel.DIM]]
            loops.append(TemporalLoop(dim, label[kernel.FACTOR], (held[0], held[1], held[2])))
        nest = Nest(self.shape.dims, self.spatial, tuple(loops), tuple(sorted(double)))
        latency = float(self.best[0])
        return Optimum(nest, latency, min(self.bound, latency), self.seen, seconds)


def _steps(
    kinds: list[tuple[str, int]], most: list[int]
) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """All loops that can be placed: a dim, a bound, and the primes it takes."""
    for dim in DIMS:
        own = [place for place, (other, _) in enumerate(kinds) if other == dim]
        for counts in product(*(range(most[place] + 1) for place in own)):
            if any(counts):
                used = [0] * len(kinds)
                for place, count in zip(own, counts, strict=True):
                    used[place] = count
                bound = math.prod(kinds[p][1] ** c for p, c in zip(own, counts, strict=True))
                yield dim, bound, tuple(used)


def _boot(workload: Workload, machine: Machine, operand: int, total: dict[str, int]) -> float:
    """Cycles to fetch all of an operand from the outermost level, or to put O there."""
    elements = published_elements(workload, operand, total)
    return elements * workload.bits[operand] / machine.levels[machine.chain(operand)[0]].read_bits
