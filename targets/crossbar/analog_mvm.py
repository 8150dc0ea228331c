"""The product of inputs and the weights in crossbar arrays, as the analog parts compute it.

analog-mvm %conv1.sum0[0; 128:0, 64:1], %conv1.x0[0; 128:1, 64:0], %conv1.w0[0; 128:64, 64:1]
    {input_bits=8, signed=false, dac_bits=1, weight_bits=8, cell_bits=2, adc_bits=8,
     active_rows=128, encoding="flip", fresh=true}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cimc.errors import InternalError
from cimc.ir.program import Instr, Machine, View, register_instr, wrapped
from cimc.ir.program.converters import ConverterMvm, Phase

ENCODINGS = ("flip", "offset", "differential")

Ints = NDArray[np.int64]


@register_instr
@dataclass(frozen=True, slots=True)
class AnalogMvm(Instr):
    """acc[c] (+)= sum over rows of x[row] * w[row, c], computed as arrays with converters do.

    The views have the axes (rows, columns): acc (0, 1), x (stride, 0), w (stride, 1). Weights are
    logical integers of `weight_bits` two's complement bits; their cells are derived here.

    Inputs. x has `input_bits` bits and is sent lowest bits first, `dac_bits` in a step. If
    `signed`, the sign bit is a step of its own, whose result is subtracted. Step t has factor f_t:
        x = sum over t of f_t * x_t,    0 <= x_t < 2**dac_bits

    Rows are driven `active_rows` at a time (a phase); steps and phases are added digitally.

    Weights lie in slices of `cell_bits` bits, slice j in a column of its own, with factor
    2**(j*cell_bits). `encoding` says what the cells hold, and so what the converter of a column
    sees in one step and phase (all sums over the phase's rows; one level of the converter is the
    current of one cell of level 1 at input 1):
        offset        u = w + 2**(weight_bits-1) >= 0, in digits u_j:
                      sum x_t*u_j -> ADC; an extra column of ones per array gives sum x_t -> ADC,
                      of which 2**(weight_bits-1) times is subtracted
        flip          as offset, but a column whose digits sum to more than half of the largest
                      possible sum holds m - u_j (m = 2**cell_bits - 1) instead: m*(ones) - ADC
        differential  w = positive - negative magnitude of weight_bits-1 bits, in digits p_j, n_j
                      in a pair of columns, of which the ADC sees the difference:
                      sum x_t*(p_j - n_j) -> ADC
    The ADC clips to 0 .. 2**adc_bits - 1, differential to -2**(adc_bits-1) .. 2**(adc_bits-1) - 1.
    Where no sum can leave that range (`lossless`) the result is the integer product, bit for bit.

    Cells hold no more than their bits: higher bits of x and w than given are cut off.
    """

    acc: View  # i32
    x: View
    w: View
    input_bits: int
    signed: bool
    dac_bits: int
    weight_bits: int
    cell_bits: int
    adc_bits: int
    active_rows: int
    encoding: str
    fresh: bool = False
    mnemonic: ClassVar[str] = "analog-mvm"
    updates: ClassVar[tuple[str, ...]] = ("acc",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Step by step, phase by phase, slice by slice."""
        x = machine.read(View(self.x.buffer, self.x.offset, self.x.dims[:1]), loops)
        w = machine.read(self.w, loops)
        sums = self.product(x.astype(np.int64), w.astype(np.int64))
        place = View(self.acc.buffer, self.acc.offset, self.acc.dims[1:])
        if not self.fresh:
            sums = sums + machine.read(place, loops).astype(np.int64)
        machine.write(place, loops, wrapped(sums))

    def form(self) -> ConverterMvm:
        """The same arithmetic as the fast engine's kernel takes it."""
        low, high = adc_range(self.adc_bits, self.encoding)
        steps = tuple(self.input_slices())
        return ConverterMvm(
            self.acc, self.x, self.w, self.fresh, self.active_rows, steps, low, high, self.phase
        )

    def phase(self, w: Ints) -> Phase:
        """Cells of one phase's weights; a flipped column counts negative, its ones positive."""
        slices: list[tuple[Ints, Ints]] = []
        ones = np.zeros(w.shape[1], np.int64)
        for factor, cells, flipped in self.columns(w):
            slices.append((np.where(flipped, -factor, factor), cells))
            ones += np.where(flipped, factor * ((1 << self.cell_bits) - 1), 0)
        if self.encoding != "differential":
            ones -= 1 << (self.weight_bits - 1)
        return Phase(tuple(slices), ones)

    def product(self, x: Ints, w: Ints) -> Ints:
        """The digital result for inputs x[rows] and weights w[rows, columns]: -> [columns]."""
        total = np.zeros(w.shape[1], np.int64)
        for first in range(0, len(x), self.active_rows):
            rows = slice(first, first + self.active_rows)
            columns = tuple(self.columns(w[rows]))
            for factor, driven in self.steps(x[rows]):
                ones = self.converted(driven.sum())
                for weight, cells, flipped in columns:
                    seen = self.converted(driven @ cells)
                    full = ((1 << self.cell_bits) - 1) * ones
                    total += factor * weight * np.where(flipped, full - seen, seen)
                if self.encoding != "differential":
                    total -= (factor << (self.weight_bits - 1)) * ones
        return total

    def steps(self, x: Ints) -> Iterator[tuple[int, Ints]]:
        """Factor and driven levels of each input step."""
        for factor, low, width in self.input_slices():
            yield factor, (x >> low) & ((1 << width) - 1)

    def input_slices(self) -> Iterator[tuple[int, int, int]]:
        """Factor, lowest bit and number of bits of each input step."""
        plain = self.input_bits - self.signed
        for low in range(0, plain, self.dac_bits):
            yield 1 << low, low, min(self.dac_bits, plain - low)
        if self.signed:
            yield -(1 << plain), plain, 1

    def columns(self, w: Ints) -> Iterator[tuple[int, Ints, NDArray[np.bool_]]]:
        """Factor, cells (levels, or differences of pairs) and flipped columns of each slice."""
        never = np.zeros(w.shape[1], np.bool_)
        if self.encoding == "differential":
            sign, levels, bits = np.sign(w), np.abs(w), self.weight_bits - 1
        else:
            half = 1 << (self.weight_bits - 1)
            sign, levels, bits = np.ones_like(w), (w + half) & (2 * half - 1), self.weight_bits
        for low in range(0, bits, self.cell_bits):
            width = min(self.cell_bits, bits - low)
            digits = (levels >> low) & ((1 << width) - 1)
            if self.encoding != "flip":
                yield 1 << low, sign * digits, never
                continue
            most = (1 << self.cell_bits) - 1
            flipped = 2 * digits.sum(axis=0) > most * len(w)
            yield 1 << low, np.where(flipped, most - digits, digits), flipped

    def converted(self, sums: Ints) -> Ints:
        """What the ADC makes of column sums."""
        low, high = adc_range(self.adc_bits, self.encoding)
        return np.clip(sums, low, high)

    def lossless(self) -> bool:
        """Whether no column sum can leave the ADC's range, whatever the weights and inputs."""
        rows = min(self.active_rows, self.x.dims[0][0])
        return lossless_bits(rows, self.dac_bits, self.cell_bits, self.encoding) <= self.adc_bits


