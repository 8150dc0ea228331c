"""Products whose partial sums pass converters: the kernel, and how it packs the cells.

Inputs go in by bit planes, cells lie in bit planes; a column's partial sum is a sum of population
counts, clipped as its converter clips. Where the cells and all-ones inputs cannot drive any
converter out of its range, the product is exact, and the kernel of `mvm` computes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.ir.program import ConverterMvm, Phase
from cimc.sim.execute import codes, moves, sums
from cimc.sim.execute.codes import I32, Cells, Int, Ints
from cimc.sim.execute.sums import clear, element, marked, width_of

njit = jit.compiler(__file__, codes.__file__, moves.__file__, sums.__file__, inner=True)

WORD = 64
# Columns of the table of packed arrays; planes and factors have a start and a size.
VERSION, EXACT, PLANES, _, FACTORS, _, SLICES, SIGNS, BITS, WORDS, TABLE_COLUMNS = range(11)
SHAPE = SLICES


@njit
def ones_in(word: np.uint64) -> Int:
    """Population count of 64 bits."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit
def converted(
    code: Ints,
    q: int,
    pos: Ints,
    row: Ints,
    planes: NDArray[np.uint64],
    factors: Ints,
    cells: Cells,
) -> bool:
    """Payload: rows, columns, strides of acc and x, kind of x, active rows, low, high, fresh,

    n_steps, (factor, low bit, width) * n_steps, then views of x and acc to check.
    Positions: acc, x. `row`: the packed array in the table.
    """
    rows, n, sa, sx, kind = code[q], code[q + 1], code[q + 2], code[q + 3], code[q + 4]
    active, low, high, fresh = code[q + 5], code[q + 6], code[q + 7], code[q + 8]
    n_steps, steps = code[q + 9], q + 10
    views = steps + 3 * n_steps
    if not marked(code, views, pos[1], cells.marks, width_of(kind)):
        return False
    views += 1 + 2 * code[views]
    if not fresh and not marked(code, views, pos[0], cells.marks, width_of(I32)):
        return False
    slices, signs, bits, words = row[SLICES], row[SIGNS], row[BITS], row[WORDS]
    plane, factor = row[PLANES], row[FACTORS]
    total, partial = np.zeros(n, np.int64), np.empty(n, np.int64)
    inputs = np.empty(WORD * words, np.uint64)
    for first in range(0, rows, active):
        inputs[:] = 0
        for k in range(min(active, rows - first)):
            value = element(kind, cells, pos[1] + (first + k) * sx)
            at = k // WORD
            for bit in range(32):
                inputs[bit * words + at] |= np.uint64((value >> bit) & 1) << np.uint64(k % WORD)
        for step in range(n_steps):
            weight, bottom = code[steps + 3 * step], code[steps + 3 * step + 1]
            width = code[steps + 3 * step + 2]
            driven = np.int64(0)
            for b in range(width):
                for word in range(words):
                    driven += ones_in(inputs[(bottom + b) * words + word]) << b
            driven = min(max(driven, low), high)
            coefficients = factor + slices * n
            for c in range(n):
                total[c] += weight * factors[coefficients + c] * driven
            for j in range(slices):
                partial[:] = 0
                for sign in range(signs):
                    for bit in range(bits):
                        for b in range(width):
                            for word in range(words):
                                at = (((j * signs + sign) * bits + bit) * words + word) * n + plane
                                x = inputs[(bottom + b) * words + word]
                                if x != 0:
                                    count(planes[at : at + n], x, partial, bit + b, sign)
                clip_into(
                    total, partial, factors[factor + j * n : factor + j * n + n], weight, low, high
                )
        plane += slices * signs * bits * words * n
        factor += (slices + 1) * n
    if fresh:
        clear(code, views, pos[0], cells)
    for c in range(n):
        cells.i32[pos[0] + c * sa] += np.int32(total[c])
    return True


