"""What all verbs share: their common options, how they fail, and their exit codes.

0 ok   1 internal error   2 usage   3 model not supported   4 does not fit
5 verification failed   6 simulation stalled or timed out   130 interrupted
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable

import click

from cimc.cli.console import Console
from cimc.errors import CimcError, CimcWarning, Fault, InternalError


class Verb(click.Command):
    """A command with --json, -v, -q, --debug, --color and -Werror; `ctx.obj` is its `Console`."""

    def __init__(
        self,
        name: str | None,
        *,
        callback: Callable[..., object] | None = None,
        params: list[click.Parameter] | None = None,
        help: str | None = None,
    ) -> None:
        params = [*(params or []), *_common_options()]
        super().__init__(name, callback=callback, params=params, help=help)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; `--dump-ir` alone does not take the next argument as its folder."""
        return super().parse_args(
            ctx, ["--dump-ir=" if arg == "--dump-ir" else arg for arg in args]
        )

    def invoke(self, ctx: click.Context) -> object:
        """Run the callback; see `guarded`."""
        return guarded(ctx, super().invoke)


class VerbGroup(click.Group):
    """A verb with verbs of its own; alone it does what its callback does."""

    command_class = Verb

    def __init__(
        self,
        name: str | None,
        *,
        callback: Callable[..., object] | None = None,
        params: list[click.Parameter] | None = None,
        help: str | None = None,
    ) -> None:
        super().__init__(
            name,
            callback=callback,
            params=[*(params or []), *_common_options()],
            help=help,
            invoke_without_command=True,
        )

    def invoke(self, ctx: click.Context) -> object:
        """Run the callback and the verb below; see `guarded`."""
        return guarded(ctx, super().invoke)


def guarded(ctx: click.Context, run: Callable[[click.Context], object]) -> object:
    """`run(ctx)`: a person's mistake ends with its faults, an error of ours with its place."""
    console = _console(ctx)
    ctx.obj = console
    if console.color is not None:
        ctx.color = console.color
    with warnings.catch_warnings():
        warnings.simplefilter("always", CimcWarning)
        warnings.showwarning = console.take_warning
        try:
            answer = run(ctx)
            console.raise_warnings()
            return answer
        except CimcError as problem:
            if console.debug:
                traceback.print_exc()
            console.failure(problem)
            raise click.exceptions.Exit(problem.exit_code) from None
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as problem:
            if console.debug:
                traceback.print_exc()
            console.failure(InternalError(_internal(problem)))
            raise click.exceptions.Exit(InternalError.exit_code) from None


def _internal(problem: Exception) -> Fault:
    """A fault of our own, with the place in the code where it happened."""
    place = traceback.extract_tb(problem.__traceback__)[-1]
    return Fault(
        f"internal error: {type(problem).__name__}: {problem}",
        have=f"{place.filename}:{place.lineno} in {place.name}",
        help="--debug shows the traceback; please report it with the command line",
        code="CIM9000",
    )


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help="Answer in JSON on stdout.",
        ),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            callback=_set_verbose,
            help="Say more; twice: still more.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_set_quiet,
            help="Only results and errors.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_set_debug,
            help="Show tracebacks.",
        ),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            show_default=True,
            expose_value=False,
            callback=_set_color,
            help="Coloured messages.",
        ),
        click.Option(
            ["-Werror"],
            is_flag=True,
            expose_value=False,
            callback=_set_fatal_warnings,
            help="Treat warnings as errors.",
        ),
    ]


def _console(ctx: click.Context) -> Console:
    console: Console = ctx.meta.setdefault("cimc.console", Console())
    return console


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        _console(ctx).json = True


def _set_verbose(ctx: click.Context, _: click.Parameter, value: int) -> None:
    _console(ctx).verbosity += value


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        _console(ctx).verbosity = -1


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        _console(ctx).debug = True


def _set_color(ctx: click.Context, _: click.Parameter, value: str) -> None:
    if value != "auto":
        _console(ctx).color = value == "always"
    elif os.environ.get("NO_COLOR"):  # no-color.org
        _console(ctx).color = False


def _set_fatal_warnings(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        _console(ctx).fatal_warnings = True
