"""A compilation as asked for: from import, or from a dump, to a program or to an earlier phase."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from cimc.build import Clock, Milestones, Model, Shapes, build, read_model
from cimc.compiled import Compiled, history_of
from cimc.errors import InternalError
from cimc.frontend import import_onnx
from cimc.ir.program import Program
from cimc.pipeline.levels import Effort, until
from cimc.pipeline.passes import State
from cimc.pipeline.run import Observer, Verify
from cimc.pipeline.spec import Step, parse_pipeline, pipeline_text
from cimc.pipeline.state import load_state, next_steps
from cimc.target import Target


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compiled, and how; `cimc.compile` has the same arguments one by one."""

    model: Path
    target: Target
    effort: Effort = field(default_factory=Effort)
    shapes: Shapes | None = None
    calibrate: str | Path | None = None
    samples: int = 32
    start: Path | None = None  # go on from this dump of the model
    verify: Verify = "final"
    observers: tuple[Observer, ...] = ()


def compile_request(request: Request) -> Compiled:
    """Compile all the way."""
    clock = Clock()
    model = _read(request, clock)
    kept, steps = _built(request, model, clock, "program")
    if kept.graph is None or kept.tiles is None or kept.program is None:
        raise InternalError("the pipeline ended without a program")
    options = {**dataclasses.asdict(request.effort), "samples": request.samples}
    history = history_of(model, options, pipeline_text(steps), clock.seconds)
    rows = model.coverage(kept.tiles)
    target, graph, tiles = request.target, kept.graph, kept.tiles
    return Compiled(kept.program, target, graph, tiles, history, rows, model.quantized)


def state_after(request: Request, phase: str) -> State:
    """The state after `phase`."""
    if phase == "import":
        return import_onnx(request.model, request.shapes).graph
    clock = Clock()
    model = _read(request, clock)
    if phase == "quantize":
        return model.imported.graph
    kept, _ = _built(request, model, clock, phase)
    assert kept.latest is not None
    return kept.latest


def _read(request: Request, clock: Clock) -> Model:
    shapes, calibrate, samples = request.shapes, request.calibrate, request.samples
    return read_model(request.model, clock, shapes=shapes, calibrate=calibrate, samples=samples)


def _built(
    request: Request, model: Model, clock: Clock, phase: str
) -> tuple[Milestones, tuple[Step, ...]]:
    """Run the passes up to `phase`, from the model's graph or from the dump."""
    kept = Milestones(clock)
    kept.keep(model.imported.graph)
    steps = request.effort.steps(request.target)
    if request.start is not None:
        state = load_state(request.start)
        if isinstance(state, Program):  # its graph and mapping are made again, to compare with
            build(kept, until(steps, "map"), request.target)
        kept.keep(state)
        noted = next_steps(request.start)
        left = request.effort.steps_after(state, request.target)
        steps = parse_pipeline(noted) if noted is not None else left
    steps = until(steps, phase)
    build(kept, steps, request.target, verify=request.verify, observers=request.observers)
    return kept, steps