@njit
def count(
    cells: NDArray[np.uint64], x: np.uint64, partial: Ints, shift: int, negative: int
) -> None:
    """Add (or take off) the driven cells of one plane, for all columns."""
    if negative:
        for c in range(len(partial)):
            partial[c] -= ones_in(cells[c] & x) << shift
    else:
        for c in range(len(partial)):
            partial[c] += ones_in(cells[c] & x) << shift


@njit
def clip_into(total: Ints, partial: Ints, factors: Ints, weight: int, low: int, high: int) -> None:
    """total += weight * factors * clip(partial)."""
    for c in range(len(total)):
        total[c] += weight * factors[c] * min(max(partial[c], low), high)


@dataclass(frozen=True, slots=True)
class Packed:
    """The cells of one array as bit planes, or only the word that its product is exact."""

    exact: bool
    planes: NDArray[np.uint64]  # phases, slices, signs, bits, words, columns
    factors: NDArray[np.int64]  # phases, slices + 1, columns; the last row weighs the input sum


def pack(form: ConverterMvm, w: NDArray[np.int64], exact_input: bool) -> Packed:
    """Pack the weights w[rows, columns] of one array.

    exact_input  whether no input has more bits than the steps send
    """
    phases = [form.phase(w[i : i + form.active_rows]) for i in range(0, len(w), form.active_rows)]
    if exact_input and all(
        _exact(form, phase_w, phase)
        for phase_w, phase in zip(_chunks(w, form.active_rows), phases, strict=True)
    ):
        return Packed(True, np.empty((0,) * 6, np.uint64), np.empty((0,) * 3, np.int64))
    slices = max(len(phase.slices) for phase in phases)
    cells = [cell for phase in phases for _, cell in phase.slices]
    signs = 2 if any((cell < 0).any() for cell in cells) else 1
    bits = max(int(np.abs(cell).max(initial=1)).bit_length() for cell in cells)
    words = -(-min(form.active_rows, len(w)) // WORD)
    columns = w.shape[1]
    planes = np.zeros((len(phases), slices, signs, bits, words, columns), np.uint64)
    factors = np.zeros((len(phases), slices + 1, columns), np.int64)
    for number, phase in enumerate(phases):
        factors[number, slices] = phase.ones
        for j, (factor, cell) in enumerate(phase.slices):
            factors[number, j] = factor
            for sign in range(signs):
                levels = np.maximum(-cell if sign else cell, 0)
                for bit in range(bits):
                    planes[number, j, sign, bit] = _words((levels >> bit) & 1, words)
    return Packed(False, planes, factors)


def _chunks(w: NDArray[np.int64], rows: int) -> list[NDArray[np.int64]]:
    return [w[i : i + rows] for i in range(0, len(w), rows)]


def _words(bits: NDArray[np.int64], words: int) -> NDArray[np.uint64]:
    padded = np.zeros((words * WORD, bits.shape[1]), np.uint8)
    padded[: len(bits)] = bits
    packed = np.packbits(padded, axis=0, bitorder="little")  # [bytes, columns]
    by_word = np.ascontiguousarray(packed.reshape(words, 8, -1).transpose(0, 2, 1))
    return by_word.view("<u8")[..., 0].astype(np.uint64)


def _exact(form: ConverterMvm, w: NDArray[np.int64], phase: Phase) -> bool:
    """Whether no converter can clip, and the phase's cells stand for exactly `w`."""
    most = max((1 << width) - 1 for _, _, width in form.steps)
    stands_for = np.broadcast_to(phase.ones, w.shape).copy()
    for factor, cell in phase.slices:
        highest = np.maximum(cell, 0).sum(axis=0) * most
        lowest = np.minimum(cell, 0).sum(axis=0) * most
        if highest.max(initial=0) > form.high or lowest.min(initial=0) < form.low:
            return False
        stands_for += factor * cell
    if phase.ones.any() and len(w) * most > form.high:
        return False
    return bool((stands_for == w).all())
