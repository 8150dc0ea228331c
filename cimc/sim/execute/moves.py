"""Kernels of the fast engine for instructions that move data: copy, fill, patch.

Each returns True, or False where its plain twin, the instruction's `execute`, has to look:
something is unwritten or outside its buffer, or operands overlap. `pos` holds the instruction's
positions, `idx` is scratch; cells and marks are bytes, `width` of them are an element.
"""

from __future__ import annotations

import numpy as np

from cimc import jit
from cimc.sim.execute import codes
from cimc.sim.execute.codes import APART, SAME_AXES, Bytes, Ints

njit = jit.compiler(__file__, codes.__file__, inner=True)


@njit
def advance(code: Ints, axes: int, n_axes: int, m: int, idx: Ints, pos: Ints) -> None:
    """Move `pos` to the next run: the outer axes as an odometer."""
    for axis in range(n_axes - 2, -1, -1):
        row = axes + axis * (m + 1)
        idx[axis] += 1
        for k in range(m):
            pos[k] += code[row + 1 + k]
        if idx[axis] < code[row]:
            return
        idx[axis] = 0
        for k in range(m):
            pos[k] -= code[row] * code[row + 1 + k]


@njit
def runs_of(code: Ints, axes: int, n_axes: int, m: int, idx: Ints) -> int:
    """Number of runs; clears the odometer."""
    runs = 1
    for axis in range(n_axes - 1):
        runs *= code[axes + axis * (m + 1)]
        idx[axis] = 0
    return runs


