"""Kernels of the exact search over mappings under private ports.

A label is a nest built from the innermost loop outwards: which prime factors are placed, where each
operand's outermost level stands, and the max-plus matrix of everything placed. Placing one more
loop outside gives new labels. Of two labels that agree in all that decides their future, one whose
matrix, memory use and pending transfer are nowhere greater is at least as good.

Integer columns of a label, those of operands three in a row:
    POS    position of the level of the outermost loop so far; the chain's length before the first
    NEXT   position of the next level further in, the chain's length for the macro
    FIRED  the block at POS has moved its tile on
    SHUT   the next loop must keep the operand further out
    TWO    POS has two buffers
    NEXT2  NEXT has two buffers
    TAU    cycles of the block's transfer
    BITS   taken in a level that operands share
    SUMS   O at POS holds partial sums (one column)
    PARENT, DIM, FACTOR: where it comes from, and the loop placed last
    COUNT  how many of each prime are placed, one column for each kind of prime
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.sim import private_ports_batch as batch
from cimc.sim import private_ports_kernel as maxplus
from cimc.sim.private_ports_batch import published
from cimc.sim.private_ports_kernel import activation, finished, looped
from cimc.targets.sram_cim import search_kernel as shared
from cimc.targets.sram_cim.search_kernel import (
    ACTIVATION,
    PSUM_BITS,
    READ,
    RESULT_BITS,
    SHARED,
    SIZE,
    Ints,
    Machine,
)

njit = jit.compiler(__file__, batch.__file__, maxplus.__file__, shared.__file__)

Floats = NDArray[np.float64]

POS, NEXT, FIRED, SHUT, TWO, NEXT2, TAU, BITS = 0, 3, 6, 9, 12, 15, 18, 21
SUMS, PARENT, DIM, FACTOR, COUNT = 24, 25, 26, 27, 28
KEYED = 18  # the columns before this one, and SUMS and the counts, must be equal to compare


@njit
def root(m: Machine, kinds: int) -> Ints:
    """The label of the empty nest."""
    label = np.zeros(COUNT + kinds, np.int64)
    for o in range(3):
        label[POS + o] = m.length[o]
        label[NEXT + o] = m.length[o]
        label[FIRED + o] = 1
    label[PARENT] = -1
    return label


@njit
def bits_at(m: Machine, o: int, level: int, sums: int) -> int:
    """Bits of an element; of O, of a sum where `sums`."""
    if o == 2:
        return int(m.numbers[PSUM_BITS] if sums else m.numbers[RESULT_BITS])
    return shared.bits_at(m, o, level, 0)


@njit
def options(m: Machine, two_at: Ints, label: Ints, o: int, moves: int, found: Ints) -> int:
    """Where an operand can stand with one more loop: rows (position, two buffers, fire, shut).

    `moves`: 1 if the loop moves the operand's tile, else 0.
    """
    count, position, last = 0, label[POS + o], m.length[o] - 1
    first = position == m.length[o]  # no loop is placed yet
    silent = o == 1 and position == last  # weights in the macro never move on
    is_open = not first and not silent and not label[FIRED + o]
    to_macro = label[NEXT + o] == m.length[o]
    if not first and not label[SHUT + o]:
        found[count, 0], found[count, 1] = position, label[TWO + o]
        found[count, 2], found[count, 3] = moves if is_open else 0, 0
        count += 1
        if is_open and to_macro and not moves:  # the block ends with this loop
            found[count, 0], found[count, 1] = position, label[TWO + o]
            found[count, 2], found[count, 3] = 1, 1
            count += 1
    if is_open and (to_macro or not moves):
        return count
    for to in range(position):
        silent = first and o == 1 and to == last
        for two in range(2 if two_at[o, to] and (to > 0 or first) else 1):
            found[count, 0], found[count, 1] = to, two
            found[count, 2], found[count, 3] = 0 if silent else moves, 0
            count += 1
            if first and not silent and not moves:
                found[count, 0], found[count, 1] = to, two
                found[count, 2], found[count, 3] = 1, 1
                count += 1
    return count


@njit
def extents(kinds: Ints, label: Ints, inside: Ints) -> None:
    """Loop extents of what is placed; `kinds`: (dim, prime) of each count."""
    inside[:] = 1
    for kind in range(kinds.shape[0]):
        for _ in range(label[COUNT + kind]):
            inside[kinds[kind, 0]] *= kinds[kind, 1]


@njit
def size_of(
    m: Machine, limits: Ints, o: int, level: int, inside: Ints, spread: Ints, tile: Ints
) -> int:
    """Elements of the tile of loop extents `inside` in one instance of a level."""
    for d in range(8):
        tile[d] = inside[d] * spread[o, level, d]
    return published(o, tile, m.steps, limits)


@njit
def placed(
    m: Machine,
    limits: Ints,
    spread: Ints,
    label: Ints,
    dim: int,
    factor: int,
    reduces_later: bool,
    before: Ints,
    after: Ints,
    choice: Ints,
    new: Ints,
    tile: Ints,
) -> bool:
    """Fill `new` with the label after one more loop, all but its counts; False if it cannot fit.

    before, after: loop extents without and with the loop; choice: a row of `options` by operand
    """
    new[:] = label
    taken = 0
    for o in range(3):
        position, two = choice[o, 0], choice[o, 1]
        level = m.chain[o, position]
        if position != label[POS + o]:
            new[NEXT + o], new[NEXT2 + o] = label[POS + o], label[TWO + o]
            new[POS + o], new[TWO + o] = position, two
            new[FIRED + o] = 0
            if o == 2:
                new[SUMS] = reduces_later
            bits = size_of(m, limits, o, level, before, spread, tile)
            bits *= bits_at(m, o, level, new[SUMS])
            new[TAU + o] = -(-bits // m.level[level, READ])
            if label[POS + o] == m.length[o] and position != m.length[o] - 1:
                new[TAU + o] += 1
        new[FIRED + o] |= choice[o, 2]
        new[SHUT + o] = choice[o, 3]
        bits = size_of(m, limits, o, level, after, spread, tile)
        bits *= bits_at(m, o, level, new[SUMS]) * (1 + two)
        if bits > m.level[level, SIZE]:
            return False
        if m.level[level, SHARED] and position > 0:
            new[BITS + o] = bits
        taken += new[BITS + o]
    new[DIM], new[FACTOR] = dim, factor
    return taken <= shared_size(m)


@njit
def shared_size(m: Machine) -> int:
    """Bits of the level inside the outermost one that operands share; no limit without one."""
    for level in range(1, m.level.shape[0]):
        if m.level[level, SHARED]:
            return int(m.level[level, SIZE])
    return 1 << 60


@njit
def wrapped(
    m: Machine, base: Ints, label: Ints, matrix: Ints, new: Ints, choice: Ints, factor: int
) -> Ints:
    """The matrix after one more loop, with an anchor for every block that it leaves unfired."""
    c, x = np.empty(3, np.int64), np.empty(3, np.int64)
    double, tau = np.empty(3, np.int64), np.empty(3, np.int64)
    anchored = np.zeros(3, np.bool_)
    for o in range(3):
        stays = choice[o, 0] == label[POS + o]
        open_ = label[POS + o] < m.length[o] and not label[FIRED + o]
        silent = o == 1 and label[POS + o] == m.length[1] - 1
        anchored[o] = not stays and open_ and not silent
    for carried in range(3):
        if not anchored[carried]:
            continue
        for o in range(3):
            if anchored[o] and o >= carried:  # still in the block that the anchors serve
                c[o], x[o] = base[o] + label[POS + o], base[o] + label[NEXT + o]
                double[o] = label[NEXT2 + o]
            else:
                c[o], x[o] = base[o] + new[POS + o], base[o] + new[NEXT + o]
                double[o] = new[NEXT2 + o]
            tau[o] = label[TAU + o] if o == carried else 0
        matrix = looped(matrix, 1, c, x, double, tau)
    for o in range(3):
        c[o], x[o] = base[o] + new[POS + o], base[o] + new[NEXT + o]
        double[o] = new[NEXT2 + o]
        fires = choice[o, 2] == 1
        tau[o] = new[TAU + o] if fires else 0
    return looped(matrix, factor, c, x, double, tau)


@njit
def closed(m: Machine, base: Ints, label: Ints, matrix: Ints) -> tuple[bool, Ints]:
    """Whether all operands have moved in at the outermost loop; the matrix with last anchors."""
    c, x = np.empty(3, np.int64), np.empty(3, np.int64)
    double, tau = np.empty(3, np.int64), np.empty(3, np.int64)
    for carried in range(3):
        silent = carried == 1 and label[POS + 1] == m.length[1] - 1
        if label[FIRED + carried] or silent or label[POS + carried] == m.length[carried]:
            continue
        if label[NEXT + carried] == m.length[carried]:
            return False, matrix
        for o in range(3):
            c[o], x[o] = base[o] + label[POS + o], base[o] + label[NEXT + o]
            double[o] = label[NEXT2 + o]
            tau[o] = label[TAU + o] if o == carried else 0
        matrix = looped(matrix, 1, c, x, double, tau)
    return True, matrix


@njit
def floor_of(matrix: Ints, left: float) -> float:
    """A lower bound of the latency: no timer moves on by less than its own entry each time."""
    most = 0
    for i in range(matrix.shape[0]):
        most = max(most, matrix[i, i])
    return left * most


@njit
def first_matrix(m: Machine, base: Ints, label: Ints) -> Ints:
    """One activation, for a label whose innermost loop is placed."""
    busy = np.full(3, -1, np.int64)
    for o in range(3):
        if not label[TWO + o]:
            busy[o] = label[POS + o]
    return activation(base, m.length, busy, int(m.numbers[ACTIVATION]))


@njit
def expand(
    m: Machine,
    limits: Ints,
    spread: Ints,
    two_at: Ints,
    base: Ints,
    kinds: Ints,
    most: Ints,
    steps: Ints,
    boots: Floats,
    labels: Ints,
    matrices: Ints,
    start: int,
    out_labels: Ints,
    out_matrices: Ints,
    out_floors: Floats,
    best: Floats,
    best_label: Ints,
) -> tuple[int, int]:
    """All labels with one loop more than those from `start` on, until `out` is nearly full.

    kinds, most: (dim, prime) and number of each kind of prime; steps: rows (dim, factor, primes of
    each kind); boots: cycles to fetch all of an operand. best: the latency to be beaten, lowered
    where a complete nest does, which `best_label` then keeps. Returns the next label to expand, and
    how many labels were made.
    """
    made, width = 0, labels.shape[1]
    room = out_labels.shape[0] - 4096
    new = np.empty(width, np.int64)
    before, after, tile = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(8, np.int64)
    rows = np.empty((3, 64, 4), np.int64)
    counts, choice = np.empty(3, np.int64), np.empty((3, 4), np.int64)
    boot_at = np.empty(3, np.int64)
    for number in range(start, labels.shape[0]):
        if made > room:
            return number, made
        label, matrix = labels[number], matrices[number]
        extents(kinds, label, before)
        is_root = label[PARENT] < 0 and label[FACTOR] == 0
        for step in range(steps.shape[0]):
            dim, factor = steps[step, 0], steps[step, 1]
            fits, left, reduces_later = True, 1.0, False
            for kind in range(kinds.shape[0]):
                remaining = most[kind] - label[COUNT + kind]
                if m.reduced[kinds[kind, 0]] and remaining > 0:
                    reduces_later = True
                remaining -= steps[step, 2 + kind]
                if remaining < 0:
                    fits = False
                for _ in range(remaining):
                    left *= kinds[kind, 1]
            if not fits:
                continue
            after[:] = before
            after[dim] *= factor
            for o in range(3):
                counts[o] = options(m, two_at, label, o, m.relevant[o, dim], rows[o])
            for i in range(counts[0]):
                choice[0] = rows[0, i]
                for w in range(counts[1]):
                    choice[1] = rows[1, w]
                    for r in range(counts[2]):
                        choice[2] = rows[2, r]
                        if not placed(
                            m,
                            limits,
                            spread,
                            label,
                            dim,
                            factor,
                            reduces_later,
                            before,
                            after,
                            choice,
                            new,
                            tile,
                        ):
                            continue
                        inner = first_matrix(m, base, new) if is_root else matrix
                        found = wrapped(m, base, label, inner, new, choice, factor)
                        floor = floor_of(found, left)
                        if floor >= best[0]:
                            continue
                        for kind in range(kinds.shape[0]):
                            new[COUNT + kind] = label[COUNT + kind] + steps[step, 2 + kind]
                        new[PARENT] = number
                        for o in range(3):
                            if new[FIRED + o]:
                                new[TAU + o] = 0
                        if left == 1.0:
                            whole, found = closed(m, base, new, found)
                            if whole:
                                for o in range(3):
                                    boot_at[o] = new[POS + o] if new[POS + o] > 0 else -1
                                latency = finished(found, base, m.length, boot_at, boots)
                                if latency < best[0]:
                                    best[0] = latency
                                    best_label[:] = new
                            continue
                        out_labels[made] = new
                        out_matrices[made] = found
                        out_floors[made] = floor
                        made += 1
    return labels.shape[0], made


@njit
def undominated(
    group: Ints, labels: Ints, matrices: Ints, floors: Floats, order: Ints
) -> NDArray[np.bool_]:
    """Which labels no other of their group is at least as good as; `order` sorts by group."""
    count, size = len(order), matrices.shape[1]
    kept = np.ones(count, np.bool_)
    begin = 0
    while begin < count:
        end = begin
        while end < count and group[order[end]] == group[order[begin]]:
            end += 1
        for i in range(begin, end):
            a = order[i]
            if not kept[a]:
                continue
            for j in range(begin, end):
                b = order[j]
                if i == j or not kept[b] or floors[a] > floors[b]:
                    continue
                better = True
                for column in range(TAU, BITS + 3):
                    if labels[a, column] > labels[b, column]:
                        better = False
                        break
                if not better:
                    continue
                for row in range(size):
                    for column in range(size):
                        if matrices[a, row, column] > matrices[b, row, column]:
                            better = False
                            break
                    if not better:
                        break
                if better:
                    kept[b] = False
        begin = end
    return kept
