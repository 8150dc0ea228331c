"""The fast engine with a probe: counts, wear, and shift faults, pass by pass on 64 rows at a time.

Without faults it computes what `run_kernels` does. A track that slips takes its bits along, so that
everything after that reads and writes beside; nothing else has to know. `arrays.PlainArrays` is the
twin.
"""

from __future__ import annotations

import math

import numpy as np

from cimc import jit
from cimc.targets.rtm_ap import expand_kernels, probe, run_kernels, shift_kernels
from cimc.targets.rtm_ap.expand_kernels import (
    FILES,
    FORGET,
    FRESH,
    MAX_STEPS,
    WRITE_0,
    WRITE_1,
    Codes,
    Ints,
    Number,
    cell_of,
    expand,
)
from cimc.targets.rtm_ap.probe import (
    CHANGED,
    CHECKS,
    FAULTS,
    MENDED,
    MOVES,
    NEVER,
    PADS,
    SEARCHED,
    WRITTEN,
    Luck,
    Shifting,
    Watch,
)
from cimc.targets.rtm_ap.run_kernels import OK, Flags, Words, drive, readable, tag_rows
from cimc.targets.rtm_ap.shift_kernels import checks, move

_FILES = (
    *(__file__, expand_kernels.__file__, probe.__file__, run_kernels.__file__),
    *(shift_kernels.__file__, *FILES),
)
njit, njit_inner = jit.compiler(*_FILES), jit.compiler(*_FILES, inner=True)


