"""Measure compile, simulation and execution of ResNet-18 (224 x 224) on each kind of machine.

    python tools/benchmark.py [--folder DIR] [--rounds 3] [--only crossbar,sram-cim,rtm-ap,start]

CPU seconds (user + system, children included) and peak resident memory of whole processes; times
after just-in-time compilation are taken inside one process, second call. Networks are built by
models/networks.py with drawn weights. Machines differ and are noisy: minimum and maximum over the
rounds are printed beside the median, and each row names what it ran.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cimc as api
from cimc.ir.program import walk

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took."""

    cpu_s: float
    peak_mib: float
    output: str


def run(words: list[str]) -> Usage:
    """Run a process to its end and account for it."""
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode(errors="replace")
    if child.returncode:
        sys.exit(f"{' '.join(words)} ended with {child.returncode}\n{text}")
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def cimc(*words: str) -> list[str]:
    """The command line of the tool."""
    return [sys.executable, "-m", "cimc", *words]


def inside(task: str, *words: str) -> dict[str, float]:
    """Run one of TASKS in a fresh process and read its figures."""
    output = run([sys.executable, __file__, "--task", task, *words]).output
    figures: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return figures


def _twice(work: Callable[[], object]) -> float:
    """CPU seconds of the second call: the first one compiles the kernels."""
    work()
    start = time.process_time()
    work()
    return time.process_time() - start


def task_simulate(folder: str) -> dict[str, float]:
    """CPU seconds of one simulation after just-in-time compilation."""
    return {"cpu_s": _twice(api.load(folder).simulate)}


def task_execute(folder: str) -> dict[str, float]:
    """CPU seconds of one image after just-in-time compilation."""
    import numpy as np

    program = api.load(folder)
    x = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    return {"cpu_s": _twice(lambda: program.run(x))}


TASKS = {"simulate": task_simulate, "execute": task_execute}


def show(name: str, values: list[float], unit: str, note: str) -> None:
    """One row: median, minimum, maximum."""
    middle, low, high = statistics.median(values), min(values), max(values)
    print(f"{name:<44} {middle:>9.3g} {low:>9.3g} {high:>9.3g} {unit:<6} {note}", flush=True)


def network(folder: Path, name: str, *words: str) -> str:
    """A network file, built on first use."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        recipe = str(ROOT / "models" / "networks.py")
        run([sys.executable, recipe, name.split("-")[0], str(path), *words])
    return str(path)


def machine(folder: Path, kind: str, target: str, model: str, rounds: int) -> None:
    """Compile, size, simulate, execute on one machine."""
    out = folder / f"out-{target}-{Path(model).stem}"
    label = f"{Path(model).stem} on {target}"
    words = cimc("compile", model, "-t", target, "-o", str(out), "-q")
    used = [run(words) for _ in range(rounds)]
    show(f"{label}: compile, report", [u.cpu_s for u in used], "CPU s", "cimc compile")
    used = [run([*words, "--no-simulate"]) for _ in range(rounds)]
    show(f"{label}: compile", [u.cpu_s for u in used], "CPU s", "cimc compile --no-simulate")
    show(f"{label}: compile, peak", [u.peak_mib for u in used], "MiB", "")
    files = [(out / name).stat().st_size for name in ("program.bin", "weights.safetensors")]
    show(f"{label}: program", [sum(files) / 2**20], "MiB", "with weights")
    program = api.load(out).compiled.program
    count = sum(1 for stream in program.streams for _ in walk(stream.body))
    show(f"{label}: instructions", [count], "", kind)
    for task in TASKS:
        figures = [inside(task, str(out))["cpu_s"] for _ in range(rounds)]
        show(f"{label}: {task}", figures, "CPU s", "after JIT")


def start(rounds: int) -> None:
    """Start-up of the command line."""
    for words in (("--help",), ("targets",)):
        used = [run(cimc(*words)).cpu_s for _ in range(rounds)]
        show(f"cimc {' '.join(words)}", used, "CPU s", "whole process")


def main() -> None:
    """All measurements, or the one inner task of a child process."""
    parser = argparse.ArgumentParser(description="measure compile, simulate and execute")
    parser.add_argument("--folder", type=Path, help="keep networks and programs here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="start,crossbar,sram-cim,rtm-ap")
    parser.add_argument("--task", choices=sorted(TASKS), help=argparse.SUPPRESS)
    parser.add_argument("program", nargs="?", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(TASKS[args.task](args.program)))
        return
    parts = args.only.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{'':<44} {'median':>9} {'min':>9} {'max':>9}")
        if "start" in parts:
            start(args.rounds)
        if "crossbar" in parts:
            machine(folder, "crossbar", "isaac", network(folder, "resnet18"), args.rounds)
        if "sram-cim" in parts:
            model = network(folder, "resnet18")
            machine(folder, "sram-cim", "miredo-default", model, args.rounds)
        if "rtm-ap" in parts:
            words = ("--ternary", "0.8", "--activation-bits", "4")
            model = network(folder, "resnet18-ternary", *words)
            machine(folder, "rtm-ap", "rtm-ap", model, args.rounds)


if __name__ == "__main__":
    main()
