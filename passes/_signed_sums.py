"""Sums that share subexpressions: from weights to few additions.

    y0 = x0 + x1 - x2            t  = x0 + x1
    y1 = x0 + x1 + 4*x2    ->    y0 = t - x2
    y2 = -x0 - x1                y1 = t + (x2 << 2)
                                 y2 = -t

Weights of more than two bits become signed digits in canonical form (no two adjacent digits are
non-zero), so 7*x = (x << 3) - x.

The rule is greedy: the pair of terms, up to a common shift and sign, that occurs most often in all
sums becomes a value, and so on while a pair occurs twice. It never looks back; `improved` does:
some of what is shared is taken apart again, at random, and shared anew.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.ir.sums import Sums, sums_of
from cimc.passes._shifted_pairs import share_shifted_pairs
from cimc.passes._sums_order import dissolved, ordered
from cimc.passes._ternary_pairs import share_pairs

njit = jit.compiler(__file__)
Ints = NDArray[np.int64]
_NO_LIMIT = 1 << 20
_APART = 0.4  # of what is shared, in a round of `improved`


def signed_sums(weights: Ints) -> Sums:
    """The sums weights @ x, a term for each non-zero signed digit: nothing shared yet."""
    start, terms = _digits(np.ascontiguousarray(weights, np.int64))
    return Sums(weights.shape[1], 0, start, terms)


def reduced(sums: Sums, most: int = _NO_LIMIT, rounds: int = 0) -> Sums:
    """The same sums with as few additions as the greedy rule finds, and `improved` then.

    At most `most` values are inputs or shared.
    """
    return improved(_shared(sums, most), rounds, most)


def improved(sums: Sums, rounds: int, most: int = _NO_LIMIT) -> Sums:
    """The best of so many rounds in which some shared values are taken apart and shared anew."""
    random = np.random.default_rng(0)
    for _ in range(rounds):
        apart = random.random(sums.shared) < _APART
        found = _shared(_dissolved(sums, apart), most)
        if found.additions <= sums.additions:
            sums = found
    return sums


def shared_rows(sums: Sums) -> Sums:
    """Rows that are equal up to sign become one value, made once, which all of them add."""
    values = _random_values(sums)
    lengths = np.diff(sums.start)
    weights = np.where(sums.terms & 1, -1, 1) << (sums.terms >> 1 & 0x7F)
    total = np.concatenate([[0], np.cumsum(values[sums.terms >> 8] * weights)])
    marks = np.abs(total[sums.start[1:]] - total[sums.start[:-1]])[sums.shared :]
    marks = np.where(lengths[sums.shared :] > 1, marks, 0)
    _, first, group, count = np.unique(
        marks, return_index=True, return_inverse=True, return_counts=True
    )
    repeated = np.flatnonzero((count > 1) & (marks[first] != 0))
    if not len(repeated):
        return sums
    return _merged(sums, first, group, repeated)


def _random_values(sums: Sums) -> Ints:
    """A number for every value, so that rows are (all but certainly) equal where theirs are."""
    values = np.random.default_rng(0).integers(1 << 40, 1 << 62, sums.inputs + sums.shared)
    return values


def _merged(sums: Sums, first: Ints, group: Ints, repeated: Ints) -> Sums:
    """Make the first row of each repeated group a value; the group's rows are plus or minus it."""
    rows = [sums.row(number) for number in range(sums.rows)]
    shared = [sums.sum(number) for number in range(sums.shared)]
    for number in repeated.tolist():
        wanted = sorted(rows[first[number]])
        negated = sorted(term ^ 1 for term in wanted)
        value = sums.inputs + len(shared)
        members = np.flatnonzero(group == number).tolist()
        if all(sorted(rows[row]) in (wanted, negated) for row in members):
            shared.append(wanted)
            for row in members:
                rows[row] = [value << 8 | (sorted(rows[row]) != wanted)]
    return sums_of(sums.inputs, shared, rows)


def in_order(sums: Sums) -> Sums:
    """Every shared value is a pair and made just before its first use; nothing unused is made."""
    start, terms, shared = ordered(sums.inputs, sums.shared, sums.start, sums.terms, True, True)
    return Sums(sums.inputs, shared, start, terms)


