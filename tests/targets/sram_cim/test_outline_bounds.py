"""Bounds of the search over outlines: no nest goes below them, and a cutoff drops just these."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from cimc.lowering import ConvShape
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.target import load_target
from cimc.targets.sram_cim.exact import outline_kernel as outline
from cimc.targets.sram_cim.exact.choices import all_choices
from cimc.targets.sram_cim.exact.outlines import Outlines
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.search_kernel import Floats, Ints

KEPT = 25  # outlines of each size that the walk goes on with


def random_outlines(rng: random.Random, objective: str) -> Outlines:
    """The outlines of a random layer, at a random choice of spatial loops."""
    target = load_target("miredo-default", {"memory.gb.size_bits": rng.choice([4096, 2097152])})
    r, stride = rng.choice([1, 3]), rng.choice([1, 2])
    p, q = rng.choice([1, 4, 14]), rng.choice([1, 6])
    g, k, c = rng.choice([(1, 64, 128), (1, 96, 24), (6, 1, 1), (2, 16, 64)])
    shape = ConvShape(1, g, k, c, p, q, r, r, (p - 1) * stride + r, (q - 1) * stride + r)
    workload = Workload(shape)
    choices = list(all_choices(workload, machine_of(target)))
    found = Outlines(workload, target, rng.choice(choices), Objective.parse(objective))
    found.sharpen()
    return found


def rows_of(outlines: Outlines, labels: Ints, floats: Floats, cutoff: float) -> tuple[Ints, Floats]:
    """All outlines with one loop more."""
    parts = list(outlines.expanded(labels, floats, cutoff, outlines.terms))
    if not parts:
        return labels[:0], floats[:0]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
def test_bounds_hold_for_what_they_lead_to_and_cutoffs_drop_nothing_else(objective: str) -> None:
    rng, walked, whole, dropped = random.Random(7), 0, 0, 0
    while walked < 12:
        outlines = random_outlines(rng, objective)
        if not outlines.kinds:
            continue
        walked += 1
        labels, floats = outlines.root()
        count = sum(outlines.most)
        while len(labels):
            every, all_floats = rows_of(outlines, labels, floats, math.inf)
            floors = all_floats[:, outline.FLOOR]
            cutoff = float(np.median(floors)) if len(floors) else math.inf
            some, some_floats = rows_of(outlines, labels, floats, cutoff)
            assert (some == every[floors < cutoff]).all()
            assert (some_floats == all_floats[floors < cutoff]).all()
            dropped += len(every) - len(some)
            sizes = every[:, outline.COUNT :].sum(axis=1)
            before = floats[every[:, outline.PARENT]]
            done = sizes == count
            # the score, the cycles and the pJ of a nest are not below the bounds of its inner part
            assert (floors[done] >= before[done, outline.FLOOR] * (1 - 1e-12)).all()
            for column, least in ((outline.T, 0), (outline.E, 1)):
                bound = before[done, outline.LEAST + least]
                assert (all_floats[done, column] >= bound * (1 - 1e-12)).all()
            whole += int(done.sum())
            rest = np.flatnonzero(~done)
            chosen = rest[[rng.randrange(len(rest)) for _ in range(KEPT)]] if len(rest) else rest
            labels, floats = every[chosen], all_floats[chosen]
    assert whole > 500
    assert dropped > 5_000
