"""What a pass tells while it works: it reaches the observers of the pipeline that runs.

tell(Searching(total=12, done=(...), running=(...)))       in a pass or a machine kind
def told(self, place, news): ...                            in an observer
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["proven", "unproven", "time limit", "interrupted", "worker lost", "running"]


@dataclass(frozen=True, slots=True)
class Searched:
    """The best mapping found for some equal layers, and how much better another one could be."""

    layers: tuple[str, ...]
    objective: str
    latency_cycles: float  # of one of the layers, alone
    energy_pj: float
    cost: float  # what the objective makes of the two
    bound: float  # no mapping costs less
    seconds: float  # spent in all runs, those that were interrupted, too
    outcome: Outcome
    is_stored: bool = False  # it came from an earlier run

    @property
    def gap(self) -> float:
        """1 - bound / cost: by how much of its cost the mapping could be improved at most."""
        return gap_of(self.cost, self.bound)


@dataclass(frozen=True, slots=True)
class Searching:
    """How far the search for mappings is."""

    total: int  # different problems
    done: tuple[Searched, ...]
    running: tuple[Searched, ...] = ()
    seconds: float = 0.0
    is_over: bool = False
    kept: str = ""  # where solved mappings are kept for the next run


def gap_of(cost: float, bound: float) -> float:
    """1 - bound / cost; 0 for a cost that cannot be improved, 1 where nothing is known."""
    if not math.isfinite(cost):
        return 1.0
    return max(0.0, 1.0 - bound / cost) if cost > 0 else 0.0


def network(searched: Sequence[Searched]) -> tuple[float, float]:
    """Cost and bound of all layers one after the other.

    sums      sum of costs, sum of bounds
    product   sum of cycles times sum of pJ;  (sum of sqrt(bound))^2   [Cauchy-Schwarz]
    """
    times = [len(item.layers) for item in searched]
    if any(item.objective == "edp" for item in searched):
        cycles = sum(n * item.latency_cycles for n, item in zip(times, searched, strict=True))
        pj = sum(n * item.energy_pj for n, item in zip(times, searched, strict=True))
        roots = (n * math.sqrt(item.bound) for n, item in zip(times, searched, strict=True))
        return cycles * pj, sum(roots) ** 2
    cost = sum(n * item.cost for n, item in zip(times, searched, strict=True))
    return cost, sum(n * item.bound for n, item in zip(times, searched, strict=True))


# --- to whom ---

Listener = Callable[[Searching], None]
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(news: Searching) -> None:
    """Say it to the observers of the pipeline that runs now, if any."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(news)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """What is told inside goes to `listener`."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
