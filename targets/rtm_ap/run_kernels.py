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
OK = -100  # no cell, and no reason not to run


@njit_inner
def tag_rows(cells: Words, step: Ints, search: Ints, table: int, number: int, tag: Words) -> int:
    """Search all rows for the key of one pass; returns how many cells of a row are compared."""
    compared = 0
    for role in range(4):
        key = search[table, number, role]
        if key == 2:
            continue
        row = cells[step[1 + role]]
        straight = key != (step[5] >> role & 1)
        if compared == 0 and straight:
            for w in range(len(tag)):
                tag[w] = row[w]
        elif compared == 0:
            for w in range(len(tag)):
                tag[w] = ~row[w]
        elif straight:
            for w in range(len(tag)):
                tag[w] &= row[w]
        else:
            for w in range(len(tag)):
                tag[w] &= ~row[w]
        compared += 1
    return compared


@njit_inner
def drive(row: Words, tag: Words, bit: int) -> None:
    """Write `bit` into the tagged rows of one column."""
    if bit == 1:
        for w in range(len(row)):
            row[w] |= tag[w]
    else:
        for w in range(len(row)):
            row[w] &= ~tag[w]


@njit_inner
def readable(step: Ints, valid: Flags, domains: int) -> int:
    """OK, or why the cells of a step cannot be read: one that was never written, or CLASH."""
    for role in range(4):
        cell = step[1 + role]
        if cell < 0:
            continue
        if not valid[cell]:
            return int(cell)
        for other in range(role):
            near = step[1 + other]
            if near >= 0 and near != cell and near // domains == cell // domains:
                return CLASH
    return OK


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
) -> tuple[int, int]:
    """Execute words pass by pass on all rows of `cells`.

    Returns (-1, 0), or the word that cannot run and why: a cell that was never written (>= 0), or
    NO_DST, NO_HELD, BAD_OPCODE, CLASH (two domains of one column at once).
    """
    memory = np.array(FRESH)
    steps = np.empty((MAX_STEPS, 7), np.int64)
    length = cells.shape[1]
    tag = np.empty(length, np.uint64)
    every = np.full(length, ~np.uint64(0))
    for place in range(carries):
        carry = (columns - 1 - place) * domains
        drive(cells[carry], every, 0)
        valid[carry] = True
    for number in range(len(code)):
        n = expand(np.int64(code[number]), slots, memory, columns, domains, carries, steps)
        if n < 0:
            return number, n
        for s in range(n):
            step = steps[s]
            table = step[0]
            if table == FORGET:
                valid[step[1]] = False
                continue
            if table in (WRITE_0, WRITE_1):
                drive(cells[step[4]], every, 0 if table == WRITE_0 else 1)
                valid[step[4]] = True
                continue
            why = readable(step, valid, domains)
            if why != OK:
                return number, why
            for p in range(passes[table]):
                tag_rows(cells, step, search, table, p, tag)
                for role in range(4):
                    bit = write[table, p, role]
                    if bit != 2:
                        drive(cells[step[1 + role]], tag, bit)
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
