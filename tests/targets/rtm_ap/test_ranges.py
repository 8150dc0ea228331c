"""Bounds of values: what clamps say, whatever lies between them and the arrays."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.ir.evaluate import evaluate
from cimc.ir.graph import parse_graph
from cimc.targets.rtm_ap.ranges import input_range

CLIPPED = """
graph "clipped"
%x : f32[1,2,4,4] = input
%clip : f32[1,2,4,4] = unary %x {fn="clip", alpha=-1.0, beta=2.75}
%scale : f32[1] = constant {value=(0.25,)}
%zero : u8[1] = constant {value=(4,)}
%q : u8[1,2,4,4]<0.25,4> = quantize %clip, %scale, %zero
%most : u8[1,2,2,2]<0.25,4> = pool %q {fn="max", kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0), dilations=(1, 1)}
%sum : u8[1,2,2,2]<0.5,3> = binary %most, %most {fn="add"}
%clamped : u8[1,2,2,2]<0.5,3> = binary %sum, %most {fn="add", low=3, high=10}
%flat : u8[1,8]<0.5,3> = reshape %clamped
%mean : u8[1,2,2,2]<0.25,4> = pool %q {fn="average", kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0), dilations=(1, 1)}
%both : u8[1,4,2,2]<0.5,3> = concat [%mean, %sum] {axis=1}
return %flat, %both, %q, %most, %sum, %clamped, %mean
"""  # noqa: E501
WANTED = {
    "q": (0, 15), "most": (0, 15), "clamped": (3, 10), "flat": (3, 10), "mean": (0, 15),
    "sum": (0, 15), "both": (0, 15),
}  # fmt: skip


@pytest.mark.parametrize("name", WANTED)
def test_bounds_follow_the_clamps(name: str) -> None:
    graph = parse_graph(CLIPPED)
    value = graph.producers()[name].out
    low, high = input_range(value, graph)
    wanted = WANTED[name]
    # sums and conversions get a step to spare at each end
    assert wanted[0] - 1 <= low <= wanted[0]
    assert wanted[1] <= high <= wanted[1] + 1


def test_no_value_leaves_its_bounds() -> None:
    graph, random = parse_graph(CLIPPED), np.random.default_rng(0)
    for scale in (0.5, 2.0, 100.0):
        x = (random.normal(0, scale, (1, 2, 4, 4))).astype(np.float32)
        for name, array in evaluate(graph, {"x": x}).items():
            low, high = input_range(graph.producers()[name].out, graph)
            assert low <= array.min() <= array.max() <= high, name
