"""Give every buffer a place in its memory; buffers that are never needed together may share it.

before   buffer %a : i8[4096] in "gb"
after    buffer %a : i8[4096] in "gb" @ 8192

A buffer that one stream alone touches lives from the first to the last item at the stream's top
level that does so. A buffer that several streams touch, that setup touches, or that holds a
constant, an input or an output lives throughout: a pipeline of streams works on several inputs at
once, so order within one input does not free a place for the next one. Memories that are no level
of the target (arrays, registers that a machine kind counts itself) are laid out, but have no size
to exceed: there, buffers of one layer never share a place, since one would wait for the other. A
buffer that has an address already keeps it.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cimc.errors import Fault, FitError, raise_if
from cimc.ir.graph import operands
from cimc.ir.program import BAND, Buffer, Instr, Item, Loop, Program, Stream, VectorOp, views, walk
from cimc.ir.types import numpy_dtype
from cimc.pipeline.passes import compiler_pass
from cimc.target import Target

LARGEST_SHOWN = 5  # buffers that a fault lists


@dataclass(frozen=True, slots=True)
class Life:
    """When a buffer is needed: items first..last of `stream`; of no stream: throughout."""

    stream: str = ""
    first: int = 0
    last: int = 0

    def meets(self, other: Life) -> bool:
        """Whether both may be needed at once."""
        if not self.stream or self.stream != other.stream:
            return True
        return self.first <= other.last and other.first <= self.last


@compiler_pass("allocate")
def allocate(program: Program, *, target: Target) -> Program:
    """Set the address of each buffer; FitError where a memory is too small."""
    lives = _lives(program)
    by_layer = _whole_layers(program, lives)
    memories: dict[str, list[Buffer]] = defaultdict(list)
    for buffer in program.buffers:
        memories[buffer.memory].append(buffer)
    addresses: dict[str, int] = {}
    faults: list[Fault] = []
    for memory, buffers in memories.items():
        placed = _place(buffers, lives if _level(memory) in target.spec.memory else by_layer)
        addresses.update(placed)
        faults.extend(_too_small(memory, buffers, placed, target))
    raise_if(faults, FitError)
    found = (dataclasses.replace(b, address=addresses[b.name]) for b in program.buffers)
    return dataclasses.replace(program, buffers=tuple(found))


def needed_bytes(program: Program, memory: str) -> int:
    """Bytes of a memory that `allocate` would use."""
    buffers = [buffer for buffer in program.buffers if buffer.memory == memory]
    return _end(buffers, _place(buffers, _lives(program)))


def bytes_of(buffer: Buffer) -> int:
    """Bytes of all slots of a buffer; elements narrower than a byte take one."""
    return buffer.slots * buffer.elements * numpy_dtype(buffer.dtype).itemsize


def _lives(program: Program) -> dict[str, Life]:
    found: dict[str, Life] = {name: Life() for name, _ in (*program.inputs, *program.outputs)}
    found.update({buffer.name: Life() for buffer in program.buffers if buffer.init is not None})
    found.update({name: Life() for name in _touched(program.setup)})
    for stream in program.streams:
        for name, first, last in _uses(stream):
            life = found.get(name)
            if life is None:
                found[name] = Life(stream.name, first, last)
            elif life.stream == stream.name:
                found[name] = Life(stream.name, min(life.first, first), max(life.last, last))
            else:
                found[name] = Life()
    return found


def _whole_layers(program: Program, lives: Mapping[str, Life]) -> dict[str, Life]:
    """The same for all of each layer in which a buffer's life begins or ends."""
    found = dict(lives)
    for stream in program.streams:
        if any(isinstance(item, Loop) and item.var == BAND for item in stream.body):
            continue  # places are counted inside bands
        spans: dict[str, tuple[int, int]] = {}
        layers = [_layers(item) for item in stream.body]
        for place, names in enumerate(layers, 1):
            for name in names:
                spans[name] = (spans.get(name, (place, place))[0], place)
        for name, life in lives.items():
            if life.stream == stream.name and life.first:
                ends = [spans[n] for n in (*layers[life.first - 1], *layers[life.last - 1])]
                first = min((low for low, _ in ends), default=life.first)
                last = max((high for _, high in ends), default=life.last)
                found[name] = Life(stream.name, first, last)
    return found


