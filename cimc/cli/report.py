"""`cimc report`: what programs cost, as tables, files, timelines, comparisons and sweeps."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cimc.cli.console import Console, Json
from cimc.cli.verb import Verb

if TYPE_CHECKING:
    from cimc.report import Report, Table
    from cimc.report.table import Format

BY = ("layer", "core", "component", "op", "unit", "stall", "network", "wear")


@click.command(cls=Verb)
@click.argument("programs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--by", type=click.Choice(BY), help="A table instead of the summary.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "md"]),
    default="table",
    show_default=True,
    help="Of the answer on stdout.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the timeline of one sample for a trace viewer (Chrome, Perfetto).",
)
@click.option(
    "--sweep",
    metavar="KEY=VALUES",
    help="What if constants of the machine were others: KEY=1,2,4, KEY=FROM:TO[:N], KEY+KEY=1,2.",
)
@click.pass_obj
def command(
    console: Console,
    programs: tuple[Path, ...],
    by: str | None,
    form: Format,
    trace: Path | None,
    sweep: str | None,
) -> None:
    """Report on PROGRAMS, folders that `cimc compile` wrote; several are compared.

    A program that was not simulated yet is simulated first.

    \b
    Example:
      cimc report out
      cimc report out --by layer
      cimc report out --trace trace.json
      cimc report out --sweep memory.dram.read_pj_per_bit=1:8:3
      cimc report out --sweep cores=2,4,8
    """
    if (trace or sweep) and len(programs) != 1:
        raise click.UsageError("--trace and --sweep take one program.")
    if console.json:
        form = "json"
    if sweep is not None:
        show(console, swept(programs[0], sweep, console), form)
        return
    reports = [report_of(folder, console) for folder in programs]
    if trace is not None:
        console.note(traced(programs[0], trace))
    names = [_name(folder, programs) for folder in programs]
    show(console, table_of(reports, names, by), form)
    if form == "table" and len(reports) == 1:
        for line in footnotes(reports[0]):
            console.note(line)


def _name(folder: Path, all_: Sequence[Path]) -> str:
    same = [other for other in all_ if other.resolve().name == folder.resolve().name]
    return folder.resolve().name if len(same) == 1 else str(folder)


def show(console: Console, table: Table, form: Format) -> None:
    """The table on stdout, in the asked form; JSON is one object per row."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    records: list[Json] = [dict(row) for row in table.records()]
    if console.json:
        console.result(records, "")
    else:
        click.echo(table.format(form, width).rstrip("\n"))


def report_of(folder: Path, console: Console) -> Report:
    """The report in a folder; made and written if there is none."""
    from cimc.compiled import load, read_manifest
    from cimc.report import read_report, write_report
    from cimc.report.files import SUMMARY_FILE

    read_manifest(folder)
    if (folder / SUMMARY_FILE).is_file():
        return read_report(folder)
    console.note(f"simulating {folder}")
    report = load(folder).report()
    write_report(report, folder)
    return report


def table_of(reports: Sequence[Report], names: Sequence[str], by: str | None) -> Table:
    """One report, two with their changes, or many side by side."""
    from cimc.report import Table, compare_layers, compare_summaries

    if len(reports) == 1:
        return reports[0].table(by) if by is not None else summary_lines(reports[0])
    if len(reports) == 2 and by in (None, "layer"):
        compare = compare_layers if by else compare_summaries
        return compare(reports[0], reports[1], names)
    if by is not None:
        raise click.UsageError(f"Several programs are not compared --by {by}.")
    rows = [report.summary_table().records()[0] for report in reports]
    body = tuple((column, *(row[column] for row in rows)) for column in rows[0])
    return Table("", ("quantity", *names), body)


def summary_lines(report: Report) -> Table:
    """The summary with one line per column: a single row would be too wide."""
    from cimc.report import Table

    (row,) = report.summary_table().records()
    return Table("", ("quantity", "value"), tuple(row.items()))


def footnotes(report: Report) -> list[str]:
    """Where numbers come from, and which rest on constants that nobody published."""
    found = list(report.notes)
    for group, keys in report.assumed.items():
        if keys:
            found.append(
                f"{group} rests on {len(keys)} assumed constants: {', '.join(keys[:4])} ..."
            )
    return found


def traced(folder: Path, path: Path) -> str:
    """Write the timeline and say how much of it."""
    from cimc.compiled import load
    from cimc.report import write_trace
    from cimc.sim.simulate import simulate

    compiled = load(folder)
    simulation = simulate(compiled.program, compiled.target, samples=1, trace=True)
    count = write_trace(simulation, compiled.target, path)
    return f"wrote {path}: {count} slices"


def swept(folder: Path, given: str, console: Console) -> Table:
    """The summary for several values of constants."""
    from cimc.cli.progress import followed
    from cimc.cli.values import parse_sweep
    from cimc.compiled import load
    from cimc.compiling import rebuilt
    from cimc.report import sweep, sweep_table
    from cimc.report.constants import is_price

    variants = parse_sweep(given)
    compiled = load(folder)
    points = sweep(
        compiled.program,
        compiled.target,
        followed(console, variants, len(variants), "variants"),
        tiles=compiled.tiles,
        rebuild=lambda target: rebuilt(compiled, target),
    )
    if not all(is_price(key) for key in variants[0]):
        console.note(
            "each variant is mapped and compiled anew; its energies, leakage and areas are those "
            "of the target file unless the sweep names them, too"
        )
    return sweep_table(points)
