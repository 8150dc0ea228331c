"""Kernels that rewrite whole sets of sums: take shared values apart, put them in order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit

njit, njit_inner = jit.compiler(__file__), jit.compiler(__file__, inner=True)
Ints = NDArray[np.int64]


@njit_inner
def _room(array: Ints, count: int) -> Ints:
    """The array, larger if it would not hold so many."""
    if count <= len(array):
        return array
    larger = np.empty(2 * count, array.dtype)
    larger[: len(array)] = array
    return larger


@njit
def dissolved(
    inputs: int, shared: int, start: Ints, terms: Ints, apart: NDArray[np.bool_]
) -> tuple[Ints, Ints]:
    """Start and terms without some shared values: their terms stand where they were used."""
    renamed = np.arange(inputs + shared)
    kept = inputs
    for number in range(shared):
        renamed[inputs + number] = kept
        kept += 0 if apart[number] else 1
    pool, filled = np.empty(2 * len(terms) + 16, np.int64), 0
    begin = np.zeros(len(start), np.int64)  # in the pool
    lengths = np.zeros(len(start) - 1, np.int64)
    for number in range(len(start) - 1):
        begin[number] = filled
        for place in range(start[number], start[number + 1]):
            value, shift, negative = terms[place] >> 8, terms[place] >> 1 & 0x7F, terms[place] & 1
            source = value - inputs
            if source < 0 or not apart[source]:
                pool = _room(pool, filled + 1)
                pool[filled] = renamed[value] << 8 | shift << 1 | negative
                filled += 1
                continue
            pool = _room(pool, filled + lengths[source])
            for i in range(begin[source], begin[source] + lengths[source]):
                pool[filled] = (pool[i] + (shift << 1)) ^ negative
                filled += 1
        lengths[number] = filled - begin[number]
    left = np.empty(filled, np.int64)
    starts, count, at = np.zeros(len(start) - apart.sum(), np.int64), 0, 0
    for number in range(len(start) - 1):
        if number < shared and apart[number]:
            continue
        length = lengths[number]
        left[at : at + length] = pool[begin[number] : begin[number] + length]
        at += length
        count += 1
        starts[count] = at
    return starts, left[:at].copy()


@njit_inner
def _visited(
    root: int, inputs: int, start: Ints, terms: Ints, done: NDArray[np.bool_], order: Ints,
    count: int, stack: Ints,
) -> int:  # fmt: skip
    """Append a shared value to the order, after those it is made of."""
    stack[0], depth = root, 1
    while depth:
        number = stack[depth - 1]
        missing = -1
        for place in range(start[number], start[number + 1]):
            source = (terms[place] >> 8) - inputs
            if source >= 0 and not done[source]:
                missing = source
                break
        if missing >= 0:
            stack[depth] = missing
            depth += 1
            continue
        depth -= 1
        if not done[number]:
            done[number] = True
            order[count] = number
            count += 1
    return count


@njit_inner
def _order(
    inputs: int, shared: int, start: Ints, terms: Ints, by_use: bool
) -> Ints:  # fmt: skip
    """Shared values, each after those it is made of: by first use, or as they come."""
    done, order, count = np.zeros(shared, np.bool_), np.empty(shared, np.int64), 0
    stack = np.empty(shared + 1, np.int64)
    if not by_use:
        for number in range(shared):
            count = _visited(number, inputs, start, terms, done, order, count, stack)
        return order
    for place in range(start[shared], len(terms)):
        source = (terms[place] >> 8) - inputs
        if source >= 0 and not done[source]:
            count = _visited(source, inputs, start, terms, done, order, count, stack)
    return order[:count]


@njit
def ordered(
    inputs: int, shared: int, start: Ints, terms: Ints, by_use: bool, pairs: bool
) -> tuple[Ints, Ints, int]:
    """Start, terms and number of shared values, in order, each after those it is made of.

    A shared value of one term is that term. All others begin with a term that is neither shifted
    nor negative; where `pairs`, they are made two terms at a time. `by_use`: in the order in which
    the results use them; unused ones are left out.
    """
    order = _order(inputs, shared, start, terms, by_use)
    stands = np.empty(inputs + shared, np.int64)  # the term that a value has become
    for value in range(inputs):
        stands[value] = value << 8
    starts = np.zeros(len(start) + len(terms), np.int64)
    left = np.empty(len(terms) + 2 * len(terms), np.int64)
    made, at = 0, 0
    for i in range(len(order)):
        number = order[i]
        begin, end = start[number], start[number + 1]
        first = at
        for place in range(begin, end):
            base = stands[terms[place] >> 8]
            left[at] = (base + (terms[place] & 0xFE)) ^ (terms[place] & 1)
            at += 1
        if end - begin == 1:
            at = first
            stands[inputs + number] = left[first]
            continue
        lead = first
        for place in range(first, at):
            if left[place] & 0xFE < left[lead] & 0xFE:
                lead = place
        flip = left[lead] & 0xFF  # shift and sign that all uses take over
        left[first], left[lead] = left[lead], left[first]
        for place in range(first, at):
            left[place] = (left[place] - (flip & 0xFE)) ^ (flip & 1)
        if pairs and end - begin > 2:  # a chain: each link is the one before plus a term
            length = at - first
            for link in range(length - 2, 0, -1):
                left[first + 2 * link + 1] = left[first + link + 1]
            for link in range(1, length - 1):
                left[first + 2 * link] = (inputs + made + link - 1) << 8
                starts[made + link] = first + 2 * link
            made += length - 2
            at = first + 2 * (length - 1)
        made += 1
        starts[made] = at
        stands[inputs + number] = ((inputs + made - 1) << 8) + flip
    total = made
    for row in range(shared, len(start) - 1):
        for place in range(start[row], start[row + 1]):
            base = stands[terms[place] >> 8]
            left[at] = (base + (terms[place] & 0xFE)) ^ (terms[place] & 1)
            at += 1
        total += 1
        starts[total] = at
    return starts[: total + 1].copy(), left[:at].copy(), made
