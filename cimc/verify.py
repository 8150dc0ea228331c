"""Comparing results tensor by tensor, and what a reference says each tensor of a model is.

max_abs   largest |got - want|, in real numbers
max_lsb   the same in steps of the quantized type (integers only)
differing share of elements that are not equal
sqnr_db   10 log10(sum want^2 / sum (got - want)^2); inf where they are equal
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cimc.errors import Fault, UsageError
from cimc.frontend.reader import QONNX_DOMAINS
from cimc.frontend.versions import LOADABLE_IR, LOADABLE_OPSET, relabel
from cimc.ir.evaluate import evaluate, evaluate_op
from cimc.ir.graph import Graph, Op, Value, constant_array, operands
from cimc.ir.types import Array, Type


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one tensor compares with what it should be, over all samples seen."""

    tensor: str
    against: str  # what it was compared with: "evaluator", "onnxruntime" ...
    type: str
    elements: int
    differing: int
    max_abs: float
    max_lsb: int | None
    error_power: float  # sum of squared differences
    power: float  # sum of squares of the wanted values
    tolerance: str
    passed: bool

    @property
    def share(self) -> float:
        """Share of elements that differ."""
        return self.differing / self.elements if self.elements else 0.0

    @property
    def sqnr_db(self) -> float:
        """Signal to error ratio."""
        if self.error_power == 0:
            return math.inf
        return 10 * math.log10(self.power / self.error_power) if self.power else -math.inf


def compare(
    value: Value,
    got: Array,
    want: Array,
    against: str,
    lsb: int = 0,
    relative: float = 1e-5,
) -> Comparison:
    """Compare a tensor; integers may differ by `lsb` steps, floats by `relative` of the largest."""
    kind = value.type
    if got.shape != want.shape:
        return _other_shape(value, got, want, against)
    steps = None
    scale = kind.quant.scale if kind.quant is not None else 1.0
    a, b = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gaps = np.where(a == b, 0.0, np.abs(a - b))  # inf equals inf
    gaps = np.where(np.isnan(a) & np.isnan(b), 0.0, gaps)
    largest = float(gaps.max(initial=0.0))
    if kind.is_integer:
        steps = int(largest)
        passed, tolerance = steps <= lsb, f"{lsb} LSB"
        zero = kind.quant.zero if kind.quant is not None else 0
        gaps, b, largest = gaps * scale, (b - zero) * scale, largest * scale
    else:
        bound = relative * float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
        passed, tolerance = largest <= bound, f"{relative:g} of the largest"
    return Comparison(
        value.name,
        against,
        str(kind),
        got.size,
        int(np.count_nonzero(gaps)),
        largest,
        steps,
        float(np.sum(gaps**2)),
        float(np.sum(b[np.isfinite(b)] ** 2)),
        tolerance,
        bool(passed) and not math.isnan(largest),
    )


def _other_shape(value: Value, got: Array, want: Array, against: str) -> Comparison:
    have = f"shape {list(got.shape)} instead of {list(want.shape)}"
    return Comparison(
        value.name,
        against,
        f"{value.type} ({have})",
        want.size,
        want.size,
        math.inf,
        None,
        math.inf,
        0.0,
        "equal shapes",
        False,
    )


