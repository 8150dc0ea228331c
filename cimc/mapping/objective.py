"""What a search minimizes: a function of cycles and pJ that never falls where one of them rises.

latency                    cycles
energy                     pJ
edp                        cycles * pJ
period                     cycles between samples that follow each other
0.3*latency+0.7*energy     a weighted sum of cycles and pJ, those of the latency or of the period

A layer alone has no period: what is minimized there are its cycles.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from cimc.errors import Fault, UsageError

NAMES = ("latency", "period", "energy")


@dataclass(frozen=True, slots=True)
class Objective:
    """A weighted sum of cycles and pJ, or their product."""

    latency: float = 0.0  # weight of a cycle
    energy: float = 0.0  # weight of a pJ
    is_product: bool = False
    is_periodic: bool = False  # cycles are those between samples, not those of one

    @classmethod
    def parse(cls, text: str) -> Objective:
        """The objective that a text names; raises UsageError for one that names none."""
        compact = "".join(text.split())
        if compact == "edp":
            return cls(is_product=True)
        weights = dict.fromkeys(NAMES, 0.0)
        for term in compact.split("+"):
            weight, _, name = term.rpartition("*")
            if name not in weights:
                raise UsageError(
                    [_fault(text, "terms [WEIGHT*]latency, [WEIGHT*]period, [WEIGHT*]energy")]
                )
            weights[name] += _weight(weight, text)
        if not any(weights.values()):
            raise UsageError([_fault(text, "a weight above 0")])
        if weights["latency"] and weights["period"]:
            raise UsageError([_fault(text, "latency or period, not both")])
        is_periodic = weights["period"] > 0
        cycles = weights["period"] if is_periodic else weights["latency"]
        return cls(cycles, weights["energy"], is_periodic=is_periodic)

    @property
    def of_layer(self) -> Objective:
        """What is minimized of one layer."""
        return dataclasses.replace(self, is_periodic=False)

    def __str__(self) -> str:
        if self.is_product:
            return "edp"
        cycles = "period" if self.is_periodic else "latency"
        weights = {cycles: self.latency, "energy": self.energy}
        terms = [
            name if weight == 1.0 else f"{weight!r}*{name}"
            for name, weight in weights.items()
            if weight
        ]
        return "+".join(terms)

    def score(self, cycles: float, pj: float) -> float:
        """What is minimized."""
        if self.is_product:
            return cycles * pj
        return self.latency * cycles + self.energy * pj


def _weight(text: str, whole: str) -> float:
    if not text:
        return 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise UsageError([_fault(whole, "weights that are numbers of at least 0")])
    return weight


def _fault(text: str, need: str) -> Fault:
    return Fault(
        f"`{text}` is no objective",
        need=need,
        have=text or "nothing",
        help='latency, period, energy, edp, or a sum such as "0.3*latency+0.7*energy"',
        code="CIM4015",
    )
