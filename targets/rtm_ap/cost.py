"""What instructions hold and count on this machine, what an event costs, how large the chip is.

Units: the arrays of each core ("core3.ap"), the ports of the two memories, the link, the vector
unit. An array is held while it is loaded, runs and is read. Events are counts of rows times cells:

    ap.searched_bits   ap-run: searched cells, in every row of the arrays, with data or not
    ap.written_bits    ap-run: expected; ap-load: every bit of every row
    ap.shift_steps     steps of single tracks
    ap.checks          of the alignment of single tracks; none without a realignment code
    ap.read_bits       ap-read
"""

from __future__ import annotations

from collections.abc import Mapping

from cimc.ir.program import Buffer, Instr
from cimc.ir.types import bits_of
from cimc.kind import Cost, Price, common_area, common_cost, common_prices
from cimc.target import Memory, Target
from cimc.targets.rtm_ap.instructions import ApLoad, ApRead, ApRun
from cimc.targets.rtm_ap.pricing import Price as RowPrice
from cimc.targets.rtm_ap.pricing import shift_cycles
from cimc.targets.rtm_ap.work import spec_of

SUM_BITS = 32


def instruction_cost(instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    """Cost of one execution."""
    match instr:
        case ApLoad():
            return _load(instr, buffers, target)
        case ApRun():
            return _run(instr, buffers, target)
        case ApRead():
            return _read(instr, buffers, target)
        case _:
            return common_cost(instr, buffers, target)


def load_cycles(values: int, bits: int, shifts: int, target: Target) -> int:
    """Array cycles of a load: one write for each bit of each value, in all rows at once."""
    ap = spec_of(target).ap
    return values * bits * ap.write_cycles + shift_cycles(shifts, ap)


def read_cycles(accumulators: int, bits: int, shifts: int, target: Target) -> int:
    """Array cycles of a read-out: one search for each bit of each accumulator."""
    ap = spec_of(target).ap
    return accumulators * bits * ap.search_cycles + shift_cycles(shifts, ap)


def _load(instr: ApLoad, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    spec, buffer = spec_of(target), buffers[instr.src.buffer]
    memory, bits = spec.memory[buffer.memory], instr.fetched * bits_of(buffer.dtype)
    busy = load_cycles(instr.values, instr.bits, instr.shifts, target)
    port = -(-bits // memory.read_bits_per_cycle)
    link = -(-bits // spec.link.bits_per_cycle)
    latency = memory.latency_cycles + spec.link.hop_cycles + max(busy, port, link)
    holds: list[tuple[str, int]] = [(_port(buffer.memory, memory, "read"), port), ("link", link)]
    for copy in range(instr.copies):
        first = instr.array + copy * instr.apart
        holds += [(unit, latency) for unit in _cores(first, instr.arrays, target)]
    rows = instr.copies * instr.arrays * instr.size[0]
    events = (
        (f"{buffer.memory}.read_bits", bits),
        ("link.bits", bits),
        ("ap.written_bits", rows * instr.values * instr.bits),
        ("ap.shift_steps", instr.arrays * instr.size[0] * instr.moves),
        *_checked(instr),
    )
    return Cost(tuple(holds), latency, events)


def _checked(instr: ApLoad | ApRun | ApRead) -> tuple[tuple[str, int], ...]:
    """Checks of alignment, where there are any."""
    found = instr.arrays * instr.size[0] * instr.checks
    return (("ap.checks", found),) if found else ()


def _run(instr: ApRun, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    spec, buffer = spec_of(target), buffers[instr.code.buffer]
    memory = spec.memory[buffer.memory]
    bits = instr.code.elements * bits_of(buffer.dtype)
    if instr.fresh:
        bits += instr.slots.elements * bits_of(buffers[instr.slots.buffer].dtype)
    price = RowPrice(passes=instr.passes, writes=instr.clears, shifts=instr.shifts)
    port = -(-bits // memory.read_bits_per_cycle)
    busy = max(price.cycles(spec.ap), port) + memory.latency_cycles
    holds = [(_port(buffer.memory, memory, "read"), port)]
    holds += [(unit, busy) for unit in _cores(instr.array, instr.arrays, target)]
    rows = instr.arrays * instr.size[0]
    events = (
        (f"{buffer.memory}.read_bits", bits),
        ("ap.searched_bits", rows * instr.searched),
        ("ap.written_bits", round(rows * instr.written)),
        ("ap.shift_steps", rows * instr.moves),
        *_checked(instr),
    )
    return Cost(tuple(holds), busy, events)


def _read(instr: ApRead, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    spec, buffer = spec_of(target), buffers[instr.acc.buffer]
    memory, sums = spec.memory[buffer.memory], instr.acc.elements
    cells = instr.rows * instr.bits
    bits = sums * SUM_BITS
    busy = read_cycles(instr.rows, instr.bits, instr.shifts, target)
    moved = sums * instr.parts * instr.bits
    link = -(-moved // spec.link.bits_per_cycle)
    write = -(-bits // memory.write_bits_per_cycle)
    read = 0 if instr.fresh else -(-bits // memory.read_bits_per_cycle)
    added = sums * (instr.parts - 1 + (instr.offset is not None) + (not instr.fresh))
    vector = -(-added // spec.vector.lanes)
    latency = memory.latency_cycles + spec.link.hop_cycles + max(busy, link, write, read, vector)
    holds: dict[str, int] = {"link": link, _port(buffer.memory, memory, "write"): write}
    events = {
        "ap.read_bits": instr.arrays * instr.size[0] * cells,
        "ap.shift_steps": instr.arrays * instr.size[0] * instr.moves,
        **dict(_checked(instr)),
        "link.bits": moved,
        f"{buffer.memory}.write_bits": bits,
    }
    if read:
        unit = _port(buffer.memory, memory, "read")
        holds[unit] = holds.get(unit, 0) + read
        events[f"{buffer.memory}.read_bits"] = bits
    if added:
        holds["vector"] = vector
        events["vector.ops"] = added
    cores = tuple((unit, latency) for unit in _cores(instr.array, instr.arrays, target))
    return Cost((*holds.items(), *cores), latency, tuple(events.items()))


def _port(name: str, memory: Memory, way: str) -> str:
    return f"{name}.port" if memory.ports == "shared" else f"{name}.{way}"


def _cores(first: int, arrays: int, target: Target) -> list[str]:
    each = spec_of(target).ap.arrays
    return [f"core{core}.ap" for core in range(first // each, -(-(first + arrays) // each))]


def prices(target: Target) -> dict[str, Price]:
    """Price of every event."""
    ap = spec_of(target).ap
    return {
        **common_prices(target),
        "ap.searched_bits": Price(ap.search_pj, ("ap.search_pj",)),
        "ap.written_bits": Price(ap.write_pj, ("ap.write_pj",)),
        "ap.shift_steps": Price(ap.shift_pj, ("ap.shift_pj",)),
        "ap.checks": Price(ap.realign_pj, ("ap.realign_pj",)),
        "ap.read_bits": Price(ap.read_pj, ("ap.read_pj",)),
    }


def area(target: Target) -> dict[str, float]:
    """mm2 by component."""
    spec = spec_of(target)
    return {
        **common_area(target),
        "ap.arrays": spec.cores * spec.ap.arrays * spec.ap.area_mm2,
        "ap.controllers": spec.cores * spec.ap.controller_mm2,
    }
