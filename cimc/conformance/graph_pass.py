"""The suite that every pass from graph to graph passes: values are kept, the result is sound text.

results = list(check_pass(pass_named("simplify")))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from cimc.conformance.samples import sample_graphs, sample_inputs
from cimc.conformance.target import Result, refusal, tried
from cimc.errors import UnsupportedError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.text import Literal
from cimc.pipeline.passes import Pass
from cimc.pipeline.run import verify_state
from cimc.target import Target


def check_pass(
    known: Pass,
    options: Mapping[str, Literal] | None = None,
    target: Target | None = None,
    steps: int = 0,
) -> Iterator[Result]:
    """Try a pass on every sample; quantized outputs may change by `steps`, others not at all.

    A pass may refuse a sample with a fault that says where and why.
    """
    for graph in sample_graphs():
        subject = f"{known.name} on {graph.name}"
        before = str(graph)
        try:
            after = known.run(graph, options or {}, target)
        except UnsupportedError as problem:
            yield refusal("accepts", subject, problem)
            continue
        if not isinstance(after, Graph):
            yield Result("gives a graph", subject, "failed", type(after).__name__)
            return
        again = str(known.run(graph, options or {}, target))
        checks: dict[str, Callable[[], str]] = {
            "leaves its operand alone": partial(_same, before, str(graph)),
            "is sound and reads back": partial(_sound, after, known.name),
            "keeps the interface": partial(_interface, graph, after),
            "keeps the values": partial(_values, graph, after, steps),
            "gives the same each time": partial(_same, str(after), again),
        }
        for name, run in checks.items():
            yield tried(name, subject, run)


def _same(text: str, other: str) -> str:
    pairs = zip(text.splitlines(), other.splitlines(), strict=False)
    first = next((f"{a!r} and {b!r}" for a, b in pairs if a != b), "their lengths differ")
    return "" if text == other else first


def _sound(graph: Graph, name: str) -> str:
    verify_state(graph, name)
    return ""


def _interface(before: Graph, after: Graph) -> str:
    if before.inputs != after.inputs or before.outputs != after.outputs:
        return f"{before.inputs}, {before.outputs} became {after.inputs}, {after.outputs}"
    return ""


def _values(before: Graph, after: Graph, steps: int) -> str:
    inputs = sample_inputs(before)
    wanted, got = evaluate(before, inputs), evaluate(after, inputs)
    for name, array in wanted.items():
        gap = np.abs(got[name].astype(np.float64) - array.astype(np.float64)).max(initial=0.0)
        if gap > steps:
            return f"{name} changed by {gap:g}, allowed are {steps}"
    return ""
