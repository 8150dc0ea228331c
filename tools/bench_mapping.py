"""Measure mapping on SRAM-CiM machines: a network's heuristic, and both closed forms' rates.

    python tools/bench_mapping.py [--network resnet50] [--rounds 3] [--workers 2]

Mapping runs in a fresh process each round, with kernels compiled before: what counts is the CPU
time from the first line to the last mapping, importing and loading included, and without what an
import of cimc and the target take by themselves. Rates are mappings per second of wall time, with
all workers, and per second of one core, which other processes disturb less.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

ROWS = 400_000


def task_map(network: str) -> dict[str, float]:
    """CPU seconds of imports, of mapping for the first layer, and of all others."""
    workloads = importlib.import_module("workloads")  # recipes are no package

    shapes = list(workloads.distinct(workloads.layers_of(network)))
    began = time.process_time()
    from cimc.kind import Options
    from cimc.mapping.workload import Workload
    from cimc.target import load_target
    from cimc.targets.sram_cim.machine import machine_of
    from cimc.targets.sram_cim.search import best_mapping

    target = load_target("miredo-default")
    machine = machine_of(target)
    imported = time.process_time()
    best_mapping(Workload(shapes[0]), 1, machine, target, Options())
    first = time.process_time()
    for shape in shapes[1:]:
        best_mapping(Workload(shape), 1, machine, target, Options())
    return {
        "import_s": imported - began,
        "first_layer_s": first - imported,
        "other_layers_s": time.process_time() - first,
        "mapping_s": time.process_time() - imported,
        "layers": len(shapes),
    }


def task_rates(workers: int) -> dict[str, float]:
    """Mappings per second of both closed forms on random mappings of one layer."""
    import numpy as np

    from cimc.lowering import ConvShape
    from cimc.mapping.nest import Mapped, resolve
    from cimc.mapping.sample import random_nest
    from cimc.mapping.workload import Workload
    from cimc.target import load_target
    from cimc.targets.sram_cim import timing_batch as shared
    from cimc.targets.sram_cim.anneal import packed
    from cimc.targets.sram_cim.machine import machine_of, spec_of
    from cimc.targets.sram_cim.private_ports import fast as private

    target, rng = load_target("miredo-default"), random.Random(0)
    machine, spec = machine_of(target), spec_of(target)
    workload = Workload(ConvShape(1, 1, 128, 128, 28, 28, 3, 3, 28, 28, (1, 1), (1, 1)))
    axes = tuple(dataclasses.replace(axis, size=1) for axis in machine.axes)
    narrow = dataclasses.replace(machine, axes=axes)  # so that all have the same spatial choice
    drawn = (random_nest(workload, narrow, rng) for _ in range(200))
    found = [
        mapped for nest in drawn if isinstance(mapped := resolve(nest, workload, machine), Mapped)
    ]
    m = packed(workload, machine, spec, 1)
    few = shared.mappings_of(found, m)
    many = dataclasses.replace(
        few,
        **{
            name: np.tile(getattr(few, name), (ROWS // 200, *(getattr(few, name).ndim - 1) * [1]))
            for name in ("count", "dim", "bound", "cut", "use", "double")
        },
    )
    at = np.zeros((len(many), 3, many.dim.shape[1]), np.int64)
    for j in range(1, m.chain.shape[1]):
        places = np.arange(at.shape[2])[None, None, :]
        inside = (many.use[:, :, j, None] == 1) & (many.cut[:, :, j, None] <= places)
        at[inside] = j
    rows = private.Mappings(many.count, many.dim, many.bound, at, many.double)
    shared.figures(few, m)
    private.closed_forms_of(found[:2], target)
    clocks = (time.perf_counter, time.process_time)
    began = [clock() for clock in clocks]
    shared.figures(many, m, workers)
    middle = [clock() for clock in clocks]
    private.closed_forms(rows, workload, target, many.factors, workers)
    ended = [clock() for clock in clocks]
    return {
        "loops": float(few.count.mean()),
        "shared_per_s": len(many) / (middle[0] - began[0]),
        "private_per_s": len(many) / (ended[0] - middle[0]),
        "shared_per_core_s": len(many) / (middle[1] - began[1]),
        "private_per_core_s": len(many) / (ended[1] - middle[1]),
    }


def fresh(*words: str) -> dict[str, float]:
    """Run a task in a process of its own."""
    line = [sys.executable, __file__, *words]
    output = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return figures


def main() -> None:
    """All measurements, or one task of a child process."""
    parser = argparse.ArgumentParser(description="measure mapping on SRAM-CiM machines")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--task", choices=["map", "rates"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task == "map":
        print(json.dumps(task_map(args.network)))
        return
    if args.task == "rates":
        print(json.dumps(task_rates(args.workers)))
        return
    fresh("--task", "map", "--network", args.network)  # compiles
    rounds = [fresh("--task", "map", "--network", args.network) for _ in range(args.rounds)]
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        print(f"{args.network} {name:<16} {statistics.median(values):8.3f}   {min(values):.3f}")
    fresh("--task", "rates", "--workers", str(args.workers))
    rounds = [fresh("--task", "rates", "--workers", str(args.workers)) for _ in range(args.rounds)]
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        print(f"{name:<25} {statistics.median(values):12.4g}   {max(values):.4g}")


if __name__ == "__main__":
    main()
