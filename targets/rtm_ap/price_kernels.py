"""What column operations cost, counted step by step without executing them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.targets.rtm_ap import expand_kernels, shift_kernels
from cimc.targets.rtm_ap.expand_kernels import (
    FILES,
    FORGET,
    MAX_STEPS,
    WRITE_0,
    WRITE_1,
    Codes,
    Ints,
    Number,
    expand,
)
from cimc.targets.rtm_ap.shift_kernels import checks, move

njit = jit.compiler(__file__, expand_kernels.__file__, shift_kernels.__file__, *FILES)
Floats = NDArray[np.float64]


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
    period: int,
    fixed: Ints,
    expected: Floats,
    head: Ints,
    since: Ints,
    wear: Floats,
) -> Floats:
    """What words cost per row, without executing them.

    Returns passes, plain writes, searched cells, written cells, changed cells (expected), shift
    steps in time, shift steps of all tracks of a row, checks of their alignment; NaN where a word
    cannot be decoded. Kept between calls: `head`, how far each column is shifted, `since`, its
    steps since its tracks were checked (every `period` steps; 0: never), and `wear`, expected
    changes of each cell, added to.
    """
    totals = np.zeros(8)
    steps = np.empty((MAX_STEPS, 7), np.int64)
    touched = np.full(columns, -1)
    for number in range(len(code)):
        n = expand(np.int64(code[number]), slots, memory, columns, domains, carries, steps)
        if n < 0:
            totals[:] = np.nan
            return totals
        ahead: Number = 0  # all columns find their first cell of the word side by side
        for s in range(n):
            table = steps[s, 0]
            if table == FORGET:
                continue
            within: Number = 0
            for role in range(4):
                cell = steps[s, 1 + role]
                if cell < 0:
                    continue
                column = cell // domains
                moved = move(head, column, cell % domains, domains, ports, eager)
                totals[6] += moved
                totals[7] += checks(since, column, moved, period)
                if touched[column] == number:
                    within = max(within, moved)
                else:
                    touched[column] = number
                    ahead = max(ahead, moved)
            totals[5] += within
            if table in (WRITE_0, WRITE_1):
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
def wear_code(
    code: Codes,
    slots: Codes,
    memory: Ints,
    columns: int,
    domains: int,
    carries: int,
    expected: Floats,
    wear: Floats,
) -> None:
    """Add the expected changes of each cell by some words to `wear`, as `price_code` does."""
    steps = np.empty((MAX_STEPS, 7), np.int64)
    for number in range(len(code)):
        n = expand(np.int64(code[number]), slots, memory, columns, domains, carries, steps)
        for s in range(n):
            table = steps[s, 0]
            if table == FORGET:
                continue
            if table in (WRITE_0, WRITE_1):
                wear[steps[s, 4]] += 0.5
                continue
            for role in range(4):
                cell = steps[s, 1 + role]
                if cell >= 0:
                    wear[cell] += expected[table, 1 + role]
