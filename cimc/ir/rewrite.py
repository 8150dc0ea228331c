"""A new graph in the making: what every graph pass builds its result with.

A pass walks the old graph's ops in order and for each one adds what shall stand in its place.
`finish` drops what no output needs, keeps the names of the outputs, and sees to it that every ONNX
node that still counts is named by some op.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from cimc.ir.graph import (
    Graph,
    Op,
    Value,
    digest_of,
    operands,
    with_operands,
)
from cimc.ir.ops import Constant, Reshape
from cimc.ir.types import Array, Type, dtype_of

OpT = TypeVar("OpT", bound=Op)


class Rewrite:
    """Ops added so far, and which new value stands for an old one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors = dict(graph.tensors)
        self._ops: dict[str, Op] = {}
        self._places: dict[str, int] = {}
        self._instead: dict[str, Value] = {}
        self._names = {op.out.name for op in graph.ops}

    def current(self, op: OpT) -> OpT:
        """The old op reading what now stands for its operands."""
        return with_operands(op, self.value)

    def value(self, old: Value) -> Value:
        """What stands for an old value now."""
        while old.name in self._instead:
            old = self._instead[old.name]
        return self._ops[old.name].out if old.name in self._ops else old

    def maker(self, value: Value) -> Op | None:
        """The new op that makes a value."""
        return self._ops.get(self.value(value).name)

    def place(self, value: Value) -> int:
        """How many ops were added before the one that makes a value."""
        return self._places[self.value(value).name]

    def array(self, value: Value | None) -> Array | None:
        """The array behind a value that is constant by now."""
        op = None if value is None else self.maker(value)
        return self.tensors.get(op.digest) if isinstance(op, Constant) else None

    def add(self, op: Op) -> Value:
        """Append an op; its result may not have been made before."""
        assert op.out.name not in self._ops, op.out.name
        self._names.add(op.out.name)
        self._places[op.out.name] = len(self._ops)
        self._ops[op.out.name] = op
        return op.out

    def constant(self, array: Array, name: str, kind: Type | None = None) -> Value:
        """Append a constant under `name`, or a name like it where that is taken."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        array.flags.writeable = False
        digest = digest_of(array)
        self.tensors[digest] = array
        kind = kind or Type(dtype_of(array), array.shape)
        name = self.fresh(name) if name in self._ops else name
        return self.add(Constant(Value(name, kind), digest))

    def fresh(self, stem: str) -> str:
        """A name that neither graph has: `stem`, or with a number behind it."""
        name, number = stem, 2
        while name in self._names:
            name, number = f"{stem}.{number}", number + 1
        self._names.add(name)
        return name

    def replace(self, old: Value, new: Value) -> None:
        """From now on read `new` wherever `old` was read."""
        if old.name != new.name:
            self._instead[old.name] = new

    def finish(self) -> Graph:
        """The new graph."""
        outputs: list[Value] = []
        for old in self.graph.outputs:
            outputs.append(self._output(old, {value.name for value in outputs}))
        ops = tuple(_live(tuple(self._ops.values()), tuple(outputs)))
        used = {op.digest for op in ops if isinstance(op, Constant)}
        tensors = {digest: self.tensors[digest] for digest in used if digest in self.tensors}
        return carry_nodes(self.graph, Graph(self.graph.name, ops, tuple(outputs), tensors))

    def _output(self, old: Value, taken: set[str]) -> Value:
        """The value of an output, under its old name."""
        new = self.value(old)
        if new.name == old.name:
            return new
        assert old.name not in self._ops, f"{old} is made and replaced"
        maker = self._ops[new.name]
        kept = {value.name for value in self.graph.outputs} | taken
        if maker.mnemonic in ("input", "constant") or new.name in kept:
            return self.add(Reshape(Value(old.name, new.type), new))
        named = Value(old.name, new.type)

        def renamed(value: Value) -> Value:
            return named if value.name == new.name else value

        ops = {}
        for op in self._ops.values():
            op = with_operands(op, renamed)
            if op.out.name == new.name:
                op = dataclasses.replace(op, out=named)
            ops[op.out.name] = op
        self._ops = ops
        self._instead[new.name] = named
        return named


def _live(ops: tuple[Op, ...], outputs: tuple[Value, ...]) -> Iterator[Op]:
    """The ops that some output needs, and all inputs."""
    needed = {value.name for value in outputs}
    for op in reversed(ops):
        if op.out.name in needed:
            needed.update(value.name for value in operands(op))
    return (op for op in ops if op.out.name in needed or op.mnemonic == "input")


def carry_nodes(before: Graph, after: Graph) -> Graph:
    """`after`, with every ONNX node that `before` needed for its outputs named by some op.

    A node that no op names goes to the nearest op after it that is still there, else before it.
    """
    named = {node for op in after.ops for node in op.nodes}
    made = {op.out.name for op in after.ops}
    users, producers = before.users(), before.producers()
    more: dict[str, list[str]] = {}
    for op in _live(before.ops, before.outputs):
        lost = [node for node in op.nodes if node not in named]
        if not lost:
            continue
        place = _nearest(op.out.name, made, lambda name: [user.out.name for user in users[name]])
        place = place or _nearest(
            op.out.name, made, lambda name: [value.name for value in operands(producers[name])]
        )
        if place:
            more.setdefault(place, []).extend(lost)
    if not more:
        return after
    ops = (with_nodes(op, more.get(op.out.name, ())) for op in after.ops)
    return dataclasses.replace(after, ops=tuple(ops))


def with_nodes(op: OpT, nodes: Iterable[str]) -> OpT:
    """The op standing for further ONNX nodes."""
    more = tuple(dict.fromkeys((*op.nodes, *nodes)))
    return op if more == op.nodes else dataclasses.replace(op, nodes=more)


def _nearest(start: str, made: set[str], neighbours: Callable[[str], Iterable[str]]) -> str | None:
    """The first value in `made` on the way from `start`, breadth first."""
    seen, front = {start}, [start]
    while front:
        for name in front:
            if name in made:
                return name
        following = dict.fromkeys(near for name in front for near in neighbours(name))
        front = [name for name in following if name not in seen]
        seen.update(front)
    return None
