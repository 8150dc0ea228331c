"""Column operations as 32-bit words, and the passes that each one is.

A controller holds a table of slots (where a value lies), the slot that results go to and a second
operand. A word is one operation over whole columns, bit-serial, lowest bit first:

    into s   clear the cells of slot s, results go there    put s    s, to cleared cells
    onto s   results go to slot s, on top of its content    add s    in place, from bit `shift` on
    hold s   s is the first operand of sum, mul ...         sum s    held + s, to cleared cells

    relu     0 where the result is negative                 max s    the larger of the result and s
    less s   1 where held < s                               lessk k  1 where held < k
    atleast k, atmost k   the result, where it is not less (more) than k, else k
    neg s    -s, to cleared cells                           negate   the result becomes its negative

    word   opcode:5 | width:6 | shift:5 | flags:2 | slot:14      (from bit 0 up)
    slot   column:12 | domain:8 | layout:2 | bits:6

Layouts: "across" has bit i in column + i, all in one domain (no shift between bits); "along" has
bit i in domain + i of one column; "down" has it in domain - i. Operands of one word lie in
different columns. The carry has a column of its own; the last columns of an array take turns.

Numbers are unsigned and results fit `width` (the compiler proves it), so the carry is 0 after every
word. NOT takes the complement of the operand within its bits: 2**bits - 1 - value. The signed words
(sadd, ssub, ssum, sdiff) extend two's complement operands and wrap; they clear the carry at last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.errors import InternalError
from cimc.targets.rtm_ap.pass_tables import NAMES

OPCODES = (
    "into", "onto", "put", "add", "hold", "sum", "one", "mul",
    "sadd", "ssub", "ssum", "sdiff", "relu", "max", "less", "neg", "negate",
    "lessk", "atleast", "atmost",
)  # fmt: skip
INTO, ONTO, PUT, ADD, HOLD, SUM, ONE, MUL, SADD, SSUB, SSUM, SDIFF, RELU, MAX, LESS = range(15)
NEG, NEGATE, LESSK, ATLEAST, ATMOST = range(15, 20)
FIRST_WITH_CONSTANT = LESSK  # from here on opcodes have a constant in place of a slot
ACROSS, ALONG, DOWN = range(3)
LAYOUTS = ("across", "along", "down")
NOT = 1  # flag: the operand is complemented; with mul: the key is two's complement
DEAD = 2  # flag: the operand may be destroyed; with mul: the held operand is two's complement
NO_DST, NO_HELD, BAD_OPCODE, CLASH, OUTSIDE = -1, -2, -3, -4, -5  # why a word cannot run
MAX_SLOTS, MAX_COLUMNS, MAX_DOMAINS, MAX_BITS = 1 << 14, 1 << 12, 1 << 8, 63

WRITE_0, WRITE_1, FORGET = len(NAMES), len(NAMES) + 1, len(NAMES) + 2  # steps that are no tables
Code = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a value lies."""

    column: int
    domain: int
    layout: int
    bits: int

    def cell(self, bit: int) -> tuple[int, int]:
        """Column and domain of one bit."""
        if self.layout == ACROSS:
            return self.column + bit, self.domain
        return self.column, self.domain + (bit if self.layout == ALONG else -bit)

    @property
    def code(self) -> int:
        """The slot as a table entry."""
        return self.column | self.domain << 12 | self.layout << 20 | self.bits << 22

    def __str__(self) -> str:
        last = self.cell(max(0, self.bits - 1))
        return f"{self.column}.{self.domain}..{last[0]}.{last[1]}"


BITS_AT, WIDTH_AT, SLOT_AT = 22, 5, 18  # where entries hold the width, words width and slot


def slot_codes(
    columns: NDArray[np.int64], domains: NDArray[np.int64], layout: int, bits: int
) -> Code:
    """Table entries of many slots at once."""
    found = columns | domains << 12 | layout << 20 | bits << BITS_AT
    return np.asarray(found, np.int64).astype(np.uint32)


def slot_of(code: int) -> Slot:
    """A table entry as a slot."""
    return Slot(code & 0xFFF, code >> 12 & 0xFF, code >> 20 & 3, code >> 22 & 0x3F)


@dataclass(frozen=True, slots=True)
class Word:
    """One column operation."""

    opcode: int
    slot: int = 0
    width: int = 0
    shift: int = 0
    flags: int = 0

    @property
    def code(self) -> int:
        """The word as the controller reads it."""
        low = self.opcode | self.width << 5 | self.shift << 11
        return low | self.flags << 16 | self.slot << 18

    def __str__(self) -> str:
        flag = {0: "", NOT: " not", DEAD: " dead", NOT | DEAD: " not dead"}[self.flags]
        shift = f" << {self.shift}" if self.shift else ""
        width = f" : {self.width}" if self.width else ""
        return f"{OPCODES[self.opcode]}{flag} {self.slot}{shift}{width}"


def word_of(code: int) -> Word:
    """Decode a word."""
    fields = code & 0x1F, code >> 18, code >> 5 & 0x3F, code >> 11 & 0x1F, code >> 16 & 3
    return Word(*fields)


