"""Every node of a model goes to one place."""

from __future__ import annotations

import dataclasses

import pytest

from cimc.coverage import count, coverage
from cimc.errors import InternalError
from cimc.ir.tiles import parse_tiles

TILES = parse_tiles("""
tiles on "machine"
graph "g"
%x : f32[4] = input
%a : f32[4] = unary %x {fn="relu"} @("conv", "dq")
%b : f32[4] = unary %a {fn="relu"} @("relu", "q")
%c : f32[4] = unary %b {fn="relu"} @("late-dq", "softmax")
return %c
layer %a macro [%a, %b]
layer %c vector [%c]
""")
NODES = [
    ("dq", "DequantizeLinear"),
    ("conv", "Conv"),
    ("relu", "Relu"),
    ("q", "QuantizeLinear"),
    ("late-dq", "DequantizeLinear"),
    ("softmax", "Softmax"),
    ("shape", "Shape"),
]


def test_places() -> None:
    rows = {
        row.node: (row.place, row.into) for row in coverage(NODES, {"shape": "constant"}, TILES)
    }
    assert rows == {
        "dq": ("fused", "a"),
        "conv": ("macro", "a"),
        "relu": ("fused", "a"),
        "q": ("fused", "a"),
        "late-dq": ("fused", "c"),
        "softmax": ("vector", "c"),
        "shape": ("folded", "constant"),
    }


def test_the_sum_is_the_number_of_nodes() -> None:
    counts = count(coverage(NODES, {}, TILES))
    assert counts == {"macro": 1, "vector": 1, "host": 0, "fused": 4, "folded": 1}
    assert sum(counts.values()) == len(NODES)


def test_a_lost_node_is_found() -> None:
    """A node that an op stands for, but no layer holds, is no folded node."""
    lost = dataclasses.replace(TILES, layers=TILES.layers[:1])
    with pytest.raises(InternalError, match="lost: late-dq, softmax"):
        coverage(NODES, {}, lost)
    with pytest.raises(InternalError, match="does not add up"):
        coverage([*NODES, NODES[0]], {}, TILES)
