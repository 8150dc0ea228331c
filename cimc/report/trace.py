"""A simulation's timeline as Chrome trace JSON, which the usual trace viewers open.

One process per core (and one for what cores share), one thread per unit, one slice for each time
that an instruction holds the unit. Times are in µs of the machine; every slice also says its cycle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from cimc.errors import Fault, UsageError
from cimc.report.files import whole_file
from cimc.sim.simulate import Simulation
from cimc.sim.timeline import is_whole, timeline
from cimc.sim.units import core_of_unit
from cimc.target import Target


def write_trace(
    simulation: Simulation, target: Target, path: Path, *, limit: int = 1_000_000
) -> int:
    """Write at most `limit` slices, one at a time; returns how many.

    Where the trace is cut short, by `limit` or because the simulation kept no more, the file says
    so under `otherData` and in a mark at its end.

    raises  UsageError if the simulation was run without `trace`
    """
    if not simulation.outcome.trace and simulation.instructions:
        raise UsageError(
            Fault(
                "the simulation kept no trace",
                help="simulate(..., trace=True), or --trace FILE",
                code="CIM2065",
            )
        )
    microseconds = target.spec.clock.period_ns * 1e-3
    written, end, cut = 0, 0, not is_whole(simulation)
    with whole_file(path) as file:
        file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
        threads: dict[str, tuple[int, int]] = {}
        for run in timeline(simulation):
            if written == limit:
                cut = True
                break
            if run.unit not in threads:
                for event in _new_thread(run.unit, threads):
                    file.write(_line(event))
            process, thread = threads[run.unit]
            event = {
                "ph": "X",
                "name": f"{run.instruction} {run.layer}".strip(),
                "cat": run.instruction,
                "pid": process,
                "tid": thread,
                "ts": round(run.start * microseconds, 6),
                "dur": round(run.cycles * microseconds, 6),
                "args": {"cycle": run.start, "cycles": run.cycles, "stream": run.stream},
            }
            file.write(_line(event))
            written += 1
            end = max(end, run.start)
        note = _note(simulation, written) if cut else "complete"
        mark = {"ph": "i", "s": "g", "name": note, "pid": 0, "tid": 0}
        file.write(json.dumps({**mark, "ts": round(end * microseconds, 6)}))
        other = {"note": note, "target": target.name, "period_ns": target.spec.clock.period_ns}
        file.write(f'\n],"otherData":{json.dumps(other)}}}\n')
    return written


def _note(simulation: Simulation, written: int) -> str:
    kept, all_ = len(simulation.outcome.trace), simulation.instructions
    return f"cut short: {written} slices, of the first {kept} of {all_} instructions"


def _new_thread(unit: str, threads: dict[str, tuple[int, int]]) -> Iterator[dict[str, object]]:
    """Number a unit's thread and its core's process, and name those that are new."""
    core = core_of_unit(unit)
    process = int(core.removeprefix("core")) + 1 if core else 0
    known = [thread for number, thread in threads.values() if number == process]
    if not known:
        name = core or "shared"
        yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
    threads[unit] = (process, len(known) + 1)
    thread = {"ph": "M", "name": "thread_name", "pid": process, "tid": len(known) + 1}
    yield {**thread, "args": {"name": unit.removeprefix(f"{core}.") if core else unit}}


def _line(event: dict[str, object]) -> str:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False) + ",\n"
