"""What every program is made of: views of buffers, loops, streams, and what instructions share."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, TypeVar

from cimc.errors import InternalError
from cimc.ir import text
from cimc.ir.types import Array, Type

if TYPE_CHECKING:
    from cimc.ir.program.converters import ConverterMvm

CONDITIONS = ("first", "last", "not-first", "not-last")  # of `when`
BAND = "band"  # variable of loops each of whose iterations begins afresh: allocation relies on it
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
    """Elements of a buffer: offset + sum of index * stride, axes outermost first."""

    buffer: str
    offset: Affine
    dims: tuple[tuple[int, int], ...]  # (extent, stride) of each axis

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
    """A coordinate that must stay in 0 .. limit-1: start + sum of index * step."""

    start: Affine
    steps: tuple[int, ...]  # one for each axis of the view
    limit: int

    def __str__(self) -> str:
        return f"({self.start}; {', '.join(str(step) for step in self.steps)}; {self.limit})"


@dataclass(frozen=True, slots=True)
class Buffer:
    """`elements` of `dtype` in `memory`; `init` names the tensor it holds from the start."""

    name: str
    memory: str  # level of the target ("dram"), with the core for one each core has ("core3.ib")
    dtype: str
    elements: int
    slots: int = 1
    address: int | None = None  # byte address, None until allocated
    init: str | None = None  # digest of its content (weights, tables) in Program.tensors

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

    @property
    def is_plain(self) -> bool:
        """True where nothing compiled may take part: an instruction's own kernels neither."""

    def read(self, view: View, loops: Mapping[str, int], within: Array | None = None) -> Array:
        """The elements of `view` as an array of its extents; an error if one was never written.

        Only where the mask `within` is true are elements read; elsewhere the array holds 0.
        """

    def write(
        self, view: View, loops: Mapping[str, int], values: Array, within: Array | None = None
    ) -> None:
        """Store `values` (broadcast over the view's extents) and mark the cells as written."""

    def dtype(self, buffer: str) -> str:
        """Element type of a buffer."""

    def tensor(self, digest: str) -> Array:
        """A constant of the program."""

    def state(self, key: str, make: Callable[[], object]) -> object:
        """State of the machine's kind (AP columns ...), made on first use.

        What `setup` made stays for all inputs; what a stream made is gone with the next input.
        """


@dataclass(frozen=True, slots=True)
class Instr:
    """What every instruction has; fields annotated `View` or `View | None` are its accesses.

    `when` holds conditions on enclosing loops: ("c", "first") executes only in the first iteration
    of c; "last", "not-first" and "not-last" likewise; all must hold. `layer` names the graph op it
    works for.
    """

    when: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    layer: str = field(default="", kw_only=True)
    mnemonic: ClassVar[str] = "instr"
    writes: ClassVar[tuple[str, ...]] = ()  # names of the View fields it writes
    updates: ClassVar[tuple[str, ...]] = ()  # names of the View fields it reads and writes

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """What the instruction does to memories: its meaning, in plain NumPy."""
        raise NotImplementedError

    def form(self) -> Instr | ConverterMvm | None:
        """An equal instruction that the fast engine has a kernel for; None: it runs `execute`."""
        return None


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
    """Everything a machine needs to run a network. Equality looks at the text, not at tensors."""

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
        from cimc.ir.program.text_form import program_text

        return program_text(self)


InstrT = TypeVar("InstrT", bound=Instr)
_INSTRS: dict[str, type[Instr]] = {}
_VIEW_FIELDS: dict[type[Instr], tuple[str, ...]] = {}


def register_instr(instr: type[InstrT]) -> type[InstrT]:
    """Class decorator: make `instr` known to the parser under its mnemonic."""
    if instr.mnemonic in _INSTRS:
        raise InternalError(f"two instructions are called {instr.mnemonic}")
    _INSTRS[instr.mnemonic] = instr
    return instr


def instr_named(mnemonic: str) -> type[Instr]:
    """The instruction class of a mnemonic; KeyError if there is none."""
    return _INSTRS[mnemonic]


def registered_instrs() -> tuple[type[Instr], ...]:
    """All instructions, by mnemonic."""
    return tuple(_INSTRS[mnemonic] for mnemonic in sorted(_INSTRS))


def walk(
    items: Sequence[Item], loops: tuple[Loop, ...] = ()
) -> Iterator[tuple[Instr, tuple[Loop, ...]]]:
    """Every instruction with the loops around it, in order."""
    for item in items:
        if isinstance(item, Loop):
            yield from walk(item.body, (*loops, item))
        else:
            yield item, loops


def view_fields(instr: type[Instr]) -> tuple[str, ...]:
    """Names of an instruction's accesses, in order."""
    if instr not in _VIEW_FIELDS:
        hints = typing.get_type_hints(instr)
        names = [item.name for item in dataclasses.fields(instr)]
        is_view = {
            name: hints[name] is View or View in typing.get_args(hints[name]) for name in names
        }
        _VIEW_FIELDS[instr] = tuple(name for name in names if is_view[name])
    return _VIEW_FIELDS[instr]


def views(instr: Instr) -> dict[str, View]:
    """The accesses of an instruction by field name, absent ones left out."""
    held = ((name, getattr(instr, name)) for name in view_fields(type(instr)))
    return {name: view for name, view in held if view is not None}


def executions(instr: Instr, loops: tuple[Loop, ...]) -> int:
    """How often `instr` executes in one run of the loops around it, conditions respected."""
    count = 1
    for loop in loops:
        wanted = {condition for var, condition in instr.when if var == loop.var}
        ends = {0, loop.count - 1} & set(range(loop.count))
        middle = loop.count - len(ends)
        if wanted & {"first", "last"}:
            middle = 0
        count *= middle + sum(all(holds(c, i, loop.count) for c in wanted) for i in ends)
    return count


def holds(condition: str, iteration: int, count: int) -> bool:
    """Whether a `when` condition holds in one iteration of its loop."""
    match condition:
        case "first":
            return iteration == 0
        case "last":
            return iteration == count - 1
        case "not-first":
            return iteration != 0
        case "not-last":
            return iteration != count - 1
    raise InternalError(f"no condition is called {condition}")
