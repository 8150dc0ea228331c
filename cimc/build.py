"""From a model file to a program, with everything on the way that later questions need.

read_model   ONNX file -> graph; a float model is quantized first, by calibration
build        graph -> graph passes -> tiles -> mapped tiles -> program with addresses
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cimc.coverage import Covered, coverage
from cimc.errors import Fault, warn
from cimc.frontend import Imported, import_onnx
from cimc.ir.graph import Graph
from cimc.ir.program import Program
from cimc.ir.tiles import Tiles
from cimc.pipeline.passes import State
from cimc.pipeline.phases import phase_of
from cimc.pipeline.run import Observer, Place, Verify, run_pipeline
from cimc.pipeline.spec import Step
from cimc.pipeline.tell import Searched, Searching
from cimc.target import Target

RANDOM = "random"  # in place of calibration data: accuracy then means nothing
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Model:
    """A model as it was given and as it was imported."""

    path: Path
    given: Imported  # the person's own file
    imported: Imported  # that, or its quantized form
    quantized: bytes | None = None  # the QDQ model that we wrote for a float one
    notes: tuple[str, ...] = ()  # what was assumed, and how it was quantized

    def coverage(self, tiles: Tiles) -> tuple[Covered, ...]:
        """Where each node of the person's model went."""
        nodes = [(node.name, node.op_type) for node in self.given.nodes]
        kept = {node.name for node in self.imported.nodes}
        folded = {
            name: "merged when the model was quantized" for name, _ in nodes if name not in kept
        }
        return coverage(nodes, {**folded, **self.imported.folded}, tiles)


@dataclass
class Clock:
    """Seconds of each phase, in order."""

    seconds: dict[str, float] = field(default_factory=dict)
    watch: Callable[[str, float], None] | None = None  # told of each phase that ends

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)
        if self.watch is not None:
            self.watch(name, self.seconds[name])

    def add(self, name: str, seconds: float) -> None:
        """Add to a phase."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


@dataclass
class Milestones(Observer):
    """Keeps the last state of each form, and the time of each phase."""

    clock: Clock
    graph: Graph | None = None
    tiles: Tiles | None = None
    program: Program | None = None
    searched: tuple[Searched, ...] = ()  # of the last search for mappings

    latest: State | None = None

    def keep(self, state: State) -> None:
        """Keep a state under its form."""
        self.latest = state
        if isinstance(state, Graph):
            self.graph = state
        elif isinstance(state, Tiles):
            self.graph, self.tiles = state.graph, state
        else:
            self.program = state

    def told(self, place: Place, news: Searching) -> None:
        """Keep what a search found."""
        if news.is_over:
            self.searched = news.done

    def after(self, place: Place, before: State, state: State, seconds: float) -> None:
        """Keep what a pass made."""
        self.clock.add(phase_of(place.known), seconds)
        self.keep(state)


def read_model(
    path: Path,
    clock: Clock,
    *,
    shapes: Shapes | None = None,
    calibrate: str | Path | None = None,
    samples: int = 32,
) -> Model:
    """Import the model; one that computes in floats is quantized on `samples` of `calibrate`."""
    with clock.phase("import"):
        given = import_onnx(path, shapes)
    if not is_float(given.graph):
        return Model(path, given, given, notes=given.notes)
    with clock.phase("quantize"):
        return _quantized(path, given, shapes, calibrate, samples)


def is_float(graph: Graph) -> bool:
    """True for a model with convolutions or matrix products and no quantization at all."""
    kinds = {op.mnemonic for op in graph.ops}
    heavy = {op.mnemonic for op in graph.ops if not op.out.type.is_integer}
    return bool(heavy & {"conv", "matmul", "conv_transpose"}) and "quantize" not in kinds


def _quantized(
    path: Path,
    given: Imported,
    shapes: Shapes | None,
    calibrate: str | Path | None,
    samples: int,
) -> Model:
    from cimc.frontend.calibration import random_calibration, read_calibration
    from cimc.frontend.quantizer import quantize_float

    if calibrate is None or str(calibrate) == RANDOM:
        data = random_calibration(given.graph.inputs)
    else:
        data = read_calibration(calibrate, given.graph.inputs, samples)
    if calibrate is None:
        warn(
            Fault(
                f"{path} is a float model, quantized on random numbers",
                have="its costs are right, its accuracy means nothing",
                help="--calibrate DATA, a folder, .npz or .npy",
                code="CIM1304",
            )
        )
    result = quantize_float(path, data)
    imported = import_onnx(result.content, shapes)
    return Model(path, given, imported, result.content, (*given.notes, result.note))


def build(
    kept: Milestones,
    steps: Sequence[Step],
    target: Target,
    *,
    verify: Verify = "final",
    observers: Sequence[Observer] = (),
) -> None:
    """Run the passes on the latest state, and keep what they make."""
    assert kept.latest is not None
    watchers = [kept, *observers]
    run_pipeline(kept.latest, steps, target=target, verify=verify, observers=watchers)