def stands_for(sums: Sums, weights: Ints) -> bool:
    """Whether the sums are weights @ x."""
    if (sums.rows, sums.inputs) != weights.shape:
        return False
    return bool(_equal(sums.inputs, sums.shared, sums.start, sums.terms, weights))


def without(sums: Sums, most: int) -> Sums:
    """At most `most` shared values: those used least often are taken apart."""
    uses = np.bincount(sums.terms >> 8, minlength=sums.inputs + sums.shared)[sums.inputs :]
    apart = np.ones(sums.shared, np.bool_)
    apart[np.argsort(-uses, kind="stable")[:most]] = False
    return in_order(_dissolved(sums, apart))


def _shared(sums: Sums, most: int) -> Sums:
    """The greedy rule on all sums, shared ones and results alike."""
    values = sums.inputs + sums.shared
    if (sums.terms >> 1 & 0x7F).any():
        start, terms, temps = share_shifted_pairs(values, sums.start, sums.terms.copy(), most)
    else:
        plain = sums.terms >> 8 << 1 | sums.terms & 1
        start, terms, pairs = share_pairs(values, sums.start, plain, most)
        terms = terms >> 1 << 8 | terms & 1
        temps = np.zeros((len(pairs), 5), np.int64)
        temps[:, (0, 2, 4)] = pairs
    held = np.empty((len(temps), 2), np.int64)
    held[:, 0] = temps[:, 0] << 8 | temps[:, 1] << 1
    held[:, 1] = temps[:, 2] << 8 | temps[:, 3] << 1 | (temps[:, 4] < 0)
    at = start[sums.shared]
    starts = np.concatenate(
        [
            start[: sums.shared],
            at + 2 * np.arange(len(temps)),
            start[sums.shared :] + 2 * len(temps),
        ]
    )
    terms = np.concatenate([terms[:at], held.reshape(-1), terms[at:]])
    count = sums.shared + len(temps)
    begin, left, shared = ordered(sums.inputs, count, starts, terms, False, False)
    return Sums(sums.inputs, shared, begin, left)


def _dissolved(sums: Sums, apart: NDArray[np.bool_]) -> Sums:
    start, terms = dissolved(sums.inputs, sums.shared, sums.start, sums.terms, apart)
    return Sums(sums.inputs, sums.shared - int(apart.sum()), start, terms)


@njit
def _equal(inputs: int, shared: int, start: Ints, terms: Ints, weights: Ints) -> bool:
    """Whether each result is its row of weights."""
    made = np.zeros((shared, inputs), np.int64)
    total = np.empty(inputs, np.int64)
    for number in range(len(start) - 1):
        total[:] = 0
        for place in range(start[number], start[number + 1]):
            value, shift = terms[place] >> 8, terms[place] >> 1 & 0x7F
            sign = -1 if terms[place] & 1 else 1
            if value < inputs:
                total[value] += sign << shift
            else:
                for i in range(inputs):
                    total[i] += sign * (made[value - inputs, i] << shift)
        for i in range(inputs):
            if number < shared:
                made[number, i] = total[i]
            elif total[i] != weights[number - shared, i]:
                return False
    return True


@njit
def _digits(weights: Ints) -> tuple[Ints, Ints]:
    """Canonical signed digits of every weight, row by row: start of each row, terms."""
    rows, inputs = weights.shape
    start = np.zeros(rows + 1, np.int64)
    terms = np.empty(0, np.int64)
    for counting in (True, False):
        count = 0
        for row in range(rows):
            for value in range(inputs):
                rest = weights[row, value]
                shift = 0
                while rest != 0:
                    if rest & 1:
                        digit = 2 - (rest & 3)
                        rest -= digit
                        if not counting:
                            terms[count] = value << 8 | shift << 1 | (1 if digit < 0 else 0)
                        count += 1
                    rest >>= 1
                    shift += 1
            start[row + 1] = count
        if counting:
            terms = np.empty(count, np.int64)
    return start, terms
