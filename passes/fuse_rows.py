"""Run neighbouring layers together, some rows at a time, where that gains.

before   layer %a macro [%a] { dims ... p=56 ... }
         layer %b macro [%b] { dims ... p=56 ... }             reads %a, which is large
after    fuse [%a, %b] rows 8
         layer %a macro [%a] { dims ... p=10 ... }             what 8 rows of %b need of it
         layer %b macro [%b] { dims ... p=8 ... }

Values do not change. What a group's layers hand on stays on the chip; rows that two bands need are
computed twice. By the closed form of the machine's kind the network is never worse than before.
"""

from __future__ import annotations

from cimc.ir.tiles import Tiles
from cimc.kind import NetworkKind, Options, load_kind
from cimc.mapping.objective import Objective
from cimc.pipeline.passes import compiler_pass
from cimc.target import Target


@compiler_pass("fuse-rows")
def fuse_rows(
    tiles: Tiles,
    *,
    target: Target,
    level: int = 2,
    time_limit_s: float = 60.0,
    objective: str = "latency",
) -> Tiles:
    """Let the machine's kind choose which layers run together; none, if it knows no such choice."""
    kind = load_kind(target.kind)
    if not isinstance(kind, NetworkKind):
        return tiles
    alone = str(Objective.parse(objective).of_layer)
    options = Options(level=level, time_limit_s=time_limit_s, objective=alone)
    return kind.fuse_rows(tiles, target, options)
