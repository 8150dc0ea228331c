"""Energy of a program: counted events times the prices of the target file, and nothing else.

    dynamic energy = sum over instructions of executions * events * price
    static energy  = sum over memories of leakage * instances * latency

The counts are closed forms of the program's loops, so they are exact, and energy is affine in every
price, with the counts as coefficients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cimc.errors import Fault, UsageError, raise_if
from cimc.ir.program import Program
from cimc.kind import Kind, Price, load_kind
from cimc.sim.simulate_plan import Plan, plan_setup, plan_streams
from cimc.target import Target

STATIC = "leakage"  # the component of static energy


@dataclass(frozen=True, slots=True)
class Counted:
    """How often an event happens in one sample for one layer, and what each costs."""

    layer: str
    event: str
    count: int
    price: Price

    @property
    def component(self) -> str:
        """The part of the machine: the event's name up to its first dot ("adc.conversions")."""
        return self.event.split(".", 1)[0]

    @property
    def pj(self) -> float:
        """Energy of all of them."""
        return self.count * self.price.pj


@dataclass(frozen=True)
class Energy:
    """Where the energy of one sample goes, in pJ."""

    counted: tuple[Counted, ...]
    static_pj: float
    setup_pj: float  # once, before the first sample
    assumed: tuple[str, ...]  # keys of the target file that entered and that nobody published

    @cached_property
    def dynamic_pj(self) -> float:
        """Energy of all events."""
        return sum(item.pj for item in self.counted)

    @property
    def total_pj(self) -> float:
        """Dynamic and static energy."""
        return self.dynamic_pj + self.static_pj

    def by_component(self) -> dict[str, float]:
        """pJ of each part of the machine, the largest first; leakage is one of them."""
        found: dict[str, float] = defaultdict(float)
        for item in self.counted:
            found[item.component] += item.pj
        found[STATIC] += self.static_pj
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))

    def by_layer(self) -> dict[str, dict[str, float]]:
        """pJ of each layer's events by component."""
        found: dict[str, dict[str, float]] = {}
        for item in self.counted:
            row = found.setdefault(item.layer, {})
            row[item.component] = row.get(item.component, 0.0) + item.pj
        return found

    def by_event(self) -> dict[str, tuple[int, float]]:
        """Count and pJ of each event."""
        found: dict[str, tuple[int, float]] = {}
        for item in self.counted:
            count, pj = found.get(item.event, (0, 0.0))
            found[item.event] = (count + item.count, pj + item.pj)
        return found


def energy(
    program: Program,
    target: Target,
    latency_cycles: float,
    *,
    plan: Plan | None = None,
    kind: Kind | None = None,
) -> Energy:
    """Energy of one sample that takes `latency_cycles`; `plan` saves looking all costs up again.

    raises  UsageError naming each event that the target has no price for
    """
    kind = kind or load_kind(target.kind)
    prices = kind.energies(target)
    samples = plan or plan_streams(program, target, kind)
    counted = tuple(_counted([samples], prices))
    setup = sum(item.pj for item in _counted([plan_setup(program, target, kind)], prices))
    used = {key for item in counted for key in item.price.keys}
    leaks = {f"memory.{name}.leakage_pj_per_cycle" for name in target.spec.memory}
    assumed = tuple(key for key in target.assumed_keys() if key in used | leaks)
    return Energy(counted, leakage_pj_per_cycle(target) * latency_cycles, setup, assumed)


def leakage_pj_per_cycle(target: Target) -> float:
    """Leakage of all memories."""
    cores = target.spec.cores
    return sum(
        memory.leakage_pj_per_cycle * (cores if memory.per == "core" else 1)
        for memory in target.spec.memory.values()
    )


def _counted(plans: Sequence[Plan], prices: Mapping[str, Price]) -> Iterator[Counted]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for plan in plans:
        for step, executions in zip(plan.steps, plan.executions, strict=True):
            for event, count in step.cost.events:
                counts[step.instr.layer, event] += executions * count
    missing = dict.fromkeys(event for _, event in counts if event not in prices)
    raise_if((_no_price(event) for event in missing), UsageError)
    for (layer, event), count in counts.items():
        yield Counted(layer, event, count, prices[event])


def _no_price(event: str) -> Fault:
    return Fault(
        f"event {event} has no price",
        need="an entry for it in what the machine kind's `energies` returns",
        help="a missing cost is an error, not zero: add the constant to the target file",
        code="CIM6010",
    )
