"""Which layers run one after the other so that the feature maps fit into the banks.

A pipelined layer's result is held as a whole while the pipeline runs. Where all results together
exceed the outermost memory, the first layers, which have the largest ones, are joined into one
stream: they run in turn, and their results share room.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

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
from cimc.target import Target


def fitted(program: Program, target: Target) -> Program:
    """The program with as few of its first streams joined as the outermost memory asks for."""
    outer, memory = next(iter(target.spec.memory.items()))
    size = memory.size_bits // 8
    touched = _touched(program, outer)
    count = next((n for n in _prefixes(program) if _need(n, touched) <= size), None)
    if count == 0 or count is None:  # all fit, or not even one after the other: allocate says so
        return program
    warn(
        Fault(
            f"{program.name}: its first {count} layers run one after the other, not as a pipeline",
            need=f"{_need(0, touched)} bytes for all feature maps at once",
            have=f"{size} bytes ({target.path}: memory.{outer}.size_bits)",
            help="a larger memory, or a machine of more chips",
            code="CIM3103",
        )
    )
    first, rest = program.streams[:count], program.streams[count:]
    inner = {name for name, (_, _, end) in touched.items() if end < count}
    made = {
        instr.buffer
        for stream in first
        for instr, _ in walk(stream.body)
        if isinstance(instr, Signal)
    }
    body = tuple(item for stream in first for item in _without(stream.body, made, inner))
    joined = Stream(f"{first[0].name} to {first[-1].name}", body)
    return dataclasses.replace(program, streams=(joined, *rest))


def _prefixes(program: Program) -> Iterator[int]:
    yield 0
    yield from range(2, len(program.streams) + 1)


def _touched(program: Program, outer: str) -> Mapping[str, tuple[int, int, int]]:
    """Bytes and the first and last stream of each buffer in the outermost memory.

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


def _need(count: int, touched: Mapping[str, tuple[int, int, int]]) -> int:
    """Bytes at once where the first `count` streams are joined."""
    always = sum(size for size, _, end in touched.values() if end >= count)
    during = [
        sum(size for size, begin, end in touched.values() if end < count and begin <= now <= end)
        for now in range(count)
    ]
    return always + max(during, default=0)


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
