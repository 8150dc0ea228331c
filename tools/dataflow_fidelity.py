"""How well closed forms foresee the simulators: errors, and whether they pick the right mapping.

    python tools/dataflow_fidelity.py --networks resnet18,mobilenet_v2
    python tools/dataflow_fidelity.py --networks resnet18 --timing private --random 8

For every distinct layer of the networks (`models/workloads.py`) mappings are drawn at random, and
made well: by annealing for latency, energy and their product on all promising spatial choices and
on the best one, and by the weight-stationary rule. Each mapping's closed form stands beside the
simulator's figures: shared ports the model of `timing` and the emitted program, private ports their
closed form and MIREDO's simulator. Errors are model / simulator - 1. "picked": in how many layers
the model's best of the good mappings is the simulator's best, too; "loss": how much worse it is
where it is not. "bounds": how far below the simulator the exact search's bounds of the good
mappings lie (shared ports). "solved": mappings of the exact search for EDP that the store of solved
layers holds (`dataflow_tables.py` fills it), each as often as its layer occurs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cimc.lowering import ConvShape
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.objective import Objective
from cimc.mapping.sample import random_nest
from cimc.mapping.workload import Workload
from cimc.target import Target, load_target
from cimc.targets.sram_cim.anneal import annealed
from cimc.targets.sram_cim.exact.private_anneal import annealed_private
from cimc.targets.sram_cim.exact.problem import CostModel, Figures, Problem, Timing
from cimc.targets.sram_cim.exact.shared_bound import bound
from cimc.targets.sram_cim.exact.solve import model_of
from cimc.targets.sram_cim.exact.store import default_store
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import nest_of
from cimc.targets.sram_cim.private_ports.closed_form import closed_form as private_form
from cimc.targets.sram_cim.private_ports.schedule import private_schedule
from cimc.targets.sram_cim.stationary import weight_stationary
from cimc.targets.sram_cim.timing import evaluate

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from workloads import TRANSFORMERS, distinct, layers_of

OBJECTIVES = ("latency", "energy", "edp")
MOST_ACTIVATIONS = 3_000_000  # of a random mapping
Pair = tuple[Figures, Figures]  # by the model, by the simulator


@dataclass
class Errors:
    """Relative errors of one kind of mappings."""

    cycles: list[float] = field(default_factory=list)
    pj: list[float] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        """One more mapping."""
        model, simulated = pair
        self.cycles.append(model.cycles / simulated.cycles - 1.0)
        self.pj.append(model.energy_pj / simulated.energy_pj - 1.0)

    def rows(self, name: str) -> Iterator[str]:
        """Mean, median and worst, of absolute values."""
        for word, errors in (("latency", self.cycles), ("energy", self.pj)):
            if errors:
                sizes = [abs(error) for error in errors]
                bias, worst = statistics.fmean(errors), max(errors, key=abs)
                yield (
                    f"{name:<10} {word:<8} {len(errors):>5} mappings   "
                    f"mean {statistics.fmean(sizes):7.2%}   median {statistics.median(sizes):7.2%}"
                    f"   worst {worst:+8.2%}   bias {bias:+7.2%}"
                )


def good(workload: Workload, target: Target, timing: Timing) -> list[Mapped]:
    """Mappings worth comparing."""
    machine, spec = machine_of(target), spec_of(target)
    found = list(weight_stationary(workload, machine))
    for objective in OBJECTIVES:
        if timing == "private":
            found += annealed_private(workload, target, objective)
        else:
            best = annealed(workload, machine, spec, 1, objective)
            found += [] if best is None else [best]
    return list({nest_of(mapped): mapped for mapped in found}.values())


def solved(workload: Workload, target: Target, timing: Timing) -> Mapped | None:
    """The mapping that the store holds for EDP."""
    store = default_store()
    problem = Problem(workload, 1, Objective.parse("edp"), timing)
    known = None if store is None else store.get(problem, target)
    mapped = None if known is None else resolve(known.solution.nest, workload, machine_of(target))
    return mapped if isinstance(mapped, Mapped) else None


def drawn(workload: Workload, target: Target, rng: random.Random, count: int) -> Iterator[Mapped]:
    """Random mappings."""
    machine, tries = machine_of(target), 0
    while count and tries < 200:
        tries += 1
        mapped = resolve(random_nest(workload, machine, rng, exact=True), workload, machine)
        if not isinstance(mapped, Mapped) or any(capacity_faults(mapped)):
            continue
        if mapped.activations <= MOST_ACTIVATIONS:
            count -= 1
            yield mapped


def closed_form(timing: str, target: Target) -> Callable[[Mapped], Figures]:
    """The model of a timing."""

    def shared(mapped: Mapped) -> Figures:
        found = evaluate(mapped, spec_of(target), 1)
        return Figures(found.cycles, found.energy_pj)

    def private(mapped: Mapped) -> Figures:
        schedule = private_schedule(nest_of(mapped), target, mapped.workload)
        found = private_form(schedule)
        return Figures(found.latency, found.energy_pj)

    return shared if timing == "shared" else private


def main() -> None:
    """Print errors and rank agreement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="resnet18,mobilenet_v2", help="separated by commas")
    parser.add_argument("--timing", choices=["shared", "private"], default="shared")
    parser.add_argument("--random", type=int, default=4, help="random mappings of each layer")
    options = parser.parse_args()
    errors = {name: Errors() for name in ("random", "optimized", "bounds", "solved")}
    picked = dict.fromkeys(OBJECTIVES, 0)
    losses: dict[str, list[float]] = {name: [] for name in OBJECTIVES}
    rng = random.Random(1)
    layers: dict[ConvShape, str] = {}
    times = Counter[ConvShape]()
    for network in options.networks.split(","):
        machine = "miredo-transformer" if network in TRANSFORMERS else "miredo-default"
        for shape, same in distinct(layers_of(network)).items():
            layers[shape] = machine
            times[shape] += len(same)
    for number, (shape, machine) in enumerate(layers.items(), 1):
        target, workload = load_target(machine), Workload(shape)
        latency = Objective.parse("latency")
        simulator: CostModel = model_of(Problem(workload, 1, latency, options.timing), target)
        model = closed_form(options.timing, target)

        def compared(
            mapped: Mapped,
            model: Callable[[Mapped], Figures] = model,
            simulator: CostModel = simulator,
        ) -> Pair | None:
            simulated = simulator.evaluate(nest_of(mapped))
            return None if simulated is None else (model(mapped), simulated)

        for mapped in drawn(workload, target, rng, options.random):
            pair = compared(mapped)
            if pair is not None:
                errors["random"].add(pair)
        pairs = []
        for mapped in good(workload, target, options.timing):
            pair = compared(mapped)
            if pair is None:
                continue
            pairs.append(pair)
            errors["optimized"].add(pair)
            if options.timing == "shared":
                least = bound(mapped, 1, target)
                errors["bounds"].add((Figures(least.cycles, least.energy_pj), pair[1]))
        known = solved(workload, target, options.timing)
        pair = None if known is None else compared(known)
        for _ in range(times[shape] if pair is not None else 0):
            errors["solved"].add(pair)
        for name in OBJECTIVES:
            objective = Objective.parse(name)
            scores = [tuple(objective.score(f.cycles, f.energy_pj) for f in pair) for pair in pairs]
            if scores:
                chosen, best = min(scores)[1], min(score for _, score in scores)
                picked[name] += chosen == best
                losses[name].append(chosen / best - 1.0)
        if sys.stderr.isatty():
            print(f"\r{number} of {len(layers)} layers", end="", file=sys.stderr, flush=True)
    print(f"{options.timing} ports, {len(layers)} distinct layers of {options.networks}")
    for name, found in errors.items():
        for row in found.rows(name):
            print(row)
    for name in OBJECTIVES:
        if losses[name]:
            print(
                f"picked for {name:<8} {picked[name]} of {len(losses[name])}   "
                f"loss mean {statistics.fmean(losses[name]):.2%}   worst {max(losses[name]):.2%}"
            )


if __name__ == "__main__":
    main()
