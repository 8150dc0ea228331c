"""`cimc ops`: which ONNX operators run on a machine."""

from __future__ import annotations

from dataclasses import asdict

import click

from cimc.cli.console import Console, table
from cimc.cli.verb import Verb


@click.command(cls=Verb)
@click.option("-t", "--target", "name", required=True, metavar="NAME", help="Machine.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "md"]),
    default="table",
    show_default=True,
    help="md: a page of documentation.",
)
@click.pass_obj
def command(console: Console, name: str, form: str) -> None:
    """List every ONNX operator that is supported: opsets, where it runs, what is not done of it.

    Any model in 8-bit integers (QDQ) whose operators are in this list runs; float models are
    quantized first, see `cimc compile --calibrate`.

    \b
    Example:
      cimc ops --target miredo-default
    """
    from cimc.optable import markdown, operator_table
    from cimc.target import load_target

    target = load_target(name)
    rows = operator_table(target)
    if form == "md":
        click.echo(markdown(target, rows))
        return
    shown = [[row.operator, row.opsets, row.where, row.note] for row in rows]
    console.result(
        [asdict(row) for row in rows],
        lambda: table(["operator", "opset", "where", "note"], shown),
    )
