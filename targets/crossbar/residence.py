"""How feature maps share the banks: which layers take turns, which maps are held twice.

A pipelined layer's result is held as a whole while the pipeline runs. Where all results together
exceed the outermost memory, a run of layers is joined into one stream: they work in turn, and their
results share room. Of all runs that are long enough the one is taken that has the least to do.

A layer begins its next sample when all who read its result are through with the last one. Room that
is left goes to second copies of results, first of those that wait for the latest reader.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, warn
from cimc.ir.graph import operands
from cimc.ir.program import (
    Buffer,
    Item,
    Loop,
    Program,
    Signal,
    Stream,
    VectorOp,
    Wait,
    views,
    walk,
)
from cimc.ir.types import numpy_dtype
from cimc.passes.allocate import needed_bytes
from cimc.target import Target

ALIGNMENT = 64  # bytes that placing a buffer may waste


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of each buffer in the outermost memory, first and last stream to touch it."""

    size: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]

    def need(self, first: int, after: int) -> int:
        """Bytes at once where the streams `first` .. `after` - 1 are joined."""
        inside = (self.begin >= first) & (self.end < after)
        always = int(self.size[~inside].sum())
        change = np.zeros(after - first + 2, np.int64)
        np.add.at(change, self.begin[inside] - first, self.size[inside])
        np.add.at(change, self.end[inside] - first + 1, -self.size[inside])
        return always + int(change.cumsum().max())


def fitted(program: Program, target: Target, cycles: Sequence[int]) -> Program:
    """The program with streams joined or maps doubled, as the outermost memory asks or allows.

    `cycles` says for each stream how long it takes alone.
    """
    outer, memory = next(iter(target.spec.memory.items()))
    size = memory.size_bits // 8
    touched = _touched(program, outer)
    if not touched:
        return program
    held = Held(*(np.array(column, np.int64) for column in zip(*touched.values(), strict=True)))
    count = len(program.streams)
    if held.need(0, 0) <= size:
        return _doubled(program, touched, size - held.need(0, 0))
    if held.need(0, count) > size:
        return program  # too little room even so: allocate says what is needed
    first, after, joined = _joined_run(program, touched, held, target, cycles)
    warn(
        Fault(
            f"{program.name}: {after - first} layers run one after the other, not as a pipeline",
            need=f"{held.need(0, 0)} bytes for all feature maps at once",
            have=f"{size} bytes ({target.path}: memory.{outer}.size_bits)",
            help="a larger memory, or a machine of more chips",
            code="CIM3103",
            context=(
                ("layers", f"{program.streams[first].name} to {program.streams[after - 1].name}"),
            ),
        )
    )
    return joined


def _joined_run(
    program: Program,
    touched: Mapping[str, tuple[int, int, int]],
    held: Held,
    target: Target,
    cycles: Sequence[int],
) -> tuple[int, int, Program]:
    """The run of streams to join, and the program with it joined.

    Placing buffers leaves gaps; a run whose buffers do not fit for that is followed by a longer
    one.
    """
    outer, memory = next(iter(target.spec.memory.items()))
    size = room = memory.size_bits // 8
    first, after = _run(held, room, cycles)
    while True:
        inner = {n for n, (_, begin, end) in touched.items() if begin >= first and end < after}
        streams = tuple(_joined(program, first, after, inner))
        joined = dataclasses.replace(program, streams=streams)
        lost = needed_bytes(joined, outer) - size
        if lost <= 0 or after - first == len(cycles):
            return first, after, joined
        room -= lost
        fits = held.need(0, len(cycles)) <= room
        first, after = _run(held, room, cycles) if fits else (0, len(cycles))


def _doubled(program: Program, touched: Mapping[str, tuple[int, int, int]], room: int) -> Program:
    """Second copies of what streams hand on to each other, while there is room."""
    last = len(program.streams)
    handed_on = [
        (begin - end, size, name) for name, (size, begin, end) in touched.items() if end < last
    ]
    twice: set[str] = set()
    for distance, size, name in sorted(handed_on):
        if distance < 0 and size + ALIGNMENT <= room:
            room -= size + ALIGNMENT
            twice.add(name)
    buffers = tuple(
        dataclasses.replace(buffer, slots=2) if buffer.name in twice else buffer
        for buffer in program.buffers
    )
    return dataclasses.replace(program, buffers=buffers)


def _run(held: Held, size: int, cycles: Sequence[int]) -> tuple[int, int]:
    """The run of streams with the fewest cycles whose joining makes all fit."""
    count = len(cycles)
    runs = []
    for first in range(count):
        if held.need(first, count) > size:
            break  # nor does a later, shorter run
        lengths = range(first, count + 1)
        after = lengths[bisect.bisect_left(lengths, -size, key=lambda n: -held.need(first, n))]
        runs.append((sum(cycles[first:after]), first, after))
    _, first, after = min(runs)
    return first, after


def _joined(program: Program, first: int, after: int, inner: set[str]) -> Iterator[Stream]:
    run = program.streams[first:after]
    made = {
        instr.buffer
        for stream in run
        for instr, _ in walk(stream.body)
        if isinstance(instr, Signal)
    }
    body = tuple(item for stream in run for item in _without(stream.body, made, inner))
    yield from program.streams[:first]
    yield Stream(f"{run[0].name} to {run[-1].name}", body)
    yield from program.streams[after:]


def _touched(program: Program, outer: str) -> Mapping[str, tuple[int, int, int]]:
    """Bytes, first and last stream of each buffer in the outermost memory.

    Inputs, outputs and constants count as touched by a stream after all others: they stay.
    """
    buffers = {buffer.name: buffer for buffer in program.buffers if buffer.memory == outer}
    fixed = {name for name, _ in (*program.inputs, *program.outputs)}
    fixed |= {name for name, buffer in buffers.items() if buffer.init is not None}
    found: dict[str, tuple[int, int, int]] = {}
    for number, stream in enumerate(program.streams):
        for instr, _ in walk(stream.body):
            names = [view.buffer for view in views(instr).values()]
            if isinstance(instr, VectorOp):
                names = [value.name for value in (*operands(instr.op), instr.op.out)]
            for name in names:
                if name in buffers:
                    _, begin, _ = found.get(name, (0, number, 0))
                    end = len(program.streams) if name in fixed else number
                    found[name] = (_bytes(buffers[name]), begin, end)
    return found


def _bytes(buffer: Buffer) -> int:
    return buffer.elements * numpy_dtype(buffer.dtype).itemsize * buffer.slots


def _without(items: tuple[Item, ...], made: set[str], inner: set[str]) -> Iterator[Item]:
    """The items less waits for what the joined stream makes, and signals that nobody awaits."""
    for item in items:
        if isinstance(item, Loop):
            yield dataclasses.replace(item, body=tuple(_without(item.body, made, inner)))
        elif not (
            (isinstance(item, Wait) and item.buffer in made)
            or (isinstance(item, Signal) and item.buffer in inner)
        ):
            yield item
