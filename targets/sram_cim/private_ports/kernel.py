"""Compiled private ports: latency as max-plus algebra, and step by step.

Every rule of `private_ports` sets a timer to the maximum of timers, plus a constant. So a loop's
body is a matrix A over (max, +): the timers after it are t'[i] = max over j of A[i, j] + t[j]; what
a loop does is a power of its body. Powers by squaring make the latency exact, whatever the trip
counts, without any assumption of a steady state.

Timers are numbered operand by operand, along its chain of levels, the macro itself last: `base[o]`
is the first of operand o, `base[o] + length[o]` its macro timer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit

njit = jit.compiler(__file__)

Ints = NDArray[np.int64]
Times = NDArray[np.int64]
Floats = NDArray[np.float64]

NEVER = -(1 << 50)  # no dependence


@njit
def identity(size: int) -> Times:
    """The matrix that changes nothing."""
    found = np.full((size, size), NEVER, np.int64)
    for i in range(size):
        found[i, i] = 0
    return found


@njit
def product(a: Times, b: Times, out: Times) -> None:
    """out = a b: first b, then a."""
    size = a.shape[0]
    for i in range(size):
        for j in range(size):
            out[i, j] = NEVER
        for k in range(size):
            left = a[i, k]
            if left > NEVER:
                for j in range(size):
                    value = left + b[k, j]
                    if value > out[i, j]:
                        out[i, j] = value


@njit
def fetched(m: Times, c: int, x: int, double: int, tau: int) -> None:
    """m after a fetch from timer c on to x: a change of m's columns, in place."""
    size = m.shape[0]
    if double:  # t[c] += tau, then t[x] = max(t[x], t[c])
        for i in range(size):
            m[i, c] = max(m[i, c], m[i, x]) + tau
    else:  # t[c] = t[x] = max(t[c], t[x]) + tau
        for i in range(size):
            both = max(m[i, c], m[i, x]) + tau
            m[i, c] = both
            m[i, x] = both


@njit
def late_write_back_before(m: Times, c: int, x: int, tau: int) -> None:
    """m after t[c] = max(t[c], t[x]) + tau: a change of m's columns, in place."""
    for i in range(m.shape[0]):
        later = m[i, c] + tau
        m[i, c] = later
        m[i, x] = max(m[i, x], later)


@njit
def late_write_back_after(m: Times, c: int, x: int, tau: int) -> None:
    """t[c] = max(t[c], t[x]) + tau after m: a change of m's rows, in place."""
    for j in range(m.shape[0]):
        m[c, j] = max(m[c, j], m[x, j]) + tau


@njit
def written_back(m: Times, c: int, x: int, tau: int) -> None:
    """t[x] = t[c] = max(t[c], t[x]) + tau after m: a change of m's rows, in place."""
    for j in range(m.shape[0]):
        both = max(m[c, j], m[x, j]) + tau
        m[c, j] = both
        m[x, j] = both


@njit
def floored(m: Times) -> None:
    """Sums with NEVER are NEVER again."""
    size = m.shape[0]
    for i in range(size):
        for j in range(size):
            if m[i, j] < NEVER // 2:
                m[i, j] = NEVER


@njit
def activation(base: Ints, length: Ints, busy: Ints, cycles: int) -> Times:
    """The matrix of one activation; `busy[o]`: position of a level it keeps busy, or -1."""
    size = int(base[2] + length[2] + 1)
    m = identity(size)
    for o in range(3):
        compute = base[o] + length[o]
        for other in range(3):
            m[compute, base[other] + length[other]] = cycles
        if busy[o] >= 0:
            row = base[o] + busy[o]
            for j in range(size):
                m[row, j] = m[compute, j]
    return m


@njit
def looped(m: Times, bound: int, c: Ints, x: Ints, double: Ints, tau: Ints) -> Times:
    """The matrix of a loop around `m`; by operand: timers, whether x has two buffers, cycles."""
    size = m.shape[0]
    late = double[2] and tau[2] > 0
    body = m.copy()
    if late:
        late_write_back_before(body, c[2], x[2], tau[2])
    for o in range(2, -1, -1):
        fetched(body, c[o], x[o], double[o], tau[o])
    if not double[2]:
        written_back(body, c[2], x[2], tau[2])
    floored(body)
    first = body
    if late:
        first = m.copy()
        for o in range(2, -1, -1):
            fetched(first, c[o], x[o], double[o], tau[o])
        floored(first)
    found, spare = first.copy(), np.empty((size, size), np.int64)
    power = body.copy() if bound > 1 else body
    left = bound - 1
    while left:
        if left & 1:
            product(power, found, spare)
            found, spare = spare, found
        left >>= 1
        if left:
            square = np.empty((size, size), np.int64)
            product(power, power, square)
            power = square
    if late:
        late_write_back_after(found, c[2], x[2], tau[2])
        floored(found)
    return found


