"""The program: buffers with a place in a memory, and streams of instructions with structured loops.

    program "resnet8" on "isaac"
    buffer %conv1.acc : i32[64] in "core0.out" @0
    buffer %conv1.w : i8[1728] in "dram" @4096 = "9f86d081884c7d65"
    setup {
      copy %array0[0; 27:64, 64:1] <- %conv1.w[0; 27:1, 64:27]
    }
    stream "conv1" {
      loop p 32 {
        wait %x {count=<3 + 1*p>}
        loop q 32 {
          patch %x0[0; 27:1] <- %x {...}
          mvm %conv1.acc[0; 27:0, 64:1] <- %x0[0; 27:1, 64:0], %array0[0; 27:64, 64:1]
          requant ...
        }
        signal %y
      }
    }

Meaning. Memories hold cells, one per byte address; writing an element marks its bytes with the element's type,
reading one that was never written, or written with another width, is an error. A buffer is a run of elements at a byte
`address` of one memory; `slots` = 2 is a double buffer: two copies one after the other, which serve alternate fills in
time (timing only: values always use the first slot's addresses). A `View` picks elements of a buffer: `offset` plus, for each
(extent, stride) pair, index * stride. Offsets are affine in the enclosing loops' variables.

Streams run side by side. Each has its own loops and its own order; they meet only at `wait` and `signal`, which count
progress on a buffer (rows of a feature map, or whole tensors). `setup` runs once, before the first input: it programs arrays.

Time. An instruction starts when every unit it holds is free, every buffer it reads is ready, and every buffer it writes has been
read by all who came before (with two slots: by all but the latest fill); instructions of one stream that share a unit keep their
order. `cimc.kind` prices them; `cimc.sim` advances the clock.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Protocol, TypeAlias, TypeVar

from cimc.errors import InternalError
from cimc.ir import text
from cimc.ir.graph import Op, Value, op_text, scan_op
from cimc.ir.graph import operands as graph_operands
from cimc.ir.types import Array, Type

FORMAT_VERSION = 1  # raised whenever an older program would be misread


@dataclass(frozen=True, slots=True)
class Affine:
    """const + sum of coefficient * loop variable."""

    const: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    def at(self, loops: Mapping[str, int]) -> int:
        """The value for given loop variables."""
        return self.const + sum(factor * loops[var] for var, factor in self.terms)

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.const + other, self.terms)
        merged = dict(self.terms)
        for var, factor in other.terms:
            merged[var] = merged.get(var, 0) + factor
        return Affine(self.const + other.const, tuple((v, f) for v, f in merged.items() if f))

    def __mul__(self, factor: int) -> Affine:
        return Affine(
            self.const * factor, tuple((v, f * factor) for v, f in self.terms if f * factor)
        )

    def __str__(self) -> str:
        return " + ".join([str(self.const), *(f"{factor}*{var}" for var, factor in self.terms)])


def var(name: str) -> Affine:
    """The loop variable `name` as an expression."""
    return Affine(0, ((name, 1),))


@dataclass(frozen=True, slots=True)
class View:
    """Elements of a buffer: offset + sum of index * stride, one (extent, stride) per axis, outermost first."""

    buffer: str
    offset: Affine
    dims: tuple[tuple[int, int], ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """Extent of each axis."""
        return tuple(extent for extent, _ in self.dims)

    @property
    def elements(self) -> int:
        """Distinct elements, axes of stride 0 counted once."""
        count = 1
        for extent, stride in self.dims:
            count *= extent if stride else 1
        return count

    def __str__(self) -> str:
        dims = ", ".join(f"{extent}:{stride}" for extent, stride in self.dims)
        return f"{text.name(self.buffer)}[{self.offset}; {dims}]"


@dataclass(frozen=True, slots=True)
class Bound:
    """A coordinate that must stay in 0 .. limit-1: start + sum of index * step, one step per axis of the view."""

    start: Affine
    steps: tuple[int, ...]
    limit: int

    def __str__(self) -> str:
        return f"({self.start}; {', '.join(str(step) for step in self.steps)}; {self.limit})"


@dataclass(frozen=True, slots=True)
class Buffer:
    """`elements` of `dtype` in `memory`; `init` names the tensor it holds from the start (weights, tables)."""

    name: str
    memory: (
        str  # level of the target ("dram"), with the core for a level each core has ("core3.ib")
    )
    dtype: str
    elements: int
    slots: int = 1
    address: int | None = None  # byte address, None until allocated
    init: str | None = None  # digest of its content in Program.tensors

    def __str__(self) -> str:
        parts = [
            f'buffer {text.name(self.name)} : {self.dtype}[{self.elements}] in "{self.memory}"'
        ]
        if self.slots != 1:
            parts.append(f"x{self.slots}")
        if self.address is not None:
            parts.append(f"@ {self.address}")
        if self.init is not None:
            parts.append(f'= "{self.init}"')
        return " ".join(parts)


class Machine(Protocol):
    """What an instruction's plain semantics sees of a machine while it executes."""

    def read(self, view: View, loops: Mapping[str, int]) -> Array:
        """The elements of `view` as an array of its extents; an error if one was never written."""

    def write(self, view: View, loops: Mapping[str, int], values: Array) -> None:
        """Store `values` (broadcast over the view's extents) and mark the cells as written."""

    def tensor(self, digest: str) -> Array:
        """A constant of the program."""

    def state(self, key: str, make: Callable[[], object]) -> object:
        """State of the machine's kind (AP columns ...), made on first use, kept between instructions."""


