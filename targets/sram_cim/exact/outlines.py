"""The search of one spatial choice: all outlines, layer by layer of placed prime factors.

Outlines of a layer that cannot lead below the cutoff are dropped; of those around which the same
loops can be placed, only the ones that no other stands for go on. A layer may be limited to its
most promising outlines; then the lowest bound of what was left out is what is proven.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cimc.ir.tiles import Nest, TemporalLoop
from cimc.mapping.machine import NAMES, OPERANDS, OUTPUT
from cimc.mapping.nest import DIMS
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim.energy import leakage_pj
from cimc.targets.sram_cim.exact import outline_bounds as bounds
from cimc.targets.sram_cim.exact import outline_kernel as outline
from cimc.targets.sram_cim.exact import outline_search as kernel
from cimc.targets.sram_cim.exact.choices import spatial_of
from cimc.targets.sram_cim.exact.outer_kernel import KINDS_OF, outer_table
from cimc.targets.sram_cim.exact.outline import Ground, ground_of
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import Factors
from cimc.targets.sram_cim.search_kernel import Floats, Ints
from cimc.targets.sram_cim.stationary import primes

CHUNK = 1 << 15  # outlines made at a time
JUDGED, MOST_JUDGED = 8, 5_000  # nests given to the referee, by a usual and an exhaustive search

Rows = tuple[Ints, Floats, Ints]  # outlines: integers, floats, keys


@dataclass(frozen=True, slots=True)
class Found:
    """Whole nests, the lowest scores first, and what none of the others goes below."""

    nests: tuple[Nest, ...]
    bound: float
    is_complete: bool  # nothing was left out for want of room or time


class Outlines:
    """All outlines of one spatial choice."""

    def __init__(
        self, workload: Workload, target: Target, factors: Factors, objective: Objective
    ) -> None:
        self.workload, self.factors, self.objective = workload, factors, objective
        self.machine = machine_of(target)
        ground = ground_of(workload, target, factors)
        self.kinds = [(d, prime) for d in DIMS for prime in sorted({*primes(ground.left[d])})]
        self.most = [primes(ground.left[dim]).count(prime) for dim, prime in self.kinds]
        self.leakage_pj, self.fixed_pj = leakage_pj(spec_of(target)), ground.fixed_pj
        self.terms = self._terms(ground)
        self.is_sharp = not self.kinds
        self.nodes = 0

    def aim(self, objective: Objective) -> Floats:
        """What is minimized, as the kernels read it."""
        product = float(objective.is_product)
        found = [objective.latency, objective.energy, product, self.leakage_pj, self.fixed_pj]
        return np.array(found)

    def _terms(self, ground: Ground) -> bounds.Terms:
        ways = np.array([2.0 if o == OUTPUT else 1.0 for o in OPERANDS])
        kinds = np.array([[DIMS.index(d), p] for d, p in self.kinds], np.int64).reshape(-1, 2)
        most = np.array(self.most, np.int64)
        m, limits, spread, instances = ground.m, ground.limits, ground.spread, ground.instances
        steps = [[DIMS.index(d), f, *own] for d, f, own in _steps(self.kinds, self.most)]
        return bounds.Terms(
            m=m,
            limits=limits,
            spread=spread,
            instances=instances,
            kinds=kinds,
            most=most,
            steps=np.array(steps, np.int64).reshape(-1, 2 + len(self.kinds)),
            boots=ground.boots,
            boot_pj=ground.boot_pj,
            aim=self.aim(self.objective),
            outer_pj=self.once(ground),
            outer_cycles=ways * ground.boots,
        )

    def once(self, ground: Ground) -> Floats:
        """The table `outer_pj` if every operand moved to or from the outermost level just once."""
        rows = math.prod(count + 1 for count in self.most)
        found = np.zeros((*KINDS_OF, rows))
        for o in OPERANDS:
            level = self.machine.levels[self.machine.chain(o)[0]]
            pj = np.full(KINDS_OF[o], ground.boots[o] * level.read_bits * level.read_pj)
            if o == OUTPUT:
                pj[1:3] += ground.boots[o] * level.read_bits * level.write_pj
            pj[0] = 0.0
            shape = [1, 1, 1, 1]
            shape[o] = KINDS_OF[o]
            found += pj.reshape(shape)
        return found

    def sharpen(self) -> None:
        """Make the bounds better that wide searches rest on; takes a while."""
        if self.is_sharp:
            return
        t = self.terms
        table = outer_table(t.m, t.limits, t.spread, t.instances, t.kinds, t.most)
        self.terms = t._replace(outer_pj=table)
        self.is_sharp = True

    def weights(self, cutoff: float, least: tuple[float, float]) -> Floats:
        """What a cycle more, a pJ more and a pJ less change the score by, as far as it matters.

        least: cycles and pJ that no nest goes below; matters: scores below the cutoff
        """
        aim = self.terms.aim
        if not self.objective.is_product:
            of_cycle = aim[bounds.CYCLES] + aim[bounds.PJS] * aim[bounds.LEAKAGE]
            return np.array([of_cycle, aim[bounds.PJS], aim[bounds.PJS]])
        most_cycles, most_pj = cutoff / least[1], cutoff / least[0]
        of_cycle = most_pj + aim[bounds.LEAKAGE] * most_cycles
        return np.array([1.01 * of_cycle, 1.01 * most_cycles, least[0]])

    def least(self) -> tuple[float, float, float]:
        """Cycles, pJ and score that no nest goes below, from the innermost loop alone."""
        single = (Objective(latency=1.0), Objective(energy=1.0), self.objective)
        found = []
        for objective in single:
            terms = self.terms._replace(aim=self.aim(objective))
            floors = [
                float(rows[1][:, outline.FLOOR].min())
                for rows in self.expanded(*self.root(), math.inf, terms)
            ]
            found.append(min(floors, default=math.inf))
        cycles, pj, score = found
        return cycles, pj, max(score, self.objective.score(cycles, pj))

    def root(self) -> tuple[Ints, Floats]:
        """The outline without loops."""
        labels = np.zeros((1, outline.COUNT + len(self.kinds)), np.int64)
        floats = np.zeros((1, outline.FLOATS))
        outline.root(self.terms.m, len(self.kinds), labels[0], floats[0])
        return labels, floats

    def run(
        self,
        width: int,
        cutoff: float,
        allowance: float,
        least: tuple[float, float],
        stop: Callable[[], bool],
        *,
        is_exhaustive: bool = False,
    ) -> Found:
        """All nests of interest, at most `width` outlines of each size.

        cutoff: scores from here on are of no interest; allowance: how much lower than a nest that
        is kept one may be that is not. An exhaustive search lets no outline stand for another and
        gives all nests whose bound is below the cutoff; its own bound leaves these out.
        """
        self.is_exhaustive = is_exhaustive
        self.sharpen()
        self.weighted = self.weights(cutoff, least)
        self.allowance = allowance
        self.bound, self.is_complete = cutoff, True
        count = sum(self.most)
        pending: list[list[Rows]] = [[] for _ in range(count + 1)]
        pending[0].append((*self.root(), np.zeros(1, np.int64)))
        kept: list[Ints] = []
        for size in range(count):
            if stop():
                self.is_complete = False
                self.leave(itertools.chain.from_iterable(pending))
                break
            labels, floats, _ = self.select(pending[size], width, cutoff)
            pending[size] = []
            kept.append(labels)
            for made in self.expanded(labels, floats, cutoff, self.terms):
                if stop():  # what these lead to is not known any more
                    self.is_complete = False
                    self.leave([(labels, floats, labels)])
                    break
                sizes = made[0][:, outline.COUNT :].sum(axis=1)
                for larger in np.unique(sizes):
                    rows = np.flatnonzero(sizes == larger)
                    parts = pending[larger]
                    parts.append((made[0][rows], made[1][rows], made[2][rows]))
                    if larger < count and sum(len(part[0]) for part in parts) > 4 * width + CHUNK:
                        pending[larger] = [self.select(parts, 2 * width, cutoff)]
        nests: list[Nest] = []
        if pending[count]:
            labels, floats = (np.concatenate([part[i] for part in pending[count]]) for i in (0, 1))
            floors = floats[:, outline.FLOOR]
            order = np.argsort(floors, kind="stable")
            best = order[: MOST_JUDGED if is_exhaustive else JUDGED]
            nests = [self.nest(labels[i], kept) for i in best]
            self.leave([(labels, floats[order[len(nests) :]] if is_exhaustive else floats, labels)])
        return Found(tuple(nests), self.bound, self.is_complete)

    def leave(self, parts: Iterable[Rows]) -> None:
        """Outlines that are not gone on with: what they may lead to bounds everything."""
        for _, floats, _ in parts:
            if len(floats):
                lowest = float((floats[:, outline.FLOOR] - floats[:, outline.DEBT]).min())
                self.bound = min(self.bound, lowest)

    def expanded(
        self, labels: Ints, floats: Floats, cutoff: float, terms: bounds.Terms
    ) -> Iterator[Rows]:
        """Outlines with one loop more, chunk by chunk."""
        at = 0
        columns = outline.COUNT + len(self.kinds)
        out = (
            np.empty((CHUNK, columns), np.int64),
            np.empty((CHUNK, outline.FLOATS)),
            np.empty(CHUNK, np.int64),
        )
        while at < len(labels):
            at, made = kernel.expand(terms, labels, floats, at, cutoff, *out)
            self.nodes += made
            if made:
                yield out[0][:made].copy(), out[1][:made].copy(), out[2][:made].copy()

    def select(self, parts: list[Rows], width: int, cutoff: float) -> Rows:
        """Outlines worth going on with, no more than `width`."""
        if not parts:
            columns = outline.COUNT + len(self.kinds)
            nothing = np.empty((0, columns), np.int64), np.empty((0, outline.FLOATS))
            return *nothing, np.empty(0, np.int64)
        labels = np.concatenate([part[0] for part in parts])
        floats = np.concatenate([part[1] for part in parts])
        keys = np.concatenate([part[2] for part in parts])
        if len(labels) > 1 and not self.is_exhaustive:
            order = np.lexsort((floats[:, outline.FLOOR], self.rough(floats), keys))
            lefts = self.lefts(labels)
            kept = kernel.undominated(
                order, keys, labels, floats, lefts, self.weighted, self.allowance
            )
            labels, floats, keys = labels[kept], floats[kept], keys[kept]
        if len(labels) > width:
            order = np.argsort(floats[:, outline.FLOOR], kind="stable")
            self.is_complete = False
            self.leave([(labels, floats[order[width:]], keys)])
            order = order[:width]
            labels, floats, keys = labels[order], floats[order], keys[order]
        return labels, floats, keys

    def rough(self, floats: Floats) -> Floats:
        """A number that is low where an outline is likely to stand for others."""
        cycles, pj = floats[:, outline.T], floats[:, outline.E]
        product: Floats = cycles * pj
        total: Floats = self.weighted[0] * cycles + self.weighted[1] * pj
        return product if self.objective.is_product else total

    def lefts(self, labels: Ints) -> Floats:
        """Iterations that are not placed yet."""
        logs = np.log([float(prime) for _, prime in self.kinds])
        rest = np.array(self.most) - labels[:, outline.COUNT :]
        found: Floats = np.rint(np.exp(rest @ logs))
        return found

    def empty_nest(self) -> Nest:
        """The nest of a spatial choice that leaves nothing to loops in time."""
        return Nest(self.workload.shape.dims, spatial_of(self.factors, self.machine))

    def nest(self, label: Ints, kept: list[Ints]) -> Nest:
        """A whole outline by names."""
        chain = list[Ints]()
        while label[outline.FACTOR]:
            chain.append(label)
            own = len(primes(int(label[outline.FACTOR])))
            size = int(label[outline.COUNT :].sum()) - own
            label = kept[size][label[outline.PARENT]]
        names = [level.name for level in self.machine.levels]
        loops, double = list[TemporalLoop](), set[tuple[str, str]]()
        for label in chain:  # from the outermost loop inwards
            held = []
            for o in OPERANDS:
                places = self.machine.chain(o)
                held.append(names[places[label[outline.POS + o]]])
                if label[outline.TWO + o]:
                    double.add((names[places[label[outline.NEXT + o]]], NAMES[o]))
            dim = DIMS[label[outline.DIM]]
            loops.append(TemporalLoop(dim, int(label[outline.FACTOR]), (held[0], held[1], held[2])))
        spatial = spatial_of(self.factors, self.machine)
        return Nest(self.workload.shape.dims, spatial, tuple(loops), tuple(sorted(double)))


def _steps(
    kinds: list[tuple[str, int]], most: list[int]
) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """All loops that can be placed: a dim, a bound, and the primes it takes."""
    for dim in DIMS:
        own = [place for place, (other, _) in enumerate(kinds) if other == dim]
        for counts in itertools.product(*(range(most[place] + 1) for place in own)):
            if any(counts):
                used = [0] * len(kinds)
                for place, count in zip(own, counts, strict=True):
                    used[place] = count
                bound = math.prod(kinds[p][1] ** c for p, c in zip(own, counts, strict=True))
                yield dim, bound, tuple(used)