@njit
def interval(
    code: Ints, limits: int, first: int, n: int, pos: Ints, inner: int, count: int
) -> tuple[int, int]:
    """Part begin .. end of a run of `count` in which coordinates first .. first+n-1 are allowed."""
    begin, end = 0, count
    for k in range(first, first + n):
        start, step, limit = pos[k], code[inner + 1 + k], code[limits + k - first]
        if step == 0:
            if start < 0 or start >= limit:
                return 0, 0
            continue
        if step < 0:  # mirror the coordinate
            start, step = limit - 1 - start, -step
        begin = max(begin, -(start // step))
        end = min(end, -((start - limit) // step))
    return (begin, end) if begin < end else (0, 0)


@njit
def marked_run(marks: Bytes, width: int, start: int, stride: int, n: int) -> bool:
    """Whether all elements of a run are written."""
    wrong = 0
    if stride == 1:
        seen = marks[start * width : (start + n) * width]
        for i in range(n * width):
            wrong |= seen[i] ^ (width + (i & (width - 1)))
    else:
        for i in range(n):
            for byte in range(width):
                wrong |= marks[(start + i * stride) * width + byte] ^ (width + byte)
    return wrong == 0


@njit
def mark_run(marks: Bytes, width: int, start: int, stride: int, n: int) -> None:
    """Mark all elements of a run."""
    if stride == 1:
        new = marks[start * width : (start + n) * width]
        for i in range(n * width):
            new[i] = width + (i & (width - 1))
    else:
        for i in range(n):
            for byte in range(width):
                marks[(start + i * stride) * width + byte] = width + byte


@njit
def copy_run(cells: Bytes, width: int, d: int, sd: int, s: int, ss: int, n: int) -> None:
    """Copy one run."""
    if sd == 1 and ss == 1:
        source = cells[s * width : (s + n) * width]
        to = cells[d * width : (d + n) * width]
        for i in range(n * width):
            to[i] = source[i]
    elif width == 1:
        for i in range(n):
            cells[d + i * sd] = cells[s + i * ss]
    else:
        for i in range(n):
            for byte in range(width):
                cells[(d + i * sd) * width + byte] = cells[(s + i * ss) * width + byte]


@njit
def fill_run(
    cells: Bytes, marks: Bytes, width: int, value: int, start: int, stride: int, n: int
) -> None:
    """Write and mark one value along one run."""
    for i in range(n):
        for byte in range(width):
            at = (start + i * stride) * width + byte
            cells[at] = np.uint8((value >> (8 * byte)) & 255)
            marks[at] = width + byte


@njit
def apart(code: Ints, at: int, pos: Ints) -> bool:
    """Whether dst and src are one view or share no cell: ends of both, how they lie."""
    dst, src = pos[0], pos[1]
    if code[at + 4] == APART or (code[at + 4] == SAME_AXES and dst == src):
        return True
    below = dst + code[at + 1] < src + code[at + 2]
    above = src + code[at + 3] < dst + code[at]
    return bool(below or above)


@njit
def lies_in(start: int, stride: int, begin: int, end: int, low: int, high: int) -> bool:
    """Whether all elements begin .. end-1 of a run lie in low .. high-1."""
    first, last = start + begin * stride, start + (end - 1) * stride
    return min(first, last) >= low and max(first, last) < high


@njit
def copy(code: Ints, q: int, pos: Ints, idx: Ints, cells: Bytes, marks: Bytes) -> bool:
    """Payload: width, n_axes, m, axes, fill, n_read, n_write, limits, spans of buffers, ends."""
    width, n_axes, m = code[q], code[q + 1], code[q + 2]
    axes = q + 3
    inner = axes + (n_axes - 1) * (m + 1)
    at = inner + m + 1
    value, n_read, n_write, limits = code[at], code[at + 1], code[at + 2], at + 3
    allowed = limits + n_read + n_write
    if not apart(code, allowed + 4, pos):
        return False
    count, sd, ss = code[inner], code[inner + 1], code[inner + 2]
    for _ in range(runs_of(code, axes, n_axes, m, idx)):
        begin, end = interval(code, limits + n_read, 2 + n_read, n_write, pos, inner, count)
        low, high = interval(code, limits, m - n_read - n_write, n_read, pos, inner, count)
        low, high = max(low, begin), min(high, end)
        d, s = pos[0], pos[1]
        if low >= high:
            low = high = begin
        else:
            if not lies_in(s, ss, low, high, code[allowed + 2], code[allowed + 3]):
                return False
            if not marked_run(marks, width, s + low * ss, ss, high - low):
                return False
        if begin < end:
            if not lies_in(d, sd, begin, end, code[allowed], code[allowed + 1]):
                return False
            copy_run(cells, width, d + low * sd, sd, s + low * ss, ss, high - low)
            mark_run(marks, width, d + low * sd, sd, high - low)
            fill_run(cells, marks, width, value, d + begin * sd, sd, low - begin)
            fill_run(cells, marks, width, value, d + high * sd, sd, end - high)
        advance(code, axes, n_axes, m, idx, pos)
    return True


@njit
def fill(code: Ints, q: int, pos: Ints, idx: Ints, cells: Bytes, marks: Bytes) -> bool:
    """Payload: width, n_axes, m, axes, value."""
    width, n_axes, m = code[q], code[q + 1], code[q + 2]
    axes = q + 3
    inner = axes + (n_axes - 1) * (m + 1)
    for _ in range(runs_of(code, axes, n_axes, m, idx)):
        fill_run(cells, marks, width, code[inner + m + 1], pos[0], code[inner + 1], code[inner])
        advance(code, axes, n_axes, m, idx, pos)
    return True


@njit
def patch(code: Ints, q: int, pos: Ints, cells: Bytes, marks: Bytes) -> bool:
    """Payload: count, strides of dst and src, C, H, W, R, S, dilations, fill, ends of dst and src.

    Elements of one byte. Positions: dst, src, first, row, column.
    """
    count, sd, ss = code[q], code[q + 1], code[q + 2]
    channels, height, width = code[q + 3], code[q + 4], code[q + 5]
    rows, columns, down, right = code[q + 6], code[q + 7], code[q + 8], code[q + 9]
    value = np.uint8(code[q + 10] & 255)
    d, base, top, left = pos[0], pos[1], pos[3], pos[4]
    if not apart(code, q + 11, pos):
        return False
    channel, at = pos[2] // (rows * columns), pos[2] % (rows * columns)
    r, s = at // columns, at % columns
    for _ in range(count):
        y, x = top + r * down, left + s * right
        if channel < channels and 0 <= y < height and 0 <= x < width:
            e = base + ss * ((channel * height + y) * width + x)
            if marks[e] != 1:
                return False
            cells[d] = cells[e]
        else:
            cells[d] = value
        marks[d] = 1
        d += sd
        s += 1
        if s == columns:
            s, r = 0, r + 1
            if r == rows:
                r, channel = 0, channel + 1
    return True
