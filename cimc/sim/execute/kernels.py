"""The interpreter of the fast engine: walks the encoded program, stream by stream.

It runs the last stream that can go on until that one waits, ends or signals, and returns to Python
for instructions without a kernel and for everything that went wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.sim.execute import codes, convert, moves, sums, tables
from cimc.sim.execute.codes import (
    ACCUMULATE,
    ASIDE,
    BLOCKED,
    COMBINE,
    CONVERT,
    COPY,
    DONE,
    END,
    FILL,
    FINISHED,
    FIRST,
    LAST,
    LOOKUP,
    LOOP,
    MVM,
    NOT_FIRST,
    PACK,
    PATCH,
    READY,
    RESCALE,
    SIGNAL,
    STALLED,
    STOP,
    WAIT,
    Cells,
    Ints,
)

_FILES = (__file__, *(module.__file__ or "" for module in (codes, moves, sums, tables, convert)))
njit, njit_inner = jit.compiler(*_FILES), jit.compiler(*_FILES, inner=True)


@njit_inner
def holds(code: Ints, at: int, loops: Ints) -> bool:
    """Whether all conditions of an instruction hold: n, (slot, condition, count) * n."""
    for k in range(code[at]):
        slot, condition, count = code[at + 1 + 3 * k], code[at + 2 + 3 * k], code[at + 3 + 3 * k]
        if condition == FIRST:
            ok = loops[slot] == 0
        elif condition == LAST:
            ok = loops[slot] == count - 1
        elif condition == NOT_FIRST:
            ok = loops[slot] != 0
        else:
            ok = loops[slot] != count - 1
        if not ok:
            return False
    return True


@njit_inner
def resolve(code: Ints, at: int, loops: Ints, pos: Ints) -> int:
    """Evaluate an instruction's positions; returns where its payload begins, or -1."""
    n = code[at]
    at += 1
    for k in range(n):
        value = code[at + 3]
        terms = code[at + 4]
        for term in range(terms):
            value += loops[code[at + 5 + 2 * term]] * code[at + 6 + 2 * term]
        if value < code[at + 1] or value > code[at + 2]:
            return -1
        pos[k] = code[at] + value
        at += 5 + 2 * terms
    return at


@njit_inner
def next_stream(states: Ints, waits: Ints, progress: Ints) -> int:
    """The last stream that can go on; -1 if none can."""
    for stream in range(len(states) - 1, -1, -1):
        if states[stream] == BLOCKED and progress[waits[stream, 0]] >= waits[stream, 1]:
            states[stream] = READY
        if states[stream] == READY:
            return stream
    return -1


@njit
def interpret(
    code: Ints,
    reals: NDArray[np.float32],
    pcs: Ints,
    states: Ints,
    waits: Ints,
    loops: Ints,
    progress: Ints,
    versions: Ints,
    packed: Ints,
    planes: NDArray[np.uint64],
    factors: Ints,
    pos: Ints,
    idx: Ints,
    cells: Cells,
) -> tuple[int, int]:
    """Run until all streams have ended, none can go on, or Python has to help.

    returns  (why, stream); `pcs` and `loops` say where each stream is
    """
    while True:
        stream = next_stream(states, waits, progress)
        if stream < 0:
            for state in states:
                if state != FINISHED:
                    return STALLED, 0
            return DONE, 0
        pc, here = pcs[stream], loops[stream]
        while True:
            op = code[pc]
            if op == LOOP:
                here[code[pc + 2]] = 0
                pc += 4
                continue
            if op == END:
                slot = code[pc + 2]
                here[slot] += 1
                pc = code[pc + 1] if here[slot] < code[pc + 3] else pc + 4
                continue
            if op == STOP:
                states[stream] = FINISHED
                break
            at = pc + 4
            if code[at] and not holds(code, at, here):
                pc = code[pc + 1]
                continue
            q = resolve(code, at + 1 + 3 * code[at], here, pos)
            ok = q >= 0
            if not ok:
                pass
            elif op == COPY:
                ok = moves.copy(code, q, pos, idx, cells.u8, cells.marks)
            elif op == MVM:
                ok = sums.mvm(code, q, pos, idx, cells)
            elif op == PATCH:
                ok = moves.patch(code, q, pos, cells.u8, cells.marks)
            elif op == FILL:
                ok = moves.fill(code, q, pos, idx, cells.u8, cells.marks)
            elif op == ACCUMULATE:
                ok = sums.accumulate(code, q, pos, idx, cells)
            elif op == RESCALE:
                ok = tables.rescale(code, q, pos, idx, cells)
            elif op == LOOKUP:
                ok = tables.lookup(code, q, pos, idx, cells)
            elif op == COMBINE:
                ok = tables.combine(code, q, pos, idx, reals, cells)
            elif op == CONVERT:
                row = packed[pos[3]]
                if row[convert.VERSION] != versions[code[q]]:
                    pcs[stream] = pc
                    return PACK, stream
                if row[convert.EXACT]:
                    ok = sums.mvm(code, code[q + 1], pos, idx, cells)
                else:
                    ok = convert.converted(
                        code, q + 2, pos, row, planes, factors,
                        cells,
                    )  # fmt: skip
            elif op == WAIT:
                need = min(pos[0], code[q + 1])
                if progress[code[q]] < need:
                    waits[stream, 0], waits[stream, 1] = code[q], need
                    states[stream] = BLOCKED
                    pcs[stream] = code[pc + 1]
                    break
            elif op == SIGNAL:
                progress[code[q]] += code[q + 1]
                pcs[stream] = code[pc + 1]
                break
            else:
                ok = False
            if not ok:
                pcs[stream] = pc
                return ASIDE, stream
            if code[pc + 3] >= 0:
                versions[code[pc + 3]] += 1
            pc = code[pc + 1]
