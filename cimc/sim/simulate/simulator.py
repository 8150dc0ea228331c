"""The cycle simulator: when does each instruction of a program run, and what holds it up.

Rules. The plain engine (`cimc.sim.simulate.plain`) is their definition in code; the fast one
(`cimc.sim.simulate.kernel`) gives the same numbers, cycle for cycle.

*Units* (memory ports, link, arrays, vector unit ...: whatever `Kind.cost` names) hold one
instruction at a time. An instruction takes all its units at its start, each for the cycles that its
cost says; its result is ready `cycles` after the start; what it reads may be overwritten once its
units are free again (after `cycles`, if it holds none).

*Within a stream* instructions are handed out in the order of the program, and each starts as soon
as everything it needs is there (dataflow): it never passes an earlier one on a unit they share, but
may start before an earlier one that needs other units. How far it runs ahead is bounded by storage
alone: there is no other window, since every value lies in a buffer with a fixed number of slots. An
instruction needs
    unit      every unit it holds, free
    data      every buffer it reads or updates, ready: all that this stream wrote to it is there
    progress  of every buffer it reads, the progress that the stream waited for
    space     every buffer it writes or updates, released: all of this stream that read it are over;
              so are all accesses to the buffers whose cells it takes over
Dependences are between whole buffers, not elements: a lowering that wants overlap uses two buffers
or two slots, and puts a load before the store that shares its port. Buffers of different streams
must not share cells. A buffer with n slots keeps the last n fills: a write that follows a read
begins a new fill, in the slot whose readers were done first, while writes that follow a write, and
updates, go on with the fill. An update whose field `fresh` is true counts as a write. An
instruction that holds no unit keeps at least the order of its own executions.

*Between streams* there are shared units, progress, and nothing else. The instruction whose turn
comes first goes first: its turn is its earliest possible start, but not before the start of any
earlier one of its stream; the lower stream number decides ties. A gap on a unit is not filled
later. `signal` publishes progress at the time when everything that its stream wrote to the buffer
is ready, or when the progress before was, if that is later. `wait` holds the stream until that
progress is made, and from then on what the stream reads of the buffer waits for the time when it
was made; everything else of the stream goes on. Whoever goes on through another stream's signal has
its turn after it.

*Samples.* Every stream runs once for each sample, one sample after the other, on the same rules: a
single stream overlaps samples as far as its buffers allow, several work on several samples at once.
A stream that makes a buffer for other streams begins sample s only when these are through with
sample s - slots, and overwrites the buffer when their reads of it were over. Inputs lie ready and
outputs are taken away in no time. `setup` runs alone before the first sample, and is reported
apart.

*Latency* is the time of one sample alone, from its first start to its last result. *Period* is the
time between results when samples follow each other: samples are simulated until the state of the
whole machine, relative to the present, has occurred before.

*Stalls.* The front of a stream is the latest start so far. An instruction that starts after the
front moves it; the cycles by which it does are put down to the need that was met last (the first of
them in the order above). So a stream's stalls add up to its last start: a layer whose stalls name
its array is bound by the array, one whose stalls name data waits for latencies that nothing hides.

*Fast-forward.* Loops whose state repeats are added up instead of executed, which changes no number;
`cimc.sim.simulate.kernel_forward` says when and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from cimc.errors import Fault, StallError, UsageError
from cimc.ir.program import Program
from cimc.kind import Kind
from cimc.sim.simulate.outcome import Outcome, Snapshot, repeats
from cimc.sim.simulate.plain import PlainEngine
from cimc.sim.simulate.plan import Plan, plan_setup, plan_streams
from cimc.target import Target

CAUSES = ("unit", "data", "space", "progress")
TRACE_LIMIT = 200_000  # instructions
PERIOD_STEPS = 8_000_000  # instructions after which the search for a repeated state may end
PERIOD_SAMPLES = 8  # at least finished before; also the longest period looked for


@dataclass(frozen=True, slots=True)
class UnitUse:
    """What one unit does for one sample."""

    name: str
    busy_cycles: int
    instructions: int
    utilisation: float  # of the latency
    steady_utilisation: float | None  # of the period


@dataclass(frozen=True, slots=True)
class LayerTime:
    """When a layer of the network runs, one sample alone."""

    name: str  # "" for instructions that name no layer
    start_cycle: int
    end_cycle: int
    instructions: int
    stall_cycles: Mapping[str, int]  # by cause, all of CAUSES

    @property
    def cycles(self) -> int:
        """From the first start to the last result."""
        return self.end_cycle - self.start_cycle


@dataclass(frozen=True, slots=True)
class Stall:
    """Cycles that a layer waited for one unit or buffer."""

    layer: str
    cause: str  # one of CAUSES
    name: str
    cycles: int


@dataclass(frozen=True)
class Simulation:
    """Times of a program on a machine, in cycles of its clock."""

    latency_cycles: int
    period_cycles: float | None  # None where only one sample was asked for
    is_periodic: bool  # False where the state had not repeated: the period is an average then
    samples: int  # simulated to find the period
    setup_cycles: int
    instructions: int  # executed for one sample
    simulated: int  # of these, one by one; the others by arithmetic
    units: tuple[UnitUse, ...]
    layers: tuple[LayerTime, ...]
    stalls: tuple[Stall, ...]
    plan: Plan
    outcome: Outcome  # of one sample alone, by instruction


class Engine(Protocol):
    """What both engines do."""

    def run(self, until: int, time_limit_s: float | None = None) -> None:
        """Go on until the first stream has finished `until` samples, or all have finished."""

    @property
    def outcome(self) -> Outcome:
        """Counts and times so far."""

    @property
    def simulated(self) -> int:
        """Instructions executed one by one so far."""

    @property
    def finished(self) -> int:
        """Samples that all streams are through with."""

    def snapshot(self) -> Snapshot:
        """The state, relative to the first stream's sample."""


