"""Options of every verb that runs passes: dumps, printing, verification, timing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

if TYPE_CHECKING:
    from cimc.pipeline.run import Observer

F = TypeVar("F", bound=Callable[..., None])
_META = "cimc.pipeline"


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """What the person asked to see of the passes."""

    dump: str | None  # a folder; "" for the verb's own
    after: tuple[str, ...]
    after_all: bool
    after_change: bool
    after_failure: bool
    timing: bool
    verify: Literal["none", "final", "each"]

    def observers(self, folder: Path, target: str | None, dumps: Path) -> list[Observer]:
        """The observers that do it; a reproducer goes to `folder`, --dump-ir alone to `dumps`."""
        from cimc.pipeline.observe import Dump, Print, Reproducer, Timing

        found: list[Observer] = [Timing()]
        if self.dump is not None:
            found.append(Dump(Path(self.dump) if self.dump else dumps))
        if self.after or self.after_all or self.after_change or self.after_failure:
            found.append(
                Print(_to_stderr, self.after, self.after_all, self.after_change, self.after_failure)
            )
        found.append(Reproducer(folder, target, "cimc " + " ".join(sys.argv[1:])))
        return found

    def finish(self, observers: Sequence[Observer]) -> None:
        """Print the times if they were asked for."""
        from cimc.pipeline.observe import Timing

        if self.timing:
            for observer in observers:
                if isinstance(observer, Timing):
                    click.echo(observer.table(), err=True)


def _to_stderr(text: str) -> None:
    click.echo(text, err=True)


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    ctx.meta.setdefault(_META, {})[parameter.name] = value


def chosen() -> PipelineOptions:
    """What was given on the command line that runs now."""
    return PipelineOptions(**click.get_current_context().meta[_META])


_OPTIONS = (
    click.option(
        "--dump-ir",
        "dump",
        metavar="[=DIR]",
        callback=_keep,
        expose_value=False,
        help="Write the state after each pass (default: folder ir in -o).",
    ),
    click.option(
        "--print-ir-after",
        "after",
        multiple=True,
        metavar="PASS",
        callback=_keep,
        expose_value=False,
        help="Print the state after PASS to stderr.",
    ),
    click.option(
        "--print-ir-after-all",
        "after_all",
        is_flag=True,
        callback=_keep,
        expose_value=False,
        help="Print after every pass.",
    ),
    click.option(
        "--print-ir-after-change",
        "after_change",
        is_flag=True,
        callback=_keep,
        expose_value=False,
        help="Print after passes that change something.",
    ),
    click.option(
        "--print-ir-after-failure",
        "after_failure",
        is_flag=True,
        callback=_keep,
        expose_value=False,
        help="Print what a pass failed on.",
    ),
    click.option(
        "--timing",
        is_flag=True,
        callback=_keep,
        expose_value=False,
        help="Time of each pass, to stderr.",
    ),
    click.option(
        "--verify",
        type=click.Choice(["none", "final", "each"]),
        default="final",
        show_default=True,
        callback=_keep,
        expose_value=False,
        help="Check states and that their text reads back.",
    ),
)


def pipeline_options(function: F) -> F:
    """Decorator: give a verb these options; `chosen` returns them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
