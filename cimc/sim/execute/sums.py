"""Kernels of the fast engine for products and sums: mvm and accumulate.

As in `moves`, False sends the instruction to its plain twin.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.sim.execute import codes, moves
from cimc.sim.execute.codes import I8, I16, I32, MARK32, U8, U16, Bytes, Cells, Int, Ints
from cimc.sim.execute.moves import advance, apart, marked_run, runs_of

Byte = TypeVar("Byte", np.int8, np.uint8)
Weight = TypeVar("Weight", np.int8, np.int16)

njit = jit.compiler(__file__, codes.__file__, moves.__file__, inner=True)


@njit
def element(kind: int, cells: Cells, e: int) -> Int:
    """One integer, 64 bits wide."""
    if kind == I8:
        return np.int64(cells.i8[e])
    if kind == U8:
        return np.int64(cells.u8[e])
    if kind == I32:
        return np.int64(cells.i32[e])
    if kind == I16:
        return np.int64(cells.i16[e])
    if kind == U16:
        return np.int64(cells.u16[e])
    return np.int64(cells.u32[e])


@njit
def start_of(code: Ints, at: int, run: int, start: int) -> int:
    """First element of a run of a view: n_axes, (extent, stride) * n_axes."""
    for axis in range(code[at] - 2, -1, -1):
        extent = code[at + 1 + 2 * axis]
        start += (run % extent) * code[at + 2 + 2 * axis]
        run //= extent
    return start


@njit
def runs_in(code: Ints, at: int) -> int:
    """Number of runs of a view."""
    runs = 1
    for axis in range(code[at] - 1):
        runs *= code[at + 1 + 2 * axis]
    return runs


@njit
def marked(code: Ints, at: int, start: int, marks: Bytes, width: int) -> bool:
    """Whether all elements of a view are written."""
    inner = at + 2 * code[at] - 1
    for run in range(runs_in(code, at)):
        first = start_of(code, at, run, start)
        if not marked_run(marks, width, first, code[inner + 1], code[inner]):
            return False
    return True


@njit
def clear(code: Ints, at: int, start: int, cells: Cells) -> None:
    """Zero all elements of a view of i32 and mark them."""
    inner = at + 2 * code[at] - 1
    n, stride = code[inner], code[inner + 1]
    for run in range(runs_in(code, at)):
        first = start_of(code, at, run, start)
        for i in range(n):
            cells.i32[first + i * stride] = 0
            cells.marks32[first + i * stride] = MARK32


@njit
def axpy(acc: NDArray[np.int32], w: NDArray[Weight], a: int, b: int, x: np.int32, n: int) -> None:
    """acc[a + i] += x * w[b + i]."""
    to, row = acc[a : a + n], w[b : b + n]
    for i in range(n):
        to[i] += np.int32(x * np.int32(row[i]))


@njit
def axpy4(
    acc: NDArray[np.int32],
    w: NDArray[Weight],
    a: int,
    b: int,
    step: int,
    xs: tuple[np.int32, np.int32, np.int32, np.int32],
    n: int,
) -> None:
    """Four rows of w, `step` apart, at once: acc is loaded and stored once."""
    x0, x1, x2, x3 = xs
    to, r0, r1 = acc[a : a + n], w[b : b + n], w[b + step : b + step + n]
    r2, r3 = w[b + 2 * step : b + 2 * step + n], w[b + 3 * step : b + 3 * step + n]
    for i in range(n):
        to[i] += np.int32(
            x0 * np.int32(r0[i])
            + x1 * np.int32(r1[i])
            + x2 * np.int32(r2[i])
            + x3 * np.int32(r3[i])
        )


@njit
def panel(
    code: Ints,
    mid: int,
    inner: int,
    pos: Ints,
    kind: int,
    cells: Cells,
    w: NDArray[Weight],
) -> None:
    """The two innermost axes; the inner one walks along rows of acc and w while x stands still."""
    count, n = code[mid], code[inner]
    da, dx, dw = code[mid + 1], code[mid + 2], code[mid + 3]
    a, x, b = pos[0], pos[1], pos[2]
    k = 0
    if da == 0 and n >= 24:
        while k + 4 <= count:
            x0 = np.int32(element(kind, cells, x))
            x1 = np.int32(element(kind, cells, x + dx))
            x2 = np.int32(element(kind, cells, x + 2 * dx))
            x3 = np.int32(element(kind, cells, x + 3 * dx))
            if x0 | x1 | x2 | x3:
                axpy4(cells.i32, w, a, b, dw, (x0, x1, x2, x3), n)
            k, x, b = k + 4, x + 4 * dx, b + 4 * dw
    while k < count:
        value = np.int32(element(kind, cells, x))
        if value:
            axpy(cells.i32, w, a, b, value, n)
        k, a, x, b = k + 1, a + da, x + dx, b + dw


@njit
def dots(
    code: Ints,
    mid: int,
    inner: int,
    pos: Ints,
    acc: NDArray[np.int32],
    xs: NDArray[Byte],
    ws: NDArray[np.int8],
) -> None:
    """The two innermost axes; the inner one is summed, along rows of x and w."""
    n = code[inner]
    a, x, b = pos[0], pos[1], pos[2]
    for _ in range(code[mid]):
        left, right = xs[x : x + n], ws[b : b + n]
        total = np.int32(0)
        for i in range(n):
            total = np.int32(total + np.int32(left[i]) * np.int32(right[i]))
        acc[a] += total
        a, x, b = a + code[mid + 1], x + code[mid + 2], b + code[mid + 3]


@njit
def products(code: Ints, mid: int, inner: int, pos: Ints, kinds: int, cells: Cells) -> None:
    """The two innermost axes, whatever their strides and element types."""
    a, x, b = pos[0], pos[1], pos[2]
    for _ in range(code[mid]):
        da, dx, db = a, x, b
        for _ in range(code[inner]):
            cells.i32[da] += np.int32(
                element(code[kinds], cells, dx) * element(code[kinds + 1], cells, db)
            )
            da, dx, db = da + code[inner + 1], dx + code[inner + 2], db + code[inner + 3]
        a, x, b = a + code[mid + 1], x + code[mid + 2], b + code[mid + 3]


@njit
def mvm(code: Ints, q: int, pos: Ints, idx: Ints, cells: Cells) -> bool:
    """Payload: n_axes (at least 2), 3, axes, kinds of x and w, fresh, overlaps, views to check.

    Overlaps: the ends of acc, x, w in bytes. Views: x, w, acc, each as `marked` reads it.
    """
    n_axes, m = code[q], code[q + 1]
    axes = q + 2
    mid, inner = axes + (n_axes - 2) * (m + 1), axes + (n_axes - 1) * (m + 1)
    kinds = inner + m + 1
    x_kind, w_kind, fresh, ends = code[kinds], code[kinds + 1], code[kinds + 2], kinds + 3
    views = ends + 6
    low, high = 4 * pos[0] + code[ends], 4 * pos[0] + code[ends + 1]
    for k in range(1, 3):
        width = width_of(code[kinds + k - 1])
        start = width * pos[k]
        if start + code[ends + 2 * k] <= high and low <= start + code[ends + 2 * k + 1]:
            return False
    for k in range(1, 3):
        width = width_of(code[kinds + k - 1])
        if not marked(code, views, pos[k], cells.marks, width):
            return False
        views += 1 + 2 * code[views]
    if fresh:
        clear(code, views, pos[0], cells)
    elif not marked(code, views, pos[0], cells.marks, width_of(I32)):
        return False
    rowwise = code[inner + 1] == 1 and code[inner + 2] == 0 and code[inner + 3] == 1
    summed = code[inner + 1] == 0 and code[inner + 2] == 1 and code[inner + 3] == 1
    # the odometer turns the axes outside of mid
    for _ in range(runs_of(code, axes, n_axes - 1, m, idx)):
        if rowwise and w_kind == I8:
            panel(code, mid, inner, pos, x_kind, cells, cells.i8)
        elif rowwise and w_kind == I16:
            panel(code, mid, inner, pos, x_kind, cells, cells.i16)
        elif summed and x_kind == I8 and w_kind == I8:
            dots(code, mid, inner, pos, cells.i32, cells.i8, cells.i8)
        elif summed and x_kind == U8 and w_kind == I8:
            dots(code, mid, inner, pos, cells.i32, cells.u8, cells.i8)
        else:
            products(code, mid, inner, pos, kinds, cells)
        advance(code, axes, n_axes - 1, m, idx, pos)
    return True


@njit
def width_of(kind: int) -> int:
    """Bytes of an element."""
    if kind in (I8, U8):
        return 1
    return 2 if kind in (I16, U16) else 4


@njit
def accumulate(code: Ints, q: int, pos: Ints, idx: Ints, cells: Cells) -> bool:
    """Payload: n_axes, 3, axes, two times ends and `same view` of dst with a and b."""
    n_axes, m = code[q], code[q + 1]
    axes = q + 2
    inner = axes + (n_axes - 1) * (m + 1)
    i32, m32 = cells.i32, cells.marks32
    pair = pos[1]
    if not apart(code, inner + m + 1, pos):
        return False
    pos[1] = pos[2]
    separate = apart(code, inner + m + 6, pos)
    pos[1] = pair
    if not separate:
        return False
    n, sd, sa, sb = code[inner], code[inner + 1], code[inner + 2], code[inner + 3]
    for _ in range(runs_of(code, axes, n_axes, m, idx)):
        d, a, b = pos[0], pos[1], pos[2]
        for i in range(n):
            if m32[a + i * sa] != MARK32 or m32[b + i * sb] != MARK32:
                return False
            i32[d + i * sd] = np.int32(i32[a + i * sa] + i32[b + i * sb])
            m32[d + i * sd] = MARK32
        advance(code, axes, n_axes, m, idx, pos)
    return True
