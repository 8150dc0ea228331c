"""Give the graph another name.

before   graph "resnet8"
after    graph "renamed"
"""

from __future__ import annotations

import dataclasses

from cimc.ir.graph import Graph
from cimc.pipeline.passes import graph_pass


@graph_pass("demo-rename")
def demo_rename(graph: Graph, *, to: str = "renamed") -> Graph:
    """Name the graph `to`."""
    return dataclasses.replace(graph, name=to)
