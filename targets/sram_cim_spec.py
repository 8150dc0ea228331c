"""The target files of SRAM-CiM machines: a memory hierarchy around cores with one macro each.

A macro has `rows` x `columns` multiplier cells. All cells work at once: each row gets one input
element, bit by bit, each column adds the products of its rows. A cell holds as many weights as its
level has bits for, one of which is selected. Registers and cells are memory levels like all others,
one instance for each row, column or cell. Three axes run loops in space: cores, rows (summed in the
macro) and columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cimc.target import Memory, NonNegative, PositiveInt, Table, TargetSpec

Operand = Literal["I", "W", "O"]
OPERANDS: tuple[Operand, ...] = ("I", "W", "O")


class Level(Memory):
    """A memory level; `along` rows, columns or both: each of them has an instance of its own."""

    along: tuple[Literal["rows", "columns"], ...] = ()
    double: tuple[Operand, ...] = ()  # operands that may have two buffers here; W in the cells:
    # the macro computes with one half of its weights while the other is loaded


class Axis(Table):
    """An axis along which loops run in space.

    `sourced_at` says for each operand where the data of the axis fan out: a tile at that level, or
    further out, holds the elements of the whole axis; further in, those of one position.
    """

    loops: tuple[Literal["g", "n", "k", "c", "p", "q", "r", "s"], ...]
    sourced_at: dict[Operand, str]


class Axes(BaseModel):
    """The axes of the machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cores: Axis
    rows: Axis
    columns: Axis


class Macro(Table):
    """The multiplier array of one core.

    One activation multiplies an input element per row with the selected weight of each cell and
    adds the products of each column to the column's sum. It takes
    ceil(input bits / input_bits_per_cycle) cycles, times ceil(weight bits / weight_bits).
    """

    rows: PositiveInt
    columns: PositiveInt
    weight_bits: PositiveInt  # that a cell multiplies with at once
    input_bits_per_cycle: PositiveInt
    psum_bits: Annotated[int, Field(gt=0, le=32)]  # of a partial sum, in memories and on the way
    multiplier_pj: NonNegative  # one 1-bit product
    adder_pj: NonNegative  # one 1-bit full adder
    register_pj: NonNegative  # one bit of the column's accumulator
    adder_tree: Literal["balanced", "miredo"] = "balanced"
    area_mm2: NonNegative = 0.0  # cells and logic of one macro

    def tree_adders(self, input_bits: int) -> int:
        """1-bit adders that switch per cycle in all columns; a column adds `rows` products.

            balanced   (X*(W + 1) - (W + ceil(log2 X) + 1)) * Y    a binary tree, one bit wider
                                                                   at each stage
            miredo     X*(I + 1) - (I + ceil(log2 I) + 1) * Y      as its public code has it; can
                                                                   be negative for large Y
        with X rows, Y columns, W weight bits, I input bits.
        """
        x, y, w = self.rows, self.columns, self.weight_bits
        if self.adder_tree == "balanced":
            return (x * (w + 1) - (w + _log2(x) + 1)) * y
        return x * (input_bits + 1) - (input_bits + _log2(input_bits) + 1) * y


def _log2(count: int) -> int:
    return math.ceil(math.log2(count)) if count > 1 else 0


class SramCimSpec(TargetSpec):
    """A whole SRAM-CiM machine."""

    memory: dict[str, Level]  # type: ignore[assignment]  # frozen, so a narrower type is safe
    axis: Axes
    macro: Macro

    @model_validator(mode="after")
    def _consistent(self) -> SramCimSpec:
        faults = list(_faults(self))
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _faults(spec: SramCimSpec) -> Iterator[str]:
    outermost = next(iter(spec.memory))
    if set(spec.memory[outermost].holds) != set(OPERANDS):
        yield f"memory.{outermost}, the outermost level, must hold I, W and O"
    if spec.memory[outermost].per != "chip":
        yield f"memory.{outermost}, the outermost level, must be per chip"
    for axis in ("cores", "rows", "columns"):
        sources = getattr(spec.axis, axis).sourced_at
        for operand in OPERANDS:
            level = sources.get(operand)
            if level is None:
                yield f"axis.{axis}.sourced_at names no level for {operand}"
            elif level not in spec.memory:
                yield f"axis.{axis}.sourced_at.{operand} = {level!r} is no memory level"
    for operand, along in (("I", ("rows",)), ("W", ("rows", "columns")), ("O", ("columns",))):
        innermost = [level for level in spec.memory.values() if operand in level.holds][-1]
        if innermost.along != along or innermost.holds != (operand,):
            yield (
                f"the innermost level of {operand} must hold nothing else and lie "
                f"along {' and '.join(along)}"
            )
    for name, level in spec.memory.items():
        if level.along and level.per != "core":
            yield f"memory.{name} lies along {' and '.join(level.along)}, so it must be per core"
        for operand in level.double:
            if operand not in level.holds:
                yield f"memory.{name}.double has {operand}, which it does not hold"
    if spec.macro.tree_adders(8) < 0:
        yield (
            f"macro.adder_tree = {spec.macro.adder_tree!r} counts {spec.macro.tree_adders(8)} "
            f"adders for {spec.macro.rows} x {spec.macro.columns} cells; take 'balanced'"
        )


SPEC = SramCimSpec
