"""`cimc check`: does the model run on the machine; every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cimc.cli.console import Console, Json, table
from cimc.cli.model_options import chosen_model, model_options
from cimc.cli.verb import Verb

if TYPE_CHECKING:
    from cimc.legality import Check


@click.command(cls=Verb)
@click.argument("model", type=click.Path(path_type=Path))
@model_options
@click.option("--all", "show_all", is_flag=True, help="One line for every node.")
@click.pass_obj
def command(console: Console, model: Path, show_all: bool) -> None:
    """Import MODEL, look whether the machine can do every operator, and whether it fits.

    \b
    Example:
      cimc check model.onnx -t miredo-default
    """
    from cimc.legality import check_model

    options = chosen_model()
    report = check_model(model, options.load_target(), options.effort(), options.shape_map())
    for note in report.notes:
        console.note(f"note: {note}")
    if report.problem is not None:
        console.failure(report.problem)
        _show_cuts(console, report)
        raise click.exceptions.Exit(report.problem.exit_code)
    data: dict[str, Json] = {
        "ok": True,
        "model": str(model),
        "target": report.target.name,
        "nodes": report.nodes,
        "operators": [
            {"operator": kind, "count": count, "where": where}
            for kind, count, where in report.operators()
        ],
        "coverage": [
            {"node": row.node, "operator": row.op_type, "place": row.place, "into": row.into}
            for row in report.rows
        ],
    }
    console.result(data, lambda: _text(report, show_all))


def _text(report: Check, show_all: bool) -> str:
    if show_all:
        rows = [[row.node, row.op_type, row.place, row.into] for row in report.rows]
        body = table(["node", "operator", "where", "into"], rows)
    else:
        rows = [[kind, str(count), where] for kind, count, where in report.operators()]
        body = table(["operator", "count", "where"], rows, right=[1])
    return f"{body}\n{report.nodes} nodes, all supported; fits {report.target.name}"


def _show_cuts(console: Console, report: Check) -> None:
    console.note(f"{report.supported} of {report.nodes} nodes are supported")
    for tensor in report.cuts:
        console.note(f"a clean cut is at {tensor}")
