"""Energy of a program: counted events times the prices of the target file, and nothing else.

    dynamic energy = sum over instructions of executions * events * price
    static energy  = sum over memories of leakage * instances * cycles

The counts are closed forms of the program's loops, so they are exact, and energy is affine in every
price, with the counts as coefficients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cimc.errors import Fault, UsageError, raise_if
from cimc.ir.program import Program
from cimc.kind import Kind, Price, load_kind
from cimc.sim.simulate.plan import Plan, Step, plan_setup, plan_streams
from cimc.sim.units import core_of_unit
from cimc.target import Target

STATIC = "leakage"  # the component of static energy


@dataclass(frozen=True, slots=True)
class Counted:
    """How often an event happens in one sample, where, and what each costs."""

    layer: str
    core: str  # "" for units that all cores share
    mnemonic: str  # of the instructions
    event: str
    count: int
    price: Price

    @property
    def component(self) -> str:
        """The part of the machine: the event's name up to its last dot ("adc.conversions")."""
        return self.event.rpartition(".")[0] or self.event

    @property
    def pj(self) -> float:
        """Energy of all of them."""
        return self.count * self.price.pj


@dataclass(frozen=True)
class Energy:
    """Where the energy of one sample goes, in pJ."""

    counted: tuple[Counted, ...]
    static_pj: float  # during the cycles of one sample alone
    leakage_pj_per_cycle: float
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

    def by(self, key: Callable[[Counted], str]) -> dict[str, dict[str, float]]:
        """pJ of events by `key` (their layer, core ...), then by component."""
        found: dict[str, dict[str, float]] = {}
        for item in self.counted:
            row = found.setdefault(key(item), {})
            row[item.component] = row.get(item.component, 0.0) + item.pj
        return found

    def by_layer(self) -> dict[str, dict[str, float]]:
        """pJ of each layer's events by component."""
        return self.by(lambda item: item.layer)

    def by_component(self) -> dict[str, float]:
        """pJ of each part of the machine, the largest first; leakage is one of them."""
        found: dict[str, float] = defaultdict(float)
        for item in self.counted:
            found[item.component] += item.pj
        found[STATIC] += self.static_pj
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))

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
    samples = plan or plan_streams(program, target, kind)
    return price_plans(samples, plan_setup(program, target, kind), target, latency_cycles, kind)


def price_plans(
    plan: Plan, setup: Plan, target: Target, latency_cycles: float, kind: Kind
) -> Energy:
    """Energy of a plan whose costs are known, at the prices of `target`."""
    prices = kind.energies(target)
    counts, once = _counts(plan), _counts(setup)
    events = dict.fromkeys(event for *_, event in (*counts, *once))
    missing = [event for event in events if event not in prices]
    raise_if((_no_price(event, target) for event in missing), UsageError)
    counted = tuple(Counted(*key, count, prices[key[-1]]) for key, count in counts.items())
    used = {key for event, count in _totals(counts).items() if count for key in prices[event].keys}
    leaks = {f"memory.{name}.leakage_pj_per_cycle" for name in target.spec.memory}
    leakage = leakage_pj_per_cycle(target)
    return Energy(
        counted,
        leakage * latency_cycles,
        leakage,
        sum(count * prices[event].pj for (*_, event), count in once.items()),
        tuple(key for key in target.assumed_keys() if key in used | leaks),
    )


def leakage_pj_per_cycle(target: Target) -> float:
    """Leakage of all memories."""
    cores = target.spec.cores
    return sum(
        memory.leakage_pj_per_cycle * (cores if memory.per == "core" else 1)
        for memory in target.spec.memory.values()
    )


_Key = tuple[str, str, str, str]  # layer, core, mnemonic, event


def _counts(plan: Plan) -> dict[_Key, int]:
    counts: dict[_Key, int] = defaultdict(int)
    for step, executions in zip(plan.steps, plan.executions, strict=True):
        place = (step.instr.layer, core_of_step(step), step.instr.mnemonic)
        for event, count in step.cost.events:
            counts[*place, event] += executions * count
    return counts


def core_of_step(step: Step) -> str:
    """The core that an instruction runs on, "" where it holds no core's unit."""
    return next(filter(None, (core_of_unit(unit) for unit, _ in step.cost.holds)), "")


def _totals(counts: Mapping[_Key, int]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for (*_, event), count in counts.items():
        found[event] += count
    return found


def _no_price(event: str, target: Target) -> Fault:
    component, _, name = event.rpartition(".")
    return Fault(
        f"event {event} has no price",
        need=f"an entry {event!r} in what `energies` of the kind {target.kind} returns",
        have="a missing cost is an error, not zero",
        help=f"add the constant to {target.path}, such as [{component}] {name}_pj",
        code="CIM6010",
    )
