"""What a target file of the kind `crossbar` holds besides the common tables."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cimc.target import NonNegative, PositiveFloat, PositiveInt, Table, TargetSpec

Bits = Annotated[int, Field(ge=1, le=16)]


class Array(Table):
    """Crossbar arrays: cells in rows (inputs) and columns (outputs)."""

    per_core: PositiveInt
    rows: PositiveInt
    columns: PositiveInt
    cell_bits: Annotated[int, Field(ge=1, le=8)]
    active_rows: PositiveInt  # driven at once
    encoding: Literal["flip", "offset", "differential"]  # of signed weights, see AnalogMvm
    read_ns: PositiveFloat  # one input step, until all columns settle and are sampled
    cell_read_pj: NonNegative  # per cell and input step
    write_row_ns: PositiveFloat  # programming one row of cells
    cell_write_pj: NonNegative
    area_mm2: NonNegative  # one array


class Adc(Table):
    """Converters of column sums."""

    bits: Bits
    columns: PositiveInt  # of an array that share one ADC
    conversion_ns: PositiveFloat
    energy_pj: NonNegative  # per conversion
    sample_pj: NonNegative = 0.0  # sample-and-hold, per conversion
    area_mm2: NonNegative  # one ADC
    sample_area_mm2: NonNegative = 0.0  # one column's sample-and-hold


class Dac(Table):
    """Drivers of the rows."""

    bits: Annotated[int, Field(ge=1, le=8)]  # of the input, sent in one step
    energy_pj: NonNegative  # per row and step
    area_mm2: NonNegative  # one row's driver


class ShiftAdd(Table):
    """Digital adders that put slices, steps and row blocks together; one group per core."""

    lanes: PositiveInt  # sums of row blocks added per cycle
    energy_pj: NonNegative  # per addition
    area_mm2: NonNegative  # one core


class Bus(Table):
    """Wires within a core between its bank of the outermost memory and its registers."""

    in_bits_per_cycle: PositiveInt  # from the bank to the registers
    out_bits_per_cycle: PositiveInt
    pj_per_bit: NonNegative
    area_mm2: NonNegative  # one core


class Operands(Table):
    """Least widths of stored weights and sent inputs; wider ones take what they need."""

    weight_bits: Annotated[int, Field(ge=2, le=16)]
    input_bits: Bits


class Device(Table):
    """The memory cells; an ideal one gives the stored level at every read."""

    name: str
    ideal: Literal[True] = True


class CrossbarSpec(TargetSpec):
    """A chip of cores with analog crossbar arrays.

    Memory levels, outermost first: one that holds the feature maps (its banks lie in the cores, so
    its width is that of one core's bank and its size that of all banks), then for each core the
    registers of the arrays' inputs and those of the sums.
    """

    array: Array
    adc: Adc
    dac: Dac
    shift_add: ShiftAdd
    bus: Bus
    operands: Operands
    device: Device

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.array.columns % self.adc.columns:
            raise ValueError("adc.columns must divide array.columns")
        if self.array.active_rows > self.array.rows:
            raise ValueError("array.active_rows is more than array.rows")
        scopes = [memory.per for memory in self.memory.values()]
        if scopes != ["chip", "core", "core"]:
            raise ValueError("memory needs one level per chip, then two per core")
        if self.vector.per != "core":
            raise ValueError('vector.per must be "core"')
        return self


SPEC = CrossbarSpec
