"""Can a model run on a machine? Import, legality and capacity only: seconds, and no program.

report = check("resnet18.onnx", "isaac")
report.faults       every problem at once; empty if the model runs there
report.cuts         where the model could end, or start, so that the rest runs there
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cimc.build import Clock, Milestones, Shapes, build, read_model
from cimc.coverage import Covered
from cimc.errors import CimcError, Fault, InternalError, UnsupportedError
from cimc.frontend import ImportFault
from cimc.ir.graph import Graph, Op, operands
from cimc.kind import load_kind
from cimc.pipeline.levels import Effort, until
from cimc.target import Target


@dataclass(frozen=True)
class Check:
    """What a check found."""

    model: Path
    target: Target
    nodes: int
    supported: int
    rows: tuple[Covered, ...]  # empty if there are faults
    problem: CimcError | None
    cuts: tuple[str, ...]  # tensors
    kept: Milestones | None
    notes: tuple[str, ...] = ()  # what was assumed

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Every problem."""
        return self.problem.faults if self.problem is not None else ()

    def operators(self) -> list[tuple[str, int, str]]:
        """Operator, how many, and where they go: "macro 9, fused 2"."""
        places: dict[str, Counter[str]] = {}
        for row in self.rows:
            places.setdefault(row.op_type, Counter())[row.place] += 1
        return [
            (kind, found.total(), ", ".join(f"{place} {n}" for place, n in found.most_common()))
            for kind, found in sorted(places.items())
        ]


def check_model(path: Path, target: Target, effort: Effort, shapes: Shapes | None = None) -> Check:
    """Import the model, place every op, map every layer; problems of the model are returned."""
    clock = Clock()
    effort = dataclasses.replace(effort, level=min(effort.level, 2))  # no exact search to check
    try:
        model = read_model(path, clock, shapes=shapes, calibrate="random", effort=effort)
    except ImportFault as problem:
        return Check(path, target, problem.nodes, problem.supported, (), problem, (), None)
    nodes = len(model.given.nodes)
    graph: Graph = model.imported.graph
    kept = Milestones(clock)
    kept.keep(graph)
    try:
        build(kept, effort.graph_steps(target), target)
        assert kept.graph is not None
        graph = kept.graph
        build(kept, until(effort.machine_steps(), "map"), target)
    except InternalError:
        raise
    except CimcError as problem:
        bad = _unplaced(graph, target) if isinstance(problem, UnsupportedError) else []
        lost = {name for op in bad for name in op.nodes}
        if isinstance(problem, UnsupportedError) and not bad:
            lost = {str(number) for number, _ in enumerate(problem.faults)}
        known = {op.out.name for op in model.imported.graph.ops}
        found = tuple(name for name in cuts(graph, bad) if name in known)
        left = nodes - len(lost)
        return Check(path, target, nodes, left, (), problem, found, None, model.notes)
    assert kept.tiles is not None
    rows = model.coverage(kept.tiles)
    return Check(path, target, nodes, nodes, rows, None, (), kept, model.notes)


def _unplaced(graph: Graph, target: Target) -> list[Op]:
    """Ops that the machine has no place for."""
    kind = load_kind(target.kind)
    work = [op for op in graph.ops if op.mnemonic not in ("input", "constant")]
    return [op for op in work if isinstance(kind.place(op, graph, target), Fault)]


def cuts(graph: Graph, bad: list[Op]) -> tuple[str, ...]:
    """Tensors at which the model can be cut so that one side holds none of the ops in `bad`.

    The last one before all of them and the first one after all of them where nothing else crosses.
    """
    if not bad:
        return ()
    work = [op for op in graph.ops if op.mnemonic not in ("input", "constant")]
    lost = {op.out.name for op in bad}
    places = [place for place, op in enumerate(work) if op.out.name in lost]
    clean = _crossings(graph, work)
    before = [name for place, name in clean if place < places[0]]
    after = [name for place, name in clean if place >= places[-1]]
    return (*before[-1:], *after[:1])


def _crossings(graph: Graph, work: list[Op]) -> list[tuple[int, str]]:
    """Places in the order of ops after which exactly one tensor is still needed, and which."""
    last: dict[str, int] = {}
    constants = {op.out.name for op in graph.ops if op.mnemonic == "constant"}
    for place, op in enumerate(work):
        for value in operands(op):
            last[value.name] = place
    for value in graph.outputs:
        last[value.name] = len(work)
    found = []
    live = {value.name for value in graph.inputs}
    for place, op in enumerate(work):
        live.add(op.out.name)
        live = {name for name in live if last.get(name, -1) > place and name not in constants}
        if len(live) == 1 and place < len(work) - 1:
            found.append((place, next(iter(live))))
    return found
