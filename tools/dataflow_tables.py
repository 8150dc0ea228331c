"""Mappings of whole networks by rule, by heuristics and proven, beside MIREDO's published figures.

    python tools/dataflow_tables.py --objective edp --timing private --layer-time-limit 60
    python tools/dataflow_tables.py --networks resnet18 --no-exact
    python tools/dataflow_tables.py --networks bert_base,gpt2_medium_block,tinyllama_block

Every layer of a network (`models/workloads.py`) is mapped by the weight-stationary rule, by a
ZigZag-style mapper (`tools/zigzag_style.py`), by the -O2 heuristic and by the exact search, and all
mappings are judged by the timing's own simulator: `private` as MIREDO's, whose operands never
contend for a port (to compare), `shared` as the machine's (the default of the compiler). Equal
layers are solved once, also across networks, and kept in the store of solved layers, so the tool
can be interrupted and goes on. Totals count every layer; a network's EDP is its latency times its
energy, as MIREDO counts, and the sum of the layers' EDPs stands beside it. Networks of convolutions
run on miredo-default, transformers on miredo-transformer. --csv keeps a row for each distinct
layer, --markdown the tables of networks.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zigzag_style import zigzag_style

from cimc.errors import FitError
from cimc.ir import text
from cimc.ir.tiles import Nest, scan_nest
from cimc.kind import Options
from cimc.lowering import ConvShape
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.report.table import Scalar, Table
from cimc.target import Target, load_target
from cimc.targets.sram_cim.exact.driver import Interrupted, Result, Standing, solve_all
from cimc.targets.sram_cim.exact.private_anneal import annealed_private
from cimc.targets.sram_cim.exact.problem import CostModel, Figures, Problem, Timing
from cimc.targets.sram_cim.exact.solve import model_of
from cimc.targets.sram_cim.exact.store import default_store
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.placing import nest_of
from cimc.targets.sram_cim.search import best_mapping
from cimc.targets.sram_cim.stationary import weight_stationary

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
workloads = importlib.import_module("workloads")  # recipes are no package

MAPPERS = ("ws", "zigzag", "heuristic", "exact")
PROVEN = 0.01

# MIREDO's development repository, canonical run: EDP against ZigZag-IMC, latency against it under
# the latency objective, EDP against the weight-stationary rule; 95 of 174 layers proven, 22-24 h
# per objective on 16 cores
PUBLISHED: dict[str, dict[str, float]] = {
    "resnet18": {"edp": 1.22, "latency": 1.61},
    "vgg19": {"edp": 1.12, "latency": 2.93, "ws": 27.67},
    "alexnet": {"edp": 1.08, "latency": 2.32},
    "mobilenet_v2": {"edp": 1.16, "latency": 1.28},
    "efficientnet_b0": {"edp": 1.21, "latency": 1.33},
    "bert_base": {"edp": 1.68},
    "gpt2_medium_block": {"edp": 6.19},
    "tinyllama_block": {"edp": 1.10},
}

Mappings = dict[ConvShape, Nest]


@dataclass(slots=True)
class Solved:
    """One distinct layer: figures by mapper, and how its exact search ended."""

    problem: Problem
    nests: dict[str, Nest] = field(default_factory=dict)
    figures: dict[str, Figures] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    result: Result | None = None

    def cost(self, mapper: str) -> float:
        """The objective's value of a mapper's mapping; infinite where there is none."""
        found = self.figures.get(mapper)
        if found is None:
            return math.inf
        return self.problem.objective.score(found.cycles, found.energy_pj)

    def best(self) -> Nest | None:
        """The cheapest mapping of all mappers, for the exact search to begin with."""
        name = min(self.nests, key=self.cost, default=None)
        return None if name is None else self.nests[name]


def mapped_by_rules(problem: Problem, target: Target, replayed: Nest | None) -> Solved:
    """A layer mapped by everything but the exact search."""
    solved = Solved(problem)
    workload, machine = problem.workload, machine_of(target)
    model, objective = model_of(problem, target), problem.objective
    named = "edp" if objective.is_product else str(objective)

    def keep(mapper: str, make: Callable[[], Iterator[Nest]]) -> None:
        began = time.process_time()
        nests = list(make())
        solved.seconds[mapper] = time.process_time() - began
        for nest in nests:
            figures = model.evaluate(nest)
            if figures is None:
                continue
            if objective.score(figures.cycles, figures.energy_pj) < solved.cost(mapper):
                solved.nests[mapper], solved.figures[mapper] = nest, figures

    def heuristic() -> Iterator[Nest]:
        options = Options(level=2, objective=named)
        yield nest_of(best_mapping(workload, problem.epilogue, machine, target, options))
        if problem.timing == "private":
            yield from map(nest_of, annealed_private(workload, target, named))

    keep("ws", lambda: map(nest_of, weight_stationary(workload, machine)))
    keep(
        "zigzag",
        lambda: iter([nest_of(zigzag_style(workload, target, named, problem.timing))]),
    )
    keep("heuristic", heuristic)
    if replayed is not None:
        keep("replayed", lambda: with_buffers(replayed, model))
    return solved


def with_buffers(nest: Nest, model: CostModel) -> Iterator[Nest]:
    """A nest with those of its second buffers that fit, one after the other."""
    found = dataclasses.replace(nest, double=())
    for buffer in nest.double:
        more = dataclasses.replace(found, double=tuple(sorted({*found.double, buffer})))
        if model.evaluate(more) is not None:
            found = more
    yield found


def solve(
    solved: Sequence[Solved], names: Sequence[str], target: Target, args: argparse.Namespace
) -> None:
    """Search all layers exactly; results stay in the store."""
    started, told = time.monotonic(), set[str]()

    def watch(standings: Sequence[Standing]) -> None:
        done = [item for item in standings if item.result is not None]
        for item in done:
            if item.name in told or item.result is None:
                continue
            told.add(item.name)
            solution = item.result.solution
            print(
                f"{len(done):>4}/{len(standings)}  {time.monotonic() - started:8.1f} s  "
                f"{item.name:<32} {solution.cost:<12.6g} gap {100 * solution.gap:6.2f} %  "
                f"{solution.seconds:7.1f} s  {item.result.outcome}",
                file=sys.stderr,
                flush=True,
            )

    try:
        results: Sequence[Result | None] = solve_all(
            [layer.problem for layer in solved],
            target,
            incumbents=[layer.best() for layer in solved],
            names=names,
            jobs=args.jobs,
            time_limit=args.time_limit,
            layer_time_limit=args.layer_time_limit,
            gap=args.gap,
            store=default_store(),
            on_progress=watch,
        )
    except Interrupted as stopped:
        print("interrupted: what was solved is kept, the same line goes on", file=sys.stderr)
        results = stopped.results
    for layer, result in zip(solved, results, strict=True):
        layer.result = result
        if result is not None:
            found = result.solution
            layer.nests["exact"] = found.nest
            layer.figures["exact"] = Figures(found.latency, found.energy_pj)
            layer.seconds["exact"] = found.seconds


# --- tables -------------------------------------------------------------------------------------


def layer_table(
    network: str, solved: dict[ConvShape, Solved], names: dict[ConvShape, list[str]]
) -> Table:
    """A row for each distinct layer of a network."""
    rows: list[tuple[Scalar, ...]] = []
    mappers = [*MAPPERS, "replayed"]
    for shape, same in names.items():
        layer = solved[shape]
        found = layer.result.solution if layer.result is not None else None
        row: list[Scalar] = [network, same[0], len(same), bounds(shape)]
        row += [str(layer.problem.objective), layer.problem.timing]
        for mapper in mappers:
            figures = layer.figures.get(mapper)
            row += [None, None] if figures is None else [figures.cycles, figures.energy_pj]
            row.append(None if figures is None else layer.cost(mapper))
        row += [None] * 3 if found is None else [found.bound, found.gap, found.seconds]
        row += [None if layer.result is None else layer.result.outcome]
        row += [layer.seconds["heuristic"]]
        rows.append(tuple(row))
    columns = ["network", "layer", "layers", "shape", "objective", "timing"]
    for mapper in mappers:
        columns += [f"{mapper}_cycles", f"{mapper}_pj", f"{mapper}_cost"]
    columns += ["bound", "gap", "exact_s", "outcome", "heuristic_s"]
    return Table("", tuple(columns), tuple(rows))


def bounds(shape: ConvShape) -> str:
    """A layer's loops in a word or two."""
    stride = f" /{shape.strides[0]}" if shape.strides != (1, 1) else ""
    return " ".join(f"{dim}{bound}" for dim, bound in shape.dims if bound > 1) + stride


