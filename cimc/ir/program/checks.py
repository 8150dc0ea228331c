"""What is wrong with a program whatever its machine: missing names, axes that differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from cimc.errors import Fault
from cimc.ir.graph import operands
from cimc.ir.program.instructions import Signal, VectorOp, Wait
from cimc.ir.program.structure import (
    CONDITIONS,
    Affine,
    Bound,
    Buffer,
    Instr,
    Loop,
    Program,
    View,
    walk,
)

# instructions whose views do not have common axes
_OWN_AXES = {"lookup": ("table",), "patch": ("src",)}


def program_faults(program: Program) -> Iterator[Fault]:
    """Every fault of buffers, streams and instructions."""
    buffers = program.buffer_map()
    names = [buffer.name for buffer in program.buffers]
    for name in sorted(
        {name for name in names if names.count(name) > 1} if len(buffers) < len(names) else ()
    ):
        yield Fault(f"buffer {name} is there twice", code="CIM9020")
    for name, kind in (*program.inputs, *program.outputs):
        buffer = buffers.get(name)
        if buffer is None or (buffer.elements, buffer.dtype) != (kind.elements, kind.dtype):
            have = "nothing" if buffer is None else str(buffer)
            yield Fault(f"{name} has no buffer that fits", str(kind), have, code="CIM9021")
    for instr, _ in walk(program.setup):
        if isinstance(instr, Signal | Wait):
            yield Fault(f"setup has a {instr.mnemonic}", code="CIM9022")
    bodies = [("setup", program.setup), *((s.name, s.body) for s in program.streams)]
    for stream, body in bodies:
        for instr, loops in walk(body):
            for problem in _instr_faults(instr, loops, buffers):
                where = f"{instr.mnemonic} of {instr.layer or 'no layer'} in {stream}: {problem}"
                yield Fault(where, code="CIM9023")


def _instr_faults(
    instr: Instr, loops: tuple[Loop, ...], buffers: Mapping[str, Buffer]
) -> Iterator[str]:
    known = {loop.var for loop in loops}
    for var, condition in instr.when:
        if var not in known:
            yield f"no loop {var} around it"
        if condition not in CONDITIONS:
            yield f"no condition is called {condition}"
    if isinstance(instr, VectorOp):
        for value in (*operands(instr.op), instr.op.out):
            buffer = buffers.get(value.name)
            if buffer is None or (buffer.elements, buffer.dtype) != (
                value.type.elements,
                value.type.dtype,
            ):
                yield f"no buffer that fits {value} : {value.type}"
    if isinstance(instr, Signal | Wait) and instr.buffer not in buffers:
        yield f"no buffer {instr.buffer}"
    axes = None
    for item in dataclasses.fields(instr):
        held = getattr(instr, item.name)
        yield from (f"no loop {var} around it" for var in _vars(held) if var not in known)
        if isinstance(held, View):
            if held.buffer not in buffers:
                yield f"no buffer {held.buffer}"
            if item.name in _OWN_AXES.get(instr.mnemonic, ()):
                if len(held.dims) != 1:
                    yield f"{item.name} has not one axis"
            elif axes is None:
                axes = held.extents
            elif instr.__module__ == VectorOp.__module__ and held.extents != axes:
                yield f"{item.name} has axes {held.extents}, others {axes}"
        elif isinstance(held, tuple):
            for bound in held:
                if isinstance(bound, Bound) and len(bound.steps) != len(axes or ()):
                    yield f"a bound of {item.name} has {len(bound.steps)} steps"


def _vars(held: object) -> Iterator[str]:
    """Loop variables that a field names."""
    if isinstance(held, View):
        held = held.offset
    if isinstance(held, Affine):
        yield from (var for var, _ in held.terms)
    elif isinstance(held, tuple):
        for item in held:
            if isinstance(item, Bound):
                yield from (var for var, _ in item.start.terms)
