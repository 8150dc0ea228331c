"""The phases of a compilation. Light to import: help texts print it.

import      ONNX model to graph
quantize    float graph to an integer one, by calibration
graph       fold, canonicalize, integerize, fuse
tile        place every op on macro, vector unit or host; loop nests of the heavy ones
map         choose a mapping of every nest
lower       instructions and buffers
allocate    addresses
program     packed arrays, program directory, reports
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cimc.pipeline.passes import Pass

PHASES = ("import", "quantize", "graph", "tile", "map", "lower", "allocate", "program")
NETWORK_STEPS = (  # across layers, each taken only where it gains
    *("keep-resident", "fuse-rows"),
    "pipeline-cores",  # where the objective is the period
)
_PHASE_OF = {
    ("Graph", "Graph"): "graph",
    ("Graph", "Tiles"): "tile",
    ("Tiles", "Tiles"): "map",
    ("Tiles", "Program"): "lower",
    ("Program", "Program"): "allocate",
}


def phase_of(known: Pass) -> str:
    """The phase that a pass belongs to, from what it takes and gives."""
    return _PHASE_OF.get((known.takes.__name__, known.gives.__name__), "graph")
