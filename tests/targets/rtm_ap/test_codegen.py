"""Generated column programs: they compute the product, in widths that are proven and needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.arrays import Arrays, PackedArrays
from cimc.targets.rtm_ap.codegen import ColumnCode, Style, column_codes
from cimc.targets.rtm_ap.isa import ACROSS, ALONG
from cimc.targets.rtm_ap.plain_arrays import PlainArrays
from cimc.targets.rtm_ap.regions import CHOICES, Geometry
from cimc.targets.rtm_ap.span import Span

Ints = NDArray[np.int64]
GEOMETRY = Geometry(256, 64, 2)
SPAN = Span(0, 1, 256, 256, 64)


def weights(rows: int, inputs: int, high: int, zeros: float = 0.5) -> Ints:
    random = np.random.default_rng(rows * inputs + high)
    drawn = random.integers(-high, high + 1, (rows, inputs))
    return np.where(random.random((rows, inputs)) < zeros, 0, drawn)


def generated(matrix: Ints, bits: int, style: Style, geometry: Geometry = GEOMETRY) -> ColumnCode:
    found = column_codes([matrix], bits, geometry, style)
    assert found is not None
    return found[0]


def executed(code: ColumnCode, x: Ints, chunk: int, arrays: Arrays | None = None) -> Ints:
    """Accumulators for stored inputs x[inputs, lines], offsets taken off."""
    arrays = arrays or PackedArrays(SPAN)
    slots, room = code.regions.slots(), code.regions
    for number in range(code.chunks):
        part = x[number * chunk : (number + 1) * chunk]
        arrays.store(room.inputs.table(len(part)), part)
        arrays.run(code.chunk(number), slots, GEOMETRY.carries)
    accumulators = isa.slot_table([room.acc(row) for row in range(len(code.offset))])
    return arrays.fetch(accumulators) - code.offset[:, None]


def drawn_inputs(inputs: int, bits: int) -> Ints:
    x = np.random.default_rng(inputs).integers(0, 1 << bits, (inputs, SPAN.lines))
    x[:, 0], x[:, 1] = 0, (1 << bits) - 1
    return x


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize(("high", "bits"), [(1, 4), (1, 8), (7, 4), (127, 8)])
def test_programs_compute_the_product(high: int, bits: int, share: bool, dead: bool) -> None:
    matrix, x = weights(20, 30, high), drawn_inputs(30, bits)
    code = generated(matrix, bits, Style(12, share, dead))
    found = executed(code, x, 12)
    assert (found == matrix @ x).all()
    assert (executed(code, x, 12, PlainArrays(SPAN)) == found).all()


@pytest.mark.parametrize(("inputs", "temps"), CHOICES)
@pytest.mark.parametrize("high", [1, 15])
def test_every_layout_computes_the_product(inputs: int, temps: int, high: int) -> None:
    matrix, x = weights(70, 48, high), drawn_inputs(48, 4)
    style = Style(24, input_layout=inputs, temp_layout=temps)
    assert (executed(generated(matrix, 4, style), x, 24) == matrix @ x).all()


def test_empty_rows_and_columns() -> None:
    matrix = weights(9, 12, 1)
    matrix[[0, 4]], matrix[:, :6] = 0, 0
    x = drawn_inputs(12, 4)
    assert (executed(generated(matrix, 4, Style(6)), x, 6) == matrix @ x).all()
    nothing = np.zeros((3, 4), np.int64)
    assert (executed(generated(nothing, 4, Style(4)), x[:4], 4) == 0).all()


def test_widths_are_proven_and_reached() -> None:
    matrix = weights(16, 27, 1, 0.6)
    code = generated(matrix, 4, Style(9))
    for row in range(len(matrix)):
        # the input that drives the sum to its highest: 15 under +1, 0 under -1
        extremal = np.zeros((27, SPAN.lines), np.int64)
        extremal[matrix[row] > 0] = 15
        found = executed(code, extremal, 9)[row, 0] + code.offset[row]
        assert found == code.high[row]
    assert code.regions.acc_bits == max(int(high).bit_length() for high in code.high)


def test_a_ternary_sum_needs_no_more_than_its_range() -> None:
    matrix = np.array([[1, 1, -1, -1, 1]])
    code = generated(matrix, 4, Style(5, share=False))
    assert code.high.tolist() == [5 * 15]  # -30 .. 45, lifted to 0 .. 75
    assert code.offset.tolist() == [30]


def test_one_bit_less_overflows() -> None:
    matrix = np.array([[1, 1, 1, -1, 1, 1]])
    x = drawn_inputs(6, 4)
    x[:, 2] = np.where(matrix[0] > 0, 15, 0)  # the extremal input
    code = generated(matrix, 4, Style(6, share=False))
    assert (executed(code, x, 6) == matrix @ x).all()
    words = [isa.word_of(int(item)) for item in code.words]
    for place, word in enumerate(words):
        if word.opcode != isa.ADD:
            continue
        code.words[place] = replace(word, width=word.width - 1).code
        wrong = (executed(code, x, 6) != matrix @ x)[0]
        assert wrong.any(), str(word)
        assert wrong[2] or word.width == words[place - 1].width  # where the sum grew by a bit
        code.words[place] = word.code


def test_no_word_can_be_dropped() -> None:
    matrix, x = weights(6, 12, 1, 0.4), drawn_inputs(12, 4)
    code = generated(matrix, 4, Style(6))
    wanted = matrix @ x
    for place in range(len(code.words)):
        starts = code.starts - (code.starts > place)
        mutant = ColumnCode(
            code.regions, np.delete(code.words, place), starts, code.offset, code.high
        )
        try:
            found = executed(mutant, x, 6)
        except Exception:
            continue
        assert (found != wanted).any(), str(isa.word_of(int(code.words[place])))


def test_groups_share_one_layout() -> None:
    matrices = [weights(8, 18, 1), weights(5, 18, 1, 0.2)]
    codes = column_codes(matrices, 4, GEOMETRY, Style(9))
    assert codes is not None
    assert codes[0].regions == codes[1].regions
    x = drawn_inputs(18, 4)
    for matrix, code in zip(matrices, codes, strict=True):
        assert (executed(code, x, 9) == matrix @ x).all()


def test_few_columns_mean_fewer_temporaries() -> None:
    matrix, x = weights(40, 16, 1, 0.3), drawn_inputs(16, 4)
    small = Geometry(44, 3, 1)
    # 40 accumulators of 8 bits in stacks of 3 need 112 columns: they do not fit
    assert column_codes([matrix], 4, small, Style(8)) is None
    some = Geometry(180, 3, 2)
    found = column_codes([matrix], 4, some, Style(8))
    assert found is not None
    code = found[0]
    assert code.regions.used <= 180
    arrays = PackedArrays(Span(0, 1, 256, 180, 3))
    assert (executed(code, x, 8, arrays) == matrix @ x).all()


def test_accumulators_move_one_step_per_visit() -> None:
    matrix = weights(64, 40, 1, 0.2)
    code = generated(matrix, 4, Style(8, share=False, input_layout=ACROSS, temp_layout=ALONG))
    assert code.regions.acc(1).domain - code.regions.acc(0).domain == 1
    order = [
        isa.word_of(int(word)).slot
        for word in code.chunk(1)
        if isa.word_of(int(word)).opcode == isa.ONTO
    ]
    assert order == sorted(order, reverse=True)  # chunk 0 went up, chunk 1 comes down
