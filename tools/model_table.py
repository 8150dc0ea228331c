"""Compile, run and simulate many models on every kind of machine, and print one table.

    python tools/model_table.py [--targets isaac-4chip,rtm-ap] [--csv FILE] [MODEL ...]

Without MODEL: every model of the folder that CIMC_DATA names (those in QONNX form aside), and the
models that ship with the project. Float models are quantized with one random sample, so their
values mean nothing, but the program must compute exactly what the graph says. A row is one model on
one machine: nodes of the ONNX file and how many are accounted for; whether program and graph
evaluator agree on every integer; the largest difference to onnxruntime op by op, in steps of the
quantized result; latency, period, energy, area; CPU seconds of compilation. Exit code 1 if a row
failed.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cimc
from cimc.coverage import count
from cimc.dataset import random_dataset
from cimc.errors import CimcError
from cimc.report import make_report
from cimc.runs import References, Run, input_ranges, run_samples
from cimc.sim.simulate import simulate

ROOT = Path(__file__).parent.parent
TARGETS = ("isaac-4chip", "miredo-default", "rtm-ap")


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one machine."""

    model: str
    target: str
    nodes: int = 0
    covered: int = 0
    exact: str = "no"
    max_lsb: float = float("nan")
    latency_ms: float = float("nan")
    period_ms: float = float("nan")
    energy_mj: float = float("nan")
    area_mm2: float = float("nan")
    compile_s: float = float("nan")
    note: str = ""


def models() -> Iterator[Path]:
    """All models that are at hand."""
    folder = os.environ.get("CIMC_DATA")
    if folder:
        found = sorted((Path(folder) / "models").glob("*.onnx"))
        yield from (path for path in found if not path.name.startswith("qonnx_"))
    yield from sorted((ROOT / "models").glob("*.onnx"))


def measure(model: Path, target: str) -> Row:
    """Compile, run one random sample against both references, simulate."""
    start = time.process_time()
    compiled = cimc.compile(model, target, calibrate="random", samples=1).compiled
    seconds = time.process_time() - start
    program, machine = compiled.program, compiled.target
    run = Run()
    inputs = random_dataset(program.inputs, 1, 0, input_ranges(compiled.graph))
    with tempfile.TemporaryDirectory() as folder:
        reference = model
        if compiled.quantized is not None:
            reference = Path(folder) / "reference.onnx"
            reference.write_bytes(compiled.quantized)
        for _ in run_samples(run, program, machine, inputs, References(compiled.graph, reference)):
            pass
    exact = [row.passed for row in run.comparisons if row.against == "evaluator"]
    steps = [row.max_lsb or 0 for row in run.comparisons if row.against == "op by op"]
    summary = make_report(program, machine, simulate(program, machine)).summary
    return Row(
        model.stem,
        target,
        compiled.history.nodes,
        sum(count(compiled.rows).values()),
        "yes" if exact and all(exact) else "no",
        max(steps, default=float("nan")),
        summary.latency_ms,
        summary.period_ms or float("nan"),
        summary.energy_mj_per_inference,
        summary.area_mm2,
        seconds,
    )


def line(row: Row) -> str:
    """The row in columns."""
    cells = [f"{row.model:<42}", f"{row.target:<15}", f"{row.covered}/{row.nodes}".rjust(9)]
    cells += [f"{row.exact:>5}", f"{row.max_lsb:>7g}"]
    figures = (row.latency_ms, row.period_ms, row.energy_mj, row.area_mm2, row.compile_s)
    return " ".join([*cells, *(f"{figure:>10.4g}" for figure in figures), row.note]).rstrip()


def main() -> None:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description="all models on all kinds of machine")
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    head = ("latency ms", "period ms", "energy mJ", "area mm2", "compile s")
    print(f"{'model':<42} {'target':<15} {'covered':>9} exact max LSB", *(f"{h:>10}" for h in head))
    for model in args.models or models():
        for target in args.targets.split(","):
            try:
                row = measure(model, target)
            except CimcError as problem:
                row = Row(model.stem, target, note=problem.faults[0].where)
            rows.append(row)
            print(line(row), flush=True)
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [item.name for item in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    failed = [row for row in rows if row.exact != "yes" or row.covered != row.nodes]
    print(f"{len(rows) - len(failed)} of {len(rows)} rows agree on every integer")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
