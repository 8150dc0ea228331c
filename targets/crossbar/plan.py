"""How the weight matrix of one heavy op is cut into arrays.

The matrix has one row for each window element and one column for each output channel. A *block* is
a run of its columns that one core can hold: of a conv without groups usually all of them; of a
grouped conv several whole groups, side by side on the diagonal. A block's rows are cut into
*slices* of an array's rows. A slice lies in adjacent arrays of one core and is multiplied by one
instruction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cimc.ir.ops import Conv, Matmul
from cimc.ir.types import bits_of, int_range
from cimc.lowering import ConvShape, conv_shape, needed_bits
from cimc.target import Target
from cimc.targets.crossbar.analog_mvm import input_steps, weight_slices
from cimc.targets.crossbar_spec import CrossbarSpec


def spec_of(target: Target) -> CrossbarSpec:
    """The target's content as this kind's schema."""
    return cast(CrossbarSpec, target.spec)


@dataclass(frozen=True, slots=True)
class Block:
    """Output channels `channel` .. +`channels`, which read `rows` window elements from `first` on.

    Elements are counted over all groups' channels.
    """

    channel: int
    channels: int
    first: int
    rows: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The cut of one op on one target, before copies and places are chosen."""

    shape: ConvShape
    weight_bits: int
    input_bits: int
    signed: bool
    cells: int  # columns of cells that one weight takes
    converted: int  # of them with a conversion of their own
    pack: int  # groups in one block
    blocks: tuple[Block, ...]
    rows: int  # of an array
    width: int  # weights side by side in an array

    def slices(self, block: Block) -> Iterator[tuple[int, int]]:
        """First row within the block and number of rows of each slice."""
        for first in range(0, block.rows, self.rows):
            yield first, min(self.rows, block.rows - first)

    def arrays_of(self, block: Block) -> int:
        """Arrays that each slice of a block takes."""
        return -(-block.channels // self.width)

    @property
    def arrays(self) -> int:
        """Arrays of one copy."""
        return sum(-(-b.rows // self.rows) * self.arrays_of(b) for b in self.blocks)

    @property
    def row_slices(self) -> int:
        """Analog products for each output position."""
        return sum(-(-block.rows // self.rows) for block in self.blocks)

    def weights(self, matrix: NDArray[np.integer], block: Block) -> NDArray[np.integer]:
        """The weights of a block [rows, channels] from the op's matrix [g*k, window]."""
        window, k = self.shape.window, self.shape.k
        laid = np.zeros((block.rows, block.channels), matrix.dtype)
        for group in range(block.first // window, (block.first + block.rows) // window):
            top = group * window - block.first
            left = max(group * k, block.channel)
            right = min((group + 1) * k, block.channel + block.channels)
            columns = slice(left - block.channel, right - block.channel)
            laid[top : top + window, columns] = matrix[left:right].T
        return laid


def plan_of(op: Conv | Matmul, matrix: NDArray[np.integer], target: Target) -> Plan:
    """The cut of a conv or matmul whose constant weights are `matrix` [g*k, window]."""
    spec, shape = spec_of(target), conv_shape(op)
    differential = spec.array.encoding == "differential"
    weight_bits = max(spec.operands.weight_bits, needed_bits(matrix, symmetric=differential))
    cells, converted = cells_of(weight_bits, spec)
    kind = (op.x if isinstance(op, Conv) else op.a).type.dtype
    width = spec.array.columns // cells
    pack = max(1, min(shape.g, spec.array.rows // shape.window, width // shape.k))
    return Plan(
        shape=shape,
        weight_bits=weight_bits,
        input_bits=max(spec.operands.input_bits, bits_of(kind)),
        signed=int_range(kind)[0] < 0,
        cells=cells,
        converted=converted,
        pack=pack,
        blocks=tuple(_blocks(shape, pack, width * spec.array.per_core)),
        rows=spec.array.rows,
        width=width,
    )


def _blocks(shape: ConvShape, pack: int, widest: int) -> Iterator[Block]:
    for group in range(0, shape.g, pack):
        groups = min(pack, shape.g - group)
        channel, channels = group * shape.k, groups * shape.k
        rows = groups * shape.window
        for start in range(0, channels, widest):
            count = min(widest, channels - start)
            yield Block(channel + start, count, group * shape.window, rows)


def convert_cycles(columns: int, spec: CrossbarSpec) -> int:
    """Cycles in which the ADCs of an array convert `columns` columns.

        ceil(columns / ADCs of an array) * conversion

    The column of ones is converted while the array settles.
    """
    adcs = spec.array.columns // spec.adc.columns
    return _cycles(-(-columns // adcs) * spec.adc.conversion_ns, spec.clock.period_ns)


def mvm_cycles(rows: int, columns: int, bits: tuple[int, bool], spec: CrossbarSpec) -> int:
    """Cycles an array is busy with one product.

        input steps * row phases * max(settling, conversion)

    Sample-and-hold circuits let one step settle while the step before is converted.

    shapes  rows driven; columns converted in the fullest array; (input_bits, signed)
    """
    steps = input_steps(*bits, spec.dac.bits)
    phases = -(-rows // spec.array.active_rows)
    settle = _cycles(spec.array.read_ns, spec.clock.period_ns)
    return steps * phases * max(settle, convert_cycles(columns, spec))


def cells_of(weight_bits: int, spec: CrossbarSpec) -> tuple[int, int]:
    """Columns of cells that a weight takes, and how many of them have a conversion of their own."""
    slices = weight_slices(weight_bits, spec.array.cell_bits, spec.array.encoding)
    return slices * (2 if spec.array.encoding == "differential" else 1), slices


def _cycles(duration_ns: float, period_ns: float) -> int:
    """Whole cycles that cover a duration, at least one."""
    rounding = 1 - 1e-9  # 1.28 GHz has no finite decimal period: 100 ns are 128 cycles, not 129
    return max(1, math.ceil(duration_ns / period_ns * rounding))