def simulate(
    program: Program,
    target: Target,
    *,
    samples: int = 64,
    engine: Literal["fast", "plain"] = "fast",
    fast_forward: bool = True,
    trace: bool | int = False,
    max_cycles: int | None = None,
    time_limit_s: float | None = None,
    kind: Kind | None = None,
) -> Simulation:
    """Simulate one sample alone, then up to `samples` in a row to find the period.

    The search for a repeated state also ends after 8 million instructions, with an average.
    `trace` keeps the start of every instruction (so many of them, 200,000 by default) in
    `outcome.trace`. The plain engine knows no fast-forward. `kind` replaces the target's machine
    kind.

    raises  StallError if streams wait for each other, or max_cycles or time_limit_s is exceeded
            VerifyError where a stream reads what another one writes without waiting for it
    """
    if samples < 1:
        raise UsageError(Fault("samples", need="at least 1", have=str(samples), code="CIM6007"))
    traced = TRACE_LIMIT if trace is True else int(trace)

    def engines(plan: Plan) -> Callable[[int, int], Engine]:
        """What makes an engine for so many samples that traces so many instructions."""
        _check_range(plan, samples)
        if engine == "plain":
            return lambda count, kept: PlainEngine(
                plan, samples=count, max_cycles=_times(max_cycles, count), trace=kept
            )
        from cimc.sim.simulate.fast import FastEngine  # brings Numba
        from cimc.sim.simulate.rows import Rows

        rows = Rows(plan)
        return lambda count, kept: FastEngine(
            rows,
            samples=count,
            max_cycles=_times(max_cycles, count),
            trace=kept,
            fast_forward=fast_forward,
        )

    setup = engines(plan_setup(program, target, kind))(1, 0)
    setup.run(1, time_limit_s)
    plan = plan_streams(program, target, kind)
    start = engines(plan)
    alone = start(1, traced)
    alone.run(1, time_limit_s)
    period: float | None = None
    found, used = False, 1
    if samples > 1:
        found, used, period = _period(start(samples, 0), samples, time_limit_s)
    return _simulation(plan, alone.outcome, setup.outcome.ends[0], period, found, used)


def _times(cycles: int | None, samples: int) -> int | None:
    return None if cycles is None else cycles * samples


