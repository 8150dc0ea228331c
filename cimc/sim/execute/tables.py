"""Kernels of the fast engine for the vector unit's tiles: rescale, lookup, combine.

As in `moves`, False sends the instruction to its plain twin. Element for element they
compute what `cimc.ir.evaluate` does, in the same order and precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.sim.execute import codes, moves, sums
from cimc.sim.execute.codes import (
    ADD,
    APART,
    FUSED_ADD,
    FUSED_MUL,
    MARK32,
    MAX,
    MUL,
    SAME_AXES,
    SUB,
    Cells,
    Int,
    Ints,
)
from cimc.sim.execute.moves import advance, interval, lies_in, runs_of
from cimc.sim.execute.sums import element, marked, width_of

njit = jit.compiler(__file__, codes.__file__, moves.__file__, sums.__file__, inner=True)


@njit
def is_marked(kind: int, e: int, cells: Cells) -> bool:
    """Whether one element is written."""
    width = width_of(kind)
    if width == 4:
        return bool(cells.marks32[e] == MARK32)
    return bool(
        cells.marks[width * e] == width and cells.marks[width * e + width - 1] == 2 * width - 1
    )


@njit
def store(kind: int, e: int, value: Int, cells: Cells) -> None:
    """Write one integer and mark it."""
    width = width_of(kind)
    if width == 1:
        cells.u8[e] = np.uint8(value)
        cells.marks[e] = 1
    elif width == 2:
        cells.u16[e] = np.uint16(value)
        cells.marks[2 * e] = 2
        cells.marks[2 * e + 1] = 3
    else:
        cells.u32[e] = np.uint32(value)
        cells.marks32[e] = MARK32


@njit
def separate(code: Ints, at: int, pos: Ints, n: int) -> bool:
    """Whether the first view shares no byte with the n-1 others, or is the same view as they.

    (width, low end, high end in bytes, how it lies to the first) * n
    """
    first = pos[0] * code[at]
    for k in range(1, n):
        here = at + 4 * k
        start = pos[k] * code[here]
        if code[here + 3] == APART or (code[here + 3] == SAME_AXES and start == first):
            continue
        begins = start + code[here + 1] <= first + code[at + 2]
        if begins and first + code[at + 1] <= start + code[here + 2]:
            return False
    return True


@njit
def rescale(code: Ints, q: int, pos: Ints, idx: Ints, cells: Cells) -> bool:
    """Payload: n_axes, m, axes, n_bounds, limits, low, high of dst, kind of dst, zero, low, high,

    has bias, has shift, has gain, `separate` of dst, acc, multiplier, bias, shift, gain.
    Positions: dst, acc, multiplier, bias or 0, shift or 0, gain or 0, bounds.
    """
    n_axes, m = code[q], code[q + 1]
    axes = q + 2
    inner = axes + (n_axes - 1) * (m + 1)
    limits = inner + m + 2
    n_bounds = code[limits - 1]
    at = limits + n_bounds
    kind, zero, low, high = code[at + 2], code[at + 3], code[at + 4], code[at + 5]
    biased, shifted, gained = code[at + 6], code[at + 7], code[at + 8]
    i32, m32 = cells.i32, cells.marks32
    if not separate(code, at + 9, pos, m - n_bounds):
        return False
    for _ in range(runs_of(code, axes, n_axes, m, idx)):
        begin, end = interval(code, limits, m - n_bounds, n_bounds, pos, inner, code[inner])
        if begin < end and not lies_in(pos[0], code[inner + 1], begin, end, code[at], code[at + 1]):
            return False
        for i in range(begin, end):
            a, f = pos[1] + i * code[inner + 2], pos[2] + i * code[inner + 3]
            if m32[a] != MARK32 or m32[f] != MARK32:
                return False
            total = np.int64(i32[a])
            if gained:
                g = pos[5] + i * code[inner + 6]
                if m32[g] != MARK32:
                    return False
                total *= np.int64(i32[g])
            if biased:
                b = pos[3] + i * code[inner + 4]
                if m32[b] != MARK32:
                    return False
                total += np.int64(i32[b])
            total = np.int64(np.int32(total))
            if shifted:
                s = pos[4] + i * code[inner + 5]
                if m32[s] != MARK32 or i32[s] < 0 or i32[s] > 62:
                    return False
                shift = np.int64(i32[s])
                half = (np.int64(1) << (shift - 1)) if shift > 0 else np.int64(0)
                out = ((total * np.int64(i32[f]) + half) >> shift) + zero
                out = min(max(out, low), high)
            else:
                real = np.float64(np.rint(np.float32(total) * cells.f32[f])) + np.float64(zero)
                if np.isnan(real):
                    return False
                out = np.int64(min(max(real, np.float64(low)), np.float64(high)))
            store(kind, pos[0] + i * code[inner + 1], out, cells)
        advance(code, axes, n_axes, m, idx, pos)
    return True


@njit
def lookup(code: Ints, q: int, pos: Ints, idx: Ints, cells: Cells) -> bool:
    """Payload: n_axes, m, axes, n_bounds, limits, low, high of dst, kinds of dst and src, lowest,

    entries, stride of the table, `separate` of dst, src, table, the table's view as `marked` reads.
    Positions: dst, src, table, bounds.
    """
    n_axes, m = code[q], code[q + 1]
    axes = q + 2
    inner = axes + (n_axes - 1) * (m + 1)
    limits = inner + m + 2
    n_bounds = code[limits - 1]
    at = limits + n_bounds
    kind, source, lowest = code[at + 2], code[at + 3], code[at + 4]
    entries, stride = code[at + 5], code[at + 6]
    if not separate(code, at + 7, pos, m - n_bounds):
        return False
    table = pos[2]
    if not marked(code, at + 19, table, cells.marks, width_of(kind)):
        return False
    for _ in range(runs_of(code, axes, n_axes, m, idx)):
        begin, end = interval(code, limits, m - n_bounds, n_bounds, pos, inner, code[inner])
        if begin < end and not lies_in(pos[0], code[inner + 1], begin, end, code[at], code[at + 1]):
            return False
        for i in range(begin, end):
            s = pos[1] + i * code[inner + 2]
            entry = element(source, cells, s) - lowest
            if not is_marked(source, s, cells) or entry < 0 or entry >= entries:
                return False
            value = element(kind, cells, table + entry * stride)
            store(kind, pos[0] + i * code[inner + 1], value, cells)
        advance(code, axes, n_axes, m, idx, pos)
    return True


@njit
def fma(x: Int, y: np.float32, z: np.float32) -> np.float32:
    """x * y + z rounded once to float32."""
    return np.float32(np.float64(x) * np.float64(y) + np.float64(z))


@njit
def combine(
    code: Ints, q: int, pos: Ints, idx: Ints, reals: NDArray[np.float32], cells: Cells
) -> bool:
    """Payload: n_axes, m, axes, n_bounds, limits, low, high of dst, kinds of dst, a, b, function,

    zeros of a, b, dst, low, high, place in `reals` of the scales, `separate` of dst, a, b.
    Positions: dst, a, b, bounds. Reals: scales of a, b, dst; the fused functions' constants.
    """
    n_axes, m = code[q], code[q + 1]
    axes = q + 2
    inner = axes + (n_axes - 1) * (m + 1)
    limits = inner + m + 2
    n_bounds = code[limits - 1]
    at = limits + n_bounds
    kind, ka, kb, fn = code[at + 2], code[at + 3], code[at + 4], code[at + 5]
    za, zb, zero = code[at + 6], code[at + 7], code[at + 8]
    low, high, scales = np.float64(code[at + 9]), np.float64(code[at + 10]), code[at + 11]
    fa, fb, fo = reals[scales], reals[scales + 1], reals[scales + 2]
    if not separate(code, at + 12, pos, m - n_bounds):
        return False
    for _ in range(runs_of(code, axes, n_axes, m, idx)):
        begin, end = interval(code, limits, m - n_bounds, n_bounds, pos, inner, code[inner])
        if begin < end and not lies_in(pos[0], code[inner + 1], begin, end, code[at], code[at + 1]):
            return False
        for i in range(begin, end):
            a, b = pos[1] + i * code[inner + 2], pos[2] + i * code[inner + 3]
            if not (is_marked(ka, a, cells) and is_marked(kb, b, cells)):
                return False
            x = element(ka, cells, a)
            y = element(kb, cells, b)
            if fn == FUSED_ADD:
                steps = np.float64(np.rint(fma(x, fa, fma(y, fb, fo))))
            elif fn == FUSED_MUL:
                product = np.float32((x - za) * (y - zb))
                steps = np.float64(np.rint(np.float32(product * fa) + np.float32(zero)))
            else:
                u, v = np.float32(x - za) * fa, np.float32(y - zb) * fb
                if fn == ADD:
                    w = u + v
                elif fn == SUB:
                    w = u - v
                elif fn == MUL:
                    w = u * v
                elif fn == MAX:
                    w = max(u, v)
                else:
                    w = min(u, v)
                steps = np.float64(np.rint(np.float32(w / fo))) + np.float64(zero)
            if np.isnan(steps):
                return False
            out = np.int64(min(max(steps, low), high))
            store(kind, pos[0] + i * code[inner + 1], out, cells)
        advance(code, axes, n_axes, m, idx, pos)
    return True
