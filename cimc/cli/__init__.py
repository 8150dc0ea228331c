"""The command line: one file per verb, imported when it is needed."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading

import click

import cimc

VERBS = {
    "targets": "cimc.cli.targets",
    "ops": "cimc.cli.ops",
    "check": "cimc.cli.check",
    "compile": "cimc.cli.compile",
    "opt": "cimc.cli.opt",
    "run": "cimc.cli.run",
    "report": "cimc.cli.report",
    "doctor": "cimc.cli.doctor",
}
HELP = """Compile ONNX models to compute-in-memory machines, run them, say what they cost.

\b
  cimc targets                                   which machines there are
  cimc check model.onnx -t isaac                 does it fit, and what is missing
  cimc compile model.onnx -t isaac -o out        to a program directory
  cimc run out --input x.npy --reference model.onnx
  cimc report out --by layer

\b
Completion, for bash (zsh and fish alike), in ~/.bashrc:
  eval "$(_CIMC_COMPLETE=bash_source cimc)"

\b
Exit codes: 0 ok, 1 internal error, 2 usage, 3 model not supported, 4 does not fit,
5 verification failed, 6 simulation stalled or timed out, 130 interrupted.
"""


class Verbs(click.Group):
    """A group whose commands live in modules named by `VERBS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order in which people use them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module; its `command` is the verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest verb for one that does not exist."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean {near[0]}?" if near else f" Verbs: {', '.join(VERBS)}."
            raise click.UsageError(f"No verb is called {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=Verbs, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(cimc.__version__, prog_name="cimc")
def cli() -> None:
    """Take the verb."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    try:
        code = cli.main(arguments, prog_name="cimc", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as problem:
        problem.show()
        return 2
    except click.Abort:
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _terminated(number: int, frame: object) -> None:
    """End as an exception does, so that half-written folders vanish."""
    raise SystemExit(128 + number)