@dataclass(frozen=True, slots=True)
class Totals:
    """A network by one mapper: cycles, pJ, and the sum of the layers' EDPs."""

    cycles: float
    energy_pj: float
    edps: float

    def score(self, objective: Objective) -> float:
        """The network's figure of merit, EDP as latency times energy."""
        return objective.score(self.cycles, self.energy_pj)


def totals(
    solved: dict[ConvShape, Solved], names: dict[ConvShape, list[str]], mapper: str
) -> Totals | None:
    """Sums over all layers; None if the mapper has no mapping for one of them."""
    cycles = pj = edps = 0.0
    for shape, same in names.items():
        found = solved[shape].figures.get(mapper)
        if found is None:
            return None
        cycles += len(same) * found.cycles
        pj += len(same) * found.energy_pj
        edps += len(same) * found.cycles * found.energy_pj
    return Totals(cycles, pj, edps)


def network_rows(
    network: str,
    solved: dict[ConvShape, Solved],
    names: dict[ConvShape, list[str]],
    objective: Objective,
) -> Iterator[tuple[Scalar, ...]]:
    """A row for each mapper."""
    by_mapper = {mapper: totals(solved, names, mapper) for mapper in (*MAPPERS, "replayed")}
    for mapper, total in by_mapper.items():
        if total is None:
            continue
        row: list[Scalar] = [network, mapper, total.cycles, total.energy_pj / 1e6]
        row += [total.cycles * total.energy_pj, total.edps]
        for baseline in ("ws", "zigzag", "replayed"):
            base = by_mapper[baseline]
            row.append(None if base is None else base.score(objective) / total.score(objective))
        yield tuple(row)


