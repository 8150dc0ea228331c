"""How few passes an operation on one bit needs: an exhaustive search.

Over all ternary search keys and all constant writes, level by level. A sequence of passes is known
by where it takes every possible state; two states with different results must never be merged,
which keeps the search small. The last pass is not tried but solved for: its key is the smallest
cube that covers the states still wrong. A table's own passes are a sequence, too, if they are
right: then only shorter ones are looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cimc.targets.rtm_ap.pass_tables import ROLES, PassTable

_MASKED = 2
_BITS = 4  # of a state's code: 16 codes are a word, two are a byte
_MOVES = 64  # that are tried at once

Codes = NDArray[np.uint8]  # [sequences, states]: where each state is now
Words = NDArray[np.uint64]  # [sequences]: the same, the first state in the lowest bits


def fewest_passes(table: PassTable, limit: int) -> int | None:
    """Length of the shortest sequence that does what `table` does; None if it exceeds `limit`."""
    roles = [ROLES.index(role) for role in table.roles]
    states = list(table.states())
    start = [_packed(state, roles) for state in states]
    start += start[-1:] * (16 - len(start))  # what is no state goes where a state goes
    now = np.array([sum(code << _BITS * place for place, code in enumerate(start))], np.uint64)
    results = [[table.result(*state)[role] for role in roles] for state in states]
    wanted = np.array([[-1 if bit is None else bit for bit in row] for row in results])
    apart = _apart(wanted)
    moves = _moves(len(roles))
    known = len(table.passes) if table.passes and not list(table.check()) else limit + 1
    end = min(known, limit + 1)
    for length in range(end):
        if length == 0:
            if not _wrong(_codes(now, len(states)), wanted).any():
                return 0
        elif _one_pass(_codes(now, len(states)), wanted).any():
            return length
        elif length + 1 < end:
            now = np.unique(np.concatenate(list(_grown(now, moves, apart))))
    return known if known <= limit else None


def _apart(wanted: NDArray[np.int64]) -> list[tuple[np.uint64, np.uint64]]:
    """Which states must not be merged: a distance in a word, and the lowest bits of those there."""
    differ = ((wanted[:, None] != wanted) & (wanted[:, None] >= 0) & (wanted >= 0)).any(axis=2)
    masks: dict[int, int] = {}
    for i, j in np.argwhere(np.triu(differ)).tolist():
        masks[j - i] = masks.get(j - i, 0) | 1 << _BITS * i
    return [(np.uint64(_BITS * distance), np.uint64(mask)) for distance, mask in masks.items()]


def _codes(words: Words, states: int) -> Codes:
    shifts = np.arange(0, _BITS * states, _BITS, dtype=np.uint64)
    return (words[:, None] >> shifts & np.uint64(15)).astype(np.uint8)


def _packed(state: tuple[int, ...], roles: list[int]) -> int:
    return sum(state[role] << place for place, role in enumerate(roles))


def _wrong(codes: Codes, wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which states are not where they must be: [sequences, states]."""
    places = np.arange(wanted.shape[1])
    bits = codes[..., None] >> places & 1
    return np.asarray(((wanted >= 0) & (bits != wanted)).any(axis=-1))


def _moves(width: int) -> NDArray[np.uint8]:
    """Every distinct pass, as where it takes each of 16 codes; there are 2**width states."""
    found: dict[tuple[int, ...], None] = {}
    codes = range(1 << _BITS)
    for key, write in product(product((0, 1, _MASKED), repeat=width), repeat=2):
        found[tuple(_after(code, key, write) for code in codes)] = None
    found.pop(tuple(codes), None)
    return np.array(list(found), np.uint8)


def _after(code: int, key: tuple[int, ...], write: tuple[int, ...]) -> int:
    if any(bit != _MASKED and bit != code >> place & 1 for place, bit in enumerate(key)):
        return code
    for place, bit in enumerate(write):
        if bit != _MASKED:
            code = code & ~(1 << place) | bit << place
    return code


def _grown(
    now: Words, moves: NDArray[np.uint8], apart: list[tuple[np.uint64, np.uint64]]
) -> Iterator[Words]:
    """All words one pass further that still tell apart what must differ."""
    codes = np.arange(256)  # two of them, those of a byte
    tables = moves[:, codes & 15] | moves[:, codes >> _BITS] << _BITS
    bytes_now = now.view(np.uint8)
    for first in range(0, len(tables), _MOVES):
        after = np.take(tables[first : first + _MOVES], bytes_now, axis=1).view(np.uint64)
        after = after[after != now]
        for distance, states in apart:
            differ = after ^ after >> distance
            differ |= differ >> np.uint64(2)
            differ |= differ >> np.uint64(1)
            after = after[differ & states == states]
        yield np.unique(after)


def _one_pass(codes: Codes, wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each vector, whether a single pass takes every state to its result."""
    wrong = _wrong(codes, wanted)
    matched = np.ones_like(wrong)
    after = codes.copy()
    for place in range(wanted.shape[1]):
        bit = codes >> place & 1
        for key in (0, 1):  # the key covers all wrong states and is else as narrow as it can be
            shared = np.all((bit == key) | ~wrong, axis=1, keepdims=True)
            matched &= ~shared | (bit == key)
    constant = np.ones(len(codes), np.bool_)
    for place in range(wanted.shape[1]):
        bit, want = codes >> place & 1, wanted[:, place]
        needed = [np.any(wrong & (want == v) & (bit != v), axis=1) for v in (0, 1)]
        constant &= ~(needed[0] & needed[1])
        cleared, driven = (matched & each[:, None] for each in needed)
        one = np.uint8(1 << place)
        after = np.where(cleared, after & ~one, np.where(driven, after | one, after))
    arrived = ~_wrong(after, wanted).any(axis=1)
    return np.asarray(arrived & constant & wrong.any(axis=1))
