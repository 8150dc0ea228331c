"""The greedy pair rule in plain Python: the twin of a kernel, and a reference for better rules."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Pair = tuple[int, int, int]  # a, b and the sign of a + sign*b
Row = dict[int, int]  # sign by value, in the order in which terms came


def rows_of(weights: Ints) -> list[Row]:
    """The non-zero weights of every row."""
    return [{i: sign for i, sign in enumerate(row) if sign} for row in weights.tolist()]


def additions(rows: list[Row], temps: list[Pair]) -> int:
    """Additions with accumulation."""
    return len(temps) + sum(map(len, rows))


def greedy(weights: Ints, most: int = 1 << 20) -> tuple[list[Row], list[Pair]]:
    """Recount all pairs again and again; take the first of the most frequent."""
    rows, temps = rows_of(weights), list[Pair]()
    while weights.shape[1] + len(temps) < most:
        counts: dict[Pair, int] = defaultdict(int)
        for row in rows:
            for b, a in combinations(sorted(row), 2):
                counts[a, b, row[a] * row[b]] += 1
        best = max(counts, key=lambda pair: counts[pair], default=None)
        if best is None or counts[best] < 2:
            break
        _replace(rows, best, weights.shape[1] + len(temps))
        temps.append(best)
    return rows, temps


def greedy_last_noted(weights: Ints, most: int = 1 << 20) -> tuple[list[Row], list[Pair]]:
    """What `share_pairs` does: stacks of pairs by count, looked at again when they are next."""
    inputs = weights.shape[1]
    rows, temps = rows_of(weights), list[Pair]()
    stacks: dict[int, list[Pair]] = defaultdict(list)
    every: dict[Pair, int] = defaultdict(int)
    for row in rows:
        for b, a in combinations(row, 2):
            every[a, b, row[a] * row[b]] += 1
    for pair in sorted(every, key=lambda pair: (pair[0], pair[1], -pair[2])):
        stacks[every[pair]].append(pair)
    while inputs + len(temps) < most:
        top = max((count for count, stack in stacks.items() if stack), default=0)
        if top < 2:
            break
        a, b, sign = stacks[top].pop()
        count = sum(a in row and b in row and row[a] * row[b] == sign for row in rows)
        if count < top:
            stacks[count].append((a, b, sign))
            continue
        new = inputs + len(temps)
        temps.append((a, b, sign))
        counts: dict[Pair, int] = defaultdict(int)
        for row in _replace(rows, (a, b, sign), new):
            for other in row:
                if other != new:
                    counts[new, other, row[new] * row[other]] += 1
        for pair, number in counts.items():
            stacks[number].append(pair)
    return rows, temps


def _replace(rows: list[Row], pair: Pair, new: int) -> list[Row]:
    """Put value `new` in place of a pair; returns the rows that had it."""
    a, b, sign = pair
    found = []
    for row in rows:
        if a in row and b in row and row[a] * row[b] == sign:
            row[new] = row.pop(a)
            del row[b]
            found.append(row)
    return found
