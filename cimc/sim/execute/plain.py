"""The plain engine: walks streams in Python, every instruction by its own `execute`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cimc.errors import Fault, StallError, VerifyError
from cimc.ir.program import Instr, Item, Loop, Program, Signal, Stream, Wait, holds, walk
from cimc.sim.machine import Memories


@dataclass(frozen=True, slots=True)
class Blocked:
    """What a stream waits for."""

    buffer: str
    need: int


def execute_instr(instr: Instr, memories: Memories, stream: str, loops: dict[str, int]) -> None:
    """Execute one instruction; faults say which one it was and where."""
    try:
        instr.execute(memories, loops)
    except VerifyError as problem:
        at = ", ".join(f"{var} = {value}" for var, value in loops.items())
        context = [("instr", instr.mnemonic), ("layer", instr.layer), ("stream", stream)]
        context.append(("loops", at))
        shown = tuple((label, text) for label, text in context if text)
        raise VerifyError(
            replace(fault, context=(*shown, *fault.context)) for fault in problem.faults
        ) from None


class PlainEngine:
    """One program, walked anew for every input."""

    def __init__(self, program: Program, memories: Memories) -> None:
        self._program, self._memories = program, memories

    def setup(self) -> None:
        """Run the program's setup, which neither waits nor signals."""
        for _ in steps(self._memories, self._program.setup, "setup", {}, {}, {}):
            pass

    def streams(self, progress: Mapping[str, int]) -> None:
        """Run all streams to their ends, always the last one that can go on."""
        streams, now = self._program.streams, dict(progress)
        running = {
            number: steps(self._memories, stream.body, stream.name, {}, {}, now)
            for number, stream in enumerate(streams)
        }
        waits: dict[int, Blocked] = {}
        while running:
            ready = [n for n in running if n not in waits or satisfied(waits[n], now)]
            if not ready:
                blocked = {streams[number].name: waits[number] for number in sorted(waits)}
                raise stalled(blocked, now, streams)
            number = max(ready)
            waits.pop(number, None)
            try:
                wait = next(running[number])
            except StopIteration:
                del running[number]
                continue
            if wait is not None:
                waits[number] = wait


def satisfied(wait: Blocked, progress: Mapping[str, int]) -> bool:
    """Whether a wait is over."""
    return progress.get(wait.buffer, 0) >= wait.need


def steps(
    memories: Memories,
    items: Sequence[Item],
    stream: str,
    loops: dict[str, int],
    counts: dict[str, int],
    progress: dict[str, int],
) -> Iterator[Blocked | None]:
    """Execute items; yields what it has to wait for, or None after a signal."""
    for item in items:
        if isinstance(item, Loop):
            for iteration in range(item.count):
                inside = {**loops, item.var: iteration}
                yield from steps(
                    memories, item.body, stream, inside, {**counts, item.var: item.count}, progress
                )
        elif all(holds(c, loops[var], counts[var]) for var, c in item.when):
            if isinstance(item, Signal):
                progress[item.buffer] = progress.get(item.buffer, 0) + item.count
                yield None
            elif isinstance(item, Wait):
                wait = Blocked(item.buffer, min(item.count.at(loops), item.limit))
                if not satisfied(wait, progress):
                    yield wait
            else:
                execute_instr(item, memories, stream, loops)


def stalled(
    blocked: Mapping[str, Blocked], progress: Mapping[str, int], streams: Sequence[Stream]
) -> StallError:
    """Who waits for what, and who could have signalled it."""
    return StallError(
        Fault(
            f"stream {name} waits for buffer {wait.buffer}",
            need=f"progress {wait.need}",
            have=f"progress {progress.get(wait.buffer, 0)}",
            context=(("signals", ", ".join(_signallers(wait.buffer, streams)) or "nobody"),),
        )
        for name, wait in blocked.items()
    )


def _signallers(buffer: str, streams: Sequence[Stream]) -> list[str]:
    return [
        stream.name
        for stream in streams
        if any(isinstance(i, Signal) and i.buffer == buffer for i, _ in walk(stream.body))
    ]
