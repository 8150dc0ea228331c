"""Keep values on the chip between layers, and weights between inferences, where that gains.

before   layer %a macro [%a] { ... for p 8 I=dram W=dram O=dram ... }
         layer %b macro [%b] { ... for p 8 I=dram W=dram O=dram ... }    reads %a
after    keep %a in gb
         layer %a macro [%a] { ... for p 8 I=dram W=dram O=gb ... }
         layer %b macro [%b] { ... for p 8 I=gb W=dram O=dram ... }

Values do not change. Layers are mapped anew beside what is kept; the sum over all layers, by the
closed form of their machine's kind, is never worse than before.
"""

from __future__ import annotations

from cimc.ir.tiles import Tiles
from cimc.kind import NetworkKind, Options, load_kind
from cimc.mapping.objective import Objective
from cimc.pipeline.passes import compiler_pass
from cimc.target import Target


@compiler_pass("keep-resident")
def keep_resident(
    tiles: Tiles,
    *,
    target: Target,
    level: int = 2,
    time_limit_s: float = 60.0,
    objective: str = "latency",
    weights: bool = True,
) -> Tiles:
    """Let the machine's kind choose what stays on the chip; nothing, if it knows no such choice."""
    kind = load_kind(target.kind)
    if not isinstance(kind, NetworkKind):
        return tiles
    alone = str(Objective.parse(objective).of_layer)
    options = Options(level=level, time_limit_s=time_limit_s, objective=alone)
    return kind.keep_resident(tiles, target, options, weights=weights)