@dataclass(frozen=True, slots=True)
class Instr:
    """What every instruction has; fields annotated `View` or `View | None` are its accesses.

    `when` holds conditions on enclosing loops: ("c", "first") executes only in the first iteration of c; "last", "not-first" and
    "not-last" likewise; all must hold. `layer` names the graph op it works for.
    """

    when: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    layer: str = field(default="", kw_only=True)
    mnemonic: ClassVar[str] = "instr"
    writes: ClassVar[tuple[str, ...]] = ()  # names of the View fields it writes
    updates: ClassVar[tuple[str, ...]] = ()  # names of the View fields it reads and writes

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """What the instruction does to memories: its meaning, in plain NumPy."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Loop:
    """Run `body` `count` times with `var` = 0, 1 ..."""

    var: str
    count: int
    body: tuple[Item, ...]


Item: TypeAlias = "Instr | Loop"


@dataclass(frozen=True, slots=True)
class Stream:
    """A sequence of instructions with a control of its own."""

    name: str
    body: tuple[Item, ...]


@dataclass(frozen=True)
class Program:
    """Everything a machine needs to run a network. Equality looks at the text alone, not at the tensors' content."""

    name: str
    target: str
    inputs: tuple[tuple[str, Type], ...]  # buffer name, type of the tensor the caller provides
    outputs: tuple[tuple[str, Type], ...]
    buffers: tuple[Buffer, ...]
    setup: tuple[Item, ...]
    streams: tuple[Stream, ...]
    tensors: Mapping[str, Array] = field(default_factory=dict, compare=False, repr=False)

    def buffer_map(self) -> dict[str, Buffer]:
        """Buffers by name."""
        return {buffer.name: buffer for buffer in self.buffers}

    def __str__(self) -> str:
        return program_text(self)


InstrT = TypeVar("InstrT", bound=Instr)
_INSTRS: dict[str, type[Instr]] = {}


def register_instr(instr: type[InstrT]) -> type[InstrT]:
    """Class decorator: make `instr` known to the parser under its mnemonic."""
    if instr.mnemonic in _INSTRS:
        raise InternalError(f"two instructions are called {instr.mnemonic}")
    _INSTRS[instr.mnemonic] = instr
    return instr


def walk(
    items: Sequence[Item], loops: tuple[Loop, ...] = ()
) -> Iterator[tuple[Instr, tuple[Loop, ...]]]:
    """Every instruction with the loops around it, in order."""
    for item in items:
        if isinstance(item, Loop):
            yield from walk(item.body, (*loops, item))
        else:
            yield item, loops


