"""From a model file to a program, with everything on the way that later questions need.

read_model   ONNX file -> graph; a float model is quantized first, by calibration
build        graph -> graph passes -> tiles -> mapped tiles -> program with addresses
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cimc.coverage import Covered, coverage
from cimc.errors import Fault, UsageError, warn
from cimc.frontend import Imported, codes, import_onnx
from cimc.ir.graph import Graph
from cimc.ir.program import Program
from cimc.ir.tiles import Tiles
from cimc.ir.types import Array
from cimc.pipeline.levels import Effort
from cimc.pipeline.passes import State, pass_named
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
    effort: Effort | None = None,
) -> Model:
    """Import the model; one that computes in floats is quantized on `samples` of `calibrate`.

    Where `effort` asks for ternary weights, notes say what that costs on labelled samples.
    """
    effort = effort or Effort()
    with clock.phase("import"):
        given = import_onnx(path, shapes)
    model = Model(path, given, given, notes=given.notes)
    if is_float(given.graph):
        with clock.phase("quantize"):
            model = _quantized(path, given, shapes, calibrate, samples, effort)
    elif effort.activation_bits < 8:
        raise UsageError(
            Fault(
                f"{path} is quantized already",
                need="a float model for --activation-bits",
                help="leave the option out, or give the float model",
                code="CIM1303",
            )
        )
    if effort.ternarize:
        with clock.phase("quantize"):
            model = dataclasses.replace(
                model, notes=(*model.notes, *_lost(model, calibrate, samples, effort))
            )
    return model


def _lost(
    model: Model, calibrate: str | Path | None, samples: int, effort: Effort
) -> Iterator[str]:
    """Warn that ternary weights change the model, and measure it where samples have labels."""
    from cimc.frontend.calibration import read_calibration
    from cimc.ir.evaluate import evaluate
    from cimc.runs import accuracy
    from cimc.verify import reference_of

    warn(
        Fault(
            f"--ternarize changes what {model.path} computes",
            have="weights of three values by threshold, which the model was not trained with",
            help="train with ternary weights, and compare accuracies on labelled samples",
            code=codes.TERNARY,
        )
    )
    yield f"weights made ternary (lossy): {effort.ternarize} layers, per {effort.ternary_scale}"
    if calibrate is None or str(calibrate) == RANDOM:
        return
    data = read_calibration(calibrate, model.given.graph.inputs, samples)
    if data.labels is None:
        return
    (lossy,) = effort.lossy_steps()
    after = pass_named(lossy.name).run(model.imported.graph, dict(lossy.options), None)
    assert isinstance(after, Graph)
    reference = reference_of(model.path)
    outputs: tuple[dict[str, list[Array]], dict[str, list[Array]]] = ({}, {})
    for sample in data.samples:
        for held, found in zip(
            outputs, (reference.run(sample), evaluate(after, sample)), strict=True
        ):
            for name, array in found.items():
                held.setdefault(name, []).append(array)
    before, now = (accuracy(held, data.labels) for held in outputs)
    if before is not None and now is not None:
        yield (
            f"accuracy on the {len(data.samples)} labelled samples: {before:.2%} before "
            f"({reference.by}), {now:.2%} with ternary weights"
        )


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
    effort: Effort,
) -> Model:
    from cimc.frontend.calibration import random_calibration, read_calibration
    from cimc.frontend.quantizer import quantize_float
    from cimc.frontend.ternary import TernaryRule

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
    rule = TernaryRule(effort.ternarize, effort.ternary_scale) if effort.ternarize else None
    result = quantize_float(path, data, ternary=rule, activation_bits=effort.activation_bits)
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
