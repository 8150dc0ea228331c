"""Stages of a pipeline over cores: each is a small network on a small machine, with its own stream.

    stage [%a, %b] cores 6       cores 0 .. 5, and 6/8 of every level that the chip has once
    stage [%c] cores 2           cores 6 and 7, and the rest; on the sample before

    buffer %b : i8[4096] in "dram" x2        one sample is written while another one is read
    buffer %c.I.ib : i8[64] in "ib.x2.core6"

A stage has its part of the levels inside the outermost memory for itself; ports of what the chip
has once, and the link, are everybody's. What one stage makes and another one reads lies in the
outermost memory, or, where it is kept, in a level of the chip beside the parts of all stages: in as
many slots as there are samples under way between them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cimc.errors import Fault
from cimc.ir.graph import operands
from cimc.ir.program import Instr, Item, Loop, Program, VectorOp, views, walk
from cimc.ir.tiles import Tiles
from cimc.ir.types import numpy_dtype
from cimc.mapping.machine import Level, Machine
from cimc.targets.sram_cim.homes import ALIGNED

CORES = "cores"  # the axis
UNIT = "vector"


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers of a network with what is kept and fused among them, and the machine they have."""

    name: str  # of its stream
    tiles: Tiles
    machine: Machine
    first: int = -1  # core; -1: there is one stage, and it has the whole chip

    @property
    def cores(self) -> int:
        """How many it has."""
        return cores_of_machine(self.machine)

    def settled(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Instructions with the vector units of the stage's cores."""
        if self.first < 0:
            return tuple(items)
        found: list[Item] = []
        for item in items:
            if isinstance(item, Loop):
                item = dataclasses.replace(item, body=self.settled(item.body))
            elif isinstance(item, VectorOp) and item.unit == UNIT:
                item = dataclasses.replace(item, unit=self.memory(f"{UNIT}.x{self.cores}"))
            found.append(item)
        return tuple(found)

    def memory(self, name: str) -> str:
        """The stage's part of a memory on the chip."""
        return f"{name}.core{self.first}" if ".x" in name and self.first >= 0 else name


def stages_of(tiles: Tiles, machine: Machine) -> tuple[Stage, ...]:
    """The stages of tiles; a single one where they are not pipelined."""
    if not tiles.staged:
        return (Stage("main", tiles, machine),)
    producers = tiles.graph.producers()
    found, first = list[Stage](), 0
    taken = _taken(tiles)
    for number, staged in enumerate(tiles.staged):
        layers = tuple(layer for layer in tiles.layers if layer.name in staged.layers)
        touched = {
            value.name
            for layer in layers
            for name in layer.ops
            for value in (*operands(producers[name]), producers[name].out)
        }
        own = dataclasses.replace(
            tiles,
            layers=layers,
            keeps=tuple(keep for keep in tiles.keeps if keep.value in touched),
            fused=tuple(f for f in tiles.fused if set(f.layers) & set(staged.layers)),
            staged=(),
        )
        part = part_of(machine, staged.cores, taken)
        found.append(Stage(f"stage{number}", own, part, first))
        first += staged.cores
    return tuple(found)


def joined(tiles: Tiles, stages: Sequence[Stage]) -> Tiles:
    """The whole network again, with what stages found for themselves."""
    return dataclasses.replace(
        tiles,
        layers=tuple(layer for stage in stages for layer in stage.tiles.layers),
        keeps=tuple(dict.fromkeys(keep for stage in stages for keep in stage.tiles.keeps)),
        fused=tuple(fused for stage in stages for fused in stage.tiles.fused),
    )


def cores_of_machine(machine: Machine) -> int:
    """Positions along the axis of cores."""
    return next((axis.size for axis in machine.axes if axis.name == CORES), 1)


def part_of(machine: Machine, cores: int, taken: Mapping[str, int] | None = None) -> Machine:
    """The machine that so many of the cores are: with their share of what the chip has once.

    `taken`: bytes of a level that no stage has.
    """
    total = cores_of_machine(machine)
    taken = taken or {}
    if cores >= total and not taken:
        return machine
    word = 8 * ALIGNED

    def share(number: int, level: Level) -> Level:
        if not number or level.along:
            return level
        free = max(level.size_bits - 8 * taken.get(level.name, 0), 0)
        size = free * min(cores, total) // total // word * word
        return dataclasses.replace(level, size_bits=size, key=f"{cores}/{total} of {level.key}")

    return dataclasses.replace(
        machine,
        levels=tuple(share(number, level) for number, level in enumerate(machine.levels)),
        axes=tuple(
            dataclasses.replace(axis, size=cores, key=f"a stage's part of {axis.key}")
            if axis.name == CORES
            else axis
            for axis in machine.axes
        ),
    )


def stage_faults(tiles: Tiles, machine: Machine) -> Iterator[Fault]:
    """Stages that want more cores than there are."""
    total = cores_of_machine(machine)
    wanted = sum(staged.cores for staged in tiles.staged)
    if wanted > total:
        yield Fault(
            "the stages do not fit",
            need=f"{wanted} cores",
            have=f"{total} ({machine.name}: cores)",
            help="give stages fewer cores, or join some",
            code="CIM4039",
        )
    for name, need in _taken(tiles).items():
        level = next((level for level in machine.levels if level.name == name), None)
        if level is not None and need > level.size_bits // 8:
            yield Fault(
                f"values that stages pass on do not fit in {name}",
                need=f"{need} bytes, one slot for each sample under way",
                have=f"{level.size_bits // 8} bytes ({machine.name}: {level.key})",
                help="keep fewer of them",
                code="CIM4042",
            )


def passed_on(tiles: Tiles) -> dict[str, int]:
    """Values that later stages read: slots, one for each sample between maker and last reader."""
    producers = tiles.graph.producers()
    stage = {name: number for number, one in enumerate(tiles.staged) for name in one.layers}
    place = {name: stage.get(layer.name, 0) for layer in tiles.layers for name in layer.ops}
    for value in tiles.graph.inputs:  # there when the first stage reads it, gone after the last
        readers = [place[n] for n in place if value in operands(producers[n])]
        place[value.name] = min(readers, default=0)
    found: dict[str, int] = {}
    for name in [op for layer in tiles.layers for op in layer.ops]:
        reader = place[name]
        for value in operands(producers[name]):
            apart = reader - place.get(value.name, reader)
            if apart:
                found[value.name] = max(found.get(value.name, 1), apart + 1)
    return found


def bytes_passed_on(tiles: Tiles, name: str, slots: int) -> int:
    """Bytes that all slots of a value take."""
    kind = tiles.graph.producers()[name].out.type
    size = kind.elements * numpy_dtype(kind.dtype).itemsize
    return -(-size * slots // ALIGNED) * ALIGNED


def _taken(tiles: Tiles) -> dict[str, int]:
    """Bytes that values between stages take of the levels where they are kept."""
    slots, found = passed_on(tiles), dict[str, int]()
    for keep in tiles.keeps:
        if keep.value in slots:
            size = bytes_passed_on(tiles, keep.value, slots[keep.value])
            found[keep.level] = found.get(keep.level, 0) + size
    return found


def settled(program: Program, stages: Sequence[Stage], tiles: Tiles) -> Program:
    """The program with every stage on its own cores, and slots for samples under way."""
    if stages[0].first < 0:
        return program
    owner: dict[str, set[int]] = {}
    for number, stream in enumerate(program.streams):
        for instr, _ in walk(stream.body):
            for name in _touched(instr):
                owner.setdefault(name, set()).add(number)
    slots = passed_on(tiles)
    buffers = []
    for buffer in program.buffers:
        memory, found = buffer.memory, owner.get(buffer.name, set())
        if len(found) == 1:
            memory = stages[min(found)].memory(memory)
        count = slots.get(buffer.name, buffer.slots)
        buffers.append(dataclasses.replace(buffer, memory=memory, slots=count))
    streams = (
        dataclasses.replace(stream, body=stage.settled(stream.body))
        for stage, stream in zip(stages, program.streams, strict=True)
    )
    return dataclasses.replace(program, streams=tuple(streams), buffers=tuple(buffers))


def _touched(instr: Instr) -> Iterator[str]:
    if isinstance(instr, VectorOp):
        yield from (value.name for value in (*operands(instr.op), instr.op.out))
    yield from (view.buffer for view in views(instr).values())
