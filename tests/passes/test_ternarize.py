"""ternarize."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cimc.errors import UsageError
from cimc.ir import ops
from cimc.ir.graph import Graph
from cimc.passes.ternarize import ternarize
from tests.conftest import Golden
from tests.passes.texts import graph_of, passed

WEIGHTS = (1.0, 0.1, -0.9, -0.8, 0.05, 0.3, 0.2, -0.2, 0.02, 0.19, 0.01, 0.0)


def three_layers() -> Graph:
    """Float products of three layers, the one in the middle with weights [3, 4]."""
    return graph_of(f"""
        %x : f32[1,3] = input
        %a : f32[3,3] = constant {{value=(0.5, 0.25, 0.0, 0.3, 0.2, 0.1, 0.9, 0.8, 0.7)}}
        %w : f32[3,4] = constant {{value={WEIGHTS}}}
        %c : f32[4,2] = constant {{value=(0.5, 0.25, 0.0, 0.3, 0.2, 0.1, 0.9, 0.8)}}
        %p : f32[1,3] = matmul %x, %a, _ @("first",)
        %q : f32[1,4] = matmul %p, %w, _ @("second",)
        %r : f32[1,2] = matmul %q, %c, _ @("third",)
        return %r""")


def real_weights(graph: Graph, node: str) -> NDArray[np.float64]:
    """The weights that the product of a node computes with."""
    (product,) = [op for op in graph.ops if isinstance(op, ops.Matmul) and op.nodes == (node,)]
    maker = graph.producers()[product.b.name]
    if not isinstance(maker, ops.Dequantize):
        found = graph.tensor(product.b)
        assert found is not None
        return found.astype(np.float64)
    codes, scale = graph.tensor(maker.x), graph.tensor(maker.scale)
    assert maker.x.type.dtype == "i2"
    assert codes is not None
    assert scale is not None
    return codes.astype(np.float64) * scale.astype(np.float64)


def test_each_column_has_its_threshold_and_magnitude(golden: Golden) -> None:
    after = passed(three_layers(), "ternarize")
    golden.check(after)
    found = real_weights(after, "second")
    w = np.array(WEIGHTS).reshape(3, 4)
    for column in range(4):
        sizes = np.abs(w[:, column])
        kept = sizes > 0.7 * sizes.mean()
        want = np.sign(w[:, column]) * kept * sizes[kept].mean()
        assert found[:, column] == pytest.approx(want)


def test_one_magnitude_for_the_whole_tensor() -> None:
    found = real_weights(ternarize(three_layers(), scale="tensor"), "second")
    sizes = np.abs(WEIGHTS)
    kept = sizes > 0.7 * sizes.mean()
    assert found.reshape(-1) == pytest.approx(np.sign(WEIGHTS) * kept * sizes[kept].mean())


def test_the_first_and_the_last_layer_may_stay() -> None:
    before = three_layers()
    after = ternarize(before, layers="inner")
    for node, is_kept in (("first", True), ("second", False), ("third", True)):
        same = np.array_equal(real_weights(after, node), real_weights(before, node))
        assert same == is_kept


@pytest.mark.parametrize("scale", ["channel", "tensor"])
def test_ternary_weights_stay_what_they_are(scale: str) -> None:
    once = ternarize(three_layers())
    twice = ternarize(once, scale=scale)
    for node in ("first", "second", "third"):
        assert np.array_equal(real_weights(twice, node), real_weights(once, node))


def test_weights_of_eight_bits_become_ternary_and_are_found() -> None:
    before = graph_of("""
        %x : u8[1,4]<0.1,0> = input
        %sx : f32[] = constant {value=(0.1,)}
        %sw : f32[2] = constant {value=(0.01, 0.02)}
        %xr : f32[1,4] = dequantize %x, %sx, _
        %wi : i8[4,2] = constant {value=(100, 90, 3, -80, -127, 5, 0, 120)}
        %w : f32[4,2] = dequantize %wi, %sw, _ {axis=1}
        %y : f32[1,2] = matmul %xr, %w, _
        %sy : f32[] = constant {value=(0.05,)}
        %yq : u8[1,2]<0.05,0> = quantize %y, %sy, _
        return %yq""")
    after = passed(before, "ternarize", "integerize", "detect-ternary")
    (product,) = [op for op in after.ops if isinstance(op, ops.Matmul)]
    assert product.b.type.dtype == "i2"
    assert product.out.type.dtype == "i32"


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UsageError, match="layers all or inner"):
        ternarize(three_layers(), layers="outer")
