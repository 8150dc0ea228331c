"""The functions of the package, with the names and arguments of the command line.

program = cimc.compile("model.onnx", "isaac", level=2)
outputs = program.run(x)
timing = program.simulate()
program.save("out");  cimc.load("out")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from cimc import compiled as folder_format
from cimc.build import Shapes
from cimc.compiled import Compiled
from cimc.compiling import Request, compile_request
from cimc.dataset import Inputs as Kinds
from cimc.dataset import make_dataset
from cimc.frontend import import_onnx
from cimc.ir.evaluate import evaluate as evaluate_graph
from cimc.ir.graph import Graph
from cimc.ir.types import Array
from cimc.legality import Check, check_model
from cimc.mapping.objective import Objective
from cimc.pipeline.folder import whole_folder
from cimc.pipeline.levels import Effort
from cimc.pipeline.run import Observer, Verify
from cimc.report import Report
from cimc.sim.execute import Executor
from cimc.sim.simulate import Simulation, simulate
from cimc.target import Target, load_target
from cimc.target_files import target_files

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
        return _each(self.compiled.program.inputs, x, self._machine.run)

    def simulate(self, samples: int = 64) -> Simulation:
        """Cycles of one sample, and of many that follow each other."""
        return simulate(self.compiled.program, self.target, samples=samples)

    def report(self, samples: int = 64) -> Report:
        """What the program costs: a summary, and tables by layer, core, component ..."""
        return self.compiled.report(samples)

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
    objective: str = "latency",
    time_limit_s: float = 60.0,
    layer_time_limit_s: float | None = None,
    gap: float = 0.0,
    jobs: int | None = None,
    ternarize: str = "",
    ternary_scale: str = "channel",
    activation_bits: int = 8,
    verify: Verify = "final",
    observers: Sequence[Observer] = (),
) -> Program:
    """Compile an ONNX model for a machine, and write the program's folder if `out` names one."""
    program = Program(
        compile_request(
            Request(
                Path(model),
                target if isinstance(target, Target) else load_target(target, overrides),
                Effort(
                    level,
                    host_fallback,
                    str(Objective.parse(objective)),
                    time_limit_s,
                    layer_time_limit_s=layer_time_limit_s,
                    gap=gap,
                    jobs=jobs,
                    ternarize=ternarize,
                    ternary_scale=ternary_scale,
                    activation_bits=activation_bits,
                ),
                shapes,
                calibrate,
                samples,
                verify=verify,
                observers=tuple(observers),
            )
        )
    )
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
    """What a model's graph computes, by the slow and obvious evaluator."""
    graph = model if isinstance(model, Graph) else import_onnx(model, shapes).graph
    inputs = [(value.name, value.type) for value in graph.inputs]
    return _each(inputs, x, lambda one: evaluate_graph(graph, one))


def _each(
    inputs: Kinds, x: Inputs, run: Callable[[dict[str, Array]], dict[str, Array]]
) -> dict[str, Array]:
    """`run` on every sample of `x`; outputs are joined along their first axis."""
    given = {"": x} if isinstance(x, np.ndarray) else dict(x)
    results = [run(one) for one in make_dataset(given, inputs, "x")]
    names = results[0] if results else {}
    return {name: np.concatenate([np.atleast_1d(r[name]) for r in results]) for name in names}


def list_targets() -> dict[str, Path]:
    """Every machine that can be named, and its file."""
    return target_files()
