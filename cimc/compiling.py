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
from cimc.ir.tiles import Tiles
from cimc.network import Stage, build_network
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
    clock: Clock = field(default_factory=Clock)


def compile_request(request: Request) -> Compiled:
    """Compile all the way."""
    model = _read(request)
    kept, steps, stages = _built(request, model, "program")
    if kept.graph is None or kept.tiles is None or kept.program is None:
        raise InternalError("the pipeline ended without a program")
    options = {**dataclasses.asdict(request.effort), "samples": request.samples}
    history = history_of(model, options, pipeline_text(steps), request.clock.seconds)
    history = dataclasses.replace(history, stages=tuple(dataclasses.asdict(s) for s in stages))
    rows = model.coverage(kept.tiles)
    target, graph = request.target, kept.graph
    tiles = dataclasses.replace(kept.tiles, sums=())  # they are in the program now
    return Compiled(
        kept.program, target, graph, tiles, history, rows, model.quantized, kept.searched
    )


def state_after(request: Request, phase: str) -> State:
    """The state after `phase`."""
    if phase == "import":
        return import_onnx(request.model, request.shapes).graph
    model = _read(request)
    if phase == "quantize":
        return model.imported.graph
    kept, *_ = _built(request, model, phase)
    assert kept.latest is not None
    return kept.latest


def _read(request: Request) -> Model:
    return read_model(
        request.model,
        request.clock,
        shapes=request.shapes,
        calibrate=request.calibrate,
        samples=request.samples,
        effort=request.effort,
    )


def _built(
    request: Request, model: Model, phase: str
) -> tuple[Milestones, tuple[Step, ...], tuple[Stage, ...]]:
    """Run the passes up to `phase`, from the model's graph or from the dump."""
    kept = Milestones(request.clock)
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
    stages = build_network(
        kept,
        steps,
        request.target,
        request.effort.objective,
        verify=request.verify,
        observers=request.observers,
    )
    return kept, steps, stages


def rebuilt(compiled: Compiled, target: Target) -> tuple[Program, Tiles]:
    """The same integer graph compiled for a changed machine, with the same effort."""
    known = {item.name for item in dataclasses.fields(Effort)}
    options = {name: value for name, value in compiled.history.options.items() if name in known}
    kept = Milestones(Clock())
    kept.keep(compiled.graph)
    effort = Effort(**options)  # type: ignore[arg-type]  # we wrote them
    build_network(kept, effort.machine_steps(target), target, effort.objective)
    assert kept.program is not None
    assert kept.tiles is not None
    return kept.program, kept.tiles
