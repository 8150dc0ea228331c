"""Mappings to begin with: those by rule, and what annealing finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from cimc.ir.tiles import Nest
from cimc.mapping.machine import OPERANDS
from cimc.mapping.nest import Mapped
from cimc.target import Target
from cimc.targets.sram_cim.anneal import annealed
from cimc.targets.sram_cim.exact.choices import factors_of, remaining
from cimc.targets.sram_cim.exact.private_anneal import annealed_private
from cimc.targets.sram_cim.exact.problem import Problem
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import nest_of, with_cuts
from cimc.targets.sram_cim.stationary import simple, weight_stationary


def starting_nests(problem: Problem, target: Target) -> Iterator[Nest]:
    """Nests that may or may not be legal under the problem's timing."""
    workload, machine = problem.workload, machine_of(target)
    if problem.spatial is not None:  # everything outermost always fits
        factors = factors_of(problem.spatial, machine)
        loops = tuple(item for item in remaining(workload, factors).items() if item[1] > 1)
        cuts = [[0] + [len(loops)] * (len(machine.chain(o)) - 1) for o in OPERANDS]
        yield nest_of(with_cuts(workload, machine, factors, loops, frozenset(), cuts))
    for mapped in (simple(workload, machine), *weight_stationary(workload, machine)):
        if _is_allowed(mapped, problem, target):
            yield nest_of(mapped)
    named = "edp" if problem.objective.is_product else "latency"
    if problem.objective.energy > 0 and not problem.objective.latency:
        named = "energy"
    found = annealed(workload, machine, spec_of(target), problem.epilogue, named)
    annealed_ones = [] if found is None else [found]
    if problem.timing == "private":
        annealed_ones += annealed_private(workload, target, named)
    for mapped in annealed_ones:
        if _is_allowed(mapped, problem, target):
            yield nest_of(mapped)


def without_idle_loops(nest: Nest) -> Nest:
    """The nest without loops of bound 1: those only name levels that tiles pass through."""
    loops = tuple(loop for loop in nest.loops if loop.bound > 1)
    used = {(level, name) for loop in loops for level, name in zip(loop.levels, "IWO", strict=True)}
    double = tuple(item for item in nest.double if item in used)
    return dataclasses.replace(nest, loops=loops, double=double)


def _is_allowed(mapped: Mapped, problem: Problem, target: Target) -> bool:
    if problem.spatial is None:
        return True
    return mapped.spatial == factors_of(problem.spatial, machine_of(target))
