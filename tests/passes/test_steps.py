"""Staircases of sums: every integer that a chain of functions gives, a requant gives as well."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.ir import ops
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.passes.integerize import integerize
from tests.passes.texts import graph_of

CHAINS = {
    "sigmoid": '%y : f32[801,3] = unary %n {fn="sigmoid"}',
    "tanh": '%y : f32[801,3] = unary %n {fn="tanh"}',
    "floor": '%y : f32[801,3] = unary %n {fn="floor"}',
    "sign": '%y : f32[801,3] = unary %n {fn="sign"}',
    "clip": '%y : f32[801,3] = unary %n {fn="clip", alpha=-0.31, beta=0.72}',
    "twice": """%r : f32[801,3] = unary %n {fn="relu"}
        %k : f32[801,3] = binary %r, %factor {fn="mul"}
        %y : f32[801,3] = binary %k, %shift {fn="sub"}""",
    "constant": """%r : f32[801,3] = unary %n {fn="clip", alpha=0.5, beta=0.5}
        %y : f32[801,3] = binary %r, %r {fn="add"}""",
    "hill": '%y : f32[801,3] = binary %n, %n {fn="mul"}',
}


def every_sum(chain: str, kind: str = "i4", scale: float = 0.5) -> Graph:
    """A product whose rows are all sums from -400 to 400, then a normalization and the chain."""
    return graph_of(f"""
        %f : f32[801,1] = input
        %one : f32[] = constant {{value=(1.0,)}}
        %q : i16[801,1]<1.0,0> = quantize %f, %one, _
        %x : f32[801,1] = dequantize %q, %one, _
        %wi : i2[1,3] = constant {{value=(1, 1, 1)}}
        %w : f32[1,3] = dequantize %wi, %one, _
        %p : f32[801,3] = matmul %x, %w, _
        %factor : f32[3] = constant {{value=(0.0271, -0.0313, 0.0042)}}
        %shift : f32[3] = constant {{value=(0.13, 0.77, -1.9)}}
        %scaled : f32[801,3] = binary %p, %factor {{fn="mul"}}
        %n : f32[801,3] = binary %scaled, %shift {{fn="add"}}
        {CHAINS[chain]}
        %s : f32[] = constant {{value=({scale},)}}
        %yq : {kind}[801,3]<{scale},0> = quantize %y, %s, _
        return %yq""")


@pytest.mark.parametrize("chain", sorted(set(CHAINS) - {"hill"}))
@pytest.mark.parametrize(("kind", "scale"), [("i2", 0.6), ("i4", 0.5), ("i8", 0.11)])
def test_every_sum_gives_the_same_integer(chain: str, kind: str, scale: float) -> None:
    before = every_sum(chain, kind, scale)
    after = integerize(before)
    x = np.arange(-400, 401, dtype=np.float32).reshape(-1, 1)
    want, got = (evaluate(graph, {"f": x})["yq"] for graph in (before, after))
    assert (want == got).all()


@pytest.mark.parametrize(
    ("chain", "scale"), [("floor", 1.0), ("sign", 1.0), ("clip", 0.5), ("constant", 0.5)]
)
def test_straight_stairs_need_no_float_op(chain: str, scale: float) -> None:
    kinds = {op.mnemonic for op in integerize(every_sum(chain, "i4", scale)).ops}
    assert kinds == {"input", "constant", "quantize", "matmul", "requant"}


def test_curved_stairs_of_many_steps_stay_float() -> None:
    kinds = [op.mnemonic for op in integerize(every_sum("tanh", "i8", 0.01)).ops]
    assert "requant" not in kinds
    assert "unary" in kinds


def test_what_rises_and_falls_stays_float() -> None:
    before = every_sum("hill")
    after = integerize(before)
    assert "requant" not in [op.mnemonic for op in after.ops]
    x = np.arange(-400, 401, dtype=np.float32).reshape(-1, 1)
    want, got = (evaluate(graph, {"f": x})["yq"] for graph in (before, after))
    assert (want == got).all()


def test_a_falling_channel_has_a_negative_gain() -> None:
    after = integerize(every_sum("clip"))
    (requant,) = [op for op in after.ops if isinstance(op, ops.Requant)]
    assert requant.gain is not None
    gain = after.tensor(requant.gain)
    assert gain is not None
    assert np.sign(gain.astype(int)).tolist() == [1, -1, 1]
