"""Graphs written out, for tests of single passes."""

from __future__ import annotations

import numpy as np

from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, parse_graph
from cimc.ir.types import Array
from cimc.pipeline.passes import pass_named
from tests.ir.graphs import random_inputs


def graph_of(source: str) -> Graph:
    """The graph of these ops, with a header of its own."""
    graph = parse_graph(f'graph "g"\n{source}\n')
    graph.verify()
    return graph


def passed(graph: Graph, *names: str) -> Graph:
    """The graph after some passes."""
    for name in names:
        state = pass_named(name).run(graph, {}, None)
        assert isinstance(state, Graph)
        state.verify()
        assert parse_graph(str(state), state.tensors) == state
        graph = state
    return graph


def largest_gap(before: Graph, after: Graph, seed: int = 0) -> float:
    """Largest difference between the outputs of both, as float64."""
    inputs = random_inputs(before, seed)
    want, got = evaluate(before, inputs), evaluate(after, inputs)
    assert list(want) == list(got)
    gaps = [_gap(want[name], got[name]) for name in want]
    return max(gaps, default=0.0)


def _gap(want: Array, got: Array) -> float:
    return float(np.abs(want.astype(np.float64) - got.astype(np.float64)).max(initial=0))
