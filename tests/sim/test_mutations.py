"""A program with one thing wrong never passes the check: it fails, or computes something else."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from cimc.conformance.samples import sample_graphs
from cimc.conformance.target import Compiled, compile_sample
from cimc.errors import StallError, VerifyError
from cimc.ir.program import Program
from cimc.sim.execute import execute
from cimc.target import Target, load_target
from tests.sim.mutants import MUTATIONS, Mutant

TARGETS = ("reram-128", "miredo-default", "edge-digital", "rtm-ap")
SAMPLES = ("residual", "pooled")
TRIED = 12  # mutants of one kind and program, drawn with a fixed seed


@functools.cache
def target_named(name: str) -> Target:
    return load_target(name)


@functools.cache
def compiled(target: str, sample: str) -> Compiled:
    machine = target_named(target)
    graphs = {graph.name: graph for graph in sample_graphs(machine.spec.requant == "fixed")}
    return compile_sample(graphs[sample], machine, 2)


def passes(program: Program, made: Compiled, target: str) -> bool:
    """Whether the program computes what the graph means."""
    try:
        with np.errstate(all="ignore"):  # scales read from elsewhere may be any number
            found = execute(program, target_named(target), made.inputs)
    except (VerifyError, StallError):
        return False
    return all((found[name] == array).all() for name, array in made.wanted.items())


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_no_mutant_passes(
    mutation: Callable[[Program], Iterator[Mutant]], target: str, sample: str
) -> None:
    made = compiled(target, sample)
    assert passes(made.program, made, target)
    mutants = list(mutation(made.program))
    chosen = random.Random(0).sample(mutants, min(TRIED, len(mutants)))
    assert [what for what, mutant in chosen if passes(mutant, made, target)] == []


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_mutation_has_mutants(
    mutation: Callable[[Program], Iterator[Mutant]],
) -> None:
    made = [compiled(target, sample) for target in TARGETS for sample in SAMPLES]
    assert any(True for each in made for _ in mutation(each.program))
