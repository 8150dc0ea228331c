"""What the simulator's figures of one given mapping cannot go below."""

from __future__ import annotations

import math

from cimc.mapping.nest import DIMS, Mapped
from cimc.target import Target
from cimc.targets.sram_cim.energy import leakage_pj
from cimc.targets.sram_cim.exact import shared_search as kernel
from cimc.targets.sram_cim.exact.shared_costs import Floats
from cimc.targets.sram_cim.exact.shared_space import Choice, Columns
from cimc.targets.sram_cim.machine import spec_of
from cimc.targets.sram_cim.timing import Figures


def costs_of(mapped: Mapped, epilogue: int, target: Target) -> Floats:
    """The row of costs of a legal mapping (see `shared_costs`; `Columns` names the places)."""
    columns = Columns(target)
    left = {dim: math.prod(bound for other, bound in mapped.loops if other == dim) for dim in DIMS}
    choice = Choice(mapped.workload, epilogue, mapped.spatial, target, columns, left)
    rows = kernel.rows_of(choice.space, columns.count)
    return kernel.costs_of(choice.space, rows, choice.start, *choice.steps_of(mapped))


def bound(mapped: Mapped, epilogue: int, target: Target) -> Figures:
    """Cycles and pJ that the layer's program takes at least, any legal mapping."""
    columns = Columns(target)
    row = costs_of(mapped, epilogue, target)
    cycles = float(row[: columns.pj].max())
    return Figures(cycles, float(row[columns.pj]) + cycles * leakage_pj(spec_of(target)))
