"""Every built-in machine passes the suite, and the suite finds what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from cimc.conformance import target as suite
from cimc.conformance.samples import sample_graphs
from cimc.conformance.target import Result, check_target, sample_results
from cimc.ir.program import Buffer, Instr
from cimc.kind import Cost, load_kind
from cimc.target import load_target
from cimc.target_files import target_files

TARGETS = sorted(target_files())
QUICK = {"conv_plain", "conv_depthwise", "matmul_fixed_ternary", "residual", "branches_ternary"}


def failures(results: list[Result]) -> list[Result]:
    return [result for result in results if result.outcome == "failed"]


@pytest.mark.parametrize("name", TARGETS)
def test_quick(name: str) -> None:
    target = load_target(name)
    graphs = sample_graphs(fixed=target.spec.requant == "fixed")
    for graph in graphs:
        if graph.name in QUICK:
            results = list(sample_results(graph, target, levels=(0, 2)))
            assert failures(results) == []
            assert any(result.outcome == "passed" for result in results)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_whole_suite(name: str) -> None:
    results = list(check_target(load_target(name)))
    assert failures(results) == []


def test_a_missing_price_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target("edge-digital")
    kind = load_kind(target.kind)

    def cost(instr: Instr, buffers: Mapping[str, Buffer], machine: object) -> Cost:
        return Cost((), 1, (("vibration", 1),))

    monkeypatch.setattr(type(kind), "cost", lambda self, *given: cost(*given))
    graph = next(sample_graphs())
    wrong = failures(list(sample_results(graph, target, levels=(2,))))
    found = {result.check: result.detail for result in wrong}
    assert found["every event has a price"] == "no price for vibration"
    assert "event vibration has no price" in found["both simulators count the same cycles"]
    assert len(found) == 2


def test_wrong_values_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target("edge-digital")
    graph = next(sample_graphs())
    made = suite.compile_sample(graph, target, 2)
    wrong = {name: array + 1 for name, array in made.wanted.items()}
    monkeypatch.setattr(suite, "compile_sample", lambda *_: dataclasses.replace(made, wanted=wrong))
    found = failures(list(sample_results(graph, target, levels=(2,))))
    assert {result.check for result in found} == {
        "the plain engine equals the evaluator",
        "the fast engine equals the evaluator",
    }
    assert "378 of 378 elements differ" in found[0].detail