@njit_inner
def _ones(x: np.uint64) -> np.uint64:
    """Set bits of a 64-bit word."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit_inner
def _random(luck: Luck) -> np.uint64:
    """The next 64 random bits: splitmix64."""
    luck.state[0] += np.uint64(0x9E3779B97F4A7C15)
    x = luck.state[0]
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: np.uint64 = x ^ (x >> np.uint64(31))
    return found


@njit_inner
def _draw(luck: Luck) -> None:
    """Good steps before the next fault."""
    number = np.float64(_random(luck) >> np.uint64(11)) * 2.0**-53
    luck.until[0] = np.int64(min(math.log(1 - number) * luck.scale, float(NEVER)))


@njit_inner
def _slip(cells: Words, watch: Watch, column: Number, domains: int, line: Number, way: int) -> None:
    """Move the bits of one track, so that domain d holds what lay in d + way.

    At PADS domains off it goes no further.
    """
    if abs(watch.offset[column, line] + way) > PADS:
        return
    before = watch.offset[column, line]
    watch.offset[column, line] += way
    if before == 0:
        watch.astray[column] += 1
    elif watch.offset[column, line] == 0:
        watch.astray[column] -= 1
    word, bit = line >> 6, np.uint64(line & 63)
    one, pads = np.uint64(1) << bit, watch.pads[column]
    length = domains + 2 * PADS
    for place in range(length):
        to = place if way > 0 else length - 1 - place
        source = to + way
        held = np.uint64(0)
        if 0 <= source < PADS:
            held = pads[source, word]
        elif source < 0 or source >= length:
            held = np.uint64(0)
        elif source >= PADS + domains:
            held = pads[source - domains, word]
        else:
            held = cells[column * domains + source - PADS, word]
        held &= one
        if to < PADS:
            pads[to, word] = (pads[to, word] & ~one) | held
        elif to >= PADS + domains:
            pads[to - domains, word] = (pads[to - domains, word] & ~one) | held
        else:
            cell = column * domains + to - PADS
            cells[cell, word] = (cells[cell, word] & ~one) | held


@njit_inner
def _shifted(
    cells: Words,
    column: Number,
    steps: Number,
    domains: int,
    shifting: Shifting,
    watch: Watch,
    luck: Luck,
) -> None:
    """All tracks of a column made some steps: count them, let some go wrong, check them."""
    if steps == 0:
        return
    watch.fixed[MOVES] += steps
    lines = watch.offset.shape[1]
    rows = lines // len(watch.each)
    left = steps * lines
    while luck.until[0] < left:
        left -= luck.until[0] + 1
        line = (steps * lines - 1 - left) // steps
        watch.each[line // rows, FAULTS] += 1
        _slip(cells, watch, column, domains, line, 1 if _random(luck) & np.uint64(1) else -1)
        _draw(luck)
    luck.until[0] -= left
    found = checks(watch.since, column, steps, shifting.period)
    watch.fixed[CHECKS] += found
    if found > 0 and watch.astray[column] > 0:
        for line in range(lines):
            off = watch.offset[column, line]
            if off != 0 and abs(off) <= shifting.reach:
                watch.each[line // rows, MENDED] += 1
                for _ in range(abs(off)):
                    _slip(cells, watch, column, domains, line, -1 if off > 0 else 1)


@njit_inner
def _approach(
    cells: Words, cell: Number, domains: int, shifting: Shifting, watch: Watch, luck: Luck
) -> None:
    """Bring a cell under its nearest port."""
    column = cell // domains
    steps = move(watch.head, column, cell % domains, domains, shifting.ports, shifting.eager)
    _shifted(cells, column, steps, domains, shifting, watch, luck)


@njit_inner
def _drive(cells: Words, cell: Number, tag: Words, bit: int, domains: int, watch: Watch) -> None:
    """Write `bit` into the tagged rows of one cell, and count it."""
    row, each = cells[cell], watch.each
    length = len(row) // len(each)
    for w in range(len(row)):
        differs = np.int64(_ones(tag[w] & (~row[w] if bit == 1 else row[w])))
        each[w // length, WRITTEN] += np.int64(_ones(tag[w]))
        each[w // length, CHANGED] += differs
        watch.wear[cell, w] += differs
    carry = place_of_carry(cell, domains, len(watch.head), len(watch.planes))
    if carry >= 0:
        for w in range(len(row)):
            _count(watch.planes[carry], w, tag[w] & (~row[w] if bit == 1 else row[w]))
    drive(row, tag, bit)


@njit_inner
def place_of_carry(cell: Number, domains: int, columns: int, carries: int) -> Number:
    """Which of the carries, which lie in the first cells of the last columns; -1: none."""
    column = cell // domains
    if cell % domains or column < columns - carries:
        return -1
    return columns - 1 - column


@njit_inner
def _count(planes: Words, word: int, ones: np.uint64) -> None:
    """Add 1 to the counts of these rows, bit by bit of all 64 counts at once."""
    place = 0
    while ones != 0:
        held = planes[place, word]
        planes[place, word] = held ^ ones
        ones &= held
        place += 1


@njit
def run_probed(
    code: Codes,
    slots: Codes,
    cells: Words,
    valid: Flags,
    columns: int,
    domains: int,
    carries: int,
    passes: Ints,
    search: Ints,
    write: Ints,
    shifting: Shifting,
    watch: Watch,
    luck: Luck,
) -> tuple[int, int]:
    """Execute words as `run_kernels.run_code` does, and note all that happens."""
    memory = np.array(FRESH)
    steps = np.empty((MAX_STEPS, 7), np.int64)
    tag = np.empty(cells.shape[1], np.uint64)
    every = np.full(cells.shape[1], ~np.uint64(0))
    for place in range(carries):
        carry = (columns - 1 - place) * domains
        _drive(cells, carry, every, 0, domains, watch)
        valid[carry] = True
    for number in range(len(code)):
        n = expand(np.int64(code[number]), slots, memory, columns, domains, carries, steps)
        if n < 0:
            return number, n
        for s in range(n):
            step = steps[s]
            table = step[0]
            if table == FORGET:
                valid[step[1]] = False
                continue
            for role in range(4):
                if step[1 + role] >= 0:
                    _approach(cells, step[1 + role], domains, shifting, watch, luck)
            if table in (WRITE_0, WRITE_1):
                _drive(cells, step[4], every, 0 if table == WRITE_0 else 1, domains, watch)
                valid[step[4]] = True
                continue
            why = readable(step, valid, domains)
            if why != OK:
                return number, why
            for p in range(passes[table]):
                watch.fixed[SEARCHED] += tag_rows(cells, step, search, table, p, tag)
                for role in range(4):
                    bit = write[table, p, role]
                    if bit != 2:
                        _drive(cells, step[1 + role], tag, bit, domains, watch)
    return -1, 0


@njit
def store_probed(
    cells: Words,
    valid: Flags,
    slots: Codes,
    values: Ints,
    domains: int,
    shifting: Shifting,
    watch: Watch,
    luck: Luck,
) -> None:
    """Write values[slots, lines] into the slots' cells, one bit after the other."""
    length = cells.shape[1] // len(watch.each)
    for place in range(len(slots)):
        slot = np.int64(slots[place])
        for bit in range(slot >> 22 & 0x3F):
            cell = cell_of(slot, bit, domains)
            _approach(cells, cell, domains, shifting, watch, luck)
            valid[cell] = True
            for word in range(cells.shape[1]):
                packed = np.uint64(0)
                for line in range(64):
                    one = np.uint64(values[place, word * 64 + line] >> bit & 1)
                    packed |= one << np.uint64(line)
                differs = np.int64(_ones(packed ^ cells[cell, word]))
                watch.each[word // length, WRITTEN] += 64
                watch.each[word // length, CHANGED] += differs
                watch.wear[cell, word] += differs
                cells[cell, word] = packed


@njit
def fetch_probed(
    cells: Words,
    valid: Flags,
    slots: Codes,
    values: Ints,
    domains: int,
    shifting: Shifting,
    watch: Watch,
    luck: Luck,
) -> Number:
    """Add the slots' cells to values[slots, lines]; returns a cell that holds nothing, or -1."""
    for place in range(len(slots)):
        slot = np.int64(slots[place])
        for bit in range(slot >> 22 & 0x3F):
            cell = cell_of(slot, bit, domains)
            _approach(cells, cell, domains, shifting, watch, luck)
            if not valid[cell]:
                return cell
            for word in range(cells.shape[1]):
                packed = cells[cell, word]
                for line in range(64):
                    one = np.int64(packed >> np.uint64(line) & np.uint64(1))
                    values[place, word * 64 + line] |= one << bit
    return -1


@njit
def shift_home(cells: Words, domains: int, shifting: Shifting, watch: Watch, luck: Luck) -> None:
    """All columns return to where they started; their next check is a whole period away."""
    for column in range(len(watch.head)):
        steps = abs(watch.head[column])
        watch.head[column] = 0
        _shifted(cells, column, steps, domains, shifting, watch, luck)
        watch.since[column] = 0
