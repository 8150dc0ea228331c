"""Collects what a lowering makes: buffers, constant tables, streams, and who signals which rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cimc.errors import InternalError
from cimc.ir.graph import Graph, Op, Value, constant_array, digest_of, operands
from cimc.ir.program import Affine, Buffer, Copy, Item, Program, Signal, Stream, View, Wait
from cimc.ir.tiles import Layer
from cimc.ir.types import Array, dtype_of, numpy_dtype
from cimc.target import Target


@dataclass(frozen=True, slots=True)
class Progress:
    """How a value's producer reports progress: `parts` signals in all, counted along one axis.

    `axis` "p": rows of a feature map, sample by sample; "m": leading rows of a matmul's result;
    "" where the producer signals all parts at once.
    """

    axis: str
    parts: int


class Builder:
    """The program under construction; graph values live in the outermost memory by default."""

    def __init__(
        self, graph: Graph, target: Target, homes: Mapping[str, str] | None = None
    ) -> None:
        """`homes`: memories of the values that are not in the outermost one."""
        self.homes = homes or {}
        self.graph = graph
        self.target = target
        self.outer = next(iter(target.spec.memory))
        self.producers: dict[str, Op] = graph.producers()
        self.users: Mapping[str, tuple[Op, ...]] = graph.users()
        self._buffers: dict[str, Buffer] = {}
        self._numbers: dict[str, int] = {}  # last number that `unique` gave to a name
        self._tensors: dict[str, Array] = {}
        self._tables: dict[tuple[str, str, str], str] = {}
        self._progress: dict[str, Progress] = {}
        self.kept: dict[str, str] = {}  # copies of constants
        self._setup: list[Item] = []
        self._streams: list[Stream] = []

    def beside(self, graph: Graph, homes: Mapping[str, str]) -> Builder:
        """A builder for another graph, whose buffers and tables are this one's, too."""
        other = Builder(graph, self.target, homes)
        other._buffers, other._numbers = self._buffers, self._numbers
        other._tensors, other._tables, other._setup = self._tensors, self._tables, self._setup
        other.kept = dict(self.kept)
        return other

    # --- values, tables, scratch ---

    def op(self, layer: Layer) -> Op:
        """The heavy (first) op of a layer."""
        return self.producers[layer.ops[0]]

    def constant(self, value: Value) -> Array | None:
        """The array of a constant value; None if it is computed."""
        op = self.producers[value.name]
        return constant_array(op, self.graph.tensors) if op.mnemonic == "constant" else None

    def value(self, value: Value, memory: str | None = None) -> str:
        """The buffer of a graph value; made on first use, in `memory`, its home or the outermost.

        Of a constant that `setup` copies somewhere, the copy.
        """
        if value.name not in self._buffers:
            array = self.constant(value)
            digest = None
            if array is not None:
                digest = digest_of(array)
                self._tensors[digest] = array
            kind = value.type
            self._buffers[value.name] = Buffer(
                value.name,
                memory or self.homes.get(value.name, self.outer),
                kind.dtype,
                kind.elements,
                init=digest,
            )
        return self.kept.get(value.name, value.name)

    def keep_constant(self, value: Value, memory: str) -> str:
        """Have `setup` copy a constant into `memory`; from now on `value` gives that buffer."""
        source = self._buffers[self.value(value)]
        kept = self.local(f"{value.name}.kept", memory, source.dtype, source.elements)
        dims = ((source.elements, 1),)
        self.setup(Copy(View(kept, Affine(), dims), View(source.name, Affine(), dims)))
        self.kept[value.name] = kept
        return kept

    def table(self, name: str, array: Array, memory: str | None = None, dtype: str = "") -> str:
        """A buffer that holds `array` from the start; equal tables of one memory are kept once."""
        dtype, memory = dtype or dtype_of(array), memory or self.outer
        array = np.ascontiguousarray(array, numpy_dtype(dtype))
        digest = digest_of(array)
        key = (digest, dtype, memory)
        if key not in self._tables:
            buffer = Buffer(self.unique(name), memory, dtype, array.size, init=digest)
            self._buffers[buffer.name] = buffer
            self._tensors[digest] = array
            self._tables[key] = buffer.name
        return self._tables[key]

    def local(self, name: str, memory: str, dtype: str, elements: int, slots: int = 1) -> str:
        """A new buffer for intermediate values."""
        buffer = Buffer(self.unique(name), memory, dtype, elements, slots)
        self._buffers[buffer.name] = buffer
        return buffer.name

    def unique(self, name: str) -> str:
        """`name`, or with a number appended where a buffer or value has it already."""
        number = self._numbers.get(name, 0)
        shown = f"{name}.{number}" if number else name
        while shown in self._buffers or shown in self.producers:
            number += 1
            shown = f"{name}.{number}"
        self._numbers[name] = number
        return shown

    def buffer(self, name: str) -> Buffer:
        """A buffer made so far."""
        return self._buffers[name]

    # --- progress ---

    def announce(self, value: Value, progress: Progress) -> None:
        """Say how `value`'s producer signals; consumers are lowered later and ask for it."""
        self._progress[value.name] = progress

    def signal(self, value: Value, count: int | None = None) -> Signal:
        """Progress on `value`: `count` parts, by default all."""
        return Signal(value.name, self._announced(value).parts if count is None else count)

    def wait(self, value: Value, rows: Affine | None = None, axis: str = "") -> tuple[Wait, ...]:
        """Wait for `rows` parts along `axis`, or for all where the producer counts otherwise.

        Nothing for values that are there from the start: the graph's inputs and constants.
        """
        if self.producers[value.name].mnemonic in ("input", "constant"):
            return ()
        progress = self._announced(value)
        if rows is None or progress.axis != axis:
            rows = Affine(progress.parts)
        return (Wait(value.name, rows, progress.parts),)

    def _announced(self, value: Value) -> Progress:
        if value.name not in self._progress:
            raise InternalError(f"nothing says how {value} is signalled")
        return self._progress[value.name]

    # --- the whole ---

    def setup(self, *items: Item) -> None:
        """Append to what runs once, before the first input."""
        self._setup.extend(items)

    def add(self, stream: Stream) -> None:
        """Append a stream."""
        self._streams.append(stream)

    def outside(self, layer: Layer) -> frozenset[str]:
        """Values made in `layer` that other layers or the caller read."""
        inside = frozenset(layer.ops)
        results = {value.name for value in self.graph.outputs}
        return frozenset(
            name
            for name in layer.ops
            if name in results or any(op.out.name not in inside for op in self.users[name])
        )

    def inputs(self, layer: Layer) -> tuple[Value, ...]:
        """Computed values that `layer` reads and other layers make, each once."""
        found: dict[str, Value] = {}
        for name in layer.ops:
            for value in operands(self.producers[name]):
                made = self.producers[value.name].mnemonic
                if value.name not in layer.ops and made not in ("input", "constant"):
                    found[value.name] = value
        return tuple(found.values())

    def program(self, target_name: str) -> Program:
        """Everything collected, as a program whose addresses are still open."""
        for value in (*self.graph.inputs, *self.graph.outputs):
            self.value(value)
        return Program(
            name=self.graph.name,
            target=target_name,
            inputs=tuple((value.name, value.type) for value in self.graph.inputs),
            outputs=tuple((value.name, value.type) for value in self.graph.outputs),
            buffers=tuple(self._buffers.values()),
            setup=tuple(self._setup),
            streams=tuple(self._streams),
            tensors=self._tensors,
        )


def whole(buffer: Buffer) -> View:
    """All elements of a buffer, in order."""
    return View(buffer.name, Affine(), ((buffer.elements, 1),))
