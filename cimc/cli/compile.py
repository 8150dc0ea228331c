"""`cimc compile`: from a model to a program folder."""

from __future__ import annotations

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
@model_options
@pipeline_options
@click.pass_obj
def command(console: Console, model: Path, out: Path | None, to: str, start: Path | None) -> None:
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
            _write_program(console, request, part, out)


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
    from cimc.cli.progress import Phases
    from cimc.compiling import Request

    asked, seen = chosen_model(), chosen()
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
        (*observers, Phases(console)),
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


def _write_program(console: Console, request: Request, part: Path, out: Path) -> None:
    from cimc.compiled import save
    from cimc.compiling import compile_request

    compiled = compile_request(request)
    for note in compiled.history.notes:
        console.note(f"note: {note}")
    console.raise_warnings()
    chosen().finish(request.observers)
    save(compiled, part)
    data = _summary(compiled, out)
    console.result(data, lambda: "\n".join(f"{key:<10}{value}" for key, value in data.items()))


def _summary(compiled: Compiled, out: Path) -> dict[str, Json]:
    from cimc.coverage import count

    places = ", ".join(f"{place} {n}" for place, n in count(compiled.rows).items() if n)
    history = compiled.history
    return {
        "model": f"{history.model} ({history.nodes} nodes, opset {history.opset})",
        "target": f"{compiled.target.name} ({compiled.target.kind})",
        "nodes": places,
        "layers": len(compiled.tiles.layers),
        "buffers": len(compiled.program.buffers),
        "seconds": round(sum(history.seconds.values()), 3),
        "program": str(out),
    }
