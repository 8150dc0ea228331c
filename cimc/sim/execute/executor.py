"""What a program computes: runs its instructions on a machine's memories, one input after another.

Two engines, equal to the bit: "plain" walks the program in Python and calls every instruction's
`execute`; "fast" interprets an encoded form with compiled kernels and calls `execute` only where
there is none. Both look at every element read whether it was written before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from cimc.errors import Fault, InternalError, UsageError, VerifyError, raise_if
from cimc.ir.program import Instr, Loop, Program, VectorOp, program_faults, views, walk
from cimc.ir.types import Array, int_range, numpy_dtype
from cimc.sim.execute.plain import PlainEngine
from cimc.sim.machine import Memories, layout_of, share_cells
from cimc.target import Target

COMPLETE = 1 << 60  # progress on what is there from the start


class Engine(Protocol):
    """Runs one program on one machine's memories."""

    def setup(self) -> None:
        """Run the program's setup."""

    def streams(self, progress: Mapping[str, int]) -> None:
        """Run all streams from their beginning, with this progress on buffers."""


def _fast(program: Program, memories: Memories) -> Engine:
    from cimc.sim.execute.fast import FastEngine  # imports Numba

    return FastEngine(program, memories)


ENGINES: Mapping[str, Callable[[Program, Memories], Engine]] = {
    "fast": _fast,
    "plain": PlainEngine,
}


def execute(
    program: Program, target: Target | None, inputs: Mapping[str, Array], engine: str = "fast"
) -> dict[str, Array]:
    """The program's outputs for one set of inputs, by name.

    target  its memories' sizes are checked; None: they are not
    raises  UsageError for inputs that do not fit, VerifyError for a wrong program, StallError
            where all streams wait
    """
    return Executor(program, target, engine).run(inputs)


class Executor:
    """A machine with a program in it: set up once, then run with any number of inputs.

    `given`: states of the machine's kind that are there from the start and stay, such as a probe.
    """

    def __init__(
        self,
        program: Program,
        target: Target | None,
        engine: str = "fast",
        given: Mapping[str, object] | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise InternalError(f"no engine is called {engine}")
        raise_if(program_faults(program), VerifyError)
        self.program = program
        self._given = dict(given or {})
        self.memories = Memories(program, layout_of(program, target), engine == "plain")
        self._engine = ENGINES[engine](program, self.memories)
        self._constants = {b.name: b.init for b in program.buffers if b.init is not None}
        self._inputs = [name for name, _ in program.inputs]
        self._set_up()
        kept = self.memories.written | _written(walk(program.setup)) | set(self._constants)
        self._kept = self.memories.spans(kept)
        self._states = self.memories.states()
        self.memories.written.clear()
        items = [item for stream in program.streams for item in stream.body]
        self._will_change(frozenset(_written(walk(items)).union(self._inputs)))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for one set of inputs; nothing of earlier inputs is left to be read."""
        raise_if(_input_faults(self.program, inputs), UsageError)
        self._forget()
        for name in self._inputs:
            self.memories.load(name, inputs[name])
        self._engine.streams(dict.fromkeys([*self._inputs, *self._constants], COMPLETE))
        return {name: self.memories.fetch(name, kind) for name, kind in self.program.outputs}

    def _set_up(self) -> None:
        self.memories.give_states(self._given)
        for name, digest in self._constants.items():
            self.memories.load(name, self.program.tensors[digest])
        self._engine.setup()

    def _will_change(self, names: frozenset[str]) -> None:
        """Note which buffers an input changes, and whether that undoes the setup."""
        self._changed = names
        self._spans = self.memories.spans(names)
        self._is_setup_lost = share_cells(self._spans, self._kept)

    def _forget(self) -> None:
        """Bring the memories back to the state after setup."""
        if not self.memories.written <= self._changed:
            self._will_change(self._changed | self.memories.written)
        self.memories.forget(self._changed, self._spans)
        self.memories.keep_states(self._states)
        if self._is_setup_lost:
            self.memories.keep_states(frozenset())
            self._set_up()
        self.memories.written.clear()


def _written(instrs: Iterable[tuple[Instr, tuple[Loop, ...]]]) -> set[str]:
    """Buffers that instructions write, as far as their fields say."""
    found: set[str] = set()
    for instr, _ in instrs:
        if isinstance(instr, VectorOp):
            found.add(instr.op.out.name)
        held = views(instr)
        found |= {held[name].buffer for name in (*instr.writes, *instr.updates) if name in held}
    return found


def _input_faults(program: Program, inputs: Mapping[str, Array]) -> Iterator[Fault]:
    kinds = dict(program.inputs)
    for name in sorted(set(inputs) - set(kinds)):
        yield Fault(f"input {name} is not one of the program's", have=", ".join(kinds))
    for name, kind in kinds.items():
        if name not in inputs:
            yield Fault(f"input {name} is missing", need=str(kind))
            continue
        array = inputs[name]
        if array.shape != kind.shape or array.dtype != numpy_dtype(kind.dtype):
            have = f"{array.dtype}[{','.join(map(str, array.shape))}]"
            yield Fault(f"input {name} has another type", need=str(kind), have=have)
        elif kind.is_integer and array.size:
            low, high = int_range(kind.dtype)
            if int(array.min()) < low or int(array.max()) > high:
                have = f"{array.min()} .. {array.max()}"
                yield Fault(f"input {name} leaves its range", f"{low} .. {high}", have)