def views(instr: Instr) -> dict[str, View]:
    """The accesses of an instruction by field name, absent ones left out."""
    found = {}
    for item in dataclasses.fields(instr):
        held = getattr(instr, item.name)
        if isinstance(held, View):
            found[item.name] = held
    return found


def executions(instr: Instr, loops: tuple[Loop, ...]) -> int:
    """How often `instr` executes in one run of the loops around it, conditions respected."""
    count = 1
    wanted = dict(instr.when)
    for loop in loops:
        kind = wanted.get(loop.var)
        if kind in ("first", "last"):
            continue
        count *= loop.count - 1 if kind in ("not-first", "not-last") else loop.count
    return count


# --- instructions that every machine has --------------------------------------------------------------------------


@register_instr
@dataclass(frozen=True, slots=True)
class Copy(Instr):
    """dst[i...] = src[i...]; where a read bound fails, `fill` instead; where a write bound fails, nothing is written."""

    dst: View
    src: View
    fill: int = 0
    read_bounds: tuple[Bound, ...] = ()
    write_bounds: tuple[Bound, ...] = ()
    mnemonic: ClassVar[str] = "copy"
    writes: ClassVar[tuple[str, ...]] = ("dst",)


@register_instr
@dataclass(frozen=True, slots=True)
class Fill(Instr):
    """dst[i...] = value."""

    dst: View
    value: int = 0
    mnemonic: ClassVar[str] = "fill"
    writes: ClassVar[tuple[str, ...]] = ("dst",)


@register_instr
@dataclass(frozen=True, slots=True)
class Patch(Instr):
    """Gather one run of a convolution window (im2col done by the address generator).

    Element j of dst is e = first + j of the window flattened as (channel, r, s): the feature map's element
    (channel, row + r*dilation, column + s*dilation), or `fill` where that lies outside, or beyond the last channel.
    """

    dst: View  # one axis
    src: View  # one axis over the whole feature map of one sample, C*H*W elements
    first: Affine  # first element of the flattened window
    row: Affine  # of the window's first element, may be negative
    column: Affine
    shape: tuple[int, int, int]  # C, H, W
    kernel: tuple[int, int]  # R, S
    dilation: tuple[int, int]
    fill: int
    mnemonic: ClassVar[str] = "patch"
    writes: ClassVar[tuple[str, ...]] = ("dst",)


@register_instr
@dataclass(frozen=True, slots=True)
class Mvm(Instr):
    """acc[...] (+)= sum of x[...] * w[...] over a common iteration space; axes of stride 0 in acc are summed.

    All three views have the same extents. `fresh` starts from zero instead of from acc. This is the ideal, exact product; a machine
    kind whose arrays compute something else has an instruction of its own.
    """

    acc: View  # i32
    x: View
    w: View  # resident in an array
    fresh: bool = False
    mnemonic: ClassVar[str] = "mvm"
    updates: ClassVar[tuple[str, ...]] = ("acc",)


@register_instr
@dataclass(frozen=True, slots=True)
class Accumulate(Instr):
    """dst[i...] = a[i...] + b[i...] on exact sums (i32)."""

    dst: View
    a: View
    b: View
    mnemonic: ClassVar[str] = "accumulate"
    writes: ClassVar[tuple[str, ...]] = ("dst",)


@register_instr
@dataclass(frozen=True, slots=True)
class Rescale(Instr):
    """The graph's `requant` on a tile: dst = requant(acc + bias) with one table entry per element (stride 0 to share).

    `zero`, `low`, `high` and `round` as in `cimc.ir.ops.Requant`; a missing shift means float32 rounding.
    """

    dst: View
    acc: View  # i32
    bias: View | None  # i32
    multiplier: View  # f32, or i32 with a shift
    shift: View | None  # i32
    zero: int
    low: int
    high: int
    write_bounds: tuple[Bound, ...] = ()
    mnemonic: ClassVar[str] = "rescale"
    writes: ClassVar[tuple[str, ...]] = ("dst",)


