"""What the exact search is asked, what it answers, and what it needs to know of a timing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from cimc.ir.tiles import Nest, Spatial
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.targets.sram_cim.placing import Factors

Timing = Literal["shared", "private"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One layer to map; without `spatial`, the choice of spatial loops is part of the proof."""

    workload: Workload
    epilogue: int  # vector operations on each result
    objective: Objective
    timing: Timing = "shared"
    spatial: tuple[Spatial, ...] | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Cycles and pJ of one mapping, or the least that any of many mappings can have."""

    cycles: float
    energy_pj: float


@dataclass(frozen=True, slots=True)
class Solution:
    """The best mapping found; no mapping costs less than `bound` (in units of the objective)."""

    nest: Nest
    cost: float
    bound: float
    latency: float  # cycles
    energy_pj: float
    nodes: int  # mappings and parts of mappings looked at
    seconds: float
    finished: bool  # the search came to its end, nobody stopped it

    @property
    def gap(self) -> float:
        """How much less than `cost` a mapping could cost, as a share of it."""
        return max(0.0, (self.cost - self.bound) / self.cost) if self.cost else 0.0

    def is_proven(self, gap: float = 0.01) -> bool:
        """Whether no mapping can be better by more than this share."""
        return self.gap <= gap * (1 + 1e-9)  # bounds stop right there


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search has come."""

    cost: float
    bound: float
    nodes: int
    seconds: float
    choices_done: int  # choices of spatial loops
    choices: int
    nest: Nest | None = None  # the best mapping so far, so that it survives a lost process


@dataclass(frozen=True, slots=True)
class Limits:
    """How far to go with one choice of spatial loops.

    effort  0: tighten the floor, in a millisecond or so;  1: a narrow search that finds good
            mappings;  2 and more: wider and wider ones, until the bound reaches the cutoff
    cutoff  scores from here on are of no interest: no bound needs to be higher
    slack   how far below the best mapping's score the cutoff is
    """

    effort: int
    cutoff: float
    slack: float
    stop: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Exploration:
    """What one choice of spatial loops holds: a mapping's score is `bound` or more."""

    bound: float
    nests: tuple[Nest, ...]  # promising ones, to be judged by the referee
    nodes: int
    is_final: bool  # more effort would not raise the bound


class CostModel(Protocol):
    """A timing: the referee that judges mappings, and bounds that the referee never beats."""

    def evaluate(self, nest: Nest) -> Figures | None:
        """The simulator's own figures of a mapping; None if it is not legal."""

    def floor(self, factors: Factors) -> Figures:
        """No mapping with these spatial loops takes fewer cycles or less energy."""

    def explore(self, factors: Factors, objective: Objective, limits: Limits) -> Exploration:
        """Search the mappings with these spatial loops, as long as `limits` allows."""
