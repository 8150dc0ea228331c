"""What is wrong with a program whatever its machine: missing names, axes that differ."""

from __future__ import annotations

import dataclasses
import typing
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
    view_fields,
    walk,
)

Names = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
_FIELDS: dict[type[Instr], Names] = {}
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
    views, affines, bounds = _fields_to_check(type(instr))
    axes = None
    for name in views:
        view: View | None = getattr(instr, name)
        if view is None:
            continue
        yield from (f"no loop {var} around it" for var, _ in view.offset.terms if var not in known)
        if view.buffer not in buffers:
            yield f"no buffer {view.buffer}"
        if name in _OWN_AXES.get(instr.mnemonic, ()):
            if len(view.dims) != 1:
                yield f"{name} has not one axis"
        elif axes is None:
            axes = view.extents
        elif type(instr).__module__ == VectorOp.__module__ and view.extents != axes:
            yield f"{name} has axes {view.extents}, others {axes}"
    for name in affines:
        terms = getattr(instr, name).terms
        yield from (f"no loop {var} around it" for var, _ in terms if var not in known)
    for name in bounds:
        for bound in getattr(instr, name):
            terms = bound.start.terms
            yield from (f"no loop {var} around it" for var, _ in terms if var not in known)
            if len(bound.steps) != len(axes or ()):
                yield f"a bound of {name} has {len(bound.steps)} steps"


def _fields_to_check(instr: type[Instr]) -> Names:
    """Names of views, of affine values and of bounds."""
    if instr not in _FIELDS:
        hints = typing.get_type_hints(instr)
        names = [item.name for item in dataclasses.fields(instr)]
        affines = tuple(name for name in names if hints[name] is Affine)
        bounds = tuple(name for name in names if Bound in typing.get_args(hints[name]))
        _FIELDS[instr] = view_fields(instr), affines, bounds
    return _FIELDS[instr]