@register_instr
@dataclass(frozen=True, slots=True)
class Lookup(Instr):
    """dst = table[src - lowest]: the graph's `lut` on a tile."""

    dst: View
    src: View
    table: View  # one axis, all entries
    lowest: int
    write_bounds: tuple[Bound, ...] = ()
    mnemonic: ClassVar[str] = "lookup"
    writes: ClassVar[tuple[str, ...]] = ("dst",)


@register_instr
@dataclass(frozen=True, slots=True)
class Combine(Instr):
    """The graph's quantized `binary` (fn add, sub, mul ...) on a tile: real numbers in float32, rounded half to even.

    dst = clip(rint(fn((a - a_zero) * a_scale, (b - b_zero) * b_scale) / scale) + zero, low, high)
    """

    dst: View
    a: View
    b: View
    fn: str
    a_scale: float
    a_zero: int
    b_scale: float
    b_zero: int
    scale: float
    zero: int
    low: int
    high: int
    write_bounds: tuple[Bound, ...] = ()
    mnemonic: ClassVar[str] = "combine"
    writes: ClassVar[tuple[str, ...]] = ("dst",)


@register_instr
@dataclass(frozen=True, slots=True)
class VectorOp(Instr):
    """A whole graph op on whole tensors in the vector unit; its values are the buffers of the same names.

    Meaning: `cimc.ir.evaluate` of that op. Constants among its operands are buffers, too.
    """

    op: Op
    unit: str = "vector"  # "vector", or "host" where the person allowed it
    mnemonic: ClassVar[str] = "vector"


@register_instr
@dataclass(frozen=True, slots=True)
class Signal(Instr):
    """Progress on `buffer`: `count` more parts of it are written."""

    buffer: str
    count: int = 1
    mnemonic: ClassVar[str] = "signal"


@register_instr
@dataclass(frozen=True, slots=True)
class Wait(Instr):
    """Go on when progress on `buffer` has reached min(count, limit)."""

    buffer: str
    count: Affine
    limit: int
    mnemonic: ClassVar[str] = "wait"


# --- text -------------------------------------------------------------------------------------------------------------


def instr_text(instr: Instr) -> str:
    """One instruction as one line."""
    if isinstance(instr, VectorOp):
        return _vector_text(instr)
    accesses: list[str] = []
    given: list[str] = []
    for item in dataclasses.fields(instr):
        held = getattr(instr, item.name)
        if item.name in ("when", "layer"):
            continue
        if _is_view(type(instr), item.name):
            accesses.append("_" if held is None else str(held))
        elif item.default is dataclasses.MISSING or held != item.default:
            given.append(f"{item.name}={_field_text(held)}")
    parts = [instr.mnemonic, ", ".join(accesses)]
    parts += ["{" + ", ".join(given) + "}"] if given else []
    return " ".join(part for part in [*parts, _suffix(instr)] if part)


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


@cache
def _view_fields(instr: type[Instr]) -> frozenset[str]:
    hints = typing.get_type_hints(instr)
    found = (name for name, hint in hints.items() if hint is View or View in typing.get_args(hint))
    return frozenset(found)


def _is_view(instr: type[Instr], name: str) -> bool:
    return name in _view_fields(instr)


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
    if scanner.peek_kind("word"):
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
    total = Affine(scanner.integer())
    while scanner.accept("+"):
        factor = scanner.integer()
        scanner.take("*")
        total = total + Affine(0, ((scanner.take(), factor),))
    scanner.take(end)
    return total


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
    if mnemonic not in _INSTRS:
        raise scanner.error(f"an instruction ({', '.join(sorted(_INSTRS))})", mnemonic)
    instr = _INSTRS[mnemonic]
    given: dict[str, object] = {}
    fields = [item.name for item in dataclasses.fields(instr) if _is_view(instr, item.name)]
    for position, field_name in enumerate(fields):
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
