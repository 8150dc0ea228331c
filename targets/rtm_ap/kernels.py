"""Fast twins of the controller, of the plain engine and of its prices.

Cells are rows of 64-bit words, `cells[column * domains + domain, word]`, one bit per array row. Steps
are rows of integers: table, cell of A, B, C, R (-1: none), invert, cycle.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.targets.rtm_ap import isa, pass_tables
from cimc.targets.rtm_ap.pass_tables import NAMES, TABLES, work

_FILES = (__file__, isa.__file__, pass_tables.__file__)
njit, njit_inner = jit.compiler(*_FILES), jit.compiler(*_FILES, inner=True)
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Codes = NDArray[np.uint32]
Flags = NDArray[np.bool_]

MAX_STEPS = 64 * 64 + 8
_INTO, _ONTO, _PUT, _ADD, _HOLD = isa.INTO, isa.ONTO, isa.PUT, isa.ADD, isa.HOLD
_SUM, _ONE, _MUL, _SADD, _SSUB = isa.SUM, isa.ONE, isa.MUL, isa.SADD, isa.SSUB
_SSUM, _SDIFF, _RELU, _MAX, _LESS = isa.SSUM, isa.SDIFF, isa.RELU, isa.MAX, isa.LESS
_ACROSS, _ALONG = isa.ACROSS, isa.ALONG
_WRITE_0, _WRITE_1, _FORGET = isa.WRITE_0, isa.WRITE_1, isa.FORGET
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

# what a controller remembers between words: words so far, dst slot, held slot, held inverted
FRESH = (0, -1, -1, 0)
NO_DST, NO_HELD, BAD_OPCODE, CLASH = -1, -2, -3, -4  # why a word cannot run


@cache
def packed_tables() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Passes per table; search and write keys [table, pass, role] with 2 for none."""
    codes = {"0": 0, "1": 1, "-": 2}
    longest = max(len(table.passes) for table in TABLES.values())
    counts = np.array([len(table.passes) for table in TABLES.values()])
    keys = np.full((2, len(TABLES), longest, 4), 2)
    for place, table in enumerate(TABLES.values()):
        for number, step in enumerate(table.passes):
            keys[0, place, number] = [codes[key] for key in step.search]
            keys[1, place, number] = [codes[key] for key in step.write]
    return counts, keys[0], keys[1]


