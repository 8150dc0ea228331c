"""The exact search against a plain list of all mappings: small layers here, larger ones by
`python -m tests.targets.sram_cim.oracle`."""

from __future__ import annotations

import itertools
import random

import pytest

from cimc.mapping.nest import Mapped, resolve
from cimc.targets.sram_cim.exact.problem import Timing
from cimc.targets.sram_cim.exact.referee import Referee
from cimc.targets.sram_cim.machine import machine_of
from tests.targets.sram_cim.oracle import check, different, instance, nests

FEW = {"shared": 30, "private": 1500}  # mappings of a layer
PARTS, EACH = 8, 25  # layers, for tests to run at the same time


@pytest.mark.parametrize("timing", ["shared", "private"])
def test_search_finds_and_proves_the_optimum(timing: Timing) -> None:
    seeds, checked = iter(range(100)), 0
    while checked < 6:
        checked += check(next(seeds), timing, FEW[timing]) > 1


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_two_hundred_layers_on_shared_ports(part: int) -> None:
    """For three objectives each, on random hardware; private ports: `test_exact_private`."""
    seeds, checked = itertools.count(100 + part, PARTS), 0
    while checked < EACH:
        checked += check(next(seeds), "shared", 60) > 1


def test_fast_and_plain_referee_agree() -> None:
    for seed in range(8):
        rng = random.Random(f"oracle {seed}")
        workload, epilogue, target = instance(rng)
        machine = machine_of(target)
        judge = Referee(workload, epilogue, target)
        found = different(nests(workload, machine), workload, machine)
        for _, nest in zip(range(3), found, strict=False):
            mapped = resolve(nest, workload, machine)
            assert isinstance(mapped, Mapped)
            assert judge.judge(mapped) == judge.judge(mapped, plain=True)
