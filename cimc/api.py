"""The functions of the package, with the names and arguments of the command line.

program = cimc.compile("model.onnx", "isaac", level=2)
outputs = program.run(x)
timing = program.simulate()
program.save("out");  cimc.load("out")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from cimc import compiled as folder_format
from cimc.build import Clock, build, read_model
from cimc.compiled import Compiled, history_of
from cimc.dataset import make_dataset
from cimc.errors import InternalError
from cimc.ir.evaluate import evaluate as evaluate_graph
from cimc.ir.graph import Graph
from cimc.ir.types import Array
from cimc.legality import Check, check_model
from cimc.pipeline.folder import whole_folder
from cimc.pipeline.levels import Effort
from cimc.pipeline.run import Observer, Verify
from cimc.pipeline.spec import pipeline_text
from cimc.sim.execute import Executor
from cimc.target import Target, load_target
from cimc.target_files import target_files

Shapes = Mapping[str, tuple[int, ...]]
Inputs = Array | Mapping[str, Array]


@dataclass(frozen=True)
class Program:
    """A compiled program: what it computes, what it costs, and how to keep it."""

    compiled: Compiled = field(repr=False)

    @property
    def target(self) -> Target:
        """The machine."""
        return self.compiled.target

    @cached_property
    def _machine(self) -> Executor:
        return Executor(self.compiled.program, self.target)

    def run(self, x: Inputs) -> dict[str, Array]:
        """Execute the emitted program; many samples along the first axis give as many outputs."""
        given = {"": x} if isinstance(x, np.ndarray) else dict(x)
        data = make_dataset(given, self.compiled.program.inputs, "x")
        results = [self._machine.run(inputs) for inputs in data]
        return {
            name: np.concatenate([result[name] for result in results])
            if kind.shape
            else np.stack([result[name] for result in results])
            for name, kind in self.compiled.program.outputs
        }

    def save(self, out: str | Path) -> None:
        """Write the program's folder, as a whole or not at all."""
        with whole_folder(Path(out)) as part:
            folder_format.save(self.compiled, part)


def compile(  # the verb's name
    model: str | Path,
    target: str | Path | Target,
    out: str | Path | None = None,
    *,
    level: int = 2,
    calibrate: str | Path | None = None,
    samples: int = 32,
    shapes: Shapes | None = None,
    overrides: Mapping[str, object] | None = None,
    host_fallback: bool = False,
    objective: Literal["latency", "energy", "edp"] = "latency",
    time_limit_s: float = 60.0,
    verify: Verify = "final",
    observers: Sequence[Observer] = (),
) -> Program:
    """Compile an ONNX model for a machine, and write the program's folder if `out` names one."""
    clock = Clock()
    machine = target if isinstance(target, Target) else load_target(target, overrides)
    effort = Effort(level, host_fallback, objective, time_limit_s)
    read = read_model(Path(model), clock, shapes=shapes, calibrate=calibrate, samples=samples)
    steps = effort.steps(machine)
    kept = build(read.imported.graph, steps, machine, clock, verify=verify, observers=observers)
    if kept.graph is None or kept.tiles is None or kept.program is None:
        raise InternalError("the pipeline ended without a program")
    options = {**dataclasses.asdict(effort), "samples": samples}
    history = history_of(read, options, pipeline_text(steps), clock.seconds)
    rows = read.coverage(kept.tiles)
    made = Compiled(kept.program, machine, kept.graph, kept.tiles, history, rows, read.quantized)
    program = Program(made)
    if out is not None:
        program.save(out)
    return program


def load(out: str | Path) -> Program:
    """Read a program's folder."""
    return Program(folder_format.load(Path(out)))


def check(
    model: str | Path,
    target: str | Path | Target,
    *,
    level: int = 2,
    shapes: Shapes | None = None,
    overrides: Mapping[str, object] | None = None,
    host_fallback: bool = False,
) -> Check:
    """Whether a model runs on a machine: import, legality and capacity only."""
    machine = target if isinstance(target, Target) else load_target(target, overrides)
    return check_model(Path(model), machine, Effort(level, host_fallback), shapes)


def evaluate(
    model: str | Path | Graph, x: Inputs, *, shapes: Shapes | None = None
) -> dict[str, Array]:
    """What a model's graph computes for one set of inputs, by the slow and obvious evaluator."""
    if isinstance(model, Graph):
        graph = model
    else:
        from cimc.frontend import import_onnx

        graph = import_onnx(model, shapes).graph
    given = {graph.inputs[0].name: x} if isinstance(x, np.ndarray) else dict(x)
    return evaluate_graph(graph, given)


def list_targets() -> dict[str, Path]:
    """Every machine that can be named, and its file."""
    return target_files()