@cache
def packed_work() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Per table (passes, searched cells), and (written, changed in A, B, C, R) per row."""
    found = [work(table) for table in TABLES.values()]
    fixed = np.array([(item.passes, item.searched) for item in found])
    return fixed, np.array([(item.written, *item.changed_by_role) for item in found])


@njit_inner
def _cell(slot: int, bit: int, domains: int) -> int:
    column, domain = slot & 0xFFF, slot >> 12 & 0xFF
    layout = slot >> 20 & 3
    if layout == _ACROSS:
        return (column + bit) * domains + domain
    if layout == _ALONG:
        return column * domains + domain + bit
    return column * domains + domain - bit


@njit_inner
def _put(
    steps: Ints, count: int, table: int, a: int, b: int, c: int, r: int, invert: int, cycle: int
) -> int:
    steps[count, 0] = table
    steps[count, 1] = a
    steps[count, 2] = b
    steps[count, 3] = c
    steps[count, 4] = r
    steps[count, 5] = invert
    steps[count, 6] = cycle
    return count + 1


@njit
def expand(
    code: int, slots: Codes, memory: Ints, columns: int, domains: int, carries: int, steps: Ints
) -> int:
    """The steps of one word, as `isa.Controller` has them; returns how many, or why not (< 0).

    `memory` is the controller's: words so far, dst, held, held inverted.
    """
    opcode, width, shift = code & 0x1F, code >> 5 & 0x3F, code >> 11 & 0x1F
    invert, dead, name = code >> 16 & 1, code >> 17 & 1, code >> 18
    slot = np.int64(slots[name])
    bits = slot >> 22 & 0x3F
    carry = (columns - 1 - memory[0] % carries) * domains
    memory[0] += 1
    n = 0
    if opcode == _INTO or opcode == _ONTO:
        memory[1] = name
        if opcode == _INTO:
            together = slot >> 20 & 3 == _ACROSS
            for bit in range(width):
                cycle = 0 if together and bit > 0 else 1
                n = _put(steps, n, _WRITE_0, -1, -1, -1, _cell(slot, bit, domains), 0, cycle)
        return n
    if opcode == _HOLD:
        memory[2], memory[3] = name, invert
        return n
    if memory[1] < 0:
        return NO_DST
    dst = np.int64(slots[memory[1]])
    if opcode == _PUT:
        for bit in range(min(bits, width - shift)):
            a, r = _cell(slot, bit, domains), _cell(dst, shift + bit, domains)
            n = _put(steps, n, _COPY, a, -1, -1, r, invert, 1)
        return n
    if opcode == _ADD:
        last = width - 1 - shift
        for bit in range(last + 1):
            b = _cell(dst, shift + bit, domains)
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
            n = _put(steps, n, table, _cell(slot, bit, domains), b, carry, -1, invert, 1)
        if dead:
            for bit in range(bits):
                n = _put(steps, n, _FORGET, _cell(slot, bit, domains), -1, -1, -1, 0, 1)
        return n
    if opcode == _ONE:
        return _put(steps, n, _WRITE_1, -1, -1, -1, _cell(dst, shift, domains), 0, 1)
    if opcode == _SADD or opcode == _SSUB:
        for bit in range(width):
            a, b = _cell(slot, min(bit, bits - 1), domains), _cell(dst, bit, domains)
            if opcode == _SADD:
                table = _ADD_FIRST if bit == 0 else _ADD_BIT
            else:
                table = _SUB_FIRST if bit == 0 else _SUB_BIT
            n = _put(steps, n, table, a, b, carry, -1, 0, 1)
        return _put(steps, n, _WRITE_0, -1, -1, -1, carry, 0, 1)
    if opcode == _RELU:
        for bit in range(width):
            b, r = _cell(dst, bit, domains), _cell(dst, width - 1, domains)
            n = _put(steps, n, _CLEAR_KEYED, -1, b, -1, r, 0, 1)
        return n
    if opcode == _MAX:
        for bit in range(width):
            a, b = _cell(dst, bit, domains), _cell(slot, bit, domains)
            n = _put(steps, n, _LESS_BIT, a, b, carry, -1, 0, 1)
        for bit in range(width):
            a, b = _cell(slot, bit, domains), _cell(dst, bit, domains)
            n = _put(steps, n, _COPY_KEYED, a, b, carry, -1, 0, 1)
        return _put(steps, n, _WRITE_0, -1, -1, -1, carry, 0, 1)
    if opcode > _LESS:
        return BAD_OPCODE
    if memory[2] < 0:
        return NO_HELD
    held = np.int64(slots[memory[2]])
    held_bits = held >> 22 & 0x3F
    if opcode == _SUM:
        running = False
        for bit in range(width):
            r, low = _cell(dst, bit, domains), bit - shift
            has_a, has_b = bit < held_bits, 0 <= low < bits
            a, b = _cell(held, bit, domains), _cell(slot, low, domains)
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
            key, low = _cell(slot, place, domains), shift + place
            subtract = invert == 1 and place == bits - 1
            for bit in range(width - low):
                b = _cell(dst, low + bit, domains)
                if bit < held_bits or dead:
                    a = _cell(held, min(bit, held_bits - 1), domains)
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
                n = _put(steps, n, _WRITE_0, -1, -1, -1, carry, 0, 1)
        return n
    if opcode == _LESS:
        for bit in range(width):
            a, b = _cell(held, bit, domains), _cell(slot, bit, domains)
            n = _put(steps, n, _LESS_BIT, a, b, carry, -1, 0, 1)
        return _put(steps, n, _CARRY_OUT, -1, -1, carry, _cell(dst, 0, domains), 0, 1)
    for bit in range(width):
        a, b = _cell(held, min(bit, held_bits - 1), domains), _cell(slot, min(bit, bits - 1), domains)
        if opcode == _SSUM:
            table = _SUM_FIRST if bit == 0 else _SUM_BIT
        else:
            table = _DIFF_FIRST if bit == 0 else _DIFF_BIT
        n = _put(steps, n, table, a, b, carry, _cell(dst, bit, domains), 0, 1)
    return _put(steps, n, _WRITE_0, -1, -1, -1, carry, 0, 1)


@njit_inner
def _ones(x: np.uint64) -> np.uint64:
    """Set bits of a 64-bit word."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit_inner
