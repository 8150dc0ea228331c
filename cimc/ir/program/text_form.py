"""The text form of programs: one instruction a line, accesses first, then other fields by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from cimc.errors import InternalError
from cimc.ir import text
from cimc.ir.graph import Value, op_text, scan_op
from cimc.ir.graph import operands as graph_operands
from cimc.ir.program.instructions import VectorOp
from cimc.ir.program.structure import (
    Affine,
    Bound,
    Buffer,
    Instr,
    Item,
    Loop,
    Program,
    Stream,
    View,
    instr_named,
    registered_instrs,
    view_fields,
)
from cimc.ir.types import Array, Type

_OTHER_FIELDS: dict[type[Instr], tuple[tuple[str, object], ...]] = {}
_EXTRA_VIEW: dict[type[Instr], str | None] = {}


def instr_text(instr: Instr) -> str:
    """One instruction as one line."""
    if isinstance(instr, VectorOp):
        return _vector_text(instr)
    kind = type(instr)
    accesses: list[str] = []
    for name in view_fields(kind):
        held = getattr(instr, name)
        if held is not None or name != _extra_view(kind):
            accesses.append("_" if held is None else str(held))
    given: list[str] = []
    for name, default in _other_fields(kind):
        held = getattr(instr, name)
        if default is dataclasses.MISSING or held != default:
            given.append(f"{name}={_field_text(held)}")
    parts = [instr.mnemonic, ", ".join(accesses)]
    parts += ["{" + ", ".join(given) + "}"] if given else []
    return " ".join(part for part in [*parts, _suffix(instr)] if part)


def _other_fields(instr: type[Instr]) -> tuple[tuple[str, object], ...]:
    """Fields that are no access, and no part of the suffix, with their defaults."""
    if instr not in _OTHER_FIELDS:
        left_out = {*view_fields(instr), "when", "layer"}
        fields = [item for item in dataclasses.fields(instr) if item.name not in left_out]
        _OTHER_FIELDS[instr] = tuple((item.name, item.default) for item in fields)
    return _OTHER_FIELDS[instr]


def _extra_view(instr: type[Instr]) -> str | None:
    """The last access, if it is absent by default: then it is not printed either."""
    if instr not in _EXTRA_VIEW:
        last = [item for item in dataclasses.fields(instr) if item.name in view_fields(instr)][-1:]
        _EXTRA_VIEW[instr] = next((item.name for item in last if item.default is None), None)
    return _EXTRA_VIEW[instr]


def _suffix(instr: Instr) -> str:
    parts = [f"when {condition}({loop})" for loop, condition in instr.when]
    if instr.layer:
        parts.append(f"for {text.name(instr.layer)}")
    return " ".join(parts)


def _vector_text(instr: VectorOp) -> str:
    operands = dict.fromkeys(graph_operands(instr.op))
    shown = ", ".join(f"{value} : {value.type}" for value in operands)
    parts = ["vector", text.literal(instr.unit), f"[{shown}]", op_text(instr.op), _suffix(instr)]
    return " ".join(part for part in parts if part)


def _field_text(held: object) -> str:
    if isinstance(held, Affine):
        return f"<{held}>"
    if isinstance(held, tuple) and held and isinstance(held[0], Bound):
        return "[" + ", ".join(str(bound) for bound in held) + "]"
    if held is None or isinstance(held, bool | int | float | str | tuple):
        return text.literal(held)
    raise InternalError(f"no text form for {held!r}")


def items_text(items: Sequence[Item], indent: str) -> Iterator[str]:
    """The lines of loops and instructions."""
    for item in items:
        if isinstance(item, Loop):
            yield f"{indent}loop {item.var} {item.count} {{"
            yield from items_text(item.body, indent + "  ")
            yield f"{indent}}}"
        else:
            yield indent + instr_text(item)


def program_text(program: Program) -> str:
    """The whole program as text; `parse_program` reads it back."""
    lines = [f"program {text.literal(program.name)} on {text.literal(program.target)}"]
    lines += [f"in {text.name(name)} : {kind}" for name, kind in program.inputs]
    lines += [f"out {text.name(name)} : {kind}" for name, kind in program.outputs]
    lines += [str(buffer) for buffer in program.buffers]
    lines += ["setup {", *items_text(program.setup, "  "), "}"]
    for stream in program.streams:
        lines += [f"stream {text.literal(stream.name)} {{", *items_text(stream.body, "  "), "}"]
    return "\n".join(lines) + "\n"


def parse_program(
    source: str, tensors: Mapping[str, Array] | None = None, path: str = "<text>"
) -> Program:
    """Read a program's text form; `tensors` brings the constants."""
    scanner = text.Scanner(source, path)
    scanner.take("program")
    name = scanner.string()
    scanner.take("on")
    target = scanner.string()
    ends: dict[str, list[tuple[str, Type]]] = {"in": [], "out": []}
    while scanner.peek("in", "out"):
        end = ends[scanner.take("in", "out")]
        buffer_name = scanner.name()
        scanner.take(":")
        end.append((buffer_name, scanner.type()))
    buffers = []
    while scanner.accept("buffer"):
        buffers.append(_scan_buffer(scanner))
    scanner.take("setup")
    setup = _scan_items(scanner)
    streams = []
    while scanner.accept("stream"):
        streams.append(Stream(scanner.string(), _scan_items(scanner)))
    if not scanner.done:
        raise scanner.error("a stream or the end of text")
    inputs, outputs = tuple(ends["in"]), tuple(ends["out"])
    tensors = dict(tensors or {})
    return Program(name, target, inputs, outputs, tuple(buffers), setup, tuple(streams), tensors)