@njit
def finished(m: Times, base: Ints, length: Ints, boot_at: Ints, boot: Floats) -> float:
    """Latency of a whole nest: boots, the nest, and the way back of O.

    `boot_at[o]`: position of the level that all of the operand is brought to first, or -1;
    `boot[o]`: cycles of that.
    """
    size = m.shape[0]
    start = np.zeros(size)
    for o in range(3):
        if boot_at[o] >= 0:
            start[base[o]] += boot[o]
            start[base[o] + boot_at[o]] += boot[o]
    t = np.full(size, -1e300)
    for i in range(size):
        for j in range(size):
            if m[i, j] > NEVER:
                t[i] = max(t[i], m[i, j] + start[j])
    if boot_at[2] >= 0:
        t[base[2]] += boot[2]
        t[base[2] + boot_at[2]] += boot[2]
    latest = 0.0
    for o in range(3):
        for j in range(length[o]):
            latest = max(latest, t[base[o] + j])
    return latest


@njit
def nest_latency(
    bounds: Ints,
    c: Ints,
    x: Ints,
    double: Ints,
    tau: Ints,
    base: Ints,
    length: Ints,
    busy: Ints,
    cycles: int,
    boot_at: Ints,
    boot: Floats,
) -> float:
    """Latency of a schedule: arrays by loop (outermost first) and operand."""
    m = activation(base, length, busy, cycles)
    for i in range(len(bounds) - 1, -1, -1):
        m = looped(m, bounds[i], c[i], x[i], double[i], tau[i])
    return finished(m, base, length, boot_at, boot)


@njit
def stepped(
    bounds: Ints,
    c: Ints,
    x: Ints,
    double: Ints,
    tau: Ints,
    base: Ints,
    length: Ints,
    busy: Ints,
    cycles: int,
    boot_at: Ints,
    boot: Floats,
) -> tuple[float, Floats]:
    """Latency, and how long each operand's second buffers waited for data, step by step."""
    loops = len(bounds)
    t = np.zeros(base[2] + length[2] + 1)
    waited = np.zeros(3)
    at = np.zeros(loops, np.int64)
    for o in range(3):
        if boot_at[o] >= 0:
            t[base[o]] += boot[o]
            t[base[o] + boot_at[o]] += boot[o]
    outermost = 0  # the outermost loop that begins an iteration
    running = True
    while running:
        for i in range(outermost, loops):
            for o in range(3):
                source, sink = c[i, o], x[i, o]
                if double[i, o]:
                    t[source] += tau[i, o]
                    if tau[i, o] > 0:
                        waited[o] += max(0.0, t[source] - t[sink])
                    t[sink] = max(t[sink], t[source])
                else:
                    t[source] = max(t[source], t[sink]) + tau[i, o]
                    t[sink] = t[source]
            if at[i] > 0 and double[i, 2] and tau[i, 2] > 0:
                t[c[i, 2]] = max(t[c[i, 2]], t[x[i, 2]]) + tau[i, 2]
        ready = 0.0
        for o in range(3):
            ready = max(ready, t[base[o] + length[o]])
        ready += cycles
        for o in range(3):
            t[base[o] + length[o]] = ready
            if busy[o] >= 0:
                t[base[o] + busy[o]] = ready
        running = False
        for i in range(loops - 1, -1, -1):
            source, sink = c[i, 2], x[i, 2]
            if not double[i, 2]:
                t[sink] = max(t[source], t[sink]) + tau[i, 2]
                t[source] = t[sink]
            at[i] += 1
            if at[i] < bounds[i]:
                outermost = i
                running = True
                break
            if double[i, 2] and tau[i, 2] > 0:
                t[source] = max(t[source], t[sink]) + tau[i, 2]
            at[i] = 0
    if boot_at[2] >= 0:
        t[base[2]] += boot[2]
        t[base[2] + boot_at[2]] += boot[2]
    latest = 0.0
    for o in range(3):
        for j in range(length[o]):
            latest = max(latest, t[base[o] + j])
    return latest, waited
