"""Column operations as steps: the fast twin of `isa.Controller`.

A step is a row of integers: table, cells of A, B, C and R (column * domains + domain; -1: none),
invert, cycle.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.targets.rtm_ap import isa, pass_tables
from cimc.targets.rtm_ap.pass_tables import NAMES

FILES = (__file__, isa.__file__, pass_tables.__file__)
njit, njit_inner = jit.compiler(*FILES), jit.compiler(*FILES, inner=True)
Ints = NDArray[np.int64]
Codes = NDArray[np.uint32]
Number: TypeAlias = int | np.int64

MAX_STEPS = 64 * 64 + 8
_INTO, _ONTO, _PUT, _ADD, _HOLD = isa.INTO, isa.ONTO, isa.PUT, isa.ADD, isa.HOLD
_SUM, _ONE, _MUL, _SADD, _SSUB = isa.SUM, isa.ONE, isa.MUL, isa.SADD, isa.SSUB
_SSUM, _SDIFF, _RELU, _MAX, _LESS = isa.SSUM, isa.SDIFF, isa.RELU, isa.MAX, isa.LESS
_NEG, _NEGATE, _LESSK = isa.NEG, isa.NEGATE, isa.LESSK
_ATLEAST, _ATMOST, _FIRST_WITH_CONSTANT = isa.ATLEAST, isa.ATMOST, isa.FIRST_WITH_CONSTANT
_ACROSS, _ALONG = isa.ACROSS, isa.ALONG
WRITE_0, WRITE_1, FORGET = isa.WRITE_0, isa.WRITE_1, isa.FORGET
_TABLE = {name: place for place, name in enumerate(NAMES)}
_COPY, _CARRY_OUT, _RIPPLE, _RIPPLE_LAST = (
    _TABLE[name] for name in ("copy", "carry-out", "ripple", "ripple-last")
)
_RIPPLE_SUB, _RIPPLE_SUB_LAST = _TABLE["ripple-sub"], _TABLE["ripple-sub-last"]
_ADD_FIRST, _ADD_BIT, _ADD_LAST, _ADD_DEAD = (
    _TABLE[name] for name in ("add-first", "add", "add-last", "add-dead")
)
_SUB_FIRST, _SUB_BIT = _TABLE["sub-first"], _TABLE["sub"]
_SUM_FIRST, _SUM_BIT, _SUM_ONE = _TABLE["sum-first"], _TABLE["sum"], _TABLE["sum-one"]
_DIFF_FIRST, _DIFF_BIT = _TABLE["diff-first"], _TABLE["diff"]
_KEYED_ADD_FIRST, _KEYED_ADD = _TABLE["keyed-add-first"], _TABLE["keyed-add"]
_KEYED_SUB_FIRST, _KEYED_SUB = _TABLE["keyed-sub-first"], _TABLE["keyed-sub"]
_CLEAR_KEYED, _LESS_BIT, _COPY_KEYED = _TABLE["clear-keyed"], _TABLE["less"], _TABLE["copy-keyed"]
_SET_KEYED, _NEGATE_BIT = _TABLE["set-keyed"], _TABLE["negate"]
_NEGATE_IN_PLACE = _TABLE["negate-in-place"]
_LESS_THAN_0, _LESS_THAN_1 = _TABLE["less-than-0"], _TABLE["less-than-1"]

# what a controller remembers between words: words so far, dst slot, held slot, held inverted
FRESH = (0, -1, -1, 0)
NO_DST, NO_HELD, BAD_OPCODE, CLASH = isa.NO_DST, isa.NO_HELD, isa.BAD_OPCODE, isa.CLASH
OUTSIDE = isa.OUTSIDE


@njit_inner
def cell_of(slot: Number, bit: Number, domains: Number) -> Number:
    """The cell of one bit of a slot."""
    column, domain = slot & 0xFFF, slot >> 12 & 0xFF
    layout = slot >> 20 & 3
    if layout == _ACROSS:
        return (column + bit) * domains + domain
    if layout == _ALONG:
        return column * domains + domain + bit
    return column * domains + domain - bit


@njit_inner
def _least(a: Number, b: Number) -> Number:
    return a if a < b else b


@njit_inner
def _put(
    steps: Ints,
    count: int,
    table: int,
    a: Number,
    b: Number,
    c: Number,
    r: Number,
    invert: Number,
    cycle: int,
) -> int:
    steps[count, 0] = table
    steps[count, 1] = a
    steps[count, 2] = b
    steps[count, 3] = c
    steps[count, 4] = r
    steps[count, 5] = invert
    steps[count, 6] = cycle
    return count + 1


@njit_inner
def _compared(
    slot: Number, constant: Number, width: Number, invert: int, carry: Number, domains: int,
    steps: Ints,
) -> int:  # fmt: skip
    """Into the carry: less than the constant; with the value complemented, more than it."""
    n = 0
    for bit in range(width):
        one = (constant >> bit & 1) != invert
        table = _LESS_THAN_1 if one else _LESS_THAN_0
        n = _put(steps, n, table, cell_of(slot, bit, domains), -1, carry, -1, invert, 1)
    return n


@njit_inner
def _expanded(
    code: Number, slots: Codes, memory: Ints, columns: int, domains: int, carries: int, steps: Ints
) -> int:
    opcode, width, shift = code & 0x1F, code >> 5 & 0x3F, code >> 11 & 0x1F
    invert, dead, name = code >> 16 & 1, code >> 17 & 1, code >> 18
    slot = np.int64(slots[name if opcode < _FIRST_WITH_CONSTANT else 0])
    bits = slot >> 22 & 0x3F
    carry = (columns - 1 - memory[0] % carries) * domains
    memory[0] += 1
    n = 0
    if opcode in (_INTO, _ONTO):
        memory[1] = name
        if opcode == _INTO:
            together = slot >> 20 & 3 == _ACROSS
            for bit in range(width):
                cycle = 0 if together and bit > 0 else 1
                n = _put(steps, n, WRITE_0, -1, -1, -1, cell_of(slot, bit, domains), 0, cycle)
        return n
    if opcode == _HOLD:
        memory[2], memory[3] = name, invert
        return n
    if memory[1] < 0:
        return NO_DST
    dst = np.int64(slots[memory[1]])
    if opcode == _PUT:
        for bit in range(min(bits, width - shift)):
            a, r = cell_of(slot, bit, domains), cell_of(dst, shift + bit, domains)
            n = _put(steps, n, _COPY, a, -1, -1, r, invert, 1)
        return n
    if opcode == _ADD:
        last = width - 1 - shift
        for bit in range(last + 1):
            b = cell_of(dst, shift + bit, domains)
            if bit >= bits:
                table = _RIPPLE_LAST if bit == last else _RIPPLE
                n = _put(steps, n, table, -1, b, carry, -1, 0, 1)
                continue
            if bit == 0:
                table = _ADD_FIRST
            elif bit == last:
                table = _ADD_LAST
            else:
                table = _ADD_DEAD if dead else _ADD_BIT
            n = _put(steps, n, table, cell_of(slot, bit, domains), b, carry, -1, invert, 1)
        if dead:
            for bit in range(bits):
                n = _put(steps, n, FORGET, cell_of(slot, bit, domains), -1, -1, -1, 0, 1)
        return n
    if opcode == _ONE:
        return _put(steps, n, WRITE_1, -1, -1, -1, cell_of(dst, shift, domains), 0, 1)
    if opcode in (_SADD, _SSUB):
        for bit in range(width):
            a, b = cell_of(slot, _least(bit, bits - 1), domains), cell_of(dst, bit, domains)
            if opcode == _SADD:
                table = _ADD_FIRST if bit == 0 else _ADD_BIT
            else:
                table = _SUB_FIRST if bit == 0 else _SUB_BIT
            n = _put(steps, n, table, a, b, carry, -1, 0, 1)
        return _put(steps, n, WRITE_0, -1, -1, -1, carry, 0, 1)
    if opcode == _RELU:
        for bit in range(width):
            b, r = cell_of(dst, bit, domains), cell_of(dst, width - 1, domains)
            n = _put(steps, n, _CLEAR_KEYED, -1, b, -1, r, 0, 1)
        return n
    if opcode == _MAX:
        for bit in range(width):
            a, b = cell_of(dst, bit, domains), cell_of(slot, bit, domains)
            n = _put(steps, n, _LESS_BIT, a, b, carry, -1, 0, 1)
        for bit in range(width):
            a, b = cell_of(slot, bit, domains), cell_of(dst, bit, domains)
            n = _put(steps, n, _COPY_KEYED, a, b, carry, -1, 0, 1)
        return _put(steps, n, WRITE_0, -1, -1, -1, carry, 0, 1)
    if opcode in (_NEG, _NEGATE):
        n = _put(steps, n, WRITE_1, -1, -1, -1, carry, 0, 1)
        for bit in range(width):
            if opcode == _NEG:
                a, r = cell_of(slot, _least(bit, bits - 1), domains), cell_of(dst, bit, domains)
                n = _put(steps, n, _NEGATE_BIT, a, -1, carry, r, 0, 1)
            else:
                b = cell_of(dst, bit, domains)
                n = _put(steps, n, _NEGATE_IN_PLACE, -1, b, carry, -1, 0, 1)
        return _put(steps, n, WRITE_0, -1, -1, -1, carry, 0, 1)
    if opcode in (_ATLEAST, _ATMOST):
        n = _compared(dst, name, width, 1 if opcode == _ATMOST else 0, carry, domains, steps)
        for bit in range(width):
            table = _SET_KEYED if name >> bit & 1 == 1 else _CLEAR_KEYED
            n = _put(steps, n, table, -1, cell_of(dst, bit, domains), -1, carry, 0, 1)
        return _put(steps, n, WRITE_0, -1, -1, -1, carry, 0, 1)
    if opcode > _ATMOST:
        return BAD_OPCODE
    if memory[2] < 0:
        return NO_HELD
    held = np.int64(slots[memory[2]])
    held_bits = held >> 22 & 0x3F
    if opcode == _LESSK:
        n = _compared(held, name, width, 0, carry, domains, steps)
        return _put(steps, n, _CARRY_OUT, -1, -1, carry, cell_of(dst, 0, domains), 0, 1)
    if opcode == _SUM:
        running = False
        for bit in range(width):
            r, low = cell_of(dst, bit, domains), bit - shift
            has_a, has_b = bit < held_bits, 0 <= low < bits
            a, b = cell_of(held, bit, domains), cell_of(slot, low, domains)
            if has_a and has_b:
                table = _SUM_BIT if running else _SUM_FIRST
                running = True
                n = _put(steps, n, table, a, b, carry, r, memory[3] | invert << 1, 1)
            elif has_a or has_b:
                table = _SUM_ONE if running else _COPY
                one, flip = (a, memory[3]) if has_a else (b, invert)
                n = _put(steps, n, table, one, -1, carry if running else -1, r, flip, 1)
            elif running:
                running = False
                n = _put(steps, n, _CARRY_OUT, -1, -1, carry, r, 0, 1)
        return n
    if opcode == _MUL:
        for place in range(bits):
            key, low = cell_of(slot, place, domains), shift + place
            subtract = invert == 1 and place == bits - 1
            for bit in range(width - low):
                b = cell_of(dst, low + bit, domains)
                if bit < held_bits or dead:
                    a = cell_of(held, _least(bit, held_bits - 1), domains)
                    if subtract:
                        table = _KEYED_SUB_FIRST if bit == 0 else _KEYED_SUB
                    else:
                        table = _KEYED_ADD_FIRST if bit == 0 else _KEYED_ADD
                    n = _put(steps, n, table, a, b, carry, key, 0, 1)
                    continue
                last = low + bit == width - 1
                if subtract:
                    table = _RIPPLE_SUB_LAST if last else _RIPPLE_SUB
                else:
                    table = _RIPPLE_LAST if last else _RIPPLE
                n = _put(steps, n, table, -1, b, carry, -1, 0, 1)
            if dead:
                n = _put(steps, n, WRITE_0, -1, -1, -1, carry, 0, 1)
        return n
    if opcode == _LESS:
        for bit in range(width):
            a, b = cell_of(held, bit, domains), cell_of(slot, bit, domains)
            n = _put(steps, n, _LESS_BIT, a, b, carry, -1, 0, 1)
        return _put(steps, n, _CARRY_OUT, -1, -1, carry, cell_of(dst, 0, domains), 0, 1)
    for bit in range(width):
        a, b = (
            cell_of(held, _least(bit, held_bits - 1), domains),
            cell_of(slot, _least(bit, bits - 1), domains),
        )
        if opcode == _SSUM:
            table = _SUM_FIRST if bit == 0 else _SUM_BIT
        else:
            table = _DIFF_FIRST if bit == 0 else _DIFF_BIT
        n = _put(steps, n, table, a, b, carry, cell_of(dst, bit, domains), 0, 1)
    return _put(steps, n, WRITE_0, -1, -1, -1, carry, 0, 1)


@njit
def expand(
    code: Number, slots: Codes, memory: Ints, columns: int, domains: int, carries: int, steps: Ints
) -> int:
    """The steps of one word, as `isa.Controller` has them; returns how many, or why not (< 0).

    `memory` is the controller's: words so far, dst, held, held inverted.
    """
    if code & 0x1F < _FIRST_WITH_CONSTANT and code >> 18 >= len(slots):
        return OUTSIDE
    n = _expanded(code, slots, memory, columns, domains, carries, steps)
    for s in range(n):
        for role in range(4):
            if not -1 <= steps[s, 1 + role] < columns * domains:
                return OUTSIDE
    return n