def _check_range(plan: Plan, samples: int) -> None:
    """Refuse programs whose times might not fit into 64 bits."""
    longest = [
        max(step.cost.cycles, step.release, *(cycles for _, cycles in step.units))
        for step in plan.steps
    ]
    bound = samples * sum(map(int.__mul__, longest, plan.executions))
    if bound >= 1 << 60:
        raise StallError(
            Fault(
                f"{plan.program.name} runs too long to be counted",
                need="less than 2**60 cycles",
                have=f"up to {bound}",
                code="CIM6006",
            )
        )


def _period(
    engine: Engine, samples: int, time_limit_s: float | None
) -> tuple[bool, int, float | None]:
    """Whether the state repeats, the samples that were finished, and the period in cycles."""
    seen: list[Snapshot] = []
    for sample in range(1, samples):
        engine.run(sample, time_limit_s)
        if engine.simulated > PERIOD_STEPS and engine.finished >= PERIOD_SAMPLES:
            break
        now = engine.snapshot()
        lowest = now.lowest
        for distance, before in enumerate(reversed(seen), start=1):
            shift = repeats(before, now, lowest)
            if shift:
                return True, sample, shift / distance
            lowest = min(lowest, before.lowest)
        seen = [*seen[-PERIOD_SAMPLES:], now]
    else:
        engine.run(samples, time_limit_s)
    count = engine.finished
    ends = engine.outcome.ends[:count]
    first = count // 2 - 1
    return False, count, (ends[-1] - ends[first]) / (count - 1 - first)


def _simulation(
    plan: Plan,
    outcome: Outcome,
    setup_cycles: int,
    period: float | None,
    is_periodic: bool,
    samples: int,
) -> Simulation:
    latency = outcome.ends[0]
    return Simulation(
        latency_cycles=latency,
        period_cycles=period,
        is_periodic=is_periodic,
        samples=samples,
        setup_cycles=setup_cycles,
        instructions=sum(outcome.executed),
        simulated=outcome.simulated,
        units=_units(plan, outcome, latency, period),
        layers=_layers(plan, outcome),
        stalls=_stalls(plan, outcome),
        plan=plan,
        outcome=outcome,
    )


def _units(plan: Plan, outcome: Outcome, latency: int, period: float | None) -> tuple[UnitUse, ...]:
    busy = [0] * len(plan.units)
    count = [0] * len(plan.units)
    for step, executed in zip(plan.steps, outcome.executed, strict=True):
        for unit, cycles in step.units:
            busy[unit] += executed * cycles
            count[unit] += executed
    return tuple(
        UnitUse(
            name,
            busy[unit],
            count[unit],
            busy[unit] / latency if latency else 0.0,
            busy[unit] / period if period else None,
        )
        for unit, name in enumerate(plan.units)
        if name
    )


def _layers(plan: Plan, outcome: Outcome) -> tuple[LayerTime, ...]:
    steps: dict[str, list[int]] = {}
    for step, executed in zip(plan.steps, outcome.executed, strict=True):
        if executed:
            steps.setdefault(step.instr.layer, []).append(step.number)
    stalls: dict[str, dict[str, int]] = {name: dict.fromkeys(CAUSES, 0) for name in steps}
    for (number, cause, _), cycles in outcome.stalls.items():
        stalls[plan.steps[number].instr.layer][cause] += cycles
    return tuple(
        LayerTime(
            name,
            min(outcome.first_start[number] for number in numbers),
            max(outcome.last_end[number] for number in numbers),
            sum(outcome.executed[number] for number in numbers),
            stalls[name],
        )
        for name, numbers in steps.items()
    )


def _stalls(plan: Plan, outcome: Outcome) -> tuple[Stall, ...]:
    """By layer, the longest first."""
    found: dict[tuple[str, str, str], int] = {}
    for (number, cause, name), cycles in outcome.stalls.items():
        key = (plan.steps[number].instr.layer, cause, name)
        found[key] = found.get(key, 0) + cycles
    order = {name: place for place, name in enumerate(dict.fromkeys(key[0] for key in found))}
    rows = sorted(found.items(), key=lambda item: (order[item[0][0]], -item[1], item[0]))
    return tuple(Stall(*key, cycles) for key, cycles in rows)
