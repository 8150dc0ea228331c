"""The greedy pair rule for sums without shifts: subexpressions of ternary weights.

Rows are sets of bits: one word says for 64 sums which of them hold a value, another one which hold
its negative, so counting a pair takes a few instructions. Counts only fall while pairs are
replaced, so those noted once are upper bounds, and a pair is counted again only when it is next.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit

njit, njit_inner = jit.compiler(__file__), jit.compiler(__file__, inner=True)
Ints = NDArray[np.int64]
Rows = NDArray[np.uint64]  # [values, words]


@njit_inner
def _ones(x: np.uint64) -> int:
    """Set bits of a 64-bit word."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return int((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit_inner
def _occurrences(plus: Rows, minus: Rows, a: int, b: int, opposite: int) -> int:
    """Rows that hold a + b (or a - b where `opposite`), or its negative."""
    count = 0
    for word in range(plus.shape[1]):
        if opposite:
            both = (plus[a, word] & minus[b, word]) | (minus[a, word] & plus[b, word])
        else:
            both = (plus[a, word] & plus[b, word]) | (minus[a, word] & minus[b, word])
        count += _ones(both)
    return count


@njit_inner
def _noted(
    key: int, count: int, keys: Ints, below: Ints, heads: Ints, entries: int
) -> tuple[Ints, Ints]:
    """Put a pair on the stack of its count."""
    if entries == len(keys):
        keys = np.concatenate((keys, np.empty(entries, np.int64)))
        below = np.concatenate((below, np.empty(entries, np.int64)))
    keys[entries], below[entries] = key, heads[count]
    heads[count] = entries
    return keys, below


@njit_inner
def _first_counts(inputs: int, start: Ints, terms: Ints) -> Ints:
    """How often every pair of inputs occurs: [a, 2*b + opposite] for b < a."""
    counts = np.zeros((inputs, 2 * inputs), np.int64)
    for row in range(len(start) - 1):
        for i in range(start[row], start[row + 1]):
            for j in range(start[row], i):
                one, two = max(terms[i], terms[j]), min(terms[i], terms[j])
                counts[one >> 1, (two & ~1) | ((one ^ two) & 1)] += 1
    return counts


@njit_inner
def _replaced(
    row: int, a: int, b: int, term: int, start: Ints, length: Ints, terms: Ints, counts: Ints,
    touched: Ints, found: int,
) -> int:  # fmt: skip
    """Replace a and b in a row by one term, and count it with each of the others."""
    place = start[row]
    for i in range(start[row], start[row] + length[row]):
        other = terms[i]
        if other >> 1 != a and other >> 1 != b:
            terms[place] = other
            place += 1
            pair = (other & ~1) | ((other ^ term) & 1)
            if counts[pair] == 0:
                touched[found] = pair
                found += 1
            counts[pair] += 1
    terms[place] = term
    length[row] -= 1
    return found


@njit
def share_pairs(inputs: int, start: Ints, terms: Ints, max_values: int) -> tuple[Ints, Ints, Ints]:
    """Greedy pair substitution in rows of terms value << 1 | negative, each value once in a row.

    The pair that occurs most often becomes a temporary, and so on while one occurs twice and there
    are fewer than `max_values` values; of equals, the one noted last. `terms` is overwritten.
    Returns start and terms of the rows left, and a, b and sign of each temporary a + sign*b.
    """
    rows = len(start) - 1
    words, values = (rows + 63) // 64, min(max_values, inputs + len(terms))
    plus, minus = np.zeros((values, words), np.uint64), np.zeros((values, words), np.uint64)
    for row in range(rows):
        mark = np.uint64(1) << np.uint64(row & 63)
        for i in range(start[row], start[row + 1]):
            if terms[i] & 1:
                minus[terms[i] >> 1, row >> 6] |= mark
            else:
                plus[terms[i] >> 1, row >> 6] |= mark
    keys, below = np.empty(4096, np.int64), np.empty(4096, np.int64)
    heads, top, entries = np.full(rows + 1, -1, np.int64), 0, 0
    first = _first_counts(inputs, start, terms)
    for a in range(inputs):
        for pair in range(2 * inputs):
            if first[a, pair] >= 2:
                keys, below = _noted(a << 32 | pair, first[a, pair], keys, below, heads, entries)
                entries += 1
                top = max(top, first[a, pair])
    temps, made = np.empty((max(0, values - inputs), 3), np.int64), 0
    length = start[1:] - start[:-1]
    counts, touched = np.zeros(2 * values, np.int64), np.empty(2 * values, np.int64)
    while top >= 2 and inputs + made < values:
        entry = heads[top]
        if entry < 0:
            top -= 1
            continue
        heads[top] = below[entry]
        a, b = keys[entry] >> 32, (keys[entry] & 0xFFFFFFFF) >> 1
        opposite = keys[entry] & 1
        count = _occurrences(plus, minus, a, b, opposite)
        if count < top:  # to the stack where it belongs now
            if count >= 2:
                below[entry] = heads[count]
                heads[count] = entry
            continue
        new, found = inputs + made, 0
        temps[made, 0], temps[made, 1], temps[made, 2] = a, b, 1 - 2 * opposite
        made += 1
        for word in range(words):
            if opposite:
                up, down = plus[a, word] & minus[b, word], minus[a, word] & plus[b, word]
            else:
                up, down = plus[a, word] & plus[b, word], minus[a, word] & minus[b, word]
            both = up | down
            plus[new, word], minus[new, word] = up, down
            plus[a, word] &= ~both
            minus[a, word] &= ~both
            plus[b, word] &= ~both
            minus[b, word] &= ~both
            row = word * 64
            while both:
                if both & np.uint64(1):
                    negative = 1 if down & np.uint64(1) else 0
                    found = _replaced(
                        row, a, b, new << 1 | negative, start, length, terms, counts, touched, found
                    )
                both, down = both >> np.uint64(1), down >> np.uint64(1)
                row += 1
        for i in range(found):
            pair = touched[i]
            count, counts[pair] = counts[pair], 0
            if count >= 2:
                keys, below = _noted(new << 32 | pair, count, keys, below, heads, entries)
                entries += 1
                top = max(top, count)
    left = np.empty(length.sum(), np.int64)
    begin = np.zeros(rows + 1, np.int64)
    for row in range(rows):
        begin[row + 1] = begin[row] + length[row]
        left[begin[row] : begin[row + 1]] = terms[start[row] : start[row] + length[row]]
    return begin, left, temps[:made].copy()
