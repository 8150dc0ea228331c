"""`cimc targets`: list machines, show one with every unit and source, test one."""

from __future__ import annotations

import dataclasses

import click

from cimc.cli.console import Console, Json, table
from cimc.cli.verb import VerbGroup


@click.group(cls=VerbGroup)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the machines, show one, or test one.

    \b
    Example:
      cimc targets
      cimc targets show miredo-default
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_targets)


@command.command("list")
@click.pass_obj
def list_targets(console: Console) -> None:
    """List every machine, built-in and plug-in, one line each.

    \b
    Example:
      cimc targets list --json
    """
    import tomllib

    from cimc.errors import Fault, warn
    from cimc.target_files import target_files

    rows: list[dict[str, Json]] = []
    for name, path in target_files().items():
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
            warn(Fault(f"{path}: cannot read this target file", have=str(problem), code="CIM2001"))
            continue
        row: dict[str, Json] = {key: content.get(key, "?") for key in ("kind", "cores", "summary")}
        rows.append({"name": name, **row, "path": str(path)})
    shown = [[str(row[key]) for key in ("name", "kind", "cores", "summary")] for row in rows]
    console.result(rows, lambda: table(["target", "kind", "cores", "what it is"], shown, right=[2]))


@command.command("show")
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one value.")
@click.pass_obj
def show_target(console: Console, name: str, overrides: tuple[str, ...]) -> None:
    """Print a machine's resolved values, their units (in the keys) and where each comes from.

    \b
    Example:
      cimc targets show miredo-default
    """
    from cimc.cli.values import parse_overrides
    from cimc.target import load_target
    from cimc.target_text import target_text

    target = load_target(name, parse_overrides(overrides))
    content: dict[str, Json] = target.spec.model_dump(mode="json")
    console.result(
        {"name": target.name, "path": target.path, **content},
        lambda: target_text(target).rstrip("\n"),
    )


@command.command("test")
@click.argument("name")
@click.pass_obj
def test_target(console: Console, name: str) -> None:
    """Run the conformance suite that every machine and kind passes.

    \b
    Example:
      cimc targets test edge-digital
    """
    from cimc.conformance.target import check_target, fault_of
    from cimc.errors import VerifyError, raise_if
    from cimc.target import load_target

    rows: list[dict[str, Json]] = []
    failed = []
    counts = {"passed": 0, "refused": 0, "failed": 0}
    for result in check_target(load_target(name)):
        counts[result.outcome] += 1
        rows.append(dataclasses.asdict(result))
        if result.outcome == "failed":
            failed.append(fault_of(result))
        elif result.outcome == "refused":
            console.note(f"refused  {result.subject}: {result.detail}")
        else:
            console.detail(f"passed   {result.subject}: {result.check}")
    if not failed or console.json:
        summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        console.result({"ok": not failed, **counts, "checks": rows}, f"{name}: {summary}")
    raise_if(failed, VerifyError)
