"""Stages of a pipeline over cores: each is a small network on a small machine, with its own stream.

    stage [%a, %b] cores 6       cores 0 .. 5, and 6/8 of every level that the chip has once
    stage [%c] cores 2           cores 6 and 7, and the rest; on the sample before

    buffer %b : i8[4096] in "dram" x2        one sample is written while another one is read
    buffer %c.I.ib : i8[64] in "ib.x2.core6"

A stage has its part of the levels inside the outermost memory for itself; ports of what the chip
has once, and the link, are everybody's. What one stage makes and another one reads lies in the
outermost memory, in as many slots as there are samples under way between them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cimc.errors import Fault
from cimc.ir.graph import operands
from cimc.ir.program import Instr, Item, Loop, Program, VectorOp, views, walk
from cimc.ir.tiles import Tiles
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
    homeless = {keep.value: keep for keep in tiles.keeps}
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
            keeps=tuple(keep for name, keep in homeless.items() if name in touched),
            fused=tuple(f for f in tiles.fused if set(f.layers) & set(staged.layers)),
            staged=(),
        )
        homeless = {name: keep for name, keep in homeless.items() if name not in touched}
        part = part_of(machine, staged.cores)
        found.append(Stage(f"stage{number}", own, part, first))
        first += staged.cores
    return tuple(found)


def joined(tiles: Tiles, stages: Sequence[Stage]) -> Tiles:
    """The whole network again, with what stages found for themselves."""
    return dataclasses.replace(
        tiles,
        layers=tuple(layer for stage in stages for layer in stage.tiles.layers),
        keeps=tuple(keep for stage in stages for keep in stage.tiles.keeps),
        fused=tuple(fused for stage in stages for fused in stage.tiles.fused),
    )


def cores_of_machine(machine: Machine) -> int:
    """Positions along the axis of cores."""
    return next((axis.size for axis in machine.axes if axis.name == CORES), 1)


def part_of(machine: Machine, cores: int) -> Machine:
    """The machine that so many of the cores are: with their share of what the chip has once."""
    total = cores_of_machine(machine)
    if cores >= total:
        return machine
    word = 8 * ALIGNED

    def share(number: int, level: Level) -> Level:
        if not number or level.along:
            return level
        size = level.size_bits * cores // total // word * word
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


def settled(program: Program, stages: Sequence[Stage], tiles: Tiles) -> Program:
    """The program with every stage on its own cores, and slots for samples under way."""
    if stages[0].first < 0:
        return program
    owner = {
        name: stage
        for stage, stream in zip(stages, program.streams, strict=True)
        for instr, _ in walk(stream.body)
        for name in _touched(instr)
    }
    slots = _slots(stages, tiles)
    buffers = []
    for buffer in program.buffers:
        stage = owner.get(buffer.name)
        memory = buffer.memory if stage is None else stage.memory(buffer.memory)
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


def _slots(stages: Sequence[Stage], tiles: Tiles) -> dict[str, int]:
    """Of what later stages read: one slot for each sample between maker and last reader."""
    producers = tiles.graph.producers()
    place = {
        name: number
        for number, stage in enumerate(stages)
        for layer in stage.tiles.layers
        for name in layer.ops
    }
    found: dict[str, int] = {}
    for name, reader in place.items():
        for value in operands(producers[name]):
            apart = reader - place.get(value.name, reader)
            if apart:
                found[value.name] = max(found.get(value.name, 1), apart + 1)
    return found