def _write(row: Words, tag: Words, bit: int, counts: Ints, counting: bool) -> None:
    """Drive `bit` into the tagged rows of one column."""
    if counting:
        written, changed = np.uint64(0), np.uint64(0)
        for w in range(len(row)):
            differs = tag[w] & (~row[w] if bit == 1 else row[w])
            written += _ones(tag[w])
            changed += _ones(differs)
        counts[1] += np.int64(written)
        counts[2] += np.int64(changed)
    if bit == 1:
        for w in range(len(row)):
            row[w] |= tag[w]
    else:
        for w in range(len(row)):
            row[w] &= ~tag[w]


@njit
def run_code(
    code: Codes,
    slots: Codes,
    cells: Words,
    valid: Flags,
    columns: int,
    domains: int,
    carries: int,
    passes: Ints,
    search: Ints,
    write: Ints,
    counts: Ints,
    counting: bool,
) -> tuple[int, int]:
    """Execute words pass by pass on all rows of `cells`.

    Returns (-1, 0), or the word that cannot run and why: a cell that was never written (>= 0), or
    NO_DST, NO_HELD, BAD_OPCODE, CLASH (two domains of one column at once). `counts`: cells searched, driven and changed, in all rows.
    """
    memory = np.array(FRESH)
    steps = np.empty((MAX_STEPS, 7), np.int64)
    length = cells.shape[1]
    tag = np.empty(length, np.uint64)
    every = np.full(length, ~np.uint64(0))
    for place in range(carries):
        carry = (columns - 1 - place) * domains
        _write(cells[carry], every, 0, counts, counting)
        valid[carry] = True
    for number in range(len(code)):
        n = expand(np.int64(code[number]), slots, memory, columns, domains, carries, steps)
        if n < 0:
            return number, n
        for s in range(n):
            table = steps[s, 0]
            if table == _FORGET:
                valid[steps[s, 1]] = False
                continue
            if table == _WRITE_0 or table == _WRITE_1:
                cell = steps[s, 4]
                _write(cells[cell], every, 0 if table == _WRITE_0 else 1, counts, counting)
                valid[cell] = True
                continue
            for role in range(4):
                cell = steps[s, 1 + role]
                if cell < 0:
                    continue
                if not valid[cell]:
                    return number, cell
                for other in range(role):
                    near = steps[s, 1 + other]
                    if near >= 0 and near != cell and near // domains == cell // domains:
                        return number, CLASH
            for p in range(passes[table]):
                first = True
                for role in range(4):
                    key = search[table, p, role]
                    if key == 2:
                        continue
                    row = cells[steps[s, 1 + role]]
                    straight = key != (steps[s, 5] >> role & 1)
                    if counting:
                        counts[0] += length * 64
                    if first and straight:
                        for w in range(length):
                            tag[w] = row[w]
                    elif first:
                        for w in range(length):
                            tag[w] = ~row[w]
                    elif straight:
                        for w in range(length):
                            tag[w] &= row[w]
                    else:
                        for w in range(length):
                            tag[w] &= ~row[w]
                    first = False
                for role in range(4):
                    bit = write[table, p, role]
                    if bit != 2:
                        _write(cells[steps[s, 1 + role]], tag, bit, counts, counting)
    return -1, 0


