"""The graph: values, ops and the tensors they name; immutable, printed and parsed completely.

    graph "resnet8"
    %x : u8[1,3,32,32]<0.0078125,128> = input
    %w : i8[16,3,3,3] = constant {digest="9f86d081884c7d65"}
    %a : i32[1,16,32,32] = conv %x, %w, _ {strides=(1, 1), pads=(1, 1, 1, 1)} @("Conv_0",)
    return %a

One op per line: result, type, mnemonic, operands (`_` where an optional one is absent, `[%a, %b]`
for a list; absent ones whose default is None are left out at the end), the attributes that differ
from their defaults, and after `@` the ONNX nodes that the op stands for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import numpy as np

from cimc.errors import Fault, InternalError, raise_if
from cimc.ir import text
from cimc.ir.types import Array, Type, numpy_dtype


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor by name and type. Names are unique in a graph."""

    name: str
    type: Type

    def __str__(self) -> str:
        return text.name(self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.type.shape


@dataclass(frozen=True, slots=True)
class Op:
    """What every op has: its result `out`, and `nodes`, the ONNX nodes that it stands for.

    Fields annotated `Value`, `Value | None` or `tuple[Value, ...]` are operands, all others are
    attributes.
    """

    out: Value
    nodes: tuple[str, ...] = field(default=(), kw_only=True)
    layer: str = field(default="", kw_only=True)  # the heavy op (its out) that it runs with, if any
    mnemonic: ClassVar[str] = "op"

    def faults(self) -> Iterator[Fault]:
        """What is wrong with operands and attributes, whatever the target."""
        yield from ()


OpT = TypeVar("OpT", bound=Op)
_OPS: dict[str, type[Op]] = {}
_OPERANDS: dict[type[Op], tuple[tuple[str, str], ...]] = {}
_ATTRIBUTES: dict[type[Op], tuple[dataclasses.Field[object], ...]] = {}


def register(op: type[OpT]) -> type[OpT]:
    """Class decorator: make `op` known to the parser under its mnemonic."""
    if op.mnemonic in _OPS:
        raise InternalError(f"two ops are called {op.mnemonic}")
    _OPS[op.mnemonic] = op
    return op


def op_named(mnemonic: str) -> type[Op]:
    """The op class of a mnemonic; KeyError if there is none."""
    return _OPS[mnemonic]


def registered_ops() -> tuple[type[Op], ...]:
    """All ops, by mnemonic."""
    return tuple(_OPS[mnemonic] for mnemonic in sorted(_OPS))


def operand_fields(op: type[Op]) -> tuple[tuple[str, str], ...]:
    """Names of an op's operand fields, each with `one`, `optional`, `list` or `extra`.

    An `extra` operand is an optional one whose default is None; such ones come last.
    """
    if op not in _OPERANDS:
        _OPERANDS[op] = tuple(_operand_fields(op))
    return _OPERANDS[op]


def _operand_fields(op: type[Op]) -> Iterator[tuple[str, str]]:
    hints = typing.get_type_hints(op)
    for item in dataclasses.fields(op):
        hint = hints[item.name]
        if item.name == "out":
            continue
        if hint is Value:
            yield item.name, "one"
        elif typing.get_origin(hint) is tuple and typing.get_args(hint)[0] is Value:
            yield item.name, "list"
        elif isinstance(hint, types.UnionType) and Value in typing.get_args(hint):
            yield item.name, "optional" if item.default is dataclasses.MISSING else "extra"


def attribute_fields(op: type[Op]) -> tuple[dataclasses.Field[object], ...]:
    """An op's attribute fields, in order."""
    if op not in _ATTRIBUTES:
        others = {name for name, _ in operand_fields(op)} | {"out", "nodes"}
        fields = dataclasses.fields(op)
        _ATTRIBUTES[op] = tuple(item for item in fields if item.name not in others)
    return _ATTRIBUTES[op]


def operands(op: Op) -> tuple[Value, ...]:
    """All values that `op` reads, in order; absent optional ones are left out."""
    found: list[Value] = []
    for name, kind in operand_fields(type(op)):
        held = getattr(op, name)
        if kind == "list":
            found.extend(held)
        elif held is not None:
            found.append(held)
    return tuple(found)


def with_operands(op: OpT, forward: Callable[[Value], Value]) -> OpT:
    """The same op reading `forward(value)` wherever it read `value`."""
    changed: dict[str, object] = {}
    for name, kind in operand_fields(type(op)):
        held = getattr(op, name)
        if held is None:
            continue
        now = tuple(forward(item) for item in held) if kind == "list" else forward(held)
        if now != held:
            changed[name] = now
    if not changed:
        return op
    return dataclasses.replace(op, **changed)  # type: ignore[arg-type]  # names of its own fields


def op_text(op: Op) -> str:
    """One line of the text form."""
    shown: list[str] = []
    for name, kind in operand_fields(type(op)):
        held = getattr(op, name)
        if kind == "list":
            shown.append("[" + ", ".join(str(item) for item in held) + "]")
        else:
            shown.append("_" if held is None else str(held))
    while shown and shown[-1] == "_" and operand_fields(type(op))[len(shown) - 1][1] == "extra":
        shown.pop()
    given = {
        item.name: getattr(op, item.name)
        for item in attribute_fields(type(op))
        if item.default is dataclasses.MISSING or getattr(op, item.name) != item.default
    }
    parts = [f"{op.out} : {op.out.type} = {op.mnemonic}", ", ".join(shown), text.attributes(given)]
    if op.nodes:
        parts.append(f"@{text.literal(op.nodes)}")
    return " ".join(part for part in parts if part)


def digest_of(array: Array) -> str:
    """Content address of a tensor: 16 hex digits over element type, shape and bytes."""
    state = hashlib.blake2b(digest_size=8)
    state.update(f"{array.dtype.str}{array.shape}".encode())
    state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


@dataclass(frozen=True)
class Graph:
    """A network in topological order; `tensors` maps digests to arrays, equality ignores it.

    A graph read from text knows a tensor only if it was printed in place or handed to `parse`.
    """

    name: str
    ops: tuple[Op, ...]
    outputs: tuple[Value, ...]
    tensors: Mapping[str, Array] = field(default_factory=dict, compare=False, repr=False)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Values that the caller provides, in order."""
        return tuple(op.out for op in self.ops if op.mnemonic == "input")

    def producers(self) -> dict[str, Op]:
        """The op that makes each value, by the value's name."""
        return {op.out.name: op for op in self.ops}

    def users(self) -> dict[str, tuple[Op, ...]]:
        """The ops that read each value, by the value's name."""
        found: dict[str, list[Op]] = {op.out.name: [] for op in self.ops}
        for op in self.ops:
            for value in dict.fromkeys(operands(op)):
                found[value.name].append(op)
        return {name: tuple(ops) for name, ops in found.items()}

    def tensor(self, value: Value) -> Array | None:
        """The array of a constant value; None if `value` is computed."""
        op = self.producers().get(value.name)
        return (
            constant_array(op, self.tensors)
            if op is not None and op.mnemonic == "constant"
            else None
        )

    def verify(self) -> None:
        """Raise InternalError unless each value is made once, before its uses, with their type."""
        raise_if(_graph_faults(self), InternalError)

    def __str__(self) -> str:
        return graph_text(self)


def constant_array(op: Op, tensors: Mapping[str, Array]) -> Array:
    """The array of a `constant` op."""
    digest = str(getattr(op, "digest", ""))
    if digest not in tensors:
        raise InternalError(
            f"tensor {digest} of {op.out} is not loaded (its text was read without its tensors)"
        )
    return tensors[digest]


def _graph_faults(graph: Graph) -> Iterator[Fault]:
    from cimc.ir.check import type_faults  # it names the ops, which import this module

    known: dict[str, Type] = {}
    for op in graph.ops:
        for value in operands(op):
            if value.name not in known:
                yield Fault(f"{op.out} reads {value} before it is made", code="CIM9001")
            elif known[value.name] != value.type:
                yield Fault(
                    f"{op.out} reads {value} as {value.type}",
                    have=str(known[value.name]),
                    code="CIM9002",
                )
        if op.out.name in known:
            yield Fault(f"{op.out} is made twice", code="CIM9003")
        known[op.out.name] = op.out.type
        if op.layer and op.layer not in known:
            yield Fault(f"{op.out} runs with {op.layer}, which is not before it", code="CIM9008")
        yield from op.faults()
        yield from type_faults(op)
    for value in graph.outputs:
        if known.get(value.name) != value.type:
            yield Fault(f"output {value} is not made with type {value.type}", code="CIM9004")


INLINE_ELEMENTS = 16  # constants of up to this many elements are printed in place


def ops_text(ops: Iterable[Op], tensors: Mapping[str, Array]) -> Iterator[str]:
    """The lines of `ops`; small constants with their values."""
    for op in ops:
        line = op_text(op)
        if op.mnemonic == "constant" and 0 < op.out.type.elements <= INLINE_ELEMENTS:
            array = tensors.get(str(getattr(op, "digest", "")))
            if array is not None:
                values = tuple(_scalar(item) for item in array.reshape(-1))
                line = line.replace("{digest=", f"{{value={text.literal(values)}, digest=", 1)
        yield line


def _scalar(item: np.generic) -> text.Literal:
    """An element, as short as its own precision allows (0.1, not 0.10000000149011612)."""
    if isinstance(item, np.floating):
        return float(str(item))
    return bool(item) if isinstance(item, np.bool_) else int(item)


def graph_text(graph: Graph) -> str:
    """The whole graph as text; `parse_graph` reads it back."""
    lines = [f"graph {text.literal(graph.name)}", *ops_text(graph.ops, graph.tensors)]
    return (
        "\n".join([*lines, f"return {', '.join(str(value) for value in graph.outputs)}".rstrip()])
        + "\n"
    )


def parse_graph(
    source: str, tensors: Mapping[str, Array] | None = None, path: str = "<text>"
) -> Graph:
    """Read a graph's text form; `tensors` brings the arrays that are named by digest only."""
    scanner = text.Scanner(source, path)
    graph = scan_graph(scanner, dict(tensors or {}))
    if not scanner.done:
        raise scanner.error("end of text")
    return graph


def scan_graph(scanner: text.Scanner, tensors: dict[str, Array]) -> Graph:
    """Read a graph from the scanner's place up to and with its `return`."""
    scanner.take("graph")
    name = scanner.string()
    values: dict[str, Value] = {}
    ops: list[Op] = []
    while not scanner.accept("return"):
        op = scan_op(scanner, values, tensors)
        values[op.out.name] = op.out
        ops.append(op)
    outputs: list[Value] = []
    while scanner.peek_kind("name"):
        outputs.append(_scan_value(scanner, values))
        if not scanner.accept(","):
            break
    return Graph(name, tuple(ops), tuple(outputs), tensors)


def _scan_value(scanner: text.Scanner, values: Mapping[str, Value]) -> Value:
    name = scanner.name()
    if name not in values:
        raise scanner.error(f"a value made above ({text.name(name)} is not)")
    return values[name]


def scan_op(scanner: text.Scanner, values: Mapping[str, Value], tensors: dict[str, Array]) -> Op:
    out_name = scanner.name()
    scanner.take(":")
    out = Value(out_name, scanner.type())
    scanner.take("=")
    mnemonic = scanner.take()
    if mnemonic not in _OPS:
        raise scanner.error(f"an op ({', '.join(sorted(_OPS))})", mnemonic)
    op = _OPS[mnemonic]
    given: dict[str, object] = {"out": out}
    for position, (field_name, kind) in enumerate(operand_fields(op)):
        if kind == "extra" and not scanner.peek(","):
            break
        if position:
            scanner.take(",")
        if kind == "list":
            given[field_name] = tuple(_scan_list(scanner, values))
        elif kind in ("optional", "extra") and scanner.accept("_"):
            given[field_name] = None
        else:
            given[field_name] = _scan_value(scanner, values)
    attributes = scanner.attributes()
    value = attributes.pop("value", None) if mnemonic == "constant" else None
    if isinstance(value, tuple):
        array = np.array(value, dtype=numpy_dtype(out.type.dtype)).reshape(out.shape)
        array.flags.writeable = False
        digest = digest_of(array)
        tensors[digest] = array
        attributes["digest"] = digest
    unknown = set(attributes) - {item.name for item in attribute_fields(op)}
    if unknown:
        raise scanner.error(f"an attribute of {mnemonic}", ", ".join(sorted(unknown)))
    given.update(attributes)
    if scanner.accept("@"):
        given["nodes"] = scanner.literal()
    try:
        return op(**given)  # type: ignore[arg-type]  # field names were checked above
    except TypeError as problem:
        raise scanner.error(f"all attributes of {mnemonic}", str(problem)) from None


def _scan_list(scanner: text.Scanner, values: Mapping[str, Value]) -> Iterator[Value]:
    scanner.take("[")
    while not scanner.accept("]"):
        yield _scan_value(scanner, values)
        if not scanner.peek("]"):
            scanner.take(",")
