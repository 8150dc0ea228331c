"""Options of every verb that takes a model to a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from cimc.pipeline.phases import NETWORK_STEPS

if TYPE_CHECKING:
    from cimc.pipeline.levels import Effort
    from cimc.target import Target

F = TypeVar("F", bound=Callable[..., None])
_META = "cimc.model"


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What was asked of the model, the machine and the mapping."""

    target: str
    overrides: tuple[str, ...]
    shapes: tuple[str, ...]
    calibrate: str | None
    samples: int
    level: Literal[0, 1, 2, 3]
    host_fallback: bool
    objective: str
    time_limit_s: float
    layer_time_limit_s: float | None
    gap: float
    jobs: int | None
    without: tuple[str, ...]
    ternarize: str | None
    ternary_scale: str
    require_ternary: bool
    activation_bits: int

    def load_target(self) -> Target:
        """The machine with its overrides."""
        from cimc.cli.values import parse_overrides
        from cimc.target import load_target

        return load_target(self.target, parse_overrides(self.overrides))

    def shape_map(self) -> dict[str, tuple[int, ...]]:
        """Shapes by input name."""
        from cimc.cli.values import parse_shapes

        return parse_shapes(self.shapes)

    def effort(self) -> Effort:
        """What was asked of the mapping."""
        from cimc.mapping.objective import Objective
        from cimc.pipeline.levels import Effort

        return Effort(
            self.level,
            self.host_fallback,
            str(Objective.parse(self.objective)),
            self.time_limit_s,
            ",".join(self.without),
            layer_time_limit_s=self.layer_time_limit_s,
            gap=self.gap,
            jobs=self.jobs,
            ternarize=self.ternarize or "",
            ternary_scale=self.ternary_scale,
            require_ternary=self.require_ternary,
            activation_bits=self.activation_bits,
        )


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    ctx.meta.setdefault(_META, {})[parameter.name] = value


def _keep_level(ctx: click.Context, parameter: click.Parameter, value: str) -> None:
    _keep(ctx, parameter, int(value))


def chosen_model() -> ModelOptions:
    """What was given on the command line that runs now."""
    return ModelOptions(**click.get_current_context().meta[_META])


_OPTIONS = (
    click.option(
        "-t",
        "--target",
        required=True,
        metavar="NAME",
        callback=_keep,
        expose_value=False,
        help="Machine: a name, or a path to a .toml file.",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_keep,
        expose_value=False,
        help="Replace one value of the machine, such as clock.period_ns=2.",
    ),
    click.option(
        "--shape",
        "shapes",
        multiple=True,
        metavar="NAME=EXTENTS",
        callback=_keep,
        expose_value=False,
        help="Shape of an input, such as x=1x3x224x224.",
    ),
    click.option(
        "--calibrate",
        metavar="DATA",
        callback=_keep,
        expose_value=False,
        help="Quantize a float model on this folder, .npz or .npy; or on 'random' numbers.",
    ),
    click.option(
        "--samples",
        type=click.IntRange(1),
        default=32,
        show_default=True,
        callback=_keep,
        expose_value=False,
        help="Samples of --calibrate to use.",
    ),
    click.option(
        "--ternarize",
        type=click.Choice(["all", "inner"]),
        callback=_keep,
        expose_value=False,
        help="Make weights ternary, which is lossy: of all layers, or of all but first and last.",
    ),
    click.option(
        "--ternary-scale",
        type=click.Choice(["channel", "tensor"]),
        default="channel",
        show_default=True,
        callback=_keep,
        expose_value=False,
        help="What shares a magnitude under --ternarize.",
    ),
    click.option(
        "--require-ternary",
        is_flag=True,
        callback=_keep,
        expose_value=False,
        help="Refuse a model whose weights are not ternary.",
    ),
    click.option(
        "--activation-bits",
        type=click.IntRange(2, 8),
        default=8,
        show_default=True,
        callback=_keep,
        expose_value=False,
        help="Bits of activations when a float model is quantized.",
    ),
    click.option(
        "-O",
        "level",
        type=click.Choice(["0", "1", "2", "3"]),
        default="2",
        show_default=True,
        callback=_keep_level,
        expose_value=False,
        help="0 legal only, 1 fusion, 2 heuristic mapping, 3 exact mapping.",
    ),
    click.option(
        "--host-fallback",
        is_flag=True,
        callback=_keep,
        expose_value=False,
        help="Run what the machine cannot do on the host; it is priced and reported.",
    ),
    click.option(
        "--objective",
        default="latency",
        show_default=True,
        metavar="OBJECTIVE",
        callback=_keep,
        expose_value=False,
        help="What is minimized: latency, period, energy, edp, or 0.3*latency+0.7*energy.",
    ),
    click.option(
        "--time-limit",
        "time_limit_s",
        type=click.FloatRange(0),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        callback=_keep,
        expose_value=False,
        help="For the mapping of -O3, all layers.",
    ),
    click.option(
        "--layer-time-limit",
        "layer_time_limit_s",
        type=click.FloatRange(0),
        metavar="SECONDS",
        callback=_keep,
        expose_value=False,
        help="For the mapping of -O3, one layer.",
    ),
    click.option(
        "--gap",
        type=click.FloatRange(0, 1),
        default=0.0,
        show_default=True,
        callback=_keep,
        expose_value=False,
        help="Share of the cost that -O3 need not prove: 0.01 stops within 1 %.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1),
        callback=_keep,
        expose_value=False,
        help="Searches of -O3 at the same time (default: one on each core).",
    ),
    click.option(
        "--without",
        type=click.Choice(NETWORK_STEPS),
        multiple=True,
        callback=_keep,
        expose_value=False,
        help="Leave out a step across layers.",
    ),
)


def model_options(function: F) -> F:
    """Decorator: give a verb these options; `chosen_model` returns them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