@njit_inner
def _move(head: Ints, column: int, domain: int, domains: int, ports: int, eager: bool) -> int:
    """Steps that a column's tracks take to bring `domain` under its nearest port."""
    best = np.int64(1) << 40
    target = 0
    for port in range(ports):
        wanted = domain - port * domains // ports
        steps = abs(wanted - head[column])
        if steps < best:
            best, target = steps, wanted
    if eager:
        return 2 * best
    head[column] = target
    return best


@njit
def price_code(
    code: Codes,
    slots: Codes,
    memory: Ints,
    columns: int,
    domains: int,
    carries: int,
    ports: int,
    eager: bool,
    fixed: Ints,
    expected: Floats,
    head: Ints,
    wear: Floats,
) -> Floats:
    """What words cost per row, without executing them.

    Returns passes, plain writes, searched cells, written cells, changed cells (expected), shift
    steps in time, shift steps of all tracks of a row; NaN where a word cannot be decoded. `head`: how
    far each column is shifted, kept between calls; `wear`: expected changes of each cell, added to.
    """
    totals = np.zeros(7)
    steps = np.empty((MAX_STEPS, 7), np.int64)
    touched = np.full(columns, -1)
    for number in range(len(code)):
        n = expand(np.int64(code[number]), slots, memory, columns, domains, carries, steps)
        if n < 0:
            totals[:] = np.nan
            return totals
        ahead = 0  # all columns find their first cell of the word side by side
        for s in range(n):
            table = steps[s, 0]
            if table == _FORGET:
                continue
            within = 0
            for role in range(4):
                cell = steps[s, 1 + role]
                if cell < 0:
                    continue
                column = cell // domains
                moved = _move(head, column, cell % domains, domains, ports, eager)
                totals[6] += moved
                if touched[column] == number:
                    within = max(within, moved)
                else:
                    touched[column] = number
                    ahead = max(ahead, moved)
            totals[5] += within
            if table == _WRITE_0 or table == _WRITE_1:
                totals[1] += steps[s, 6]
                totals[3] += 1
                totals[4] += 0.5
                wear[steps[s, 4]] += 0.5
                continue
            totals[0] += fixed[table, 0]
            totals[2] += fixed[table, 1]
            totals[3] += expected[table, 0]
            for role in range(4):
                cell = steps[s, 1 + role]
                if cell >= 0:
                    totals[4] += expected[table, 1 + role]
                    wear[cell] += expected[table, 1 + role]
        totals[5] += ahead
    return totals


@njit
def store(cells: Words, valid: Flags, slots: Codes, values: Ints, domains: int) -> None:
    """Write values[slots, lines] into the slots' cells."""
    words = cells.shape[1]
    for place in range(len(slots)):
        slot = np.int64(slots[place])
        for bit in range(slot >> 22 & 0x3F):
            cell = _cell(slot, bit, domains)
            valid[cell] = True
            for word in range(words):
                packed = np.uint64(0)
                for line in range(64):
                    one = np.uint64(values[place, word * 64 + line] >> bit & 1)
                    packed |= one << np.uint64(line)
                cells[cell, word] = packed


@njit
def fetch(cells: Words, valid: Flags, slots: Codes, values: Ints, domains: int) -> int:
    """Add the slots' cells to values[slots, lines]; returns a cell that holds nothing, or -1."""
    for place in range(len(slots)):
        slot = np.int64(slots[place])
        for bit in range(slot >> 22 & 0x3F):
            cell = _cell(slot, bit, domains)
            if not valid[cell]:
                return cell
            for word in range(cells.shape[1]):
                packed = cells[cell, word]
                for line in range(64):
                    one = np.int64(packed >> np.uint64(line) & np.uint64(1))
                    values[place, word * 64 + line] |= one << bit
    return -1
