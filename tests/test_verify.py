"""Comparisons count what differs, and fail where they must."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cimc.conformance.samples import SAMPLES, Sketch, sample_inputs
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Value
from cimc.ir.types import Array, Quant, Type
from cimc.verify import compare, from_reference, merge, worst

BYTES = Value("t", Type("i8", (4,), Quant(0.5, 1)))
REALS = Value("r", Type("f32", (3,)))


def test_integers_in_steps() -> None:
    want = np.array([1, 2, 3, -128], np.int8)
    got = np.array([1, 3, 3, 127], np.int8)
    row = compare(BYTES, got, want, "other", lsb=1)
    assert (row.differing, row.max_lsb, row.max_abs) == (2, 255, 127.5)
    assert not row.passed
    assert compare(BYTES, got[:3], want[:3], "other", lsb=1).passed
    assert not compare(BYTES, got[:3], want[:3], "other").passed
    assert row.sqnr_db == pytest.approx(
        10 * math.log10((0 + 0.25 + 1 + 64.5**2) / (0.25 + 127.5**2))
    )


def test_floats_by_the_largest() -> None:
    want = np.array([100, 0, math.inf], np.float32)
    assert compare(REALS, want + np.float32(0.0005), want, "other", relative=1e-5).passed
    assert not compare(REALS, want + np.float32(0.002), want, "other", relative=1e-5).passed
    assert compare(REALS, want, want, "other", relative=0.0).sqnr_db == math.inf


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_fail(wrong: float) -> None:
    want = np.array([1, 2, 3], np.float32)
    got = np.array([1, wrong, 3], np.float32)
    assert not compare(REALS, got, want, "other").passed
    assert not compare(REALS, want, got, "other").passed
    assert compare(REALS, got, got, "other", relative=0.0).passed


def test_another_shape_fails() -> None:
    row = compare(BYTES, np.zeros(3, np.int8), np.zeros(4, np.int8), "other")
    assert not row.passed
    assert "shape [3] instead of [4]" in row.type


def test_rows_of_many_samples() -> None:
    zero, one = np.zeros(4, np.int8), np.ones(4, np.int8)
    rows = [
        compare(BYTES, zero, zero, "a"),
        compare(BYTES, one, zero, "a"),
        compare(BYTES, one, one, "b"),
    ]
    first, second = merge(rows)
    assert (first.elements, first.differing, first.share, first.passed) == (8, 4, 0.5, False)
    assert (second.against, second.passed) == ("b", True)
    assert worst([second, first]) == first
    assert worst([]) is None


def test_differences_show_where_they_are_made() -> None:
    """One wrong value inside shows at the op that made it."""
    (draw,) = [draw for draw in SAMPLES if draw.__name__ == "residual"]
    graph = draw(Sketch("residual"))
    inputs = sample_inputs(graph)
    names = [op.out.name for op in graph.ops if op.mnemonic == "requant"]
    known: dict[str, Array] = {**inputs, **evaluate(graph, inputs, keep=names)}
    assert all(
        (array == known[value.name]).all() for value, array in from_reference(graph, known, names)
    )
    known[names[0]] = np.where(known[names[0]] == 5, np.int8(6), np.int8(5))
    differing = {
        value.name: bool((array != known[value.name]).any())
        for value, array in from_reference(graph, known, names)
    }
    assert differing[names[0]]