def merge(rows: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """One row per tensor and reference, from rows of many samples, in order of first appearance."""
    found: dict[tuple[str, str], Comparison] = {}
    for row in rows:
        key = (row.tensor, row.against)
        found[key] = _both(found[key], row) if key in found else row
    return tuple(found.values())


def _both(a: Comparison, b: Comparison) -> Comparison:
    steps = [row.max_lsb for row in (a, b) if row.max_lsb is not None]
    return dataclasses.replace(
        a,
        elements=a.elements + b.elements,
        differing=a.differing + b.differing,
        max_abs=max(a.max_abs, b.max_abs),
        max_lsb=max(steps) if steps else None,
        error_power=a.error_power + b.error_power,
        power=a.power + b.power,
        passed=a.passed and b.passed,
    )


def worst(rows: Sequence[Comparison]) -> Comparison | None:
    """The row to look at first: failed before passed, then the largest difference."""
    return max(rows, key=lambda row: (not row.passed, row.max_lsb or 0, row.max_abs), default=None)


# --- the graph's own values ---


def from_reference(
    graph: Graph, known: Mapping[str, Array], names: Collection[str]
) -> Iterator[tuple[Value, Array]]:
    """What the evaluator makes of each value in `names` from the reference's values before it.

    Operands that `known` holds (inputs, too) are taken from there, so that a difference shows at
    the op that makes it and is not carried on.
    """
    makers = graph.producers()
    for op in graph.ops:
        if op.out.name in names and op.mnemonic not in ("input", "constant"):
            yield op.out, _forced(op, makers, graph, known)


def _forced(op: Op, makers: Mapping[str, Op], graph: Graph, known: Mapping[str, Array]) -> Array:
    held: dict[str, Array] = {}
    _fill(op, makers, graph, known, held)
    return evaluate_op(op, held)


def _fill(
    op: Op,
    makers: Mapping[str, Op],
    graph: Graph,
    known: Mapping[str, Array],
    held: dict[str, Array],
) -> None:
    for value in operands(op):
        if value.name in held:
            continue
        maker = makers[value.name]
        if value.name in known:
            held[value.name] = known[value.name]
        elif maker.mnemonic == "constant":
            held[value.name] = constant_array(maker, graph.tensors)
        else:
            _fill(maker, makers, graph, known, held)
            held[value.name] = evaluate_op(maker, held)


# --- references ---


class ModelReference(Protocol):
    """Something that runs an ONNX model, inner tensors included."""

    by: str  # what runs it, as rows of a comparison name it
    why: str  # why not onnxruntime, where it is something else

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs and inner tensors by name."""


def reference_of(path: Path, tensors: Collection[str] = ()) -> ModelReference:
    """onnxruntime, or for operators that it does not have the evaluator on the imported graph."""
    import onnx

    try:
        nodes = onnx.load(str(path), load_external_data=False).graph.node
    except Exception:  # protobuf and file errors share no base class; the other one reports them
        return Reference(path, tensors)
    strange = sorted({node.op_type for node in nodes if node.domain in QONNX_DOMAINS})
    if strange:
        return FloatReference(path, tensors, f"onnxruntime has no {', '.join(strange)} (QONNX)")
    return Reference(path, tensors)


class FloatReference:
    """A model's own graph as imported, before any pass, computed in float32 by the evaluator."""

    by = "float evaluator"

    def __init__(self, path: Path, tensors: Collection[str], why: str) -> None:
        self.why = why
        self._path, self._tensors = path, frozenset(tensors)
        self._graph: Graph | None = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs and inner tensors by name."""
        if self._graph is None:
            from cimc.frontend import import_onnx

            self._graph = import_onnx(self._path, {n: a.shape for n, a in inputs.items()}).graph
        made = {op.out.name for op in self._graph.ops} & self._tensors
        return evaluate(self._graph, inputs, keep=made)


# rounds a bias of floats to whole units of the sum, which is coarse where weights have few bits
_NOT_THE_MODEL = ["WeightBiasQuantization"]


class Reference:
    """An ONNX model run by onnxruntime, with as many of its inner tensors as asked for.

    The model is not edited: in memory, tensors are added to its outputs, and version numbers are
    lowered where that changes nothing.
    """

    by = "onnxruntime"
    why = ""

    def __init__(self, path: Path, tensors: Collection[str] = ()) -> None:
        import onnx
        import onnxruntime

        try:
            model = onnx.load(str(path))
            present = {name for node in model.graph.node for name in node.output}
            given = {output.name for output in model.graph.output}
            for name in sorted((set(tensors) & present) - given):
                model.graph.output.append(onnx.ValueInfoProto(name=name))
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = 1
            # the newest onnx package writes version numbers that the newest onnxruntime refuses
            newest = max((entry.version for entry in model.opset_import), default=0)
            if model.ir_version > LOADABLE_IR or newest > LOADABLE_OPSET:
                relabel(model)
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_NOT_THE_MODEL,
            )
        except Exception as problem:  # protobuf, file and onnxruntime errors share no base class
            raise UsageError(
                Fault(
                    f"{path}: onnxruntime cannot run it", have=_first_line(problem), code="CIM5004"
                )
            ) from None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs."""
        return tuple(item.name for item in self._session.get_inputs())

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs and inner tensors by name."""
        names = [item.name for item in self._session.get_outputs()]
        wanted = {name: inputs[name] for name in self.inputs if name in inputs}
        try:
            results = self._session.run(names, wanted)
        except Exception as problem:  # onnxruntime's own exceptions derive from Exception only
            raise UsageError(
                Fault("onnxruntime refuses the input", have=_first_line(problem), code="CIM5005")
            ) from None
        return {name: np.asarray(array) for name, array in zip(names, results, strict=True)}


def _first_line(problem: Exception) -> str:
    return str(problem).strip().split("\n")[0][:200] or type(problem).__name__


def quantized_values(graph: Graph) -> dict[str, Value]:
    """Values with a quantized type, by name: those that an integer reference has, too."""
    return {
        op.out.name: op.out
        for op in graph.ops
        if op.mnemonic not in ("input", "constant") and _is_quantized(op.out.type)
    }


def _is_quantized(kind: Type) -> bool:
    return kind.is_integer and kind.quant is not None
