"""What every pass on graphs promises, on random graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, parse_graph
from cimc.pipeline.passes import pass_named
from cimc.verify import from_reference
from tests.ir.graphs import float_graphs, random_inputs
from tests.ir.quantize import quantized_graph

FLOAT = ("fold-constants", "drop-dead-code", "fold-batch-norm", "simplify", "canonicalize")
INTEGER = ("simplify", "drop-dead-code", "detect-ternary", "fuse-layers", "fold-constants")
LEGAL = ("canonicalize", "fold-constants", "fold-batch-norm", "simplify", "integerize", "simplify")
drawn = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def passed(graph: Graph, *names: str) -> Graph:
    """The graph after some passes, each checked for form."""
    for name in names:
        before = graph
        state = pass_named(name).run(before, {}, None)
        assert isinstance(state, Graph)
        graph = state
        graph.verify()
        assert parse_graph(str(graph), graph.tensors) == graph
        assert graph.inputs == before.inputs
        assert [value.name for value in graph.outputs] == [value.name for value in before.outputs]
    return graph


def nodes(graph: Graph) -> set[str]:
    """The ONNX nodes that the graph accounts for."""
    return {node for op in graph.ops for node in op.nodes}


@pytest.mark.parametrize("name", FLOAT)
@drawn
@given(graph=float_graphs())
def test_passes_on_floats_keep_values_and_nodes(name: str, graph: Graph) -> None:
    after = passed(graph, name)
    inputs = random_inputs(graph)
    for output, array in evaluate(graph, inputs).items():
        reach = max(1.0, float(np.abs(array).max(initial=0)))
        assert np.allclose(evaluate(after, inputs)[output], array, rtol=1e-4, atol=1e-4 * reach)
    live = passed(graph, "drop-dead-code")
    assert nodes(after) >= nodes(live)
    assert passed(after, name) == after


@drawn
@given(graph=float_graphs())
def test_integers_follow_the_quantized_floats(graph: Graph) -> None:
    """One step at most between both, where what goes into each quantized value is the same."""
    for dtype, per_channel in (("u8", True), ("i8", False)):
        before = quantized_graph(graph, dtype, per_channel)
        after = passed(before, *LEGAL)
        assert nodes(after) >= nodes(passed(before, "drop-dead-code"))
        assert not any(
            op.mnemonic in ("conv", "matmul") and not op.out.type.is_integer for op in after.ops
        )
        inputs = random_inputs(graph, seed=1)
        names = [op.out.name for op in before.ops if op.mnemonic == "quantize"]
        want = evaluate(before, inputs, keep=names)
        for value, got in from_reference(after, {**inputs, **want}, names):
            gaps = np.abs(got.astype(int) - want[value.name].astype(int))
            assert gaps.max(initial=0) <= 1, value


@pytest.mark.parametrize("name", INTEGER)
@drawn
@given(graph=float_graphs())
def test_passes_on_integers_keep_every_bit(name: str, graph: Graph) -> None:
    before = passed(quantized_graph(graph), *LEGAL)
    after = passed(before, name)
    inputs = random_inputs(graph, seed=2)
    want = evaluate(before, inputs)
    for output, array in evaluate(after, inputs).items():
        assert (array == want[output]).all()
    assert nodes(after) >= nodes(before)
    assert passed(after, name) == after
