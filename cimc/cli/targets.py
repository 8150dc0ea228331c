"""`cimc targets`: list machines, show one with every unit and source, test one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cimc.cli.console import Console, Json, table
from cimc.cli.verb import VerbGroup

if TYPE_CHECKING:
    from pydantic import BaseModel

    from cimc.target import Target


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

    target = load_target(name, parse_overrides(overrides))
    content: dict[str, Json] = target.spec.model_dump(mode="json")
    console.result(
        {"name": target.name, "path": target.path, **content}, lambda: "\n".join(_shown(target))
    )


def _shown(target: Target) -> Iterator[str]:
    yield f"# {target.name}: {target.spec.summary}"
    yield f"# {target.path}"
    yield from _table_lines(target.spec, "", set(target.assumed_keys()))


def _table_lines(node: BaseModel, prefix: str, assumed: set[str]) -> Iterator[str]:
    """A table's own values first, its sub-tables after them, as TOML does it."""
    from pydantic import BaseModel

    below: list[tuple[str, BaseModel]] = []
    for key in type(node).model_fields:
        value = getattr(node, key)
        if isinstance(value, BaseModel):
            below.append((key, value))
        elif isinstance(value, dict) and all(
            isinstance(item, BaseModel) for item in value.values()
        ):
            below += [(f"{key}.{name}", child) for name, child in value.items()]
        elif not (prefix and key in ("source", "error", "assumed") and not value):
            path = f"{prefix}.{key}" if prefix else key
            mark = "" if key in node.model_fields_set else "   # default"
            yield f"{key} = {_toml(value)}{'   # assumed' if path in assumed else mark}"
    for key, child in below:
        path = f"{prefix}.{key}" if prefix else key
        yield ""
        yield f"[{path}]"
        yield from _table_lines(child, path, assumed)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        import json

        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


@command.command("test")
@click.argument("name")
@click.pass_obj
def test_target(console: Console, name: str) -> None:
    """Run the conformance suite that every machine and kind passes.

    \b
    Example:
      cimc targets test miredo-default
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
