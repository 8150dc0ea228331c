"""What each instruction holds and counts on a crossbar machine.

Units of a core: each slice's arrays (with their DACs, sample-and-holds and ADCs) by the name of the
first one, the port of the core's bank of the outermost memory, the bus between bank and registers,
the adders of row blocks, the vector unit, and the core's port onto the network. Results travel over
the network to the bank of the core that reads them, where later reads are local.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cimc.ir.graph import Op, operands
from cimc.ir.program import (
    Accumulate,
    Buffer,
    Combine,
    Copy,
    Instr,
    Lookup,
    Rescale,
    Signal,
    VectorOp,
    View,
    Wait,
    views,
)
from cimc.ir.types import bits_of
from cimc.kind import Cost, Price, common_area, common_prices, core_of, level_of, vector_work
from cimc.target import Target
from cimc.targets.crossbar.analog_mvm import AnalogMvm, input_steps
from cimc.targets.crossbar.plan import cells_of, convert_cycles, mvm_cycles, spec_of
from cimc.targets.crossbar.pool_row import PoolRow
from cimc.targets.crossbar_spec import CrossbarSpec


@dataclass(slots=True)
class Tally:
    """Units held and events counted so far."""

    holds: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    latency: int = 0  # cycles after the last unit is done

    def hold(self, unit: str, cycles: int) -> None:
        """Hold `unit` for further cycles."""
        self.holds[unit] = self.holds.get(unit, 0) + cycles

    def count(self, event: str, times: int) -> None:
        """Count an event."""
        if times:
            self.events[event] = self.events.get(event, 0) + times

    def cost(self) -> Cost:
        """The tally of one execution."""
        cycles = max(self.holds.values(), default=0) + self.latency
        return Cost(tuple(self.holds.items()), cycles, tuple(self.events.items()))


def instruction_cost(instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    """Cost of one execution."""
    match instr:
        case Wait() | Signal():
            return Cost((), 0, ())
        case AnalogMvm():
            return analog_mvm_cost(instr, buffers, target)
        case VectorOp():
            return vector_cost(op_work(instr.op, instr.unit), target)
        case Copy() if level_of(buffers[instr.dst.buffer].memory).startswith("array"):
            return programming_cost(instr, buffers, target)
        case _ if all(not core_of(buffers[view.buffer].memory) for view in views(instr).values()):
            return vector_cost(row_work(instr, buffers), target)
        case _:
            return tile_cost(instr, buffers, target)


def analog_mvm_cost(instr: AnalogMvm, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    """One product: see `mvm_events` for its events; the arrays' name is their first one's."""
    spec = spec_of(target)
    (rows, _), (columns, _) = instr.w.dims
    tally = Tally()
    cells, slices = cells_of(instr.weight_bits, spec)
    width = spec.array.columns // cells
    converted = min(columns, width) * slices
    bits = (instr.input_bits, instr.signed)
    tally.hold(buffers[instr.w.buffer].memory, mvm_cycles(rows, converted, bits, spec))
    tally.latency = convert_cycles(converted, spec)  # of the last step, after it has settled
    for event, times in mvm_events(rows, columns, bits, instr.weight_bits, spec).items():
        tally.count(event, times)
    inputs = level_of(buffers[instr.x.buffer].memory)
    tally.count(f"{inputs}.read_bits", rows * instr.input_bits * -(-columns // width))
    tally.count(f"{level_of(buffers[instr.acc.buffer].memory)}.write_bits", columns * 32)
    return tally.cost()


def mvm_events(
    rows: int, columns: int, input_bits: tuple[int, bool], weight_bits: int, spec: CrossbarSpec
) -> dict[str, int]:
    """Events of one product of `rows` inputs and `columns` weights side by side.

        cell reads       rows * cells * steps
        DAC conversions  rows * arrays * steps
        ADC conversions  (converted columns + one of ones per array) * steps * phases

    where a pair of a differential weight is converted once and needs no column of ones; each
    conversion is sampled once and added once.
    """
    steps = input_steps(*input_bits, spec.dac.bits)
    phases = -(-rows // spec.array.active_rows)
    cells, slices = cells_of(weight_bits, spec)
    arrays = -(-columns // (spec.array.columns // cells))
    ones = 0 if spec.array.encoding == "differential" else arrays
    conversions = (columns * slices + ones) * steps * phases
    return {
        "array.cell_reads": rows * (columns * cells + ones) * steps,
        "dac.conversions": rows * arrays * steps,
        "adc.conversions": conversions,
        "shift_add.additions": conversions,
    }


def programming_cost(instr: Copy, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    """Weights into arrays: row by row, all arrays of the slice at once."""
    spec = spec_of(target)
    (rows, _), (columns, _) = instr.dst.dims
    buffer = buffers[instr.dst.buffer]
    cells, _ = cells_of(max(spec.operands.weight_bits, bits_of(buffer.dtype)), spec)
    tally = Tally()
    tally.hold(buffer.memory, rows * max(1, round(spec.array.write_row_ns / spec.clock.period_ns)))
    tally.count("array.cell_writes", rows * columns * cells)
    return tally.cost()


@dataclass(frozen=True, slots=True)
class Work:
    """What the vector units do for one instruction on tensors in the outermost memory."""

    elements: int
    is_float: bool
    read_bits: int
    written_bits: int
    unit: str = "vector"


def op_work(op: Op, unit: str = "vector") -> Work:
    """A whole-tensor op."""
    elements, is_float = vector_work(op)
    read = sum(value.type.bits for value in dict.fromkeys(operands(op)))
    return Work(elements, is_float, read, op.out.type.bits, unit)


def row_work(instr: Instr, buffers: Mapping[str, Buffer]) -> Work:
    """One row of a tensor; tables of look-ups are kept in the vector units."""
    bits = {name: bits_of(buffers[view.buffer].dtype) for name, view in views(instr).items()}
    dst = views(instr)["dst"]
    written = dst.elements * bits["dst"]
    if isinstance(instr, PoolRow):
        elements = dst.elements * math.prod(instr.kernel)
        return Work(elements, False, instr.read_elements * bits["src"], written)
    read = sum(
        view.elements * bits[name]
        for name, view in views(instr).items()
        if name not in ("dst", "table")
    )
    return Work(dst.elements, False, read, written)


def vector_cost(work: Work, target: Target) -> Cost:
    """Every core's vector unit works on its part, out of its own bank.

    max(elements / lanes, bits / bank width), of all cores together
    """
    spec, (outer, *_) = target.spec, target.spec.memory
    memory = spec.memory[outer]
    lanes = (spec.vector.float_lanes if work.is_float else spec.vector.lanes) * spec.cores
    tally = Tally(latency=memory.latency_cycles)
    tally.hold(work.unit, max(1, -(-work.elements // lanes)))
    for bits, width in (
        (work.read_bits, memory.read_bits_per_cycle),
        (work.written_bits, memory.write_bits_per_cycle),
    ):
        tally.hold(f"{outer}.banks", -(-bits // (width * spec.cores)))
    tally.count(f"{outer}.read_bits", work.read_bits)
    tally.count(f"{outer}.write_bits", work.written_bits)
    tally.count("vector.float_ops" if work.is_float else "vector.ops", work.elements)
    return tally.cost()


def tile_cost(instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    """Moves, additions of row blocks, and the vector unit's work on one tile."""
    spec, (outer, *_) = spec_of(target), target.spec.memory
    held = {name: buffers[view.buffer].memory for name, view in views(instr).items()}
    cores = [core_of(memory) for memory in held.values() if core_of(memory)]
    core, tally = next(iter(cores), "core0"), Tally()
    for name, view in views(instr).items():
        if level_of(held[name]) in spec.memory:
            bits = _bits(instr, name, view, buffers)
            _access(tally, name in instr.writes, held[name], bits, core, target)
    if any(other != core for other in cores):
        _network(tally, _bits(instr, "b", views(instr)["b"], buffers), core, spec)
    elements = max(view.elements for view in views(instr).values())
    match instr:
        case Accumulate() if held["dst"] != outer:
            tally.hold(f"{core}.shift_add", -(-elements // spec.shift_add.lanes))
            tally.count("shift_add.additions", elements)
        case Accumulate() | Rescale() | Lookup() | Combine():
            tally.hold(f"{core}.vector", -(-instr.dst.elements // spec.vector.lanes))
            tally.count("vector.ops", instr.dst.elements)
        case _:
            pass
    return tally.cost()


def _bits(instr: Instr, name: str, view: View, buffers: Mapping[str, Buffer]) -> int:
    """Bits of one access; a patch reads as many elements as it writes."""
    own = views(instr)["dst"] if name == "src" else view
    return own.elements * bits_of(buffers[view.buffer].dtype)


def _access(
    tally: Tally, written: bool, memory_name: str, bits: int, core: str, target: Target
) -> None:
    """One access to a level: its port, and the bus and network where it leaves the registers."""
    spec, level = spec_of(target), level_of(memory_name)
    memory, kind = spec.memory[level], "write" if written else "read"
    width = memory.write_bits_per_cycle if written else memory.read_bits_per_cycle
    port = "port" if memory.ports == "shared" else kind
    tally.hold(f"{core_of(memory_name) or core}.{level}.{port}", -(-bits // width))
    tally.count(f"{level}.{kind}_bits", bits)
    tally.latency = max(tally.latency, memory.latency_cycles)
    if not core_of(memory_name):
        wires = spec.bus.out_bits_per_cycle if written else spec.bus.in_bits_per_cycle
        tally.hold(f"{core}.bus_{'out' if written else 'in'}", -(-bits // wires))
        tally.count("bus.bits", bits)
        if written:
            _network(tally, bits, core, spec)


def _network(tally: Tally, bits: int, core: str, spec: CrossbarSpec) -> None:
    tally.hold(f"{core}.link", -(-bits // spec.link.bits_per_cycle))
    tally.count("link.bits", bits)
    tally.latency = max(tally.latency, spec.link.hop_cycles)


def prices(target: Target) -> dict[str, Price]:
    """Price of every event."""
    spec = spec_of(target)
    found = common_prices(target)
    found["array.cell_reads"] = Price(spec.array.cell_read_pj, ("array.cell_read_pj",))
    found["array.cell_writes"] = Price(spec.array.cell_write_pj, ("array.cell_write_pj",))
    found["dac.conversions"] = Price(spec.dac.energy_pj, ("dac.energy_pj",))
    found["adc.conversions"] = Price(
        spec.adc.energy_pj + spec.adc.sample_pj, ("adc.energy_pj", "adc.sample_pj")
    )
    found["shift_add.additions"] = Price(spec.shift_add.energy_pj, ("shift_add.energy_pj",))
    found["bus.bits"] = Price(spec.bus.pj_per_bit, ("bus.pj_per_bit",))
    return found


def areas(target: Target) -> dict[str, float]:
    """mm2 by component, for all cores."""
    spec = spec_of(target)
    arrays = spec.cores * spec.array.per_core
    found = common_area(target)
    found["array"] = arrays * spec.array.area_mm2
    found["adc"] = arrays * (
        spec.array.columns // spec.adc.columns * spec.adc.area_mm2
        + spec.array.columns * spec.adc.sample_area_mm2
    )
    found["dac"] = arrays * spec.array.rows * spec.dac.area_mm2
    found["shift_add"] = spec.cores * spec.shift_add.area_mm2
    found["bus"] = spec.cores * spec.bus.area_mm2
    return found
