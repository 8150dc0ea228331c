"""Functions of values that lie in the arrays, as column operations.

Passes for values of m bits, beside constants to the carry and to cleared results:

    maximum    4 m      in place: compare, then copy where it is larger
    less       2 m + 1  one bit: the outcome of the comparison
    less_than  m + 1    ... with a constant
    relu       m        in place, keyed on the sign
    at_least   2 m      in place, with a constant; at_most likewise
    negated    2 m      beside its operand
    negate     3 m      in place
    largest    m + 4 m (n - 1)   of n values: max pooling
    total      sums of n values: average pooling, its division by 2**k being k bits left out

Values are unsigned but for `relu` and negation, which take two's complement. The compiler leaves
these functions to the vector unit, which every sum passes on its way to memory: `costs` says what
the arrays would take instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cimc.target import Target
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.isa import ACROSS, Slot, Word
from cimc.targets.rtm_ap.pricing import Pricer
from cimc.targets.rtm_ap.work import spec_of


def maximum(result: int, other: int, bits: int) -> list[Word]:
    """The result becomes the larger of both."""
    return [Word(isa.ONTO, result), Word(isa.MAX, other, bits)]


def less(one: int, other: int, outcome: int, bits: int) -> list[Word]:
    """A bit: one < other."""
    return [Word(isa.INTO, outcome, 1), Word(isa.HOLD, one), Word(isa.LESS, other, bits)]


def less_than(one: int, constant: int, outcome: int, bits: int) -> list[Word]:
    """A bit: one < constant."""
    return [Word(isa.INTO, outcome, 1), Word(isa.HOLD, one), Word(isa.LESSK, constant, bits)]


def relu(result: int, bits: int) -> list[Word]:
    """Negative results become 0."""
    return [Word(isa.ONTO, result), Word(isa.RELU, result, bits)]


def at_least(result: int, constant: int, bits: int) -> list[Word]:
    """Smaller results become the constant."""
    return [Word(isa.ONTO, result), Word(isa.ATLEAST, constant, bits)]


def at_most(result: int, constant: int, bits: int) -> list[Word]:
    """Larger results become the constant."""
    return [Word(isa.ONTO, result), Word(isa.ATMOST, constant, bits)]


def negated(one: int, result: int, bits: int) -> list[Word]:
    """result = -one."""
    return [Word(isa.INTO, result, bits), Word(isa.NEG, one, bits)]


def negate(result: int, bits: int) -> list[Word]:
    """result = -result."""
    return [Word(isa.ONTO, result), Word(isa.NEGATE, result, bits)]


def largest(values: Sequence[int], result: int, bits: int) -> list[Word]:
    """Max pooling of some values."""
    first, *others = values
    words = [Word(isa.INTO, result, bits), Word(isa.PUT, first, bits)]
    return [*words, *(Word(isa.MAX, value, bits) for value in others)]


def total(values: Sequence[int], result: int, bits: int) -> list[Word]:
    """The sum of some values of equal width; the result is as wide as that takes."""
    first, *others = values
    top = (1 << bits) - 1
    width = (len(values) * top).bit_length()
    words = [Word(isa.INTO, result, width), Word(isa.PUT, first, width)]
    for count, value in enumerate(others, 2):
        words.append(Word(isa.ADD, value, (count * top).bit_length()))
    return words


@dataclass(frozen=True, slots=True)
class FunctionCost:
    """One function of one element, on an array row and on the vector unit."""

    name: str
    bits: int
    passes: int
    array_pj: float  # one row; with operands that have to be loaded, their loads
    vector_pj: float  # on its own; 0 beyond that where a requantization clamps anyway


def costs(target: Target, bits: int, pooled: int = 4) -> tuple[FunctionCost, ...]:
    """What the functions take for values of `bits` bits; pools take `pooled` values."""
    sums = [Slot(bits * place, 0, ACROSS, bits) for place in range(pooled + 1)]
    sums.append(Slot(bits * (pooled + 1), 0, ACROSS, bits + pooled.bit_length()))
    window = list(range(pooled))
    middle = 1 << bits - 1
    programs: dict[str, tuple[list[Word], int, int]] = {  # words, values loaded, elements
        "relu": (relu(0, bits), 0, 1),
        "clip": ([*at_least(0, 1, bits), *at_most(0, middle, bits)], 0, 1),
        "residual maximum": (maximum(0, 1, bits), 1, 1),
        "max pool": (largest(window, pooled, bits), pooled, pooled),
        "average pool": (total(window, pooled + 1, bits), pooled, pooled),
    }
    spec, found = spec_of(target), []
    for name, (words, loaded, elements) in programs.items():
        slots, pricer = isa.slot_table(sums), Pricer(spec.ap)
        price = pricer.code(isa.encoded(words), slots)
        price = replace(price, written=price.written - spec.ap.carries)  # cleared once for all
        loads = loaded * bits * spec.ap.write_pj
        pj = price.energy_pj(spec.ap) + loads
        found.append(FunctionCost(name, bits, price.passes, pj, elements * spec.vector.op_pj))
    return tuple(found)
