"""What each instruction holds and counts on an SRAM-CiM machine with shared ports.

Cores work in step, so a level's port stands for the ports of all its instances: "ib.port" is held
as long as one instance needs. Stages of a pipeline have groups of cores, whose units begin with the
name of the first one: "core6.ib.port". A single-buffered macro cannot compute while its weights are
written.

    transfer   source port ceil(read bits / width), sink port ceil(stored bits / width), the
               operand's channel of the link where data cross between the chip and its cores; the
               second of two buffers is a bank with a port of its own
    activate   macro ceil(input bits / bits per cycle) * ceil(weight bits / width of a cell)
    epilogue   vector ceil(elements / lanes of the cores in use), ports as for transfers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cimc.ir.graph import operands
from cimc.ir.program import Buffer, Copy, Fill, Instr, Signal, VectorOp, View, Wait, views
from cimc.ir.types import bits_of
from cimc.kind import Cost, Price, common_prices, vector_work
from cimc.target import Target
from cimc.targets.sram_cim.energy import activation_events
from cimc.targets.sram_cim.instructions import Activate, Flip, Transfer
from cimc.targets.sram_cim.machine import spec_of
from cimc.targets.sram_cim_spec import Level, SramCimSpec


@dataclass(slots=True)
class Tally:
    """Units held and events counted so far."""

    spec: SramCimSpec
    group: str = ""  # what units of the cores begin with
    holds: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    latency: int = 0  # cycles after the last unit is done

    def hold(self, unit: str, cycles: int) -> None:
        """Hold a unit for further cycles."""
        self.holds[unit] = self.holds.get(unit, 0) + cycles

    def count(self, event: str, times: int) -> None:
        """Count an event."""
        if times:
            self.events[event] = self.events.get(event, 0) + times

    def access(self, level: str, word: str, bits: int, instances: int, bank: str = "") -> None:
        """Read or write `bits` in each of `instances` of a level, or of a second `bank` of it."""
        memory = self.spec.memory[level]
        unit = f"{level}.{bank}" if bank else port(level, memory, word)
        if memory.per == "core":
            unit = self.group + unit
        self.hold(unit, -(-bits // width(memory, word)))
        self.count(f"{level}.{word}_bits", bits * instances)
        self.latency = max(self.latency, memory.latency_cycles)

    def cost(self) -> Cost:
        """The tally of one execution."""
        cycles = max(self.holds.values(), default=0) + self.latency
        return Cost(tuple(self.holds.items()), cycles, tuple(self.events.items()))


def port(level: str, memory: Level, word: str) -> str:
    """The unit that reads or writes a level."""
    return f"{level}.{'port' if memory.ports == 'shared' else word}"


def width(memory: Level, word: str) -> int:
    """Bits per cycle of one instance."""
    return memory.read_bits_per_cycle if word == "read" else memory.write_bits_per_cycle


def level_of(buffer: Buffer) -> str:
    """The level of a buffer: "ib.x8" is in ib."""
    return buffer.memory.split(".")[0]


def cores_of(buffer: Buffer) -> int:
    """The instances that a buffer stands for: "ib.x8" for 8."""
    return instances_in(buffer.memory)


def instances_in(name: str) -> int:
    """The number in the name of a memory or unit: "ib.x2.core6" is the ib of 2 cores."""
    return int(name.split(".x")[1].split(".")[0]) if ".x" in name else 1


def group_in(name: str) -> str:
    """What units of these cores begin with: "core6." of "ib.x2.core6", else nothing."""
    core = name.rpartition(".")[2]
    return f"{core}." if core.startswith("core") and ".x" in name else ""


def bits_in(buffer: Buffer, spec: SramCimSpec) -> int:
    """Bits of an element; on the chip, an exact sum takes what the machine keeps of it."""
    if buffer.dtype == "i32" and ".x" in buffer.memory and buffer.init is None:
        return spec.macro.psum_bits
    return bits_of(buffer.dtype)


def instruction_cost(instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    """Cost of one execution."""
    tally = Tally(spec_of(target), _group(instr, buffers))
    match instr:
        case Wait() | Signal() | Flip():
            pass
        case Transfer():
            _transfer(tally, instr, buffers)
        case Activate():
            _activate(tally, instr, buffers)
        case VectorOp():
            _vector_op(tally, instr, buffers)
        case Fill() if level_of(buffers[instr.dst.buffer]) == _registers(tally.spec):
            pass  # registers are cleared with the start of an activation
        case _:
            _tile(tally, instr, buffers)
    return tally.cost()


def _group(instr: Instr, buffers: Mapping[str, Buffer]) -> str:
    if isinstance(instr, VectorOp):
        return group_in(instr.unit)
    groups = (group_in(buffers[view.buffer].memory) for view in views(instr).values())
    return next(filter(None, groups), "")


def _registers(spec: SramCimSpec) -> str:
    return [name for name, level in spec.memory.items() if "O" in level.holds][-1]


def _transfer(tally: Tally, instr: Transfer, buffers: Mapping[str, Buffer]) -> None:
    spec = tally.spec
    source, sink = buffers[instr.src.buffer], buffers[instr.dst.buffer]
    bits, outer, inner = bits_in(source, spec), level_of(source), level_of(sink)
    cell_bits = bits_in(sink, spec)
    if spec.memory[inner].holds == ("W",):
        cell_bits = -(-bits // spec.macro.weight_bits) * spec.macro.weight_bits
    bank = f"{instr.operand}-bank"
    second = (instr.meanwhile in ("src", "both"), instr.meanwhile in ("dst", "both"))
    tally.access(outer, "read", instr.read * bits, instr.readers, bank if second[0] else "")
    stored = instr.stored * cell_bits
    tally.access(inner, "write", stored, instr.writers, bank if second[1] else "")
    if spec.memory[outer].per != spec.memory[inner].per:
        shared = (instr.read if spec.memory[outer].per == "chip" else instr.stored) * bits
        tally.hold(f"link.{instr.operand}", -(-shared // spec.link.bits_per_cycle))
        tally.count("link.bits", shared)
        tally.latency += spec.link.hop_cycles
    if inner == _cells(spec) and "W" not in spec.memory[inner].double:
        tally.hold(f"{tally.group}macro", max(tally.holds.values()))


def _cells(spec: SramCimSpec) -> str:
    return [name for name, level in spec.memory.items() if "W" in level.holds][-1]


def _activate(tally: Tally, instr: Activate, buffers: Mapping[str, Buffer]) -> None:
    spec, macro = tally.spec, tally.spec.macro
    x, w, acc = (buffers[view.buffer] for view in (instr.x, instr.w, instr.acc))
    x_bits, w_bits = bits_of(x.dtype), bits_of(w.dtype)
    cycles = -(-x_bits // macro.input_bits_per_cycle) * -(-w_bits // macro.weight_bits)
    tally.hold(f"{tally.group}macro", cycles)
    for event, times in activation_events(spec, x_bits, w_bits).items():
        tally.count(event, times * instr.cores)
    tally.count(f"{level_of(x)}.read_bits", x_bits * instr.rows * instr.cores)
    cells = instr.cores * instr.rows * instr.columns
    tally.count(f"{level_of(w)}.read_bits", w_bits * cells)
    for word in ("read", "write"):
        sums = macro.psum_bits * instr.columns * instr.cores
        tally.count(f"{level_of(acc)}.{word}_bits", sums)


def _vector_op(tally: Tally, instr: VectorOp, buffers: Mapping[str, Buffer]) -> None:
    elements, is_float = vector_work(instr.op)
    read: dict[str, int] = {}
    for value in dict.fromkeys(operands(instr.op)):
        level = level_of(buffers[value.name])
        read[level] = read.get(level, 0) + value.type.bits
    for level, bits in read.items():
        tally.access(level, "read", bits, 1)
    tally.access(level_of(buffers[instr.op.out.name]), "write", instr.op.out.type.bits, 1)
    cores = instances_in(instr.unit) if ".x" in instr.unit else tally.spec.cores
    _work(tally, instr.unit.split(".")[0], elements, is_float, cores)


def _work(tally: Tally, unit: str, elements: int, is_float: bool, cores: int) -> None:
    vector = tally.spec.vector
    lanes = (vector.float_lanes if is_float else vector.lanes) * (
        cores if vector.per == "core" else 1
    )
    if unit == "vector" and vector.per == "core":
        unit = tally.group + unit
    tally.hold(unit, max(1, -(-elements // lanes)))
    tally.count("vector.float_ops" if is_float else "vector.ops", elements)


def _tile(tally: Tally, instr: Instr, buffers: Mapping[str, Buffer]) -> None:
    """Instructions of the epilogue, in which every core works on its own part of the tile."""
    spec, cores, elements = tally.spec, 1, 1
    for name, view in views(instr).items():
        buffer = buffers[view.buffer]
        level = level_of(buffer)
        cores, elements = max(cores, cores_of(buffer)), max(elements, _span(view))
        if level not in spec.memory:
            continue
        instances = _instances(buffer, spec)
        bits = -(-view.elements // instances) * bits_in(buffer, spec)
        if name not in instr.writes:
            tally.access(level, "read", bits, instances)
        if name in instr.writes or name in instr.updates:
            tally.access(level, "write", bits, instances)
    if not isinstance(instr, Copy | Fill):
        _work(tally, "vector", elements, False, cores)


def _span(view: View) -> int:
    count = 1
    for extent, _ in view.dims:
        count *= extent
    return count


def _instances(buffer: Buffer, spec: SramCimSpec) -> int:
    """Instances that share a tile's elements evenly."""
    sizes = {"rows": spec.macro.rows, "columns": spec.macro.columns}
    count = cores_of(buffer)
    for axis in spec.memory[level_of(buffer)].along:
        count *= sizes[axis]
    return count


def prices(target: Target) -> dict[str, Price]:
    """Price of every event."""
    macro = spec_of(target).macro
    return {
        **common_prices(target),
        "macro.multiplier": Price(macro.multiplier_pj, ("macro.multiplier_pj",)),
        "macro.adder": Price(macro.adder_pj, ("macro.adder_pj",)),
        "macro.register": Price(macro.register_pj, ("macro.register_pj",)),
    }
