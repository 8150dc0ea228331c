"""`cimc run`: execute a program on samples and compare what comes out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cimc.cli.console import Console, Json
from cimc.cli.verb import Verb

if TYPE_CHECKING:
    from cimc.compiled import Compiled
    from cimc.dataset import Dataset
    from cimc.ir.types import Array
    from cimc.runs import References, Run
    from cimc.verify import Comparison


@click.command(cls=Verb)
@click.argument("program", type=click.Path(path_type=Path))
@click.option(
    "--input", "given", type=click.Path(path_type=Path), help=".npy, .npz or a folder of them."
)
@click.option("--random", "drawn", type=click.IntRange(1), help="So many random samples instead.")
@click.option("--seed", default=0, show_default=True, help="Of --random and --noise.")
@click.option("--count", type=click.IntRange(1), help="Only the first samples of --input.")
@click.option("--reference", type=click.Path(path_type=Path), help="Compare with this ONNX model.")
@click.option(
    "--expect", type=click.Path(path_type=Path), help="Compare outputs with this .npy or .npz."
)
@click.option(
    "--tolerance",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Steps by which integers may differ from --expect.",
)
@click.option(
    "--check",
    "checked",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    help="Compare every tensor of so many samples.",
)
@click.option(
    "--engine",
    type=click.Choice(["fast", "plain"]),
    default="fast",
    show_default=True,
    help="Compiled kernels, or the specification in Python.",
)
@click.option(
    "--mode",
    type=click.Choice(["functional", "cycle"]),
    default="functional",
    show_default=True,
    help="What comes out, or how long it takes and what it costs.",
)
@click.option(
    "--watch", is_flag=True, help="Count what the arrays do, pass by pass; hottest cell, lifetime."
)
@click.option(
    "--noise",
    multiple=True,
    metavar="NAME=VALUE",
    help="Let the machine make mistakes, such as shift-fault-rate=1e-8; with --watch.",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of --noise, each with the next seed.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Save the outputs as .npz.")
@click.pass_obj
def command(
    console: Console,
    program: Path,
    given: Path | None,
    drawn: int | None,
    seed: int,
    count: int | None,
    reference: Path | None,
    expect: Path | None,
    tolerance: int,
    checked: int,
    engine: str,
    mode: str,
    watch: bool,
    noise: tuple[str, ...],
    trials: int,
    out: Path | None,
) -> None:
    """Execute PROGRAM, a folder that `cimc compile` wrote, on samples.

    Its integers are compared with the graph's evaluator (equal), with --reference with onnxruntime
    (per tensor; each op within one step), with --expect with given outputs. What was compared is
    written to verify.json in the folder; a mismatch ends with exit code 5. A QONNX model, which
    onnxruntime cannot run, is evaluated in float32 as it was imported.

    With --mode cycle the program is simulated instead, which no sample can change: latency, period
    and energy are printed, and the reports in the folder written again.

    With --watch or --noise the program runs on a machine that counts what it does and makes the
    mistakes asked for, in --trials with seeds that follow each other. What comes out is compared
    with the same program without mistakes, and with the samples' labels where they have some;
    everything is written to trials.json. Equal seeds give equal trials.

    \b
    Example:
      cimc run out --input x.npy --reference model.onnx
      cimc run out --mode cycle
      cimc run ap --random 4 --noise shift-fault-rate=1e-7 --noise realign-steps=64 --trials 3
    """
    if mode == "cycle":
        if watch or noise:
            raise click.UsageError("--watch and --noise execute the program: no --mode cycle.")
        _cycles(console, program)
        return
    if (given is None) == (drawn is None):
        raise click.UsageError("Give samples: either --input FILE or --random N.")
    from cimc.cli.progress import followed
    from cimc.compiled import load
    from cimc.dataset import random_dataset, read_dataset
    from cimc.runs import Run, input_ranges, run_samples

    compiled = load(program)
    inputs = compiled.program.inputs
    if given is not None:
        data = read_dataset(given, inputs)
        data = data.first(count) if count is not None else data
    else:
        data = random_dataset(inputs, drawn or 1, seed, input_ranges(compiled.graph))
    if watch or noise:
        from cimc.cli.trials import parse_noise, run_noisy

        run_noisy(console, compiled, data, parse_noise(noise), seed, trials, engine, program)
        return
    references = _references(compiled, program, reference, expect, tolerance, len(data))
    run = Run()
    program_, target = compiled.program, compiled.target
    samples = run_samples(run, program_, target, data, references, engine=engine, checked=checked)
    for _ in followed(console, samples, len(data), "running"):
        pass
    report = _report(run, data, seed if given is None else None)
    _write(program / "verify.json", json.dumps(report, indent=2) + "\n")
    if out is not None:
        _save_outputs(run, out)
    console.result(report, lambda: _text(run, data, report))
    _raise_failures(run)


def _cycles(console: Console, folder: Path) -> None:
    """Simulate, write the reports, print what matters."""
    from cimc.cli.compile import costs
    from cimc.compiled import load
    from cimc.report import write_report

    report = load(folder).report()
    write_report(report, folder)
    (row,) = report.summary_table().records()
    lines = [f"{key:<10}{value}" for key, value in costs(report).items()]
    console.result(dict(row), "\n".join(lines))


def _references(
    compiled: Compiled,
    folder: Path,
    reference: Path | None,
    expect: Path | None,
    tolerance: int,
    samples: int,
) -> References:
    from cimc.compiled import REFERENCE_FILE
    from cimc.dataset import read_dataset
    from cimc.errors import Fault, UsageError
    from cimc.runs import References

    expected = None
    if expect is not None:
        wanted = read_dataset(expect, compiled.program.outputs)
        if len(wanted) < samples:
            raise UsageError(
                Fault(
                    f"{expect} holds too few outputs",
                    need=f"{samples} samples",
                    have=str(len(wanted)),
                    code="CIM2046",
                )
            )
        expected = wanted.arrays
    if not compiled.history.is_quantized_here:
        return References(compiled.graph, reference, None, expected, tolerance)
    model = folder / REFERENCE_FILE if reference is not None else None
    return References(compiled.graph, model, reference, expected, tolerance)


def _report(run: Run, data: Dataset, seed: int | None) -> dict[str, Json]:
    from cimc.runs import accuracy, agreement, sqnr_db

    report: dict[str, Json] = {
        "passed": run.passed,
        "samples": len(data),
        "checked": run.checked,
        "seed": seed,
        "reference": run.reference_by or None,
        "reference_why": run.reference_why or None,
        "tensors": [_row(row) for row in run.comparisons],
    }
    if data.labels is not None:
        report["accuracy"] = accuracy(run.outputs, data.labels)
        for name, outputs in (
            ("reference_accuracy", run.reference_outputs),
            ("float_accuracy", run.original_outputs),
        ):
            if outputs:
                report[name] = accuracy(outputs, data.labels)
    if run.original_outputs:
        report["float_sqnr_db"] = _number(sqnr_db(run.outputs, run.original_outputs))
        report["float_agreement"] = agreement(run.outputs, run.original_outputs)
    return report


def _row(row: Comparison) -> dict[str, Json]:
    found: dict[str, Json] = {
        "tensor": row.tensor,
        "against": row.against,
        "type": row.type,
        "elements": row.elements,
        "differing": row.differing,
        "max_abs": _number(row.max_abs),
        "max_lsb": row.max_lsb,
        "sqnr_db": _number(row.sqnr_db),
        "tolerance": row.tolerance,
        "passed": row.passed,
    }
    return found


def _number(value: float) -> float | None:
    """JSON knows no infinity: null stands for it."""
    return value if math.isfinite(value) else None


def _text(run: Run, data: Dataset, report: dict[str, Json]) -> str:
    """PASS or FAIL, one line for each reference with its worst tensor, accuracies."""
    from cimc.verify import worst

    lines = [
        f"{'PASS' if run.passed else 'FAIL'}  {len(data)} samples, "
        f"every tensor of {run.checked} of them compared"
    ]
    if run.reference_why:
        lines.append(
            f"  reference: {run.reference_by} on the model's own graph; {run.reference_why}"
        )
    groups: dict[str, list[Comparison]] = {}
    for row in run.comparisons:
        groups.setdefault(row.against, []).append(row)
    for against, rows in groups.items():
        equal = sum(row.differing == 0 for row in rows)
        line = f"  {against:<14}{equal} of {len(rows)} tensors equal"
        found = worst(rows)
        if found is not None and found.differing:
            line += f"; worst {found.tensor}: {_size(found)} in {found.share:.2%} of its elements"
        lines.append(line)
    for name in ("accuracy", "reference_accuracy", "float_accuracy", "float_agreement"):
        value = report.get(name)
        if isinstance(value, float):
            lines.append(f"  {name.replace('_', ' '):<22}{value:.2%}")
    value = report.get("float_sqnr_db")
    if isinstance(value, float):
        lines.append(f"  {'float SQNR':<22}{value:.1f} dB")
    return "\n".join(lines)


def _size(row: Comparison) -> str:
    return f"{row.max_lsb} LSB" if row.max_lsb is not None else f"{row.max_abs:.6g}"


def _raise_failures(run: Run) -> None:
    from cimc.errors import Fault, VerifyError, raise_if

    raise_if(
        (
            Fault(
                f"{row.tensor} is not what {row.against} says",
                need=row.tolerance,
                have=f"{row.differing} of {row.elements} elements differ, by up to {_size(row)}",
                code="CIM5001",
            )
            for row in run.comparisons
            if not row.passed
        ),
        VerifyError,
    )


def _write(path: Path, content: str) -> None:
    from cimc.pipeline.state import write_whole

    write_whole(path, content)


def _save_outputs(run: Run, out: Path) -> None:
    import numpy as np

    arrays: dict[str, Array] = {name: np.stack(parts) for name, parts in run.outputs.items()}
    with out.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes no generic arrays
