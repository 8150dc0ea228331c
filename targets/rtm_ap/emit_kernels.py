"""Kernels of code generation: bounds of stored values, and the words of one chunk of inputs.

Stored values are unsigned: where a value is subtracted, its complement 2**bits - 1 - value is added
and the constant is kept track of. So every value v of a chunk is stored as

    stored(v) = offset[v] + sum over inputs of weight[v, i] * x[i],     0 <= x[i] <= top[i]

and its highest value is exact: the inputs are independent, so some input reaches it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc import jit
from cimc.targets.rtm_ap import isa

_FILES = (__file__, isa.__file__)
njit, njit_inner = jit.compiler(*_FILES), jit.compiler(*_FILES, inner=True)
Ints = NDArray[np.int64]
Codes = NDArray[np.uint32]
_INTO, _ONTO, _PUT, _ADD, _HOLD, _SUM = isa.INTO, isa.ONTO, isa.PUT, isa.ADD, isa.HOLD, isa.SUM
FULL, TOO_WIDE = (
    -1,
    -2,
)  # instead of a number of words: no free place for a temporary; too many bits


@njit_inner
def _bits(value: int) -> int:
    """Bits of an unsigned number."""
    count = 0
    while value > 0:
        value >>= 1
        count += 1
    return count


@njit_inner
def _highest(offset: int, weight: Ints, top: Ints) -> int:
    """Largest value of offset + weight @ x."""
    total = offset
    for i in range(len(weight)):
        if weight[i] > 0:
            total += weight[i] * top[i]
    return total


@njit
def value_bounds(top: Ints, temps: Ints) -> tuple[Ints, Ints, Ints]:
    """Weights, offset and highest stored value of inputs and temporaries."""
    inputs = len(top)
    count = inputs + len(temps)
    weight = np.zeros((count, inputs), np.int64)
    offset, high = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for i in range(inputs):
        weight[i, i] = 1
        high[i] = top[i]
    for place in range(len(temps)):
        a, s, b, t, sign = temps[place]
        v = inputs + place
        offset[v] = offset[a] << s
        if sign < 0:
            offset[v] += ((1 << _bits(high[b])) - 1 - offset[b]) << t
        else:
            offset[v] += offset[b] << t
        for i in range(inputs):
            weight[v, i] = (weight[a, i] << s) + sign * (weight[b, i] << t)
        high[v] = _highest(offset[v], weight[v], top)
    return weight, offset, high


@njit
def row_bounds(
    start: Ints, terms: Ints, top: Ints, weight: Ints, offset: Ints, high: Ints
) -> tuple[Ints, Ints]:
    """Offset and highest stored value of every sum."""
    rows = len(start) - 1
    row_offset, row_high = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    total = np.zeros(len(top), np.int64)
    for row in range(rows):
        total[:] = 0
        for place in range(start[row], start[row + 1]):
            v, shift, negative = terms[place] >> 8, terms[place] >> 1 & 0x7F, terms[place] & 1
            row_offset[row] += _added(total, v, shift, negative, weight, offset, high)
        row_high[row] = _highest(row_offset[row], total, top)
    return row_offset, row_high


@njit_inner
def _added(
    total: Ints, v: int, shift: int, negative: int, weight: Ints, offset: Ints, high: Ints
) -> int:
    """Add a term to a sum's weights; returns what it adds to the sum's offset."""
    if negative:
        for i in range(len(total)):
            total[i] -= weight[v, i] << shift
        complement: int = (1 << _bits(high[v])) - 1 - offset[v]
        return complement << shift
    for i in range(len(total)):
        total[i] += weight[v, i] << shift
    added: int = offset[v] << shift
    return added


@njit
def add_passes(bits: int, shift: int, width: int, dead: bool) -> int:
    """Passes of `add`: an operand of `bits` bits at `shift` into a sum of `width` bits."""
    last = width - 1 - shift
    total = 0
    for bit in range(last + 1):
        if bit >= bits:
            total += 1 if bit == last else 2
        elif bit == 0 or bit == last:
            total += 2
        else:
            total += 3 if dead else 4
    return total


@njit_inner
def _word(opcode: int, slot: int, width: int, shift: int, flags: int) -> np.uint32:
    return np.uint32(opcode | width << 5 | shift << 11 | flags << 16 | slot << 18)


@njit_inner
def _place_temp(
    busy: NDArray[np.bool_], heads: Ints, banks: int, levels: int, bank_a: int, bank_b: int
) -> int:
    """The free place that is fewest shifts away, in none of two banks; -1 if there is none."""
    best, found = np.int64(1) << 40, -1
    for bank in range(banks):
        if bank in (bank_a, bank_b):
            continue
        for level in range(levels):
            if not busy[level * banks + bank]:
                distance = abs(level - heads[bank])
                if distance < best:
                    best, found = distance, level * banks + bank
    return found


class Chunk(NamedTuple):
    """The sums over one chunk of inputs (`cimc.passes._signed_sums.Sums`), bounds of all values."""

    start: Ints
    terms: Ints
    temps: Ints
    top: Ints  # [inputs] largest value of each input
    weight: Ints  # [values, inputs]
    offset: Ints  # [values]
    high: Ints  # [values] largest stored value


class Places(NamedTuple):
    """Which slots there are: inputs, the local sum once for each width, temporaries, accumulators.

    Temporaries lie in `banks` groups of columns and in `levels` domains; place p is bank p % banks,
    its slot for a value of b bits is temp + p*temp_bits + b - 1.
    """

    input: int
    local: int
    temp: int
    acc: int
    input_bank: Ints
    input_level: Ints
    input_along: bool  # inputs lie along tracks
    temp_along: bool
    banks: int
    levels: int
    temp_bits: int
    local_bits: int
    acc_bits: int


class Progress(NamedTuple):
    """What changes while a chunk is written."""

    bits: Ints  # [values] bits of the stored value
    uses: Ints  # [values] uses still to come
    where: Ints  # [values] place of a temporary, -1 while there is none
    busy: NDArray[np.bool_]  # [places]
    heads: Ints  # [banks] the level last used
    stack: Ints
    order: Ints
    total: Ints  # [inputs] weights of the sum so far


@njit_inner
def _slot(v: int, inputs: int, places: Places, state: Progress) -> int:
    """Slot of a value; notes which level of its bank is used."""
    if v < inputs:
        return places.input + v
    place: int = state.where[v]
    state.heads[place % places.banks] = place // places.banks
    found: int = places.temp + place * places.temp_bits + state.bits[v] - 1
    return found


@njit_inner
def _bank(v: int, inputs: int, places: Places, state: Progress) -> tuple[int, int]:
    """Bank and level of a value; inputs have banks of their own, below 0."""
    if v < inputs:
        return -1 - places.input_bank[v], places.input_level[v]
    return state.where[v] % places.banks, state.where[v] // places.banks


@njit_inner
def _used(v: int, inputs: int, state: Progress) -> bool:
    """One use less; whether that was the last."""
    state.uses[v] -= 1
    if state.uses[v] > 0:
        return False
    if v >= inputs:
        state.busy[state.where[v]] = False
    return True


@njit_inner
def _make_temp(
    v: int, chunk: Chunk, places: Places, state: Progress, code: Codes, count: int
) -> int:
    """The words that make one temporary from operands that exist."""
    inputs, width = len(chunk.top), state.bits[v]
    a, s, b, t, sign = chunk.temps[v - inputs]
    flag_a, flag_b = 0, 1 if sign < 0 else 0
    if s > 0:  # the held operand is the one without a shift
        a, b, t, flag_a, flag_b = b, a, s, flag_b, flag_a
    slot_a, slot_b = _slot(a, inputs, places, state), _slot(b, inputs, places, state)
    bank_a, level_a = _bank(a, inputs, places, state)
    bank_b, level_b = _bank(b, inputs, places, state)
    along = places.input_along if a < inputs else places.temp_along
    clash = bank_a == bank_b and (level_a != level_b or along)
    found = _place_temp(state.busy, state.heads, places.banks, places.levels, bank_a, bank_b)
    if found < 0:  # only places in the columns of an operand are left
        clash = True
        found = _place_temp(state.busy, state.heads, places.banks, places.levels, -1, -1)
    if found < 0:
        return FULL
    if width > places.temp_bits or (clash and width > places.local_bits):
        return TOO_WIDE
    state.busy[found] = True
    state.where[v] = found
    slot = _slot(v, inputs, places, state)
    if clash:  # both lie in the same columns: into the local sum, one after the other
        local = places.local + width - 1
        code[count] = _word(_INTO, local, width, 0, 0)
        code[count + 1] = _word(_PUT, slot_a, width, 0, flag_a)
        code[count + 2] = _word(_ADD, slot_b, width, t, flag_b)
        code[count + 3] = _word(_INTO, slot, width, 0, 0)
        code[count + 4] = _word(_PUT, local, width, 0, 0)
        count += 5
    else:
        code[count] = _word(_INTO, slot, width, 0, 0)
        code[count + 1] = _word(_HOLD, slot_a, 0, 0, flag_a)
        code[count + 2] = _word(_SUM, slot_b, width, t, flag_b)
        count += 3
    _used(a, inputs, state)
    _used(b, inputs, state)
    return count


@njit_inner
def _make_temps(
    v: int, chunk: Chunk, places: Places, state: Progress, code: Codes, count: int
) -> int:
    """A temporary and, before it, those it is made of."""
    inputs = len(chunk.top)
    state.stack[0], depth = v, 1
    while depth:
        v = state.stack[depth - 1]
        missing = -1
        for operand in (chunk.temps[v - inputs, 0], chunk.temps[v - inputs, 2]):
            if operand >= inputs and state.where[operand] < 0:
                missing = operand
        if missing >= 0:
            state.stack[depth] = missing
            depth += 1
            continue
        depth -= 1
        if state.where[v] < 0:
            count = _make_temp(v, chunk, places, state, code, count)
            if count < 0:
                return count
    return count


@njit_inner
def _through_local(
    begin: int, end: int, base: int, chunk: Chunk, places: Places, state: Progress, first: bool,
    dead: bool,
) -> bool:  # fmt: skip
    """Whether a row is cheaper as a narrow local sum, added once, than term by term."""
    state.total[:] = 0
    now, sum_offset, straight, local, width = 0, 0, 0, 0, 0
    for i in range(end - begin):
        term = state.order[i]
        v, shift = term >> 8, term >> 1 & 0x7F
        sum_offset += _added(
            state.total, v, shift, term & 1, chunk.weight, chunk.offset, chunk.high
        )
        now = _highest(sum_offset, state.total, chunk.top)
        width = _bits(now)
        bits = state.bits[v]
        local += bits if i == 0 else add_passes(bits, shift, width, False)
        if i == 0 and first:
            straight += bits
        else:
            straight += add_passes(bits, shift, _bits(base + now), False)
    local += width if first else add_passes(width, 0, _bits(base + now), dead)
    return end - begin > 1 and local < straight and width <= places.local_bits


@njit_inner
def _sort_terms(begin: int, end: int, terms: Ints, state: Progress) -> None:
    """Narrow terms first, so that the sum stays narrow (insertion sort: rows are short)."""
    for i in range(end - begin):
        term = terms[begin + i]
        key = state.bits[term >> 8] + (term >> 1 & 0x7F)
        j = i
        while j > 0:
            before = state.order[j - 1]
            if state.bits[before >> 8] + (before >> 1 & 0x7F) <= key:
                break
            state.order[j] = before
            j -= 1
        state.order[j] = term


@njit
def emit_chunk(
    chunk: Chunk, places: Places, acc_high: Ints, first: bool, backwards: bool, dead: bool,
    code: Codes, count: int,
) -> int:  # fmt: skip
    """Append the words of one chunk to `code`; returns how many there are now, or why it failed.

    `acc_high` [rows], the largest stored value of each accumulator so far, grows. Rows run in the
    order of the accumulators' domains, forwards and backwards by turns. `dead`: operands may be
    destroyed where they are not needed afterwards.
    """
    inputs, rows, values = len(chunk.top), len(chunk.start) - 1, len(chunk.high)
    state = Progress(
        np.empty(values, np.int64),
        np.zeros(values, np.int64),
        np.full(values, -1, np.int64),
        np.zeros(places.banks * places.levels + 1, np.bool_),
        np.zeros(places.banks + 1, np.int64),
        np.empty(values + 1, np.int64),
        np.empty(len(chunk.terms) + 1, np.int64),
        np.zeros(inputs, np.int64),
    )
    for v in range(values):
        state.bits[v] = _bits(chunk.high[v])
    for place in range(len(chunk.terms)):
        state.uses[chunk.terms[place] >> 8] += 1
    for place in range(len(chunk.temps)):
        state.uses[chunk.temps[place, 0]] += 1
        state.uses[chunk.temps[place, 2]] += 1
    for turn in range(rows):
        row = rows - 1 - turn if backwards else turn
        begin, end = chunk.start[row], chunk.start[row + 1]
        if begin == end:
            if first:
                code[count] = _word(_INTO, places.acc + row, places.acc_bits, 0, 0)
                count += 1
            continue
        for place in range(begin, end):
            v = chunk.terms[place] >> 8
            if v >= inputs and state.where[v] < 0:
                count = _make_temps(v, chunk, places, state, code, count)
                if count < 0:
                    return count
        _sort_terms(begin, end, chunk.terms, state)
        base = acc_high[row]
        through = _through_local(begin, end, base, chunk, places, state, first, dead)
        if through:
            local = count
            count += 1  # written once the width is known
        elif first:
            code[count] = _word(_INTO, places.acc + row, places.acc_bits, 0, 0)
            count += 1
        else:
            code[count] = _word(_ONTO, places.acc + row, 0, 0, 0)
            count += 1
        state.total[:] = 0
        now, sum_offset, width = 0, 0, 0
        for i in range(end - begin):
            term = state.order[i]
            v, shift, negative = term >> 8, term >> 1 & 0x7F, term & 1
            sum_offset += _added(
                state.total, v, shift, negative, chunk.weight, chunk.offset, chunk.high
            )
            now = _highest(sum_offset, state.total, chunk.top)
            width = _bits(now if through else base + now)
            slot = _slot(v, inputs, places, state)
            last = _used(v, inputs, state)
            if i == 0 and (through or first):
                code[count] = _word(_PUT, slot, width, shift, negative)
            else:
                flags = negative | (2 if dead and last and not negative else 0)
                code[count] = _word(_ADD, slot, width, shift, flags)
            count += 1
        acc_high[row] = base + now
        if through:
            slot = places.local + width - 1
            code[local] = _word(_INTO, slot, width, 0, 0)
            if first:
                code[count] = _word(_INTO, places.acc + row, places.acc_bits, 0, 0)
                code[count + 1] = _word(_PUT, slot, width, 0, 0)
            else:
                code[count] = _word(_ONTO, places.acc + row, 0, 0, 0)
                code[count + 1] = _word(_ADD, slot, _bits(base + now), 0, 2 if dead else 0)
            count += 2
    return count
