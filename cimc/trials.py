"""Running a program on a machine that makes mistakes, again and again with other seeds.

The reference is the program on a machine without mistakes. Trial t of seed s has seed s + t, so
trials can be repeated one by one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cimc.dataset import Dataset
from cimc.errors import Fault, UsageError, raise_if
from cimc.ir.program import Program
from cimc.ir.types import Array
from cimc.kind import Disturbed, load_kind
from cimc.runs import accuracy, agreement
from cimc.sim.execute import Executor
from cimc.target import Target

Outputs = Mapping[str, list[Array]]


@dataclass(frozen=True)
class Trial:
    """What came out of all samples on one disturbed machine."""

    seed: int
    accuracy: float | None  # where samples have labels
    accuracy_without: float | None  # on a machine that makes no mistakes
    agreement: float | None  # share of samples that choose the same as without disturbance
    differing: float  # share of output elements that are not the same
    findings: Mapping[str, float]  # per inference


def disturbed_kind(target: Target, settings: Mapping[str, float]) -> Disturbed:
    """The kind of a target that can be disturbed in these ways.

    raises  UsageError for a kind without mistakes, or settings that it does not know
    """
    kind = load_kind(target.kind)
    if not isinstance(kind, Disturbed):
        raise UsageError(
            Fault(
                f"{target.name} cannot be disturbed",
                need="a machine kind with noise",
                have=f"{target.kind}, which computes what its program says",
                code="CIM2055",
            )
        )
    known = kind.settings(target)
    raise_if(
        (
            Fault(f"no noise is called {name!r}", ", ".join(known), code="CIM2056")
            for name in settings
            if name not in known
        ),
        UsageError,
    )
    return kind


def run_trials(
    program: Program,
    target: Target,
    data: Dataset,
    settings: Mapping[str, float],
    *,
    seed: int = 0,
    trials: int = 1,
    engine: str = "fast",
) -> Iterator[Trial]:
    """One result for each trial, over all samples."""
    kind = disturbed_kind(target, settings)
    wanted = _outputs(Executor(program, target, engine), data)
    right = accuracy(wanted, data.labels) if data.labels is not None else None
    for number in range(trials):
        disturbance = kind.disturb(target, settings, seed + number)
        got = _outputs(Executor(program, target, engine, disturbance.states), data)
        yield Trial(
            seed + number,
            accuracy(got, data.labels) if data.labels is not None else None,
            right,
            agreement(got, wanted),
            _differing(got, wanted),
            disturbance.findings(len(data)),
        )


def _outputs(machine: Executor, data: Dataset) -> dict[str, list[Array]]:
    found: dict[str, list[Array]] = {}
    for inputs in data:
        for name, array in machine.run(inputs).items():
            found.setdefault(name, []).append(array)
    return found


def _differing(got: Outputs, wanted: Outputs) -> float:
    differing = elements = 0
    for name, arrays in wanted.items():
        for array, other in zip(arrays, got[name], strict=True):
            differing += int(np.count_nonzero(array != other))
            elements += array.size
    return differing / elements if elements else 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, standard deviation (of one trial) and extremes over the trials."""

    mean: float
    deviation: float
    least: float
    most: float


def spread(values: list[float]) -> Spread:
    """The spread of one value over all trials."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return Spread(statistics.fmean(values), deviation, min(values), max(values))
