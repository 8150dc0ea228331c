"""The greedy pair rule for sums with shifts: subexpressions of weights of many bits.

Two pairs are the same up to a common shift and sign: x + 4y, 2x + 8y and -x - 4y. Pairs are counted
in a hash table, since a value may occur in a row several times, shifted differently.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cimc import jit

njit, njit_inner = jit.compiler(__file__), jit.compiler(__file__, inner=True)
Ints = NDArray[np.int64]
Number: TypeAlias = int | np.int64


@njit_inner
def _pair_key(one: Number, two: Number) -> Number:
    """What two terms have in common with all pairs of the same form: values, shift apart, sign."""
    if one >> 1 > two >> 1:
        one, two = two, one
    apart = (two >> 1 & 0x7F) - (one >> 1 & 0x7F) + 64
    return (((one >> 8) << 24 | two >> 8) << 7 | apart) << 1 | (one ^ two) & 1


@njit_inner
def _grown(array: Ints) -> Ints:
    larger = np.empty(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger


@njit_inner
def _find(table: Ints, keys: Ints, key: Number) -> Number:
    """Place of `key` in the hash table; the entry there is -1 if the key is new."""
    mask = len(table) - 1
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(mixed >> np.uint64(32)) & mask
    while table[place] >= 0 and keys[table[place]] != key:
        place = (place + 1) & mask
    return place


@njit_inner
def _rehashed(keys: Ints, pairs: int, size: int) -> Ints:
    table = np.full(size, -1, np.int64)
    for pair in range(pairs):
        table[_find(table, keys, keys[pair])] = pair
    return table


@njit_inner
def _count_pairs(
    rows: Ints, first: Ints, length: Ints, terms: Ints, new: int,
    keys: Ints, counts: Ints, table: Ints, pairs: int,
) -> tuple[Ints, Ints, Ints, int]:  # fmt: skip
    """Count the pairs of some rows: those with value `new`, or all where that is -1.

    Pairs are numbered; `keys` and `counts` go by number, the hash table finds it.
    """
    for row in rows:
        begin, end = first[row], first[row] + length[row]
        for i in range(begin, end):
            if new >= 0 and terms[i] >> 8 != new:
                continue
            for j in range(begin, i if new < 0 else end):
                if j == i or (j > i and terms[j] >> 8 == new):
                    continue  # a pair of two new terms counts once
                key = _pair_key(terms[i], terms[j])
                at = _find(table, keys, key)
                if table[at] >= 0:
                    counts[table[at]] += 1
                    continue
                if pairs == len(keys):
                    keys, counts = _grown(keys), _grown(counts)
                keys[pairs], counts[pairs] = key, 1
                table[at] = pairs
                pairs += 1
                if 2 * pairs > len(table):
                    table = _rehashed(keys, pairs, 2 * len(table))
    return keys, counts, table, pairs


@njit_inner
def _match(
    terms: Ints, begin: Number, end: Number, used: NDArray[np.bool_], key: Number
) -> tuple[int, int]:
    """The first two unused terms of a row that make up a pair; (-1, -1) if there are none."""
    negative, apart = key & 1, (key >> 1 & 0x7F) - 64
    a, b = key >> 32, key >> 8 & 0xFFFFFF
    for i in range(begin, end):
        if terms[i] >> 8 != a or used[i]:
            continue
        wanted = ((b << 7) + (terms[i] >> 1 & 0x7F) + apart) << 1 | (terms[i] & 1) ^ negative
        for j in range(begin, end):
            if terms[j] == wanted and not used[j] and i != j:
                return i, j
    return -1, -1


@njit_inner
def _rows_with(
    key: Number, where: NDArray[np.uint64], first: Ints, length: Ints, terms: Ints,
    used: NDArray[np.bool_], found: Ints,
) -> tuple[int, int]:  # fmt: skip
    """Put the rows that hold a pair into `found`; returns their number, and that of occurrences."""
    a, b = key >> 32, key >> 8 & 0xFFFFFF
    rows = matches = 0
    for word in range(where.shape[1]):
        both = where[a, word] & where[b, word]
        row = word * 64
        while both != 0:
            if both & np.uint64(1):
                begin, end = first[row], first[row] + length[row]
                here = 0
                i, j = _match(terms, begin, end, used, key)
                while i >= 0:
                    used[i] = used[j] = True
                    here += 1
                    i, j = _match(terms, begin, end, used, key)
                used[begin:end] = False
                if here:
                    found[rows] = row
                    rows += 1
                    matches += here
            both >>= np.uint64(1)
            row += 1
    return rows, matches


@njit_inner
def _substitute(
    row: Number, new: int, key: Number, where: NDArray[np.uint64], first: Ints, length: Ints,
    terms: Ints, used: NDArray[np.bool_], keys: Ints, counts: Ints, table: Ints,
) -> None:  # fmt: skip
    """Replace every occurrence of a pair in a row by value `new`, and count the lost pairs off."""
    begin = first[row]
    end = begin + length[row]
    i, j = _match(terms, begin, end, used, key)
    while i >= 0:
        one, two = terms[i], terms[j]
        counts[table[_find(table, keys, _pair_key(one, two))]] -= 1
        for x in range(begin, end):
            # pairs with the value made just now are not counted yet
            if x != i and x != j and terms[x] >> 8 != new:
                counts[table[_find(table, keys, _pair_key(terms[x], one))]] -= 1
                counts[table[_find(table, keys, _pair_key(terms[x], two))]] -= 1
        shift = min(one >> 1 & 0x7F, two >> 1 & 0x7F)
        for x in range(max(i, j), end - 1):
            terms[x] = terms[x + 1]
        terms[min(i, j)] = new << 8 | shift << 1 | one & 1
        end -= 1
        i, j = _match(terms, begin, end, used, key)
    length[row] = end - begin
    mark = np.uint64(1) << np.uint64(row & 63)
    a, b = key >> 32, key >> 8 & 0xFFFFFF
    where[new, row >> 6] |= mark
    where[a, row >> 6] &= ~mark
    where[b, row >> 6] &= ~mark
    for x in range(begin, end):
        if terms[x] >> 8 == a or terms[x] >> 8 == b:
            where[terms[x] >> 8, row >> 6] |= mark


@njit_inner
def _packed(first: Ints, length: Ints, terms: Ints) -> tuple[Ints, Ints]:
    """The rows one after the other, without the gaps that substitution left."""
    start = np.zeros(len(length) + 1, np.int64)
    for row in range(len(length)):
        start[row + 1] = start[row] + length[row]
    left = np.empty(start[-1], np.int64)
    for row in range(len(length)):
        left[start[row] : start[row + 1]] = terms[first[row] : first[row] + length[row]]
    return start, left


@njit
def share_shifted_pairs(
    inputs: int, start: Ints, terms: Ints, max_values: int
) -> tuple[Ints, Ints, Ints]:
    """Greedy pair substitution in `terms`: start and terms of what is left, and temporaries.

    A temporary is (value a, shift of a, value b, shift of b, sign of b): (a << s) + sign*(b << t).
    """
    rows, first, length = len(start) - 1, start[:-1], start[1:] - start[:-1]
    values = min(max_values, inputs + len(terms)) + 1
    where = np.zeros((values, (rows + 63) // 64), np.uint64)  # by value: rows that hold it
    for row in range(rows):
        for i in range(start[row], start[row + 1]):
            where[terms[i] >> 8, row >> 6] |= np.uint64(1) << np.uint64(row & 63)
    keys, counts = np.empty(1024, np.int64), np.empty(1024, np.int64)
    table = np.full(4096, -1, np.int64)
    # pairs by count: stacks as linked lists, whose entries may be out of date
    heads = np.full(len(terms) + 2, -1, np.int64)
    items, below = np.empty(1024, np.int64), np.empty(1024, np.int64)
    entries = pairs = stacked = top = 0
    used = np.zeros(len(terms), np.bool_)
    touched, found = np.arange(rows), rows
    temps, made, new = np.zeros((64, 5), np.int64), 0, -1
    while True:
        keys, counts, table, pairs = _count_pairs(
            touched[:found], first, length, terms, new, keys, counts, table, pairs
        )
        for pair in range(pairs - 1, stacked - 1, -1):
            if counts[pair] >= 2:
                if entries == len(items):
                    items, below = _grown(items), _grown(below)
                items[entries], below[entries] = pair, heads[counts[pair]]
                heads[counts[pair]] = entries
                entries += 1
                top = max(top, counts[pair])
        stacked, found, key = pairs, 0, np.int64(0)
        while found == 0 and top >= 2 and inputs + made < max_values:
            entry = heads[top]
            if entry < 0:
                top -= 1
                continue
            heads[top] = below[entry]
            pair = items[entry]
            if counts[pair] != top:  # out of date: to the stack where it belongs now
                if counts[pair] >= 2:
                    below[entry] = heads[counts[pair]]
                    heads[counts[pair]] = entry
                continue
            key = keys[pair]
            found, matches = _rows_with(key, where, first, length, terms, used, touched)
            if matches < 2:  # occurrences overlap (x + 4x + 16x)
                counts[pair], found = matches, 0
        if found == 0:
            break
        if made == len(temps):
            larger = np.zeros((2 * made, 5), np.int64)
            larger[:made] = temps
            temps = larger
        apart = (key >> 1 & 0x7F) - 64
        temps[made, 0], temps[made, 1] = key >> 32, -apart if apart < 0 else 0
        temps[made, 2], temps[made, 3] = key >> 8 & 0xFFFFFF, apart if apart > 0 else 0
        temps[made, 4] = 1 - 2 * (key & 1)
        new = inputs + made
        made += 1
        for row in touched[:found]:
            _substitute(row, new, key, where, first, length, terms, used, keys, counts, table)
    left_start, left = _packed(first, length, terms)
    return left_start, left, temps[:made].copy()
