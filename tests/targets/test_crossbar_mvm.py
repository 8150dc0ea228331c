"""What one analog product computes: the integer product where nothing clips, else clipped sums."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cimc.ir.program import Affine, View
from cimc.targets.crossbar.analog_mvm import (
    ENCODINGS,
    AnalogMvm,
    input_steps,
    lossless_bits,
    weight_slices,
)

Ints = NDArray[np.int64]


def mvm(
    rows: int,
    columns: int,
    *,
    encoding: str = "offset",
    signed: bool = False,
    input_bits: int = 8,
    dac_bits: int = 1,
    weight_bits: int = 8,
    cell_bits: int = 2,
    adc_bits: int = 16,
    active_rows: int = 128,
) -> AnalogMvm:
    """An instruction on one slice of `rows` x `columns` weights."""
    return AnalogMvm(
        View("acc", Affine(), ((rows, 0), (columns, 1))),
        View("x", Affine(), ((rows, 1), (columns, 0))),
        View("w", Affine(), ((rows, columns), (columns, 1))),
        input_bits,
        signed,
        dac_bits,
        weight_bits,
        cell_bits,
        adc_bits,
        active_rows,
        encoding,
    )


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 70),
    encoding=st.sampled_from(ENCODINGS),
    signed=st.booleans(),
    input_bits=st.integers(2, 9),
    dac_bits=st.integers(1, 3),
    weight_bits=st.integers(2, 9),
    cell_bits=st.integers(1, 4),
    active_rows=st.sampled_from((1, 16, 33, 128)),
)
def test_equals_the_integer_product_where_the_adc_has_enough_bits(
    seed: int,
    rows: int,
    encoding: str,
    signed: bool,
    input_bits: int,
    dac_bits: int,
    weight_bits: int,
    cell_bits: int,
    active_rows: int,
) -> None:
    rng = np.random.default_rng(seed)
    span = 1 << input_bits
    x = rng.integers(-span // 2, span // 2, rows) if signed else rng.integers(0, span, rows)
    half = 1 << (weight_bits - 1)
    lowest = -half + 1 if encoding == "differential" else -half
    w = rng.choice([lowest, -1, 0, 1, half - 1, int(rng.integers(lowest, half))], (rows, 5))
    bits = lossless_bits(min(rows, active_rows), dac_bits, cell_bits, encoding)
    instr = mvm(
        rows,
        5,
        encoding=encoding,
        signed=signed,
        input_bits=input_bits,
        dac_bits=dac_bits,
        weight_bits=weight_bits,
        cell_bits=cell_bits,
        adc_bits=bits,
        active_rows=active_rows,
    )
    assert instr.lossless()
    assert (instr.product(x, w) == x @ w).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_adc_bit_less_clips(encoding: str) -> None:
    rows = 128
    bits = lossless_bits(rows, 1, 2, encoding)
    x = np.full(rows, 255)
    w = np.tile(np.array([127, -127, 85, 0]), (rows, 1))  # cells of the highest levels
    instr = mvm(rows, 4, encoding=encoding, adc_bits=bits)
    assert (instr.product(x, w) == x @ w).all()
    less = dataclasses.replace(instr, adc_bits=bits - 1)
    assert not less.lossless()
    assert (less.product(x, w) != x @ w).any()


def test_flipped_columns_save_one_adc_bit() -> None:
    assert lossless_bits(128, 1, 2, "offset") == 9
    assert lossless_bits(128, 1, 2, "flip") == 8  # ISAAC, section V: 8 bits for 128 rows


def test_clipped_sums_by_hand() -> None:
    # Two rows, one input bit each, weights of two bits in one cell, an ADC that ends at 3.
    # u = w + 2 = (3, 3): the column's sum 6 reads 3; ones read 2, so y = 3 - 2*2 = -1, not 2.
    instr = mvm(2, 1, input_bits=1, weight_bits=2, cell_bits=2, adc_bits=2)
    assert instr.product(np.array([1, 1]), np.array([[1], [1]])).tolist() == [-1]
    # One row at a time: each reads 3 - 2 = 1.
    one = dataclasses.replace(instr, active_rows=1)
    assert one.product(np.array([1, 1]), np.array([[1], [1]])).tolist() == [2]
    # A pair's difference of 2 does not fit into -2 .. 1.
    pair = dataclasses.replace(instr, encoding="differential")
    assert pair.product(np.array([1, 1]), np.array([[1], [-1]])).tolist() == [0]
    assert pair.product(np.array([1, 1]), np.array([[1], [1]])).tolist() == [1]
    assert pair.product(np.array([1, 1]), np.array([[-1], [-1]])).tolist() == [-2]


def test_narrower_operands_give_other_results() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.integers(128, 256, 64), rng.integers(-128, 128, (64, 8))
    instr = mvm(64, 8)
    assert (instr.product(x, w) == x @ w).all()
    for narrower in (
        dataclasses.replace(instr, input_bits=7),
        dataclasses.replace(instr, weight_bits=7),
    ):
        assert (narrower.product(x, w) != x @ w).any()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    encoding=st.sampled_from(ENCODINGS),
    signed=st.booleans(),
    dac_bits=st.integers(1, 3),
    cell_bits=st.integers(1, 3),
    adc_bits=st.integers(2, 7),
    active_rows=st.sampled_from((7, 16, 64)),
)
def test_form_says_the_same(
    seed: int,
    rows: int,
    encoding: str,
    signed: bool,
    dac_bits: int,
    cell_bits: int,
    adc_bits: int,
    active_rows: int,
) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.integers(-128, 256, rows), rng.integers(-127, 128, (rows, 6))
    instr = mvm(
        rows,
        6,
        encoding=encoding,
        signed=signed,
        dac_bits=dac_bits,
        cell_bits=cell_bits,
        adc_bits=adc_bits,
        active_rows=active_rows,
    )
    form = instr.form()
    total = np.zeros(6, np.int64)
    for first in range(0, rows, form.active_rows):
        driven = slice(first, first + form.active_rows)
        phase = form.phase(w[driven])
        for factor, bottom, width in form.steps:
            sent = (x[driven] >> bottom) & ((1 << width) - 1)
            ones = np.clip(sent.sum(), form.low, form.high)
            seen = phase.ones * ones
            for weight, cells in phase.slices:
                seen = seen + weight * np.clip(sent @ cells, form.low, form.high)
            total += factor * seen
    assert (total == instr.product(x, w)).all()


def test_steps_and_slices() -> None:
    assert input_steps(8, False, 1) == 8
    assert input_steps(8, True, 1) == 8
    assert input_steps(8, True, 2) == 5  # seven bits in pairs, then the sign
    assert weight_slices(8, 2, "flip") == 4
    assert weight_slices(8, 2, "differential") == 4
    assert weight_slices(2, 2, "flip") == 1
    assert weight_slices(9, 4, "differential") == 2