def _layers(item: Item) -> set[str]:
    return {instr.layer for instr, _ in walk((item,)) if instr.layer}


def _level(memory: str) -> str:
    return memory.rsplit(".", 1)[-1]


def _uses(stream: Stream) -> Iterator[tuple[str, int, int]]:
    """Buffers with the first and last place of an item that touches them.

    The items of a loop over bands have places of their own: each band begins afresh, so what no
    other item touches is needed from its first to its last item in the loop. What others touch as
    well is needed for all bands.
    """
    place = 0
    inside: dict[str, set[int]] = {}  # loops over bands that touch a buffer, 0: other items
    found: list[tuple[str, int, int, int, int]] = []
    for item in stream.body:
        begin = place = place + 1
        if isinstance(item, Loop) and item.var == BAND:
            end = begin + len(item.body) + 1
            for number, inner in enumerate(item.body, begin + 1):
                found += [(name, number, number, begin, end) for name in _touched((inner,))]
            for name in _touched((item,)):
                inside.setdefault(name, set()).add(begin)
            place = end
        else:
            for name in _touched((item,)):
                inside.setdefault(name, set()).add(0)
                found.append((name, begin, begin, begin, begin))
    for name, first, last, begin, end in found:
        yield (name, first, last) if len(inside[name]) == 1 else (name, begin, end)


def _touched(items: Sequence[Item]) -> set[str]:
    return {name for instr, _ in walk(items) for name in _accessed(instr)}


def _accessed(instr: Instr) -> Iterable[str]:
    if isinstance(instr, VectorOp):
        return [value.name for value in (*operands(instr.op), instr.op.out)]
    return [view.buffer for view in views(instr).values()]


def _place(buffers: Iterable[Buffer], lives: Mapping[str, Life]) -> dict[str, int]:
    """First fit by falling size, what lives throughout first; addresses fit the element size."""
    addresses: dict[str, int] = {}
    taken: list[tuple[int, int, Life]] = []  # start, end, life, by start
    throughout: list[Buffer] = []
    shared: list[Buffer] = []
    for buffer in sorted(buffers, key=bytes_of, reverse=True):
        life = lives.get(buffer.name, Life())
        if buffer.address is not None:
            addresses[buffer.name] = buffer.address
            taken.append((buffer.address, buffer.address + bytes_of(buffer), life))
        else:
            (shared if life.stream else throughout).append(buffer)
    taken.sort(key=lambda entry: entry[0])
    top = 0
    for buffer in throughout:
        size, start = bytes_of(buffer), _aligned(top, buffer)
        for low, high, _ in taken:
            if low < start + size and high > start:
                start = _aligned(high, buffer)
        addresses[buffer.name] = start
        top = start + size
    for buffer in shared:
        life, size, start = lives[buffer.name], bytes_of(buffer), _aligned(top, buffer)
        for low, high, other in taken:
            if low >= start + size:
                break
            if high > start and life.meets(other):
                start = _aligned(high, buffer)
        addresses[buffer.name] = start
        bisect.insort(taken, (start, start + size, life), key=lambda entry: entry[0])
    return addresses


def _end(buffers: Sequence[Buffer], placed: Mapping[str, int]) -> int:
    return max((placed[buffer.name] + bytes_of(buffer) for buffer in buffers), default=0)


def _aligned(address: int, buffer: Buffer) -> int:
    size = numpy_dtype(buffer.dtype).itemsize
    return -(-address // size) * size


def _too_small(
    memory: str, buffers: Sequence[Buffer], placed: Mapping[str, int], target: Target
) -> Iterable[Fault]:
    level = _level(memory)
    if level not in target.spec.memory:
        return
    size = target.spec.memory[level].size_bits // 8
    need = _end(buffers, placed)
    if need <= size:
        return
    largest = sorted(buffers, key=bytes_of, reverse=True)[:LARGEST_SHOWN]
    yield Fault(
        f"memory {memory} is too small",
        need=f"{need} bytes; most: "
        + ", ".join(f"%{buffer.name} {bytes_of(buffer)}" for buffer in largest),
        have=f"{size} bytes ({target.path}: memory.{level}.size_bits = {size * 8})",
        help=f"memory.{level}.size_bits = {need * 8} fits",
        code="CIM4020",
    )
