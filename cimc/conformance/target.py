"""The suite that every machine and its kind pass: what a plug-in author has to reach.

Each check has a name and runs on one small graph or on the machine alone. A kind may refuse a graph
with a fault that says where and why; it must take a plain convolution and a matrix product.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from cimc.build import Clock, Milestones, build
from cimc.conformance.samples import sample_graphs, sample_inputs
from cimc.errors import CimcError, Fault, FitError, UnsupportedError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.program import Instr, Program, walk
from cimc.ir.types import Array
from cimc.kind import Kind, load_kind
from cimc.pipeline.levels import LEVELS, Effort
from cimc.pipeline.spec import step
from cimc.sim.energy import energy
from cimc.sim.execute import execute
from cimc.sim.simulate import simulate
from cimc.target import Target

NEEDED = ("conv_plain", "matmul_fixed")  # with weights of eight bits or ternary ones


@dataclass(frozen=True, slots=True)
class Result:
    """One check on one subject."""

    check: str
    subject: str  # a sample graph, or the machine
    outcome: str  # "passed", "refused" (with a proper fault) or "failed"
    detail: str = ""


@dataclass(frozen=True)
class Compiled:
    """One sample compiled at one level."""

    graph: Graph  # what the tiles hold
    kept: Milestones
    inputs: dict[str, Array]
    wanted: dict[str, Array]

    @property
    def program(self) -> Program:
        """The program with addresses."""
        assert self.kept.program is not None
        return self.kept.program


def check_target(target: Target) -> Iterator[Result]:
    """Run the whole suite; one result per check and subject."""
    kind = load_kind(target.kind)
    yield from _machine_results(kind, target)
    accepted: set[str] = set()
    for graph in sample_graphs(fixed=target.spec.requant == "fixed"):
        results = list(sample_results(graph, target))
        if all(result.outcome == "passed" for result in results):
            accepted.add(graph.name.removesuffix("_ternary"))
        yield from results
    for name in NEEDED:
        outcome = "passed" if name in accepted else "failed"
        yield Result("needed", name, outcome, "" if name in accepted else "no form of it compiles")


def _machine_results(kind: Kind, target: Target) -> Iterator[Result]:
    yield tried("describes itself", target.name, lambda: _named(kind, target))
    yield tried("area is finite", target.name, lambda: _finite("area", kind.area(target)))
    prices = {name: price.pj for name, price in kind.energies(target).items()}
    yield tried("prices are finite", target.name, lambda: _finite("price", prices))
    keys = {key for price in kind.energies(target).values() for key in price.keys}
    yield tried("prices name their keys", target.name, lambda: _known_keys(keys, target))


def sample_results(
    graph: Graph, target: Target, levels: tuple[int, ...] = LEVELS
) -> Iterator[Result]:
    """All checks on one sample graph."""
    kind = load_kind(target.kind)
    for level in levels:
        subject = f"{graph.name} -O{level}"
        try:
            made = compile_sample(graph, target, level)
        except (UnsupportedError, FitError) as problem:
            yield refusal("compiles", subject, problem)
            return
        except CimcError as problem:
            yield Result("compiles", subject, "failed", str(problem))
            continue
        yield Result("compiles, and each state's text reads back", subject, "passed")
        checks: dict[str, Callable[[], str]] = {
            "the plain engine equals the evaluator": partial(_ran, made, target, "plain"),
            "the fast engine equals the evaluator": partial(_ran, made, target, "fast"),
            "both simulators count the same cycles": partial(_timed, made, target),
            "every event has a price": partial(_priced, made, kind, target),
            "every layer has an estimate": partial(_estimated, made, kind, target),
        }
        if level == levels[-1]:
            checks["a program without one of its streams fails"] = partial(_mutants, made, target)
        for name, run in checks.items():
            yield tried(name, subject, run)


def compile_sample(graph: Graph, target: Target, level: int) -> Compiled:
    """Compile a sample, verifying the state and its text after every pass."""
    effort = Effort(level=level, time_limit_s=0.2)
    fusing = (step("fuse-layers"),) if level else ()
    kept = Milestones(Clock())
    kept.keep(graph)
    build(kept, (*fusing, *effort.machine_steps(target)), target, verify="each")
    inputs = sample_inputs(graph)
    return Compiled(graph, kept, inputs, evaluate(graph, inputs))


def refusal(check: str, subject: str, problem: CimcError) -> Result:
    """Refused, if every fault says where and why; else failed."""
    bare = [fault for fault in problem.faults if not (fault.where and (fault.need or fault.have))]
    if bare:
        return Result("refusals say why", subject, "failed", str(problem))
    return Result(check, subject, "refused", problem.faults[0].where)


def tried(check: str, subject: str, run: Callable[[], str]) -> Result:
    """`run` returns what is wrong, or nothing."""
    try:
        wrong = run()
    except Exception as problem:  # a plug-in may raise anything; the suite goes on
        wrong = f"{type(problem).__name__}: {problem}"
    return Result(check, subject, "failed" if wrong else "passed", wrong)


def _named(kind: Kind, target: Target) -> str:
    return "" if kind.name == target.kind and kind.summary else f"{kind.name!r}, {kind.summary!r}"


def _finite(what: str, numbers: object) -> str:
    assert isinstance(numbers, dict)
    wrong = [f"{key} {value}" for key, value in numbers.items() if not 0 <= value < math.inf]
    return f"{what}: {', '.join(wrong)}" if wrong else "" if numbers else f"no {what} at all"


def _known_keys(keys: set[str], target: Target) -> str:
    content = target.spec.model_dump()

    def has(key: str) -> bool:
        node: object = content
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    wrong = sorted(key for key in keys if not has(key))
    return f"no such keys: {', '.join(wrong)}" if wrong else ""


def _ran(made: Compiled, target: Target, engine: str) -> str:
    return _differences(execute(made.program, target, made.inputs, engine), made.wanted)


def _timed(made: Compiled, target: Target) -> str:
    """Latency, period, layers, units and stalls of the plain engine and of the fast one."""
    plain = simulate(made.program, target, samples=4, engine="plain")
    fast = simulate(made.program, target, samples=4, engine="fast")
    for name in ("latency_cycles", "period_cycles", "setup_cycles", "layers", "units"):
        if getattr(plain, name) != getattr(fast, name):
            return f"{name}: plain {getattr(plain, name)}, fast {getattr(fast, name)}"
    if set(plain.stalls) != set(fast.stalls):
        return f"stalls: only one has {sorted(map(str, set(plain.stalls) ^ set(fast.stalls)))}"
    spent = energy(made.program, target, fast.latency_cycles, plan=fast.plan)
    if not (fast.latency_cycles > 0 and 0 <= spent.total_pj < math.inf):
        return f"{fast.latency_cycles} cycles, {spent.total_pj} pJ"
    return ""


def _differences(got: dict[str, Array], wanted: dict[str, Array]) -> str:
    if set(got) != set(wanted):
        return f"outputs {sorted(got)} instead of {sorted(wanted)}"
    wrong = [
        f"{name}: {np.count_nonzero(got[name] != array)} of {array.size} elements differ"
        for name, array in wanted.items()
        if not np.array_equal(got[name], array)
    ]
    return "; ".join(wrong)


def _priced(made: Compiled, kind: Kind, target: Target) -> str:
    prices = set(kind.energies(target))
    buffers = made.program.buffer_map()
    missing: set[str] = set()
    for instr in _instructions(made.program):
        cost = kind.cost(instr, buffers, target)
        numbers = [cost.cycles, *(cycles for _, cycles in cost.holds), *(n for _, n in cost.events)]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            return f"{instr.mnemonic}: {cost}"
        missing |= {event for event, _ in cost.events} - prices
    return f"no price for {', '.join(sorted(missing))}" if missing else ""


def _estimated(made: Compiled, kind: Kind, target: Target) -> str:
    assert made.kept.tiles is not None
    prices = set(kind.energies(target))
    for layer in made.kept.tiles.layers:
        cost = kind.estimate(layer, made.kept.tiles, target)
        if layer.place == "macro" and cost.cycles <= 0:
            return f"{layer.name}: {cost.cycles} cycles"
        missing = {event for event, _ in cost.events} - prices
        if missing:
            return f"{layer.name}: no price for {', '.join(sorted(missing))}"
    return ""


def _instructions(program: Program) -> Iterator[Instr]:
    yield from (instr for instr, _ in walk(program.setup))
    for stream in program.streams:
        yield from (instr for instr, _ in walk(stream.body))


def _mutants(made: Compiled, target: Target) -> str:
    """Drop whole streams one by one: each must change a result or be found."""
    program = made.program
    silent = []
    for number, stream in enumerate(program.streams):
        streams = program.streams[:number] + program.streams[number + 1 :]
        mutant = dataclasses.replace(program, streams=streams)
        try:
            got = execute(mutant, target, made.inputs, "plain")
        except CimcError:
            continue
        if not _differences(got, made.wanted):
            silent.append(stream.name)
    return f"nothing happens without stream {', '.join(silent)}" if silent else ""


def fault_of(result: Result) -> Fault:
    """A failed result as a fault."""
    return Fault(f"{result.check}: {result.subject}", have=result.detail, code="CIM8001")
