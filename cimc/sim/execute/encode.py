"""Programs as one row of integers, in the form that `codes` describes.

Views of one instruction have common axes: axes of extent 1 go, neighbours that step together become
one. What the kernels cannot do (other element types, an instruction of a plug-in) becomes PLAIN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc.ir.program import Affine, Bound, ConverterMvm, Instr, Item, Loop, Program, View
from cimc.sim.execute import codes
from cimc.sim.execute.axes import Unencodable, ends, is_once
from cimc.sim.machine import Layout, Place

WHEN = {
    "first": codes.FIRST,
    "last": codes.LAST,
    "not-first": codes.NOT_FIRST,
    "not-last": codes.NOT_LAST,
}
KINDS = {
    "i8": codes.I8,
    "u8": codes.U8,
    "i16": codes.I16,
    "u16": codes.U16,
    "i32": codes.I32,
    "u32": codes.U32,
    "i4": codes.I8,
    "i2": codes.I8,
    "u4": codes.U8,
    "u2": codes.U8,
}
_FREE = codes.FREE


@dataclass(frozen=True, slots=True)
class Located:
    """An instruction of the encoded program: what it is and the loops around it."""

    instr: Instr
    loops: tuple[tuple[str, int], ...]  # variables and the slots of their values


@dataclass(slots=True)
class Encoded:
    """A program for the interpreter."""

    code: NDArray[np.int64]
    reals: NDArray[np.float32]
    starts: tuple[int, ...]  # of setup, then of every stream
    instrs: list[Located]
    depth: int
    converters: dict[int, ConverterMvm]  # by number of the instruction
    rows: int  # of the packed table


@dataclass(slots=True)
class Encoder:
    """Encodes one program with its buffers' places."""

    layout: Layout
    numbers: dict[str, int]  # of buffers, for progress
    encode_instr: Callable[[Encoder, Instr], None]  # raises Unencodable where there is no kernel
    code: list[int] = field(default_factory=list)
    reals: list[float] = field(default_factory=list)
    instrs: list[Located] = field(default_factory=list)
    converters: dict[int, ConverterMvm] = field(default_factory=dict)
    rows: int = 0
    depth: int = 1
    _slots: dict[str, int] = field(default_factory=dict)  # loop variable -> slot
    _counts: list[int] = field(default_factory=list)  # trip counts of enclosing loops

    # Control.

    def items(self, items: Sequence[Item]) -> None:
        """Loops and instructions."""
        for item in items:
            if isinstance(item, Loop):
                self.loop(item)
            else:
                self.instr(item)

    def loop(self, loop: Loop) -> None:
        """A loop; nothing at all if it never runs."""
        if loop.count <= 0:
            return
        slot, shadowed = len(self._counts), self._slots.get(loop.var)
        start = len(self.code)
        self.code += [codes.LOOP, 0, slot, loop.count]
        self._slots[loop.var] = slot
        self._counts.append(loop.count)
        self.depth = max(self.depth, slot + 1)
        self.items(loop.body)
        self._counts.pop()
        if shadowed is None:
            del self._slots[loop.var]
        else:
            self._slots[loop.var] = shadowed
        self.code += [codes.END, start + 4, slot, loop.count]
        self.code[start + 1] = len(self.code)

    def instr(self, instr: Instr) -> None:
        """One instruction, by its kernel's form or as PLAIN."""
        start, number, rows = len(self.code), len(self.instrs), self.rows
        try:
            self.encode_instr(self, instr)
        except Unencodable:
            del self.code[start:], self.instrs[number:]
            self.converters.pop(number, None)
            self.rows = rows
            self.header(codes.PLAIN, instr)
            self.body([], [])
        self.code[start + 1] = len(self.code)

    def header(self, opcode: int, instr: Instr, written: View | None = None) -> None:
        """What every instruction begins with; `written` is the view it writes."""
        index = len(self.instrs)
        self.instrs.append(Located(instr, tuple(self._slots.items())))
        memory = -1 if written is None else self.place(written).memory
        self.code += [opcode, 0, index, memory, len(instr.when)]
        for var, condition in instr.when:
            self.code += [self._slots[var], WHEN[condition], self.count(var)]

    def count(self, var: str) -> int:
        """Trip count of the loop of a variable."""
        return self._counts[self._slots[var]]

    # Views and positions.

    def place(self, view: View) -> Place:
        """Where a view's buffer lies."""
        return self.layout.places[view.buffer]

    def dtype(self, view: View) -> str:
        """Element type of a view."""
        return self.place(view).buffer.dtype

    def kind(self, view: View) -> int:
        """The kernels' number of a view's element type."""
        dtype = self.dtype(view)
        if dtype not in KINDS:
            raise Unencodable
        return KINDS[dtype]

    def affine(
        self, value: Affine, base: int = 0, low: int = -_FREE, high: int = _FREE
    ) -> list[int]:
        """One position."""
        found = [base, low, high, value.const, len(value.terms)]
        for var, factor in value.terms:
            found += [self._slots[var], factor]
        return found

    def position(self, view: View, free: bool = False) -> list[int]:
        """A view's first element; its range is checked unless bounds decide element by element."""
        place = self.place(view)
        if free:
            return self.affine(view.offset, place.first)
        low, high = ends(view.dims)
        last = place.buffer.elements - 1 - high
        return self.affine(view.offset, place.first, -low, last)

    def coordinates(self, bounds: Sequence[Bound]) -> list[list[int]]:
        """Positions of bounds: their coordinates."""
        return [self.affine(bound.start) for bound in bounds]

    def limits_of(self, view: View) -> list[int]:
        """First element of a view's buffer and the one after its last."""
        place = self.place(view)
        return [place.first, place.first + place.buffer.elements]

    def byte_ends(self, view: View, dst: View | None = None) -> list[int]:
        """Width, low and high end in bytes from the first element, how it lies to `dst`."""
        width = self.place(view).width
        low, high = ends(view.dims)
        relation = codes.UNKNOWN if dst is None else self.relation(dst, view)
        return [width, low * width, high * width + width - 1, relation]

    def element_ends(self, dst: View, src: View) -> list[int]:
        """Ends of two views in elements from their first, and how they lie to each other."""
        return [*ends(dst.dims), *ends(src.dims), self.relation(dst, src)]

    def relation(self, dst: View, src: View) -> int:
        """What is known of two views before their positions are: apart, or one if at one place."""
        one, two = self.place(dst), self.place(src)
        if one.end <= two.start or two.end <= one.start:
            return codes.APART
        same = src.dims == dst.dims and one.width == two.width and is_once(dst.dims)
        return codes.SAME_AXES if same else codes.UNKNOWN

    def body(self, positions: list[list[int]], payload: list[int]) -> None:
        """Positions and payload after the header."""
        if len(positions) > codes.MOST_POSITIONS:
            raise Unencodable
        self.code.append(len(positions))
        for position in positions:
            self.code += position
        self.code += payload


def encode(
    program: Program, layout: Layout, encode_instr: Callable[[Encoder, Instr], None]
) -> Encoded:
    """The whole program, which has no faults."""
    numbers = {buffer.name: number for number, buffer in enumerate(program.buffers)}
    encoder = Encoder(layout, numbers, encode_instr)
    starts = []
    for body in (program.setup, *(stream.body for stream in program.streams)):
        starts.append(len(encoder.code))
        encoder.items(body)
        encoder.code.append(codes.STOP)
    return Encoded(
        np.array(encoder.code, np.int64),
        np.array(encoder.reals, np.float32),
        tuple(starts),
        encoder.instrs,
        encoder.depth,
        encoder.converters,
        encoder.rows,
    )
