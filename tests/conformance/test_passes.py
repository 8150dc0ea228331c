"""Every built-in pass from graph to graph passes the suite, and the suite finds a bad one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cimc.conformance.graph_pass import check_pass
from cimc.ir.graph import Graph
from cimc.ir.ops import Requant
from cimc.pipeline import passes
from cimc.pipeline.passes import all_passes, graph_pass, pass_named

STEPS = {"fixed-point": 1}  # rounds halves up where float rounds them to even
REFUSING = {"require-ternary"}  # there to refuse models
NAMES = [known.name for known in all_passes() if known.takes is known.gives is Graph]


@pytest.mark.parametrize("name", NAMES)
def test_built_in_passes(name: str) -> None:
    results = list(check_pass(pass_named(name), steps=STEPS.get(name, 0)))
    assert len(results) > 90
    allowed = {"passed", "refused"} if name in REFUSING else {"passed"}
    assert [result for result in results if result.outcome not in allowed] == []
    assert {result.outcome for result in results} == allowed


def test_a_bad_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_PASSES", dict(passes._PASSES))

    @graph_pass("lose-activations")
    def lose_activations(graph: Graph) -> Graph:
        """Forget the clamp of every requantization."""
        ops = [
            dataclasses.replace(op, low=-128) if isinstance(op, Requant) else op for op in graph.ops
        ]
        return dataclasses.replace(graph, ops=tuple(ops))

    results = list(check_pass(pass_named("lose-activations")))
    failed = {result.subject for result in results if result.outcome == "failed"}
    assert "lose-activations on conv_depthwise" in failed
    assert "lose-activations on conv_plain" not in failed
    assert {r.check for r in results if r.outcome == "failed"} == {"keeps the values"}
    assert np.all([result.detail for result in results if result.outcome == "failed"])