def encoded(words: Sequence[Word]) -> Code:
    """Words as the array that instructions refer to."""
    return np.array([word.code for word in words], np.uint32)


def slot_table(slots: Sequence[Slot]) -> Code:
    """Slots as the array that instructions refer to."""
    return np.array([slot.code for slot in slots], np.uint32)


def disassembled(code: Code, slots: Code) -> Iterator[str]:
    """One line for each word, with the place of its operand."""
    for item in code.tolist():
        word = word_of(item)
        if word.opcode >= FIRST_WITH_CONSTANT:
            yield str(word)
        else:
            yield f"{word!s:<28} # {slot_of(int(slots[word.slot]))}"


Cell = tuple[int, int]  # column, domain
_NONE: Cell = (-1, -1)


@dataclass(frozen=True, slots=True)
class Step:
    """One bit of a word: a pass table on the cells of A, B, C and R, or a plain write to R.

    `table` is an index into `pass_tables.NAMES`, or WRITE_0, WRITE_1 (all rows get a constant) or
    FORGET (the content of A is gone). `invert`: bit 0 complements A, bit 1 complements B. `cycle`:
    0 where the write happens in the same cycle as the one before it.
    """

    table: int
    a: Cell = _NONE
    b: Cell = _NONE
    c: Cell = _NONE
    r: Cell = _NONE
    invert: int = 0
    cycle: int = 1


_T = {name: place for place, name in enumerate(NAMES)}