def input_steps(input_bits: int, signed: bool, dac_bits: int) -> int:
    """Steps in which an input of `input_bits` is sent; the sign bit takes one of its own."""
    return -(-(input_bits - signed) // dac_bits) + signed


def weight_slices(weight_bits: int, cell_bits: int, encoding: str) -> int:
    """Cells that a weight takes side by side (pairs of cells, if differential)."""
    bits = weight_bits - 1 if encoding == "differential" else weight_bits
    return -(-bits // cell_bits)


def adc_range(adc_bits: int, encoding: str) -> tuple[int, int]:
    """Lowest and highest column sum that the ADC can tell apart."""
    if encoding == "differential":
        return -(1 << (adc_bits - 1)), (1 << (adc_bits - 1)) - 1
    return 0, (1 << adc_bits) - 1


def lossless_bits(rows: int, dac_bits: int, cell_bits: int, encoding: str) -> int:
    """ADC bits with which no column sum of `rows` rows is ever clipped."""
    driven, most = rows * ((1 << dac_bits) - 1), (1 << cell_bits) - 1
    match encoding:
        case "offset":
            return (driven * most).bit_length()
        case "flip":  # a column's levels sum to at most half of rows * most; ones need `driven`
            return max(driven, rows * most // 2 * ((1 << dac_bits) - 1)).bit_length()
        case "differential":
            return (driven * most).bit_length() + 1
    raise InternalError(f"no encoding is called {encoding}")
