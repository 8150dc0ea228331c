"""Give layers that follow each other cores of their own, so that they work on different samples.

before   layer %a macro [%a] { ... spatial cores(k=8) ... }
         layer %b macro [%b] { ... spatial cores(p=8) ... }        reads %a
after    stage [%a] cores 6
         stage [%b] cores 2                  works on the sample before
         layer %a macro [%a] { ... spatial cores(k=6) ... }
         layer %b macro [%b] { ... spatial cores(p=2) ... }

Values do not change. One sample alone takes longer, results follow each other faster: the step is
taken where the objective is the period, or where `stages` asks for it.
"""

from __future__ import annotations

from cimc.ir.tiles import Tiles
from cimc.kind import NetworkKind, Options, load_kind
from cimc.mapping.objective import Objective
from cimc.pipeline.passes import compiler_pass
from cimc.target import Target


@compiler_pass("pipeline-cores")
def pipeline_cores(
    tiles: Tiles,
    *,
    target: Target,
    level: int = 2,
    time_limit_s: float = 60.0,
    objective: str = "latency",
    stages: int = 0,
) -> Tiles:
    """Let the machine's kind choose `stages`; with 0, as many as gain.

    raises  UsageError or FitError where `stages` cannot be had
    """
    kind, asked = load_kind(target.kind), Objective.parse(objective)
    if not isinstance(kind, NetworkKind) or not (asked.is_periodic or stages):
        return tiles
    options = Options(level=level, time_limit_s=time_limit_s, objective=str(asked.of_layer))
    return kind.pipeline_cores(tiles, target, options, stages=stages)
