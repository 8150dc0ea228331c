"""`cimc opt`: run passes on a saved state."""

from __future__ import annotations

from pathlib import Path

import click

from cimc.cli.console import Console, Json, table
from cimc.cli.pipeline_options import chosen, pipeline_options
from cimc.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("-p", "--passes", "pipeline", metavar="PIPELINE", help="pass,pass{option=value}")
@click.option("-t", "--target", "target_name", help="Machine: a name, or a path to a .toml file.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write here instead of stdout.")
@click.option("--list-passes", is_flag=True, help="Every pass with its options.")
@click.option("--verify-each", is_flag=True, help="Same as --verify each.")
@pipeline_options
@click.pass_obj
def command(
    console: Console,
    file: Path | None,
    pipeline: str | None,
    target_name: str | None,
    out: Path | None,
    list_passes: bool,
    verify_each: bool,
) -> None:
    """Run passes on FILE, a state that --dump-ir or `cimc opt` wrote.

    Without -p, FILE is read, checked and printed again.

    \b
    Example:
      cimc opt --list-passes
      cimc opt tiles.cir -p "map{level=1},lower,allocate" -o program.cir
    """
    if list_passes:
        show_passes(console)
        return
    if file is None:
        raise click.UsageError("FILE is missing: a state that --dump-ir wrote.")
    from cimc.cli.searches import Searches
    from cimc.pipeline.run import run_pipeline, verify_state
    from cimc.pipeline.spec import parse_pipeline
    from cimc.pipeline.state import load_state, save_state
    from cimc.pipeline.state import target_name as named_in
    from cimc.target import load_target

    options = chosen()
    state = load_state(file)
    steps = parse_pipeline(pipeline or "")
    machine = target_name or named_in(state)
    target = load_target(machine) if machine and steps else None
    verify = "each" if verify_each else options.verify
    observers = [*options.observers(Path.cwd(), machine, Path("ir")), Searches(console)]
    if not steps:
        verify_state(state, str(file))
    state = run_pipeline(state, steps, target=target, verify=verify, observers=observers)
    console.raise_warnings()
    options.finish(observers)
    if out is not None:
        save_state(state, out)
        console.note(f"wrote {out}")
        return
    text = str(state)
    console.result({"state": text, "form": type(state).__name__.lower()}, text.rstrip("\n"))


def show_passes(console: Console) -> None:
    """Every pass: what it takes and gives, its options with their defaults, and what it does."""
    from cimc.ir.text import literal
    from cimc.pipeline.passes import all_passes

    rows: list[dict[str, Json]] = []
    for item in all_passes():
        options: dict[str, Json] = {
            name: literal(item.defaults[name]) if name in item.defaults else "required"
            for name in item.options
        }
        rows.append(
            {
                "pass": item.name,
                "takes": item.takes.__name__.lower(),
                "gives": item.gives.__name__.lower(),
                "options": options,
                "does": item.summary,
            }
        )
    shown = [
        [
            str(row["pass"]) + _options_text(row["options"]),
            f"{row['takes']} -> {row['gives']}",
            str(row["does"]),
        ]
        for row in rows
    ]
    console.result(rows, lambda: table(["pass", "states", "does"], shown))


def _options_text(options: Json) -> str:
    if not isinstance(options, dict) or not options:
        return ""
    return "{" + ", ".join(f"{name}={value}" for name, value in options.items()) + "}"
