"""Choose a mapping for the nest of every macro layer.

before   layer %a macro [%a, %b] { dims g=1 n=1 k=16 c=3 p=8 q=8 r=3 s=3 }
after    layer %a macro [%a, %b] { dims ... spatial rows(c=3, r=3, s=3) columns(k=16) for p 8 ... }
"""

from __future__ import annotations

from cimc.ir.tiles import Tiles
from cimc.kind import Options, load_kind
from cimc.mapping.objective import Objective
from cimc.pipeline.passes import compiler_pass
from cimc.target import Target


@compiler_pass("map")
def map(  # the pass's name
    tiles: Tiles,
    *,
    target: Target,
    level: int = 2,
    time_limit_s: float = 60.0,
    objective: str = "latency",
    layer_time_limit_s: float | None = None,
    gap: float = 0.0,
    jobs: int | None = None,
) -> Tiles:
    """Let the machine's kind map each macro layer, with the effort of -O`level`."""
    options = Options(
        level=level,
        time_limit_s=time_limit_s,
        objective=str(Objective.parse(objective).of_layer),
        layer_time_limit_s=layer_time_limit_s,
        gap=gap,
        jobs=jobs,
    )
    return load_kind(target.kind).map(tiles, target, options)
