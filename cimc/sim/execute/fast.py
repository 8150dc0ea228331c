"""The fast engine: the encoded program in the interpreter, Python for what has no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cimc.errors import VerifyError
from cimc.ir.program import Program
from cimc.sim.execute import codes
from cimc.sim.execute.convert import (
    EXACT,
    FACTORS,
    PLANES,
    SHAPE,
    TABLE_COLUMNS,
    VERSION,
    pack,
)
from cimc.sim.execute.encode import encode
from cimc.sim.execute.forms import encode_instr, sends_all
from cimc.sim.execute.kernels import interpret
from cimc.sim.execute.plain import Blocked, execute_instr, stalled
from cimc.sim.machine import Memories

Number = TypeVar("Number", np.uint64, np.int64)


class FastEngine:
    """One program, encoded once, with the state of its streams."""

    def __init__(self, program: Program, memories: Memories) -> None:
        self._program, self._memories = program, memories
        self._encoded = encoded = encode(program, memories.layout, encode_instr)
        self._packed = np.full((max(encoded.rows, 1), TABLE_COLUMNS), -1, np.int64)
        self._planes = _Pool(np.empty(0, np.uint64))
        self._factors = _Pool(np.empty(0, np.int64))
        self._pos = np.zeros(codes.MOST_POSITIONS, np.int64)
        self._idx = np.zeros(codes.MOST_POSITIONS, np.int64)

    def setup(self) -> None:
        """Run the program's setup."""
        self._run(("setup",), self._encoded.starts[:1], {})

    def streams(self, progress: Mapping[str, int]) -> None:
        """Run all streams from their beginning, with this progress on buffers."""
        names = tuple(stream.name for stream in self._program.streams)
        self._run(names, self._encoded.starts[1:], progress)

    def _run(
        self, names: tuple[str, ...], starts: tuple[int, ...], progress: Mapping[str, int]
    ) -> None:
        memories, encoded = self._memories, self._encoded
        pcs = np.array(starts, np.int64)
        states, waits = np.zeros(len(names), np.int64), np.zeros((len(names), 2), np.int64)
        loops = np.zeros((len(names), encoded.depth), np.int64)
        buffers = [buffer.name for buffer in self._program.buffers]
        done = np.array([progress.get(name, 0) for name in buffers], np.int64)
        cells = _views(memories)
        while True:
            why, stream = interpret(
                encoded.code,
                encoded.reals,
                pcs,
                states,
                waits,
                loops,
                done,
                memories.versions,
                self._packed,
                self._planes.held,
                self._factors.held,
                self._pos,
                self._idx,
                cells,
            )
            if why == codes.DONE:
                return
            if why == codes.STALLED:
                blocked = {
                    name: Blocked(buffers[waits[number, 0]], int(waits[number, 1]))
                    for number, name in enumerate(names)
                    if states[number] == codes.BLOCKED
                }
                shown = dict(zip(buffers, done.tolist(), strict=True))
                raise stalled(blocked, shown, self._program.streams)
            number = int(encoded.code[pcs[stream] + 2])
            located = encoded.instrs[number]
            variables = {var: int(loops[stream, slot]) for var, slot in located.loops}
            if why == codes.PACK and self._pack(number, variables):
                continue
            execute_instr(located.instr, memories, names[stream], variables)
            pcs[stream] = encoded.code[pcs[stream] + 1]

    def _pack(self, number: int, loops: Mapping[str, int]) -> bool:
        """Pack the array that the interpreter stopped at; False where weights are unwritten."""
        memories, form = self._memories, self._encoded.converters[number]
        row = self._packed[self._pos[3]]
        try:
            weights = memories.read(form.w, loops).astype(np.int64)
        except VerifyError:
            return False
        packed = pack(form, weights, sends_all(form.steps, memories.dtype(form.x.buffer)))
        row[EXACT] = packed.exact
        if not packed.exact:
            self._planes.put(packed.planes, row[PLANES:FACTORS])
            self._factors.put(packed.factors, row[FACTORS:SHAPE])
            row[SHAPE:] = packed.planes.shape[1:5]
        row[VERSION] = memories.versions[memories.layout.places[form.w.buffer].memory]
        return True


def _views(memories: Memories) -> codes.Cells:
    cells, marks = memories.cells, memories.marks
    return codes.Cells(
        cells.view(np.int8),
        cells,
        cells.view(np.int16),
        cells.view(np.uint16),
        cells.view(np.int32),
        cells.view(np.uint32),
        cells.view(np.float32),
        marks,
        marks.view(np.uint32),
    )


class _Pool(Generic[Number]):
    """Arrays one after the other in one that grows."""

    def __init__(self, empty: NDArray[Number]) -> None:
        self.held: NDArray[Number] = empty
        self._used = 0

    def put(self, array: NDArray[Number], at: NDArray[np.int64]) -> None:
        """Keep `array` where `at` says (start, size) if it fits there, else at the end."""
        if at[1] != array.size:
            at[:] = self._used, array.size
            self._used += array.size
            if self._used > self.held.size:
                grown = np.empty(2 * self._used, self.held.dtype)
                grown[: self.held.size] = self.held
                self.held = grown
        self.held[at[0] : at[0] + at[1]] = array.reshape(-1)