def network_table(rows: Sequence[tuple[Scalar, ...]]) -> Table:
    """Totals of networks by mapper, with the gains over the baselines."""
    columns = ("network", "mapper", "cycles", "energy_uj", "edp", "sum_of_edps")
    return Table(
        "", (*columns, "gain_over_ws", "gain_over_zigzag", "gain_over_replayed"), tuple(rows)
    )


def proof_row(
    network: str,
    solved: dict[ConvShape, Solved],
    names: dict[ConvShape, list[str]],
    objective: Objective,
) -> tuple[Scalar, ...]:
    """What was proven of a network, and the published gains beside ours."""
    layers = sum(len(same) for same in names.values())
    results = {shape: solved[shape].result for shape in names}
    proven = sum(
        len(names[shape])
        for shape, result in results.items()
        if result is not None and result.solution.is_proven(PROVEN)
    )
    gaps = [
        (result.solution.gap, len(names[shape]))
        for shape, result in results.items()
        if result is not None
    ]
    seconds = sum(result.solution.seconds for result in results.values() if result is not None)
    published = PUBLISHED.get(network, {})
    return (
        network,
        layers,
        len(names),
        proven,
        100 * sum(gap * count for gap, count in gaps) / max(1, sum(count for _, count in gaps)),
        100 * max((gap for gap, _ in gaps), default=math.nan),
        seconds,
        published.get("edp" if objective.is_product else str(objective)),
        published.get("ws") if objective.is_product else None,
    )


def proof_table(rows: Sequence[tuple[Scalar, ...]]) -> Table:
    """What was proven, network by network."""
    columns = ("network", "layers", "distinct", "proven_within_1_percent", "mean_gap_percent")
    columns += ("worst_gap_percent", "search_s", "published_gain_over_zigzag")
    return Table("", (*columns, "published_gain_over_ws"), tuple(rows))


# --- the command --------------------------------------------------------------------------------


