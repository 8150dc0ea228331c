"""`cimc compile`: from a model to a program folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cimc.cli.console import Console, Json
from cimc.cli.model_options import chosen_model, model_options
from cimc.cli.pipeline_options import chosen, pipeline_options
from cimc.cli.verb import Verb
from cimc.pipeline.phases import PHASES

if TYPE_CHECKING:
    from cimc.compiled import Compiled
    from cimc.compiling import Request
    from cimc.report import Report


@click.command(cls=Verb)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the program; with --to the file of the state.",
)
@click.option(
    "--to",
    type=click.Choice(PHASES),
    default=PHASES[-1],
    show_default=True,
    metavar="PHASE",
    help="Stop after this phase.",
)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Go on from a dump of this model instead of from its import.",
)
@click.option(
    "--simulate/--no-simulate",
    "simulated",
    default=True,
    show_default=True,
    help="Simulate the program for the reports.",
)
@model_options
@pipeline_options
@click.pass_obj
def command(
    console: Console,
    model: Path,
    out: Path | None,
    to: str,
    start: Path | None,
    simulated: bool,
) -> None:
    """Compile MODEL, an ONNX file, and write the folder -o: program, reports, coverage.

    The folder appears as a whole or not at all. With --to, the state after that phase is written to
    the file -o, or to stdout.

    \b
    Phases:
      import      ONNX model to graph
      quantize    float graph to an integer one, by calibration
      graph       fold, canonicalize, integerize, fuse
      tile        place every op on macro, vector unit or host
      map         choose a mapping of every loop nest
      lower       instructions and buffers
      allocate    addresses
      program     packed arrays, program folder, reports

    \b
    Example:
      cimc compile model.onnx -t miredo-default -o out
      cimc compile model.onnx -t rtm-ap -o ap
      cimc compile model.onnx -t miredo-default --to tile -o tiles.cir
    """
    if to == PHASES[-1] and out is None:
        raise click.UsageError("-o is missing: the folder of the program.")
    folder = out if out is not None and to == PHASES[-1] else None
    with _place(console, folder) as part:
        request = _request(console, model, start, part)
        if part is None:
            _show_state(console, request, to, out)
        else:
            assert out is not None
            _write_program(console, request, part, out, simulated)


@contextmanager
def _place(console: Console, out: Path | None) -> Iterator[Path | None]:
    """The folder to write into; dumps of a compilation that fails are kept beside it."""
    if out is None:
        yield None
        return
    from cimc.pipeline.folder import whole_folder

    with whole_folder(out) as part:
        try:
            yield part
        except Exception:
            dumps = part / "ir"
            if dumps.is_dir():
                kept = out.with_name(f"{out.name}.failed-ir")
                shutil.rmtree(kept, ignore_errors=True)
                dumps.rename(kept)
                console.note(f"dumps are kept in {kept}")
            raise


def _request(console: Console, model: Path, start: Path | None, part: Path | None) -> Request:
    from cimc.build import Clock
    from cimc.cli.progress import Phases
    from cimc.cli.searches import Searches
    from cimc.compiling import Request

    asked, seen, phases = chosen_model(), chosen(), Phases(console)
    observers = seen.observers(Path.cwd(), asked.target, (part or Path()) / "ir")
    return Request(
        model,
        asked.load_target(),
        asked.effort(),
        asked.shape_map(),
        asked.calibrate,
        asked.samples,
        start,
        seen.verify,
        (*observers, Searches(console), phases),
        Clock(watch=phases.done),
    )


def _show_state(console: Console, request: Request, phase: str, out: Path | None) -> None:
    from cimc.compiling import state_after
    from cimc.pipeline.state import save_state

    state = state_after(request, phase)
    console.raise_warnings()
    chosen().finish(request.observers)
    if out is not None:
        save_state(state, out)
        console.note(f"wrote {out}")
    else:
        text = str(state)
        console.result({"state": text, "phase": phase}, text.rstrip("\n"))


def _write_program(
    console: Console, request: Request, part: Path, out: Path, simulated: bool
) -> None:
    from cimc.compiled import save
    from cimc.compiling import compile_request
    from cimc.report import write_report

    compiled, report = compile_request(request), None
    for note in compiled.history.notes:
        console.note(f"note: {note}")
    console.raise_warnings()
    with request.clock.phase(PHASES[-1]):
        if simulated:
            report = compiled.report()
            write_report(report, part)
    chosen().finish(request.observers)
    history = dataclasses.replace(compiled.history, seconds=request.clock.seconds)
    save(dataclasses.replace(compiled, history=history), part)
    lines = summary(compiled, report, out)
    data: dict[str, Json] = {"ok": True, "program": str(out), **lines}
    if report is not None:
        data["summary"] = dict(report.summary_table().records()[0])
    console.result(data, "\n".join(f"{key:<10}{value}" for key, value in lines.items()))


def summary(compiled: Compiled, report: Report | None, out: Path) -> dict[str, Json]:
    """Ten lines about a program that was just made."""
    from cimc.cli.searches import proven
    from cimc.coverage import count

    history, target = compiled.history, compiled.target
    places = ", ".join(f"{place} {n}" for place, n in count(compiled.rows).items() if n)
    mapping = {"mapping": proven(compiled.searched)} if compiled.searched else {}
    found: dict[str, Json] = {
        "model": f"{history.model} ({history.nodes} nodes, opset {history.opset})",
        "target": f"{target.name} ({target.kind})",
        "nodes": places,
        "layers": len(compiled.tiles.layers),
        **mapping,
    }
    return {**found, **(costs(report) if report is not None else {}), "program": str(out)}


def costs(report: Report) -> dict[str, Json]:
    """Latency, period, energy and area in words, with what the estimate said."""
    from cimc.report import network_line

    row = report.summary
    period = "-" if row.period_ms is None else f"{row.period_ms:.4g} ms"
    rate = "" if row.throughput_ips is None else f" ({row.throughput_ips:.4g} samples/s)"
    return {
        "latency": f"{row.latency_ms:.4g} ms{_estimated(row.latency_estimate_error)}",
        "period": f"{period}{rate}{_estimated(row.period_estimate_error)}",
        "energy": f"{row.energy_mj_per_inference:.4g} mJ per inference"
        f"{_estimated(row.energy_estimate_error)}",
        "area": f"{row.area_mm2:.4g} mm2",
        **({"lifetime": lasting} if (lasting := _lifetime(report)) else {}),
        "busiest": f"{row.busiest_unit} {row.busiest_utilisation or 0:.0%}",
        **({"network": steps} if (steps := network_line(report.table("network"))) else {}),
        "assumed": f"{row.assumed_keys} constants that nobody published",
    }


def _lifetime(report: Report) -> str:
    """How long the hottest cell lasts, on machines whose cells wear out."""
    worn = report.table("wear").records()
    if not worn or report.summary.lifetime_inferences is None:
        return ""
    inferences, last = report.summary.lifetime_inferences, worn[0]["lifetime"]
    return f"{inferences:.3g} inferences, {last} at full load ({worn[0]['cell']})"


def _estimated(error: float | None) -> str:
    return "" if error is None else f"; estimated {error:+.1%}"
