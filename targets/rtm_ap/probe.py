"""What a machine counts while its arrays run, and what goes wrong in them.

A probe is put into a machine before it runs (`PROBE` names it among the machine's states). For
every array it counts what the passes do, and how often each cell changes. With a fault rate, a step
of a track goes wrong with that probability: the track ends one domain too far or too short, and
stays off until a realignment code finds it. What is read and written then lies one domain beside.

Faults are drawn by skipping: the number of good steps before the next fault is geometric, so a rate
of 1e-8 costs nothing. Steps are numbered in the order of the program, column by column, row by row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc.targets.rtm_ap.span import Span
from cimc.targets.rtm_ap_spec import RtmApSpec

Ints = NDArray[np.int64]
PROBE: Final = "rtm-ap.probe"  # the machine's state of this name
PLANES: Final = 32  # bits of a count of changes
PADS: Final = 8  # domains beyond either end of a track; it cannot be off by more
NEVER: Final = 1 << 62  # good steps before the next fault, where there are none
WRITTEN, CHANGED, FAULTS, MENDED = range(4)  # columns of Watch.each
SEARCHED, MOVES, CHECKS = range(3)  # places of Watch.fixed


class Shifting(NamedTuple):
    """How tracks move, as kernels take it."""

    ports: int
    eager: bool
    period: int  # steps of a column between checks of its tracks; 0: never
    reach: int  # a check mends tracks that are off by up to so many domains


class Luck(NamedTuple):
    """Where the random numbers stand: splitmix64, and good steps before the next fault."""

    state: NDArray[np.uint64]  # [1]
    until: Ints  # [1]
    scale: float  # 1 / log(1 - rate); 0 where nothing goes wrong


class Watch(NamedTuple):
    """What is known of the arrays of one span while they run; parts of it belong to the probe."""

    fixed: Ints  # [3] searched cells, steps of tracks, checks: of each row
    each: Ints  # [arrays, 4] cells written and changed, faults, tracks mended
    wear: Ints  # [cells, words] changes in 64 rows
    planes: NDArray[np.uint64]  # [carries, PLANES, words] changes of each row of a carry, by bits
    head: Ints  # [columns] how far each is shifted
    since: Ints  # [columns] steps since the last check
    offset: NDArray[np.int8]  # [columns, lines] domains that each track is off
    astray: Ints  # [columns] tracks that are off
    pads: NDArray[np.uint64]  # [columns, 2 * PADS, words] before the first domain, after the last


@dataclass(slots=True)
class Counts:
    """What the passes of some arrays did, over all their rows."""

    searched: int = 0
    written: int = 0
    changed: int = 0
    moves: int = 0  # steps of single tracks
    checks: int = 0  # of the alignment of single tracks
    faults: int = 0
    mended: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)))


def counts_of(watch: Watch, span: Span, array: int) -> Counts:
    """Those of one array of a span."""
    searched, moves, checks = (watch.fixed * span.rows).tolist()
    written, changed, faults, mended = watch.each[array].tolist()
    return Counts(searched, written, changed, moves, checks, faults, mended)


class Probe:
    """Counts of all arrays of a chip over any number of runs, and where the next fault comes.

    `arrays` of the chip; `carries`: the last columns, whose first cells are watched row by row.
    """

    def __init__(
        self,
        shifting: Shifting,
        rate: float = 0.0,
        seed: int = 0,
        *,
        carries: int = 1,
        arrays: int = 1,
    ) -> None:
        self.shifting, self.rate = shifting, rate
        self.carries, self.arrays = carries, arrays
        scale = 0.0
        if rate > 0:
            scale = 1 / math.log1p(-rate) if rate < 1 else -0.0
        self.luck = Luck(np.array([seed % (1 << 64)], np.uint64), np.array([NEVER]), scale)
        draw(self.luck, rate)
        self.each: Ints = np.zeros((arrays, 4), np.int64)
        self.fixed: Ints = np.zeros((arrays, 3), np.int64)
        self._rows = 0
        self._worn: Ints = np.zeros((0, 0, 0), np.int64)
        self._planes: NDArray[np.uint64] = np.zeros((0, 0, 0, 0), np.uint64)
        self._open: dict[int, tuple[Span, Watch]] = {}  # by first array

    def watch(self, span: Span) -> Watch:
        """What belongs to arrays that begin to hold something; `close` ends it."""
        if not self._worn.size:
            words, cells = span.rows // 64, span.columns * span.domains
            self._rows = span.rows
            self._worn = np.zeros((cells, self.arrays + 1, words), np.int64)
            self._planes = np.zeros((self.carries, PLANES, self.arrays + 1, words), np.uint64)
        columns, words = span.columns, span.lines // 64
        tracks = columns if self.rate > 0 else 0
        here = slice(span.first, span.first + span.count)
        found = Watch(
            np.zeros(3, np.int64),
            self.each[here],
            self._worn[:, here].reshape(-1, words),
            self._planes[:, :, here].reshape(self.carries, PLANES, words),
            np.zeros(columns, np.int64),
            np.zeros(columns, np.int64),
            np.zeros((tracks, span.lines), np.int8),
            np.zeros(columns, np.int64),
            np.zeros((tracks, 2 * PADS, words), np.uint64),
        )
        self._open[span.first] = span, found
        return found

    def close(self, first: int) -> None:
        """The content of these arrays is given up: what they counted is part of the totals.

        Tracks that are off are forgotten, too: what is written and read by a track that stays off
        is right, so a new content begins as if all were where they belong.
        """
        span, watch = self._open.pop(first)
        self.fixed[span.first : span.first + span.count] += watch.fixed

    def close_all(self) -> None:
        """No array is in use any more: all runs so far are part of the totals."""
        for first in list(self._open):
            self.close(first)

    @property
    def counts(self) -> dict[int, Counts]:
        """By array, of those that did something."""
        found = {}
        for array in np.flatnonzero(self.fixed.any(axis=1) | self.each.any(axis=1)).tolist():
            searched, moves, checks = (self.fixed[array] * self._rows).tolist()
            written, changed, faults, mended = self.each[array].tolist()
            found[array] = Counts(searched, written, changed, moves, checks, faults, mended)
        return found

    def total(self) -> Counts:
        """Counts of all arrays."""
        return sum(self.counts.values(), Counts())

    def wear(self, array: int) -> Ints:
        """Changes of an array's cells: [cells, rows / 64]."""
        return self._worn[:, array]

    def carry_wear(self, array: int) -> Ints:
        """Changes of an array's carries: [carries, rows]."""
        planes = np.ascontiguousarray(self._planes[:, :, array])
        bits = np.unpackbits(planes.view(np.uint8), axis=-1, bitorder="little")
        return np.tensordot(bits.astype(np.int64), 1 << np.arange(PLANES), axes=(1, 0))


def probe_of(spec: RtmApSpec, rate: float = 0.0, seed: int = 0) -> Probe:
    """A probe for a chip as its target file describes it."""
    ap = spec.ap
    shifting = Shifting(ap.ports, ap.shift_policy == "eager", ap.realign_steps, ap.realign_reach)
    return Probe(shifting, rate, seed, carries=ap.carries, arrays=spec.cores * ap.arrays)


def random_word(luck: Luck) -> int:
    """The next 64 random bits: splitmix64."""
    mask = (1 << 64) - 1
    state = (int(luck.state[0]) + 0x9E3779B97F4A7C15) & mask
    luck.state[0] = state
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ state >> 27) * 0x94D049BB133111EB & mask
    return state ^ state >> 31


def draw(luck: Luck, rate: float) -> None:
    """Good steps before the next fault: P(n) = (1 - rate)**n * rate."""
    if rate <= 0:
        luck.until[0] = NEVER
        return
    number = (random_word(luck) >> 11) * 2.0**-53  # in [0, 1)
    luck.until[0] = int(min(math.log(1 - number) * luck.scale, float(NEVER)))
