"""Column operations: what each computes, on both engines, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.errors import VerifyError
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.arrays import PackedArrays
from cimc.targets.rtm_ap.expand_kernels import FRESH, MAX_STEPS, expand
from cimc.targets.rtm_ap.isa import (
    ACROSS,
    ALONG,
    DEAD,
    DOWN,
    NOT,
    OPCODES,
    Controller,
    Slot,
    Word,
    slot_of,
    slot_table,
    word_of,
)
from tests.targets.rtm_ap.machine import SPAN, Ints, engines, run, side_by_side, signed

RANDOM = np.random.default_rng(7)


def drawn(bits: int, count: int = 256) -> Ints:
    return RANDOM.integers(0, 1 << bits, count)


def every_pair(bits: int) -> tuple[Ints, Ints]:
    """All pairs of unsigned numbers."""
    numbers = np.arange(1 << bits)
    return np.repeat(numbers, 1 << bits), np.tile(numbers, 1 << bits)


def test_words_and_slots_survive_encoding() -> None:
    for _ in range(200):
        word = Word(*(int(RANDOM.integers(0, most)) for most in (15, 1 << 14, 64, 32, 4)))
        slot = Slot(*(int(RANDOM.integers(0, most)) for most in (4096, 256, 3, 64)))
        assert word_of(word.code) == word
        assert slot_of(slot.code) == slot


def test_disassembly_names_operation_and_place() -> None:
    slots = [Slot(8, 3, ALONG, 5)]
    words = isa.encoded([Word(isa.ADD, 0, 9, 2, NOT)])
    assert list(isa.disassembled(words, slot_table(slots))) == [
        "add not 0 << 2 : 9           # 8.3..8.7"
    ]


def test_the_kernel_takes_the_same_steps_as_the_controller() -> None:
    def draw(low: int, high: int) -> int:
        return int(RANDOM.integers(low, high))

    slots = [Slot(draw(0, 200), draw(20, 40), draw(0, 3), draw(1, 9)) for _ in range(20)]
    table, steps = slot_table(slots), np.zeros((MAX_STEPS, 7), np.int64)
    for _ in range(100):
        words = [Word(isa.ONTO, draw(0, 20)), Word(isa.HOLD, draw(0, 20), flags=draw(0, 2))]
        for _ in range(6):
            fields = draw(0, 20), draw(1, 14), draw(0, 4), draw(0, 4)
            words.append(Word(draw(0, len(OPCODES)), *fields))
        controller, memory = Controller(table, 256, 3), np.array(FRESH)
        for word in words:
            plain = [
                (s.table, *(column * 64 + domain if column >= 0 else -1
                            for column, domain in (s.a, s.b, s.c, s.r)), s.invert, s.cycle)
                for s in controller.steps(word.code)
            ]  # fmt: skip
            count = expand(word.code, table, memory, 256, 64, 3, steps)
            assert [tuple(row) for row in steps[:count].tolist()] == plain


@pytest.mark.parametrize("layout", [ACROSS, ALONG, DOWN])
def test_put_and_its_complement_in_every_layout(layout: int) -> None:
    a = drawn(5)
    slots = [Slot(0, 8, layout, 5), Slot(20, 8, layout, 8)]
    for flags, want in ((0, a << 2), (NOT, (31 - a) << 2)):
        words = [Word(isa.INTO, 1, 8), Word(isa.PUT, 0, 8, 2, flags)]
        assert (run(words, slots, {0: a}, 1) == want).all()


@pytest.mark.parametrize("flags", [0, NOT, DEAD])
@pytest.mark.parametrize(("bits", "shift", "width"), [(4, 0, 9), (4, 3, 10), (1, 0, 9), (8, 0, 9)])
def test_addition_in_place(bits: int, shift: int, width: int, flags: int) -> None:
    a, b = drawn(bits), drawn(8)
    words = [Word(isa.ONTO, 1), Word(isa.ADD, 0, width, shift, flags)]
    added = ((1 << bits) - 1 - a if flags & NOT else a) << shift
    room = (1 << width) - 1 - added
    b = np.minimum(b, room)
    assert (run(words, side_by_side(bits, width), {0: a, 1: b}, 1) == b + added).all()


def test_a_destroyed_operand_cannot_be_read_again() -> None:
    words = [Word(isa.ONTO, 1), Word(isa.ADD, 0, 6, 0, DEAD), Word(isa.ADD, 0, 7)]
    slots = slot_table(side_by_side(4, 8))
    for arrays in engines():
        arrays.store(slots, np.zeros((2, SPAN.lines), np.int64))
        with pytest.raises(VerifyError, match="never written"):
            arrays.run(isa.encoded(words), slots, 1)


@pytest.mark.parametrize("flags", [(0, 0), (0, NOT), (NOT, 0)])
@pytest.mark.parametrize(("one", "two", "shift"), [(4, 4, 0), (4, 6, 0), (6, 3, 2), (3, 3, 5)])
def test_sum_beside_its_operands(one: int, two: int, shift: int, flags: tuple[int, int]) -> None:
    a, b = drawn(one), drawn(two)
    left = (1 << one) - 1 - a if flags[0] else a
    right = (1 << two) - 1 - b if flags[1] else b
    width = max(one, two + shift) + 1
    words = [
        Word(isa.INTO, 2, width),
        Word(isa.HOLD, 0, flags=flags[0]),
        Word(isa.SUM, 1, width, shift, flags[1]),
    ]
    found = run(words, side_by_side(one, two, width), {0: a, 1: b}, 2)
    assert (found == left + (right << shift)).all()


@pytest.mark.parametrize("signed_key", [False, True])
def test_products_of_unsigned_inputs(signed_key: bool) -> None:
    x, w, sum_ = drawn(6), drawn(5), drawn(7)
    start = 11  # keeps the sum positive
    words = [
        Word(isa.ONTO, 2),
        Word(isa.HOLD, 0),
        Word(isa.MUL, 1, 13, 0, NOT if signed_key else 0),
    ]
    factor = signed(w, 5) if signed_key else w
    before = sum_ + (1 << start)
    found = run(words, side_by_side(6, 5, 13), {0: x, 1: w, 2: before}, 2)
    assert (found == before + x * factor).all()


def test_products_of_signed_numbers_wrap() -> None:
    x, w, sum_ = drawn(6), drawn(5), drawn(13)
    words = [Word(isa.ONTO, 2), Word(isa.HOLD, 0), Word(isa.MUL, 1, 13, 0, NOT | DEAD)]
    found = run(words, side_by_side(6, 5, 13), {0: x, 1: w, 2: sum_}, 2)
    assert (found == (sum_ + signed(x, 6) * signed(w, 5)) % (1 << 13)).all()


@pytest.mark.parametrize("opcode", [isa.SADD, isa.SSUB])
def test_signed_addition_in_place(opcode: int) -> None:
    v, acc = drawn(8), drawn(12)
    words = [Word(isa.ONTO, 1), Word(opcode, 0, 12)]
    sign = 1 if opcode == isa.SADD else -1
    found = run(words, side_by_side(8, 12), {0: v, 1: acc}, 1)
    assert (found == (acc + sign * signed(v, 8)) % (1 << 12)).all()


@pytest.mark.parametrize("opcode", [isa.SSUM, isa.SDIFF])
def test_signed_addition_beside(opcode: int) -> None:
    a, b = drawn(8), drawn(5)
    words = [Word(isa.INTO, 2, 12), Word(isa.HOLD, 0), Word(opcode, 1, 12)]
    sign = 1 if opcode == isa.SSUM else -1
    found = run(words, side_by_side(8, 5, 12), {0: a, 1: b}, 2)
    assert (found == (signed(a, 8) + sign * signed(b, 5)) % (1 << 12)).all()


def test_carries_that_take_turns_change_nothing() -> None:
    a, b, c = drawn(4), drawn(4), drawn(4)
    words = [Word(isa.ONTO, 2), Word(isa.ADD, 0, 6), Word(isa.ADD, 1, 7)]
    for carries in (1, 2, 3):
        found = run(words, side_by_side(4, 4, 7), {0: a, 1: b, 2: c}, 2, carries)
        assert (found == a + b + c).all()


def test_maximum_of_all_pairs() -> None:
    a, b = every_pair(4)
    words = [Word(isa.ONTO, 1), Word(isa.MAX, 0, 4)]
    assert (run(words, side_by_side(4, 4), {0: a, 1: b}, 1) == np.maximum(a, b)).all()


def test_comparison_of_all_pairs() -> None:
    a, b = every_pair(4)
    words = [Word(isa.INTO, 2, 1), Word(isa.HOLD, 0), Word(isa.LESS, 1, 4)]
    assert (run(words, side_by_side(4, 4, 1), {0: a, 1: b}, 2) == (a < b)).all()


def test_relu_of_all_numbers() -> None:
    a = np.arange(16)
    words = [Word(isa.ONTO, 0), Word(isa.RELU, 0, 4)]
    found = run(words, side_by_side(4), {0: a}, 0)[:16]
    assert (found == np.maximum(signed(a, 4), 0)).all()


def test_cells_that_were_never_written_are_found() -> None:
    slots = slot_table(side_by_side(4, 8))
    words = isa.encoded([Word(isa.INTO, 1, 8), Word(isa.PUT, 0, 8)])
    for arrays in engines():
        with pytest.raises(VerifyError, match="reads a cell that was never written"):
            arrays.run(words, slots, 1)
        arrays.store(slots[:1], np.zeros((1, SPAN.lines), np.int64))
        arrays.run(words, slots, 1)
        arrays.forget()
        with pytest.raises(VerifyError, match="read-out"):
            arrays.fetch(slots[:1])


def test_two_domains_of_a_column_at_once_are_refused() -> None:
    slots = slot_table([Slot(0, 0, ACROSS, 4), Slot(0, 1, ACROSS, 4), Slot(8, 0, ACROSS, 5)])
    words = isa.encoded([Word(isa.INTO, 2, 5), Word(isa.HOLD, 0), Word(isa.SUM, 1, 5)])
    for arrays in engines():
        arrays.store(slots, np.zeros((3, SPAN.lines), np.int64))
        with pytest.raises(VerifyError, match="two domains of one column at once"):
            arrays.run(words, slots, 1)


def test_words_that_reach_outside_the_array_are_refused() -> None:
    """A damaged program must not touch memory that is no cell."""
    table = slot_table([Slot(SPAN.columns - 2, 0, ACROSS, 8), Slot(0, 0, ACROSS, 8)])
    for word in (Word(isa.INTO, 0, 8), Word(isa.INTO, 9, 8)):
        arrays = PackedArrays(SPAN)
        with pytest.raises(VerifyError, match="needs cells outside the array"):
            arrays.run(isa.encoded([word]), table, 1)
