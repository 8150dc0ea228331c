"""The memories of a machine while it runs a program: cells, and what was written with which width.

All memories lie one after the other in one array of bytes; a second one of equal size holds a mark
for each byte: 0 where nothing was written, else the width of the element written there plus the
byte's place in it. Reading an element looks whether its marks are those of its own width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, VerifyError, raise_if
from cimc.ir.graph import Value
from cimc.ir.program import Buffer, Program, View, whole
from cimc.ir.types import Array, Type, int_range, is_integer, numpy_dtype
from cimc.target import Target

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Spans = tuple[tuple[int, int], ...]  # first byte and the one after the last

WIDTHS = (1, 2, 4, 8)
_ALIGNMENT = 64  # of each memory's first cell, a multiple of every width


def mark(width: int) -> int:
    """The marks of a written element of `width` bytes, as one integer of that many bytes."""
    return sum((width + position) << (8 * position) for position in range(width))


def slot_bytes(buffer: Buffer) -> int:
    """Bytes of one copy of a buffer."""
    return buffer.elements * numpy_dtype(buffer.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Place:
    """Where a buffer's first copy lies: `start` is a byte, `first` an element of its width."""

    buffer: Buffer
    memory: int  # number of its memory
    start: int
    width: int

    @property
    def first(self) -> int:
        """Number of its first element, counted in elements of its width."""
        return self.start // self.width

    @property
    def end(self) -> int:
        """The byte after its last copy."""
        return self.start + slot_bytes(self.buffer) * self.buffer.slots


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of all buffers, by name, in one array of `size` bytes."""

    places: Mapping[str, Place]
    memories: tuple[str, ...]
    size: int


def layout_of(program: Program, target: Target | None = None) -> Layout:
    """Lay out the spans of all memories that the program's buffers use.

    raises  VerifyError for buffers without an address, misaligned, or outside their memory
    """
    raise_if(_placement_faults(program, target), VerifyError)
    spans: dict[str, tuple[int, int]] = {}
    for buffer in program.buffers:
        begin = buffer.address or 0
        end = begin + slot_bytes(buffer) * buffer.slots
        low, high = spans.get(buffer.memory, (begin, end))
        spans[buffer.memory] = min(low, begin), max(high, end)
    base, bases = 0, {}
    for memory, (low, high) in spans.items():
        low -= low % _ALIGNMENT
        bases[memory] = base - low
        base += -(-(high - low) // _ALIGNMENT) * _ALIGNMENT
    numbers = {memory: number for number, memory in enumerate(spans)}
    places = {}
    for buffer in program.buffers:
        start = bases[buffer.memory] + (buffer.address or 0)
        width = numpy_dtype(buffer.dtype).itemsize
        places[buffer.name] = Place(buffer, numbers[buffer.memory], start, width)
    return Layout(places, tuple(spans), base)


def _placement_faults(program: Program, target: Target | None) -> Iterator[Fault]:
    seen: set[str] = set()
    for buffer in program.buffers:
        where, width = f"buffer {buffer.name}", numpy_dtype(buffer.dtype).itemsize
        if buffer.name in seen:
            yield Fault(f"{where} is there twice")
        seen.add(buffer.name)
        if buffer.address is None:
            yield Fault(f"{where} has no address", help="run the pass allocate first")
            continue
        if buffer.address % width or buffer.address < 0:
            have = f"address {buffer.address}"
            yield Fault(f"{where} is misaligned", need=f"a multiple of {width}", have=have)
        level = buffer.memory.rsplit(".", 1)[-1]
        end = buffer.address + slot_bytes(buffer) * buffer.slots
        if target is not None and level in target.spec.memory:
            size = target.spec.memory[level].size_bits // 8
            if end > size:
                have = f"{size} bytes ({target.path}: memory.{level}.size_bits)"
                yield Fault(f"{where} reaches beyond its memory", need=f"{end} bytes", have=have)
        if buffer.init is not None and buffer.init not in program.tensors:
            yield Fault(f"{where} has no content", need=f"tensor {buffer.init}")


class Memories:
    """Cells, marks and the kind's state of one machine; what `execute` of instructions sees."""

    def __init__(self, program: Program, layout: Layout, is_plain: bool = True) -> None:
        self.program = program
        self.is_plain = is_plain
        self.layout = layout
        self.cells: Bytes = np.zeros(layout.size, np.uint8)
        self.marks: Bytes = np.zeros(layout.size, np.uint8)
        self.marks_by_width = {width: self.marks.view(f"u{width}") for width in WIDTHS}
        self.versions = np.zeros(len(layout.memories), np.int64)  # writes to each memory
        self.written: set[str] = set()  # buffers that instructions wrote through `write`
        self._cells_by_dtype: dict[str, Array] = {}
        self._states: dict[str, object] = {}

    # What instructions see.

    def read(self, view: View, loops: Mapping[str, int], within: Array | None = None) -> Array:
        """The elements of `view`; 0 where `within` is false."""
        place = self._place(view.buffer)
        index = self._index(place, view, loops, within, "reads")
        wrong = self.marks_by_width[place.width][index] != mark(place.width)
        if within is not None:
            wrong = wrong & within.astype(np.bool_)
        if wrong.any():
            raise VerifyError(self._unwritten(place, index, wrong))
        values = self._cells(place.buffer.dtype)[index].reshape(view.extents)
        if within is not None:
            return np.where(within, values, np.zeros((), values.dtype))
        return values.copy() if isinstance(index, slice) else values

    def write(
        self, view: View, loops: Mapping[str, int], values: Array, within: Array | None = None
    ) -> None:
        """Store `values` where `within` is true, in the order of the view's elements."""
        place = self._place(view.buffer)
        index = self._index(place, view, loops, within, "writes")
        values = np.broadcast_to(values, view.extents)
        if isinstance(index, slice):
            values = values.reshape(-1)
        elif within is not None:
            index, values = index[within], values[within]
        self._check_range(place.buffer, values)
        cells = self._cells(place.buffer.dtype)
        cells[index] = values.astype(cells.dtype)
        self.marks_by_width[place.width][index] = mark(place.width)
        self.versions[place.memory] += 1
        self.written.add(view.buffer)

    def dtype(self, buffer: str) -> str:
        """Element type of a buffer."""
        return self._place(buffer).buffer.dtype

    def tensor(self, digest: str) -> Array:
        """A constant of the program."""
        if digest not in self.program.tensors:
            raise VerifyError(Fault(f"the program has no tensor {digest}"))
        return self.program.tensors[digest]

    def state(self, key: str, make: Callable[[], object]) -> object:
        """State of the machine's kind, made on first use."""
        if key not in self._states:
            self._states[key] = make()
        return self._states[key]

    # What the executor needs beside.

    def states(self) -> frozenset[str]:
        """Keys of all states made so far."""
        return frozenset(self._states)

    def give_states(self, states: Mapping[str, object]) -> None:
        """States that instructions find when they ask for them."""
        self._states.update(states)

    def keep_states(self, keys: frozenset[str]) -> None:
        """Forget all states but these."""
        self._states = {key: held for key, held in self._states.items() if key in keys}

    def load(self, name: str, array: Array) -> None:
        """Fill a buffer with an array's elements, in order."""
        place = self._place(name)
        buffer = place.buffer
        if array.size != buffer.elements or array.dtype != numpy_dtype(buffer.dtype):
            have = f"{array.size} elements of {array.dtype}"
            need = f"{buffer.elements} of {buffer.dtype}"
            raise VerifyError(Fault(f"buffer {name} cannot hold its content", need, have))
        self._check_range(buffer, array)
        run = slice(place.first, place.first + buffer.elements)
        self._cells(buffer.dtype)[run] = array.reshape(-1)
        self.marks_by_width[place.width][run] = mark(place.width)
        self.versions[place.memory] += 1

    def fetch(self, name: str, kind: Type) -> Array:
        """A copy of a buffer's elements in the shape of `kind`."""
        return self.read(whole(Value(name, kind)), {})

    def spans(self, names: Iterable[str]) -> Spans:
        """Bytes that buffers take, in order; spans that touch are one."""
        found: list[tuple[int, int]] = []
        for start, end in sorted(
            (self._place(name).start, self._place(name).end) for name in names
        ):
            if found and start <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], end)
            else:
                found.append((start, end))
        return tuple(found)

    def forget(self, names: Iterable[str], spans: Spans) -> None:
        """Take the marks off all cells of buffers, which take these bytes."""
        for start, end in spans:
            self.marks[start:end] = 0
        for memory in {self._place(name).memory for name in names}:
            self.versions[memory] += 1

    # Details.

    def _place(self, name: str) -> Place:
        if name not in self.layout.places:
            raise VerifyError(Fault(f"the program has no buffer {name}"))
        return self.layout.places[name]

    def _cells(self, dtype: str) -> Array:
        if dtype not in self._cells_by_dtype:
            self._cells_by_dtype[dtype] = self.cells.view(numpy_dtype(dtype))
        return self._cells_by_dtype[dtype]

    def _index(
        self,
        place: Place,
        view: View,
        loops: Mapping[str, int],
        within: Array | None,
        verb: str,
    ) -> slice | NDArray[np.intp]:
        offset, elements = view.offset.at(loops), place.buffer.elements
        if within is None and _contiguous(view) and 0 <= offset <= elements - view.elements:
            return slice(place.first + offset, place.first + offset + view.elements)
        index: NDArray[np.intp] = np.full(view.extents, offset, np.intp)
        for axis, (extent, stride) in enumerate(view.dims):
            shape = [extent if axis == other else 1 for other in range(len(view.dims))]
            index += stride * np.arange(extent).reshape(shape)
        outside = (index < 0) | (index >= elements)
        if within is not None:
            outside &= within.astype(np.bool_)
        if outside.any():
            need = f"element 0 .. {elements - 1}"
            have = f"element {index[outside][0]}"
            raise VerifyError(Fault(f"{verb} outside buffer {place.buffer.name}", need, have))
        return index + place.first if within is None else np.where(within, index, 0) + place.first

    def _unwritten(self, place: Place, index: slice | NDArray[np.intp], wrong: Mask) -> Fault:
        if isinstance(index, slice):
            index = np.arange(index.start, index.stop)
        element = int(index[wrong][0])
        found = self.marks[element * place.width : (element + 1) * place.width]
        have = "cells written with another width" if found.any() else "never written"
        return Fault(
            f"reads element {element - place.first} of buffer {place.buffer.name}",
            need=f"a written {place.buffer.dtype}",
            have=have,
            context=(("memory", f"{place.buffer.memory}, address {place.buffer.address}"),),
        )

    def _check_range(self, buffer: Buffer, values: Array) -> None:
        if not is_integer(buffer.dtype) or not values.size or values.dtype == np.bool_:
            return
        low, high = int_range(buffer.dtype)
        numbers = cast(NDArray[np.integer], values)
        lowest, highest = numbers.min(), numbers.max()
        if not (low <= lowest and highest <= high):
            raise VerifyError(
                Fault(
                    f"writes buffer {buffer.name}",
                    need=f"{low} .. {high} ({buffer.dtype})",
                    have=f"{lowest} .. {highest}",
                )
            )


def _contiguous(view: View) -> bool:
    run = 1
    for extent, stride in reversed(view.dims):
        if extent != 1 and stride != run:
            return False
        run *= extent
    return True


def share_cells(some: Spans, others: Spans) -> bool:
    """Whether two lists of spans have a byte in common."""
    merged = sorted([(*span, 0) for span in some] + [(*span, 1) for span in others])
    reach = [-1, -1]  # of both lists, up to here
    for start, end, which in merged:
        if start < reach[1 - which]:
            return True
        reach[which] = max(reach[which], end)
    return False