def _scan_buffer(scanner: text.Scanner) -> Buffer:
    name = scanner.name()
    scanner.take(":")
    kind = scanner.type()
    scanner.take("in")
    memory = scanner.string()
    slots = 1
    if scanner.peek_kind("word") and not scanner.peek("buffer", "setup"):
        word = scanner.take()
        if not (word.startswith("x") and word[1:].isdigit()):
            raise scanner.error("a number of slots such as x2", word)
        slots = int(word[1:])
    address = scanner.integer() if scanner.accept("@") else None
    init = scanner.string() if scanner.accept("=") else None
    return Buffer(name, memory, kind.dtype, kind.elements, slots, address, init)


def _scan_items(scanner: text.Scanner) -> tuple[Item, ...]:
    scanner.take("{")
    items: list[Item] = []
    while not scanner.accept("}"):
        if scanner.accept("loop"):
            loop_var = scanner.take()
            items.append(Loop(loop_var, scanner.integer(), _scan_items(scanner)))
        else:
            items.append(_scan_instr(scanner))
    return tuple(items)


def _scan_affine(scanner: text.Scanner, end: str) -> Affine:
    const = scanner.integer()
    factors: dict[str, int] = {}
    while scanner.accept("+"):
        factor = scanner.integer()
        scanner.take("*")
        name = scanner.take()
        factors[name] = factors.get(name, 0) + factor
    scanner.take(end)
    return Affine(const, tuple((name, factor) for name, factor in factors.items() if factor))


def _scan_view(scanner: text.Scanner) -> View | None:
    if scanner.peek_kind("word"):
        scanner.take("_")
        return None
    buffer = scanner.name()
    scanner.take("[")
    offset = _scan_affine(scanner, ";")
    dims: list[tuple[int, int]] = []
    while not scanner.accept("]"):
        extent = scanner.integer()
        scanner.take(":")
        dims.append((extent, scanner.integer()))
        if not scanner.peek("]"):
            scanner.take(",")
    return View(buffer, offset, tuple(dims))


def _scan_bound(scanner: text.Scanner) -> Bound:
    scanner.take("(")
    start = _scan_affine(scanner, ";")
    steps: list[int] = []
    while not scanner.accept(";"):
        steps.append(scanner.integer())
        if not scanner.peek(";"):
            scanner.take(",")
    limit = scanner.integer()
    scanner.take(")")
    return Bound(start, tuple(steps), limit)


def _scan_field(scanner: text.Scanner) -> object:
    if scanner.accept("<"):
        return _scan_affine(scanner, ">")
    if scanner.accept("["):
        bounds: list[Bound] = []
        while not scanner.accept("]"):
            bounds.append(_scan_bound(scanner))
            if not scanner.peek("]"):
                scanner.take(",")
        return tuple(bounds)
    return scanner.literal()


def _scan_suffix(scanner: text.Scanner) -> dict[str, object]:
    conditions: list[tuple[str, str]] = []
    while scanner.accept("when"):
        condition = scanner.take("first", "last", "not-first", "not-last")
        scanner.take("(")
        conditions.append((scanner.take(), condition))
        scanner.take(")")
    layer = scanner.name() if scanner.accept("for") else ""
    return {"when": tuple(conditions), "layer": layer}


def _scan_instr(scanner: text.Scanner) -> Instr:
    mnemonic = scanner.take()
    if mnemonic == VectorOp.mnemonic:
        return _scan_vector(scanner)
    try:
        instr = instr_named(mnemonic)
    except KeyError:
        known = ", ".join(known.mnemonic for known in registered_instrs())
        raise scanner.error(f"an instruction ({known})", mnemonic) from None
    given: dict[str, object] = {}
    extra = _extra_view(instr)
    for position, field_name in enumerate(view_fields(instr)):
        if field_name == extra and not scanner.peek(","):
            break
        if position:
            scanner.take(",")
        given[field_name] = _scan_view(scanner)
    if scanner.accept("{"):
        while not scanner.accept("}"):
            key = scanner.take()
            scanner.take("=")
            given[key] = _scan_field(scanner)
            if not scanner.peek("}"):
                scanner.take(",")
    given.update(_scan_suffix(scanner))
    try:
        return instr(**given)  # type: ignore[arg-type]  # the constructor checks the names
    except TypeError as problem:
        raise scanner.error(f"the fields of {mnemonic}", str(problem)) from None


def _scan_vector(scanner: text.Scanner) -> VectorOp:
    unit = scanner.string()
    values: dict[str, Value] = {}
    scanner.take("[")
    while not scanner.accept("]"):
        name = scanner.name()
        scanner.take(":")
        values[name] = Value(name, scanner.type())
        if not scanner.peek("]"):
            scanner.take(",")
    op = scan_op(scanner, values, {})
    suffix = _scan_suffix(scanner)
    return dataclasses.replace(VectorOp(op, unit), **suffix)  # type: ignore[arg-type]  # when, layer
