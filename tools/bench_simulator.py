"""Measure the cycle simulator on a compiled model: CPU seconds of each part, instructions a second.

    python tools/bench_simulator.py MODEL -t TARGET [--samples 16] [--plain]
    python tools/bench_simulator.py models/shapes_int8.onnx -t isaac

`--plain` also runs the Python engine (about 30,000 instructions a second). The first row compiles
the kernels anew in a fresh process with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import TypeVar

import cimc
from cimc.ir.program import Loop, Program
from cimc.report.table import Table
from cimc.sim.simulate import Engine, simulate
from cimc.sim.simulate.fast import FastEngine
from cimc.sim.simulate.plain import PlainEngine
from cimc.sim.simulate.plan import plan_streams
from cimc.sim.simulate.rows import Rows
from cimc.target import Target

Result = TypeVar("Result")
COMPILE = """
import time
import numpy as np
from cimc.sim.simulate import kernel as simulate_kernel
started = time.process_time()
simulate_kernel.run.compile("int64(int64[::1], int64)")
print(time.process_time() - started)
"""


def timed(action: Callable[[], Result]) -> tuple[Result, float]:
    """A result and the CPU seconds that it took."""
    started = time.process_time()
    result = action()
    return result, time.process_time() - started


def compile_seconds(*, cached: bool) -> float:
    """CPU seconds to have the kernels ready in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        words = [sys.executable, "-c", COMPILE]
        seconds = 0.0
        for _ in range(2 if cached else 1):
            output = subprocess.run(
                words, env=environment, capture_output=True, text=True, check=True
            ).stdout
            seconds = float(output)
        return seconds


def repeated(program: Program, times: int) -> Program:
    """The program's single stream in a loop, to have something to skip."""
    streams = [
        type(stream)(stream.name, (Loop("bench", times, stream.body),))
        for stream in program.streams
    ]
    return Program(
        program.name,
        program.target,
        program.inputs,
        program.outputs,
        program.buffers,
        program.setup,
        tuple(streams),
    )


def rows_of(
    program: Program, target: Target, samples: int, plain: bool
) -> list[tuple[str, float, str]]:
    """Label, CPU seconds, remark."""
    rows = [
        ("compile kernels", compile_seconds(cached=False), "fresh process, empty cache"),
        ("load kernels", compile_seconds(cached=True), "fresh process, full cache"),
    ]
    simulate(program, target, samples=1)
    plan, seconds = timed(lambda: plan_streams(program, target))
    count = len(plan.steps)
    rows.append(("look up costs", seconds, f"{count} instructions, {1e6 * seconds / count:.0f} µs"))
    packed, seconds = timed(lambda: Rows(plan))
    rows.append(("pack", seconds, f"{1e6 * seconds / count:.0f} µs an instruction"))
    engines: dict[str, Engine] = {
        "kernel": FastEngine(packed, samples=samples, fast_forward=False),
        "kernel, fast-forward": FastEngine(packed, samples=samples),
    }
    if plain:
        engines["plain engine"] = PlainEngine(plan, samples=1)
    for label, engine in engines.items():
        _, seconds = timed(lambda engine=engine: engine.run(samples))  # type: ignore[misc]  # bound
        done = engine.outcome
        speed = done.simulated / max(seconds, 1e-9)
        remark = f"{done.simulated} of {sum(done.executed)} executed, {speed:,.0f} a second"
        rows.append((label, seconds, remark))
    result, seconds = timed(lambda: simulate(program, target, samples=samples))
    period = f"{result.period_cycles:.0f}" if result.period_cycles else "-"
    rows.append(("simulate()", seconds, f"latency {result.latency_cycles}, period {period}"))
    if len(program.streams) == 1:
        billion = repeated(program, 10**9 // max(result.instructions, 1) + 1)
        long, seconds = timed(lambda: simulate(billion, target, samples=1))
        rows.append(("a billion instructions", seconds, f"{long.simulated} executed"))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="measure the cycle simulator")
    parser.add_argument("model")
    parser.add_argument("-t", "--target", default="isaac")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = cimc.compile(given.model, given.target).compiled
    rows = rows_of(compiled.program, compiled.target, given.samples, given.plain)
    print(Table("", ("part", "cpu_s", "remark"), tuple(rows)).text())


if __name__ == "__main__":
    main()
