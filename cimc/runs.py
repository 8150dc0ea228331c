"""Running a program on samples and comparing what it computes, tensor by tensor.

Three comparisons, each with its own rule:

    evaluator      every integer tensor of the emitted program equals the graph's evaluator exactly
    op by op       each op of the graph, given onnxruntime's operands, is within one step of what
                   onnxruntime makes of them (a tie may round the other way); floats within 1e-4
    onnxruntime    the program's tensors beside those of the whole model: reported only, since a
                   tie early in a network may grow

onnxruntime cannot run QONNX models: the evaluator on the graph as it was imported, in float32 and
before any pass, takes its place as "float evaluator".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cimc.dataset import Dataset
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, Value
from cimc.ir.ops import Quantize
from cimc.ir.program import Program
from cimc.ir.types import Array, int_range, numpy_dtype
from cimc.sim.execute import Executor
from cimc.target import Target
from cimc.verify import (
    Comparison,
    Reference,
    compare,
    from_reference,
    merge,
    quantized_values,
    reference_of,
)

FLOAT_TOLERANCE = 1e-4  # of the largest value; float32 sums of some hundred terms in another order


@dataclass(frozen=True)
class References:
    """What a run is compared with; each may be absent."""

    graph: Graph | None = None  # the integer graph that was compiled
    model: Path | None = None  # the quantized ONNX model
    original: Path | None = None  # the float model that it was quantized from
    expected: Mapping[str, Array] | None = None  # outputs by name, one more axis in front
    lsb: int = 0  # for `expected`


@dataclass
class Run:
    """Outputs of all samples, and the comparisons of those that were checked."""

    outputs: dict[str, list[Array]] = field(default_factory=dict)
    rows: list[Comparison] = field(default_factory=list)
    checked: int = 0
    reference_outputs: dict[str, list[Array]] = field(default_factory=dict)
    original_outputs: dict[str, list[Array]] = field(default_factory=dict)
    reference_by: str = ""  # what ran the reference model
    reference_why: str = ""  # why not onnxruntime

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """One row per tensor and reference."""
        return merge(self.rows)

    @property
    def passed(self) -> bool:
        """True unless a comparison failed."""
        return all(row.passed for row in self.rows)


def run_samples(
    run: Run,
    program: Program,
    target: Target,
    data: Dataset,
    references: References,
    *,
    engine: str = "fast",
    checked: int = 8,
) -> Iterator[int]:
    """Add all samples to `run`, yielding their numbers; compare inside the first `checked`."""
    machine = Executor(program, target, engine)
    checks = _Checks(program, references, engine) if checked else None
    if checks is not None and checks.model is not None:
        run.reference_by, run.reference_why = checks.model.by, checks.model.why
    for number, inputs in enumerate(data):
        outputs = machine.run(inputs)
        for name, array in outputs.items():
            run.outputs.setdefault(name, []).append(array)
        if checks is not None:
            checks.sample(run, number, inputs, outputs, inside=number < checked)
        yield number


class _Checks:
    """References made ready once."""

    def __init__(self, program: Program, references: References, engine: str) -> None:
        self.program = program
        self.references = references
        self.kinds = dict(program.outputs)
        self.graph = references.graph
        self.values = quantized_values(self.graph) if self.graph is not None else {}
        self.open = Executor(spread(program), None, engine) if self.graph is not None else None
        self.model = reference_of(references.model, self.values) if references.model else None
        self.original = Reference(references.original) if references.original else None

    def sample(
        self,
        run: Run,
        number: int,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        inside: bool,
    ) -> None:
        """Compare the outputs of one sample, and with `inside` all its tensors."""
        if self.original is not None:
            for name, array in self.original.run(inputs).items():
                run.original_outputs.setdefault(name, []).append(array)
        for name, wanted in (self.references.expected or {}).items():
            value, lsb = Value(name, self.kinds[name]), self.references.lsb
            run.rows.append(
                compare(value, outputs[name], wanted[number], "expected", lsb, FLOAT_TOLERANCE)
            )
        computed = dict(outputs)
        if inside:
            run.checked += 1
            if self.graph is not None and self.open is not None:
                computed |= self._with_evaluator(run, inputs, outputs)
        if self.model is not None:
            self._with_model(run, inputs, computed, inside)

    def _with_evaluator(
        self, run: Run, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        assert self.graph is not None
        assert self.open is not None
        wanted = evaluate(self.graph, inputs, keep=self.values)
        again = self.open.run(inputs)
        buffers = {buffer.name for buffer in self.program.buffers}
        inner = {
            name: self.open.memories.fetch(name, value.type)
            for name, value in self.values.items()
            if name in buffers
        }
        for value in self.graph.outputs:
            run.rows.append(
                compare(value, outputs[value.name], wanted[value.name], "evaluator", relative=0.0)
            )
            if not np.array_equal(again[value.name], outputs[value.name], equal_nan=True):
                run.rows.append(
                    compare(
                        value, outputs[value.name], again[value.name], "own addresses", relative=0.0
                    )
                )
        for name, got in inner.items():
            run.rows.append(compare(self.values[name], got, wanted[name], "evaluator"))
        return inner

    def _with_model(
        self,
        run: Run,
        inputs: Mapping[str, Array],
        computed: Mapping[str, Array],
        inside: bool,
    ) -> None:
        assert self.model is not None
        known = self.model.run(inputs)
        values = {**self.values, **{name: Value(name, kind) for name, kind in self.kinds.items()}}
        for name, got in computed.items():
            if name in known:
                row = compare(values[name], got, known[name], self.model.by, 0, FLOAT_TOLERANCE)
                run.rows.append(dataclasses.replace(row, tolerance="reported", passed=True))
                if name in self.kinds:
                    run.reference_outputs.setdefault(name, []).append(known[name])
        if self.graph is None or not inside:
            return
        held = {**known, **inputs}
        for value, array in from_reference(self.graph, held, set(values) & set(known)):
            want = known[value.name]
            run.rows.append(compare(value, array, want, "op by op", 1, FLOAT_TOLERANCE))


def input_ranges(graph: Graph) -> dict[str, tuple[float, float]]:
    """Real numbers that each float input can stand for once it is quantized."""
    names = {value.name for value in graph.inputs}
    found: dict[str, tuple[float, float]] = {}
    for op in graph.ops:
        quant = op.out.type.quant
        if isinstance(op, Quantize) and op.x.name in names and quant is not None:
            low, high = int_range(op.out.type.dtype)
            found[op.x.name] = (low - quant.zero) * quant.scale, (high - quant.zero) * quant.scale
    return found


def spread(program: Program) -> Program:
    """The program with an address of its own for every buffer: all tensors outlive the run."""
    ends: dict[str, int] = {}
    buffers = []
    for buffer in program.buffers:
        address = -(-ends.get(buffer.memory, 0) // 64) * 64
        width = numpy_dtype(buffer.dtype).itemsize
        ends[buffer.memory] = address + buffer.elements * buffer.slots * width
        buffers.append(dataclasses.replace(buffer, address=address))
    return dataclasses.replace(program, buffers=tuple(buffers))


def sqnr_db(got: Mapping[str, list[Array]], want: Mapping[str, list[Array]]) -> float:
    """Signal to error ratio of all outputs of all samples: 10 log10(sum want^2 / sum error^2)."""
    power = error = 0.0
    for mine, theirs in zip(got.values(), want.values(), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            wanted = b.astype(np.float64)
            power += float(np.sum(wanted**2))
            error += float(np.sum((a.astype(np.float64) - wanted) ** 2))
    return math.inf if error == 0 else 10 * math.log10(power / error) if power else -math.inf


def agreement(got: Mapping[str, list[Array]], want: Mapping[str, list[Array]]) -> float | None:
    """Share of samples whose largest output is at the same place."""
    chosen, wanted = _chosen(got), _chosen(want)
    if chosen is None or wanted is None or chosen.shape != wanted.shape:
        return None
    return float(np.mean(chosen == wanted))


def accuracy(outputs: Mapping[str, list[Array]], labels: Array) -> float | None:
    """Share of samples whose largest output is the label; None where outputs are no scores."""
    chosen = _chosen(outputs)
    if chosen is None or len(labels) < len(chosen):
        return None
    return float(np.mean(chosen == labels[: len(chosen)].reshape(-1)))


def _chosen(outputs: Mapping[str, list[Array]]) -> Array | None:
    """The place of the largest output of each sample, for a model with one vector of scores."""
    if len(outputs) != 1:
        return None
    scores = np.concatenate(next(iter(outputs.values())))
    return scores.reshape(len(scores), -1).argmax(axis=1) if scores.ndim > 1 else None
