"""How few passes an operation on one bit needs: an exhaustive search.

Over all ternary search keys and all constant writes, level by level. A sequence of passes is known
by where it takes every possible state; two states with different results must never be merged,
which keeps the search small. The last pass is not tried but solved for: its key is the smallest
cube that covers the states still wrong.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from cimc.targets.rtm_ap.pass_tables import ROLES, PassTable

_MASKED = 2
Vectors = NDArray[np.uint8]  # [sequences, states]: where each state is now


def fewest_passes(table: PassTable, limit: int) -> int | None:
    """Length of the shortest sequence that does what `table` does; None if it exceeds `limit`."""
    roles = [ROLES.index(role) for role in table.roles]
    states = list(table.states())
    now = np.array([[_packed(state, roles) for state in states]], np.uint8)
    results = [[table.result(*state)[role] for role in roles] for state in states]
    wanted = np.array([[-1 if bit is None else bit for bit in row] for row in results])
    differ = (wanted[:, None] != wanted) & (wanted[:, None] >= 0) & (wanted >= 0)
    clash = np.argwhere(np.triu(differ.any(axis=2)))
    moves = _moves(len(roles))
    for length in range(limit + 1):
        if length == 0:
            if not _wrong(now, wanted).any():
                return 0
        elif _one_pass(now, wanted).any():
            return length
        elif length < limit:
            now = _grown(now, moves, clash)
    return None


def _packed(state: tuple[int, ...], roles: list[int]) -> int:
    return sum(state[role] << place for place, role in enumerate(roles))


def _wrong(codes: Vectors, wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which states are not where they must be: [sequences, states]."""
    places = np.arange(wanted.shape[1])
    bits = codes[..., None] >> places & 1
    return np.asarray(((wanted >= 0) & (bits != wanted)).any(axis=-1))


def _moves(width: int) -> NDArray[np.uint8]:
    """Every distinct pass, as where it takes each of the 2**width states."""
    found: dict[tuple[int, ...], None] = {}
    codes = range(1 << width)
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


def _grown(now: Vectors, moves: NDArray[np.uint8], clash: NDArray[np.int64]) -> Vectors:
    """All distinct vectors one pass further that still tell apart what must differ."""
    kept: list[Vectors] = []
    for move in moves:
        after = move[now]
        fine = np.ones(len(after), np.bool_)
        for i, j in clash:
            fine &= after[:, i] != after[:, j]
        kept.append(after[fine])
    return np.unique(np.concatenate(kept), axis=0)


def _one_pass(codes: Vectors, wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each vector, whether a single pass takes every state to its result."""
    wrong = _wrong(codes, wanted)
    matched = np.ones_like(wrong)
    after = codes.copy()
    for place in range(wanted.shape[1]):
        bit = codes >> place & 1
        for key in (
            0,
            1,
        ):  # the key covers all wrong states and is otherwise as narrow as it can be
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