class Controller:
    """Turns words into steps: the meaning of the instruction set, in plain Python."""

    def __init__(self, slots: Code, columns: int, carries: int = 1) -> None:
        self.slots = [slot_of(code) for code in slots.tolist()]
        self.carries = [(columns - 1 - place, 0) for place in range(carries)]
        self.count = 0  # words so far: the carry columns take turns
        self.dst = -1
        self.held = -1
        self.held_inverted = 0

    def steps(self, code: int) -> Iterator[Step]:
        """The steps of one word, in order."""
        word = word_of(code)
        slot = self.slots[word.slot if word.opcode < FIRST_WITH_CONSTANT else 0]
        carry = self.carries[self.count % len(self.carries)]
        self.count += 1
        if word.opcode in (INTO, ONTO):
            self.dst = word.slot
            if word.opcode == INTO:
                yield from _cleared(slot, word.width)
        elif word.opcode == HOLD:
            self.held, self.held_inverted = word.slot, word.flags & NOT
        elif word.opcode == ONE:
            yield Step(WRITE_1, r=self._dst().cell(word.shift))
        elif word.opcode < len(OPCODES):
            yield from getattr(self, f"_{OPCODES[word.opcode]}")(word, slot, carry)
        else:
            raise InternalError(f"no column operation has opcode {word.opcode}")

    def _dst(self) -> Slot:
        if self.dst < 0:
            raise InternalError("a column operation comes before `into` or `onto`")
        return self.slots[self.dst]

    def _held(self) -> Slot:
        if self.held < 0:
            raise InternalError("a column operation with two operands comes before `hold`")
        return self.slots[self.held]

    def _put(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        dst = self._dst()
        for bit in range(min(slot.bits, word.width - word.shift)):
            r = dst.cell(word.shift + bit)
            yield Step(_T["copy"], a=slot.cell(bit), r=r, invert=word.flags & NOT)

    def _add(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        dst, last = self._dst(), word.width - 1 - word.shift
        dead = bool(word.flags & DEAD)
        for bit in range(last + 1):
            b = dst.cell(word.shift + bit)
            if bit >= slot.bits:
                table = "ripple-last" if bit == last else "ripple"
                yield Step(_T[table], b=b, c=carry)
                continue
            if bit == 0:
                table = "add-first"
            elif bit == last:
                table = "add-last"
            else:
                table = "add-dead" if dead else "add"
            yield Step(_T[table], slot.cell(bit), b, carry, invert=word.flags & NOT)
        if dead:
            for bit in range(slot.bits):
                yield Step(FORGET, a=slot.cell(bit))

    def _sum(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        dst, held = self._dst(), self._held()
        running = False  # whether the carry can be 1
        for bit in range(word.width):
            r, low = dst.cell(bit), bit - word.shift
            a = held.cell(bit) if bit < held.bits else None
            b = slot.cell(low) if 0 <= low < slot.bits else None
            inverted = (self.held_inverted, word.flags & NOT)
            if a is not None and b is not None:
                table = "sum" if running else "sum-first"
                running = True
                yield Step(_T[table], a, b, carry, r, invert=inverted[0] | inverted[1] << 1)
            elif a is not None or b is not None:
                one = a if a is not None else b
                assert one is not None
                table = "sum-one" if running else "copy"
                yield Step(
                    _T[table],
                    one,
                    c=carry if running else _NONE,
                    r=r,
                    invert=inverted[0] if a is not None else inverted[1],
                )
            elif running:
                running = False
                yield Step(_T["carry-out"], c=carry, r=r)

    def _mul(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        """dst += (held * slot) << shift: one keyed addition for each bit of the slot."""
        dst, held = self._dst(), self._held()
        for place in range(slot.bits):
            key, low = slot.cell(place), word.shift + place
            kind = "sub" if word.flags & NOT and place == slot.bits - 1 else "add"
            for bit in range(word.width - low):
                b = dst.cell(low + bit)
                if bit < held.bits or word.flags & DEAD:
                    a = held.cell(min(bit, held.bits - 1))
                    table = f"keyed-{kind}-first" if bit == 0 else f"keyed-{kind}"
                    yield Step(_T[table], a, b, carry, key)
                else:
                    table = "ripple" if kind == "add" else "ripple-sub"
                    ending = "-last" if low + bit == word.width - 1 else ""
                    yield Step(_T[table + ending], b=b, c=carry)
            if word.flags & DEAD:  # the sum is two's complement and wraps
                yield Step(WRITE_0, r=carry)

    def _sadd(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        yield from self._signed_in_place("add", word, slot, carry)

    def _ssub(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        yield from self._signed_in_place("sub", word, slot, carry)

    def _signed_in_place(self, kind: str, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        for bit in range(word.width):
            a = slot.cell(min(bit, slot.bits - 1))
            table = f"{kind}-first" if bit == 0 else kind
            yield Step(_T[table], a, self._dst().cell(bit), carry)
        yield Step(WRITE_0, r=carry)

    def _ssum(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        yield from self._signed_beside("sum", word, slot, carry)

    def _sdiff(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        yield from self._signed_beside("diff", word, slot, carry)

    def _signed_beside(self, kind: str, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        dst, held = self._dst(), self._held()
        for bit in range(word.width):
            a = held.cell(min(bit, held.bits - 1))
            b = slot.cell(min(bit, slot.bits - 1))
            table = f"{kind}-first" if bit == 0 else kind
            yield Step(_T[table], a, b, carry, dst.cell(bit))
        yield Step(WRITE_0, r=carry)

    def _relu(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        """Clear all bits of dst where its sign bit is set; that one, the key, goes last."""
        dst = self._dst()
        for bit in range(word.width):
            yield Step(_T["clear-keyed"], b=dst.cell(bit), r=dst.cell(word.width - 1))

    def _max(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        """C = dst < slot, then dst = slot where C."""
        dst = self._dst()
        for bit in range(word.width):
            yield Step(_T["less"], dst.cell(bit), slot.cell(bit), carry)
        for bit in range(word.width):
            yield Step(_T["copy-keyed"], slot.cell(bit), dst.cell(bit), carry)
        yield Step(WRITE_0, r=carry)

    def _less(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        """One bit: held < slot."""
        for bit in range(word.width):
            yield Step(_T["less"], self._held().cell(bit), slot.cell(bit), carry)
        yield Step(_T["carry-out"], c=carry, r=self._dst().cell(0))

    def _neg(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        """Complement plus one: the carry comes in as 1."""
        yield Step(WRITE_1, r=carry)
        for bit in range(word.width):
            a = slot.cell(min(bit, slot.bits - 1))
            yield Step(_T["negate"], a, c=carry, r=self._dst().cell(bit))
        yield Step(WRITE_0, r=carry)

    def _negate(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        yield Step(WRITE_1, r=carry)
        for bit in range(word.width):
            yield Step(_T["negate-in-place"], b=self._dst().cell(bit), c=carry)
        yield Step(WRITE_0, r=carry)

    def _lessk(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        """One bit: held < constant."""
        yield from _compared(self._held(), word, 0, carry)
        yield Step(_T["carry-out"], c=carry, r=self._dst().cell(0))

    def _atleast(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        yield from self._clipped(word, 0, carry)

    def _atmost(self, word: Word, slot: Slot, carry: Cell) -> Iterator[Step]:
        yield from self._clipped(word, 1, carry)

    def _clipped(self, word: Word, invert: int, carry: Cell) -> Iterator[Step]:
        """C = dst < constant (inverted: dst > constant), then dst = constant where C."""
        dst = self._dst()
        yield from _compared(dst, word, invert, carry)
        for bit in range(word.width):
            table = "set-keyed" if word.slot >> bit & 1 else "clear-keyed"
            yield Step(_T[table], b=dst.cell(bit), r=carry)
        yield Step(WRITE_0, r=carry)


def _compared(slot: Slot, word: Word, invert: int, carry: Cell) -> Iterator[Step]:
    """Into the carry, lowest bit first: less than the constant; complemented, more than it."""
    for bit in range(word.width):
        one = (word.slot >> bit & 1) != invert
        table = "less-than-1" if one else "less-than-0"
        yield Step(_T[table], slot.cell(bit), c=carry, invert=invert)


def _cleared(slot: Slot, width: int) -> Iterator[Step]:
    """Cells of one domain are cleared in one write, those along a track one after the other."""
    for bit in range(width):
        together = slot.layout == ACROSS and bit > 0
        yield Step(WRITE_0, r=slot.cell(bit), cycle=0 if together else 1)
