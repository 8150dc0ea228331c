"""From an ONNX file to the graph IR; all problems are reported at once.

file -> sound skeleton -> static inputs -> nodes lowered or computed -> ops that reach an output
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cimc.errors import Fault, UnsupportedError, raise_if
from cimc.frontend.inputs import static_inputs
from cimc.frontend.reader import open_model
from cimc.frontend.structure import node_names, sorted_nodes, structure_faults
from cimc.frontend.walk import Imported, Walk


class ImportFault(UnsupportedError):
    """A model that cannot be imported; says how many of its nodes could have been."""

    def __init__(self, faults: tuple[Fault, ...], nodes: int, supported: int) -> None:
        super().__init__(faults)
        self.nodes = nodes
        self.supported = supported


def import_onnx(
    model: str | Path | bytes,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    weights: bool = True,
) -> Imported:
    """Read the model at a path, or in bytes; `shapes` gives inputs their static shapes by name.

    With `weights` off large tensors are not read, and files of external data may be missing: the
    graph has all shapes, but cannot be evaluated.
    """
    file = open_model(model if isinstance(model, bytes) else Path(model), weights)
    names = node_names(file.graph.node)
    raise_if(structure_faults(file, names), UnsupportedError)
    inputs = static_inputs(file.graph.input, shapes or {})
    walk = Walk(file, names, weights)
    for value in inputs.values:
        walk.add_input(value)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # constants may hold or become inf and nan
        for index in sorted_nodes(file.graph.node):
            walk.visit(index)
    walk.finish()
    faults = tuple(walk.faults.values())
    if faults:
        raise ImportFault(faults, len(names), len(names) - len(walk.faults))
    return walk.imported(inputs.notes)
