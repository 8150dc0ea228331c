"""The fast engine: column operations on 64 rows at a time, pass by pass.

Cells are rows of 64-bit words, `cells[column * domains + domain, word]`, one bit per array row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.targets.rtm_ap import expand_kernels
from cimc.targets.rtm_ap.expand_kernels import (
    CLASH,
    FILES,
    FORGET,
    FRESH,
    MAX_STEPS,
    WRITE_0,
    WRITE_1,
    Codes,
    Ints,
    Number,
    cell_of,
    expand,
)

_FILES = (__file__, expand_kernels.__file__, *FILES)
njit, njit_inner = jit.compiler(*_FILES), jit.compiler(*_FILES, inner=True)
Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]


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
    NO_DST, NO_HELD, BAD_OPCODE, CLASH (two domains of one column at once). `counts`: cells
    searched, driven and changed, in all rows.
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
            if table == FORGET:
                valid[steps[s, 1]] = False
                continue
            if table in (WRITE_0, WRITE_1):
                cell = steps[s, 4]
                _write(cells[cell], every, 0 if table == WRITE_0 else 1, counts, counting)
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


@njit
def store(cells: Words, valid: Flags, slots: Codes, values: Ints, domains: int) -> None:
    """Write values[slots, lines] into the slots' cells."""
    words = cells.shape[1]
    for place in range(len(slots)):
        slot = np.int64(slots[place])
        for bit in range(slot >> 22 & 0x3F):
            cell = cell_of(slot, bit, domains)
            valid[cell] = True
            for word in range(words):
                packed = np.uint64(0)
                for line in range(64):
                    one = np.uint64(values[place, word * 64 + line] >> bit & 1)
                    packed |= one << np.uint64(line)
                cells[cell, word] = packed


@njit
def fetch(cells: Words, valid: Flags, slots: Codes, values: Ints, domains: int) -> Number:
    """Add the slots' cells to values[slots, lines]; returns a cell that holds nothing, or -1."""
    for place in range(len(slots)):
        slot = np.int64(slots[place])
        for bit in range(slot >> 22 & 0x3F):
            cell = cell_of(slot, bit, domains)
            if not valid[cell]:
                return cell
            for word in range(cells.shape[1]):
                packed = cells[cell, word]
                for line in range(64):
                    one = np.int64(packed >> np.uint64(line) & np.uint64(1))
                    values[place, word * 64 + line] |= one << bit
    return -1
