"""Drop ops that no output needs.

before   %a : f32[4] = unary %x {fn="exp"}          nobody reads %a
         %b : f32[4] = unary %x {fn="relu"}
         return %b
after    %b : f32[4] = unary %x {fn="relu"}
         return %b
"""

from __future__ import annotations

from cimc.ir.graph import Graph
from cimc.ir.rewrite import Rewrite
from cimc.pipeline.passes import graph_pass


@graph_pass("drop-dead-code")
def drop_dead_code(graph: Graph) -> Graph:
    """Keep the inputs and what the outputs are computed from."""
    new = Rewrite(graph)
    for op in graph.ops:
        new.add(op)
    return new.finish()