def replayed_nests(path: Path | None, objective: str) -> Mappings:
    """Mappings of another tool: a JSON list of objects with `shape`, `objective` and `nest`."""
    if path is None:
        return {}
    found: Mappings = {}
    for item in json.loads(path.read_text(encoding="utf-8")):
        if item["objective"] == objective:
            given = item["shape"]
            pairs = {key: tuple(given[key]) for key in ("strides", "pads", "dilations")}
            scanner = text.Scanner(item["nest"] + " }", str(path))
            found[ConvShape(**{**given, **pairs})] = scan_nest(scanner)
    return found


def one_objective(
    objective: Objective, timing: Timing, args: argparse.Namespace
) -> tuple[list[Table], list[Table]]:
    """All networks under one objective and one timing: tables of layers, tables of networks."""
    replayed = replayed_nests(args.zigzag_mappings, str(objective))
    names = {n: workloads.distinct(workloads.layers_of(n)) for n in args.networks}
    layer_tables, network, proofs = [], list[tuple[Scalar, ...]](), list[tuple[Scalar, ...]]()
    began = time.monotonic()
    for machine in ("miredo-default", "miredo-transformer"):
        ours = [n for n in names if (n in workloads.TRANSFORMERS) == (machine != "miredo-default")]
        target = load_target(machine)
        solved: dict[ConvShape, Solved] = {}
        called: list[str] = []
        for name in ours:
            for shape, same in names[name].items():
                if shape not in solved:
                    problem = Problem(Workload(shape), 1, objective, timing)
                    solved[shape] = mapped_by_rules(problem, target, replayed.get(shape))
                    called.append(f"{name}.{same[0]}")
        if not args.no_exact and solved:
            solve(list(solved.values()), called, target, args)
        for name in ours:
            layer_tables.append(layer_table(name, solved, names[name]))
            network += network_rows(name, solved, names[name], objective)
            proofs.append(proof_row(name, solved, names[name], objective))
    layers, proven = (
        sum(int(row[1] or 0) for row in proofs),
        sum(int(row[3] or 0) for row in proofs),
    )
    print(
        f"{objective}, {timing} ports: {time.monotonic() - began:.1f} s; ", end="", file=sys.stderr
    )
    print(f"{proven} of {layers} layers proven within {PROVEN:.0%}", file=sys.stderr)
    return layer_tables, [network_table(network), *([] if args.no_exact else [proof_table(proofs)])]


def main() -> None:
    """Print the tables, and write them if asked."""
    parser = argparse.ArgumentParser(description="mappings of networks: rules, heuristics, proofs")
    parser.add_argument("--networks", default=",".join(workloads.CNNS), help="comma-separated")
    parser.add_argument("--objective", default="edp", help="latency, energy, edp; comma-separated")
    parser.add_argument("--timing", default="private", choices=["private", "shared"])
    parser.add_argument("--layer-time-limit", type=float, metavar="S", help="for each search")
    parser.add_argument("--time-limit", type=float, metavar="S", help="for each machine's searches")
    parser.add_argument("--gap", type=float, default=0.0, help="share that need not be proven")
    parser.add_argument("--jobs", type=int, help="searches at the same time; default: all cores")
    parser.add_argument("--no-exact", action="store_true", help="rules and heuristics alone")
    parser.add_argument("--zigzag-mappings", type=Path, metavar="FILE", help="replay these, too")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a row for each distinct layer")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the tables of networks")
    args = parser.parse_args()
    args.networks = args.networks.split(",")
    unknown = set(args.networks) - {*workloads.networks.NETWORKS, *workloads.TRANSFORMERS}
    if unknown:
        parser.error(f"unknown networks: {', '.join(sorted(unknown))}")
    objectives = args.objective.split(",")
    if not set(objectives) <= {"latency", "energy", "edp"}:
        parser.error(f"--objective {args.objective}: latency, energy or edp; comma-separated")
    layers: list[Table] = []
    written: list[str] = []
    for objective in objectives:
        found, tables = one_objective(Objective.parse(objective), args.timing, args)
        layers += found
        written.append(f"### {objective}, {args.timing} ports\n")
        for table in tables:
            print(table.text())
            written.append(table.markdown())
    if args.csv:
        every = Table("", layers[0].columns, tuple(row for table in layers for row in table.rows))
        args.csv.write_text(every.csv(), encoding="utf-8")
    if args.markdown:
        args.markdown.write_text("\n".join(written), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except FitError as problem:
        sys.exit(str(problem))
