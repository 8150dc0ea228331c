"""Run ONNX's official node tests through the importer and the graph evaluator.

    python tools/onnx_backend_tests.py            counts, and every wrong result
    python tools/onnx_backend_tests.py --refused  also what is refused, and why
    python tools/onnx_backend_tests.py conv pool  only tests whose name contains one of the words

A test gives all operands as graph inputs, also sizes and axes. Each is run in up to three forms: as
it is, with all operands but the first stored in the model, and with all of them stored, so that the
importer computes the result. A test is passed if at least one form is accepted and all accepted
forms are right. Exit code 1 if any is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase

from cimc.errors import CimcError, UnsupportedError
from cimc.frontend import import_onnx
from cimc.ir.evaluate import evaluate
from cimc.ir.types import Array, numpy_dtype


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one test: "passed", "wrong" or "refused", and why."""

    name: str
    operators: tuple[str, ...]
    result: str
    reason: str = ""


def cases(words: Sequence[str]) -> Iterator[TestCase]:
    """All node tests, or those whose name contains one of `words`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        for case in collect_testcases(None):
            if not words or any(word in case.name for word in words):
                yield case


# Tests whose expected result onnxruntime does not give either; there onnxruntime's result counts.
BY_ONNXRUNTIME = {
    # places follow from the rounded size of the result, not from the size times the scale
    "test_resize_downsample_scales_linear_align_corners",
}
_TENSORS = (np.ndarray, np.generic, TensorProto)


def _array(item: Array | np.generic | TensorProto) -> Array:
    return numpy_helper.to_array(item) if isinstance(item, TensorProto) else np.asarray(item)


def judge(case: TestCase, folder: Path) -> Verdict:
    """Run one test in all its forms."""
    model = case.model or ModelProto()
    operators = tuple(sorted({node.op_type for node in model.graph.node}))
    refusals: list[str] = []
    accepted = 0
    for inputs, outputs in case.data_sets or ():
        if not all(isinstance(item, _TENSORS) for item in (*inputs, *outputs)):
            return Verdict(case.name, operators, "refused", "no tensors")
        arrays = [_array(item) for item in inputs]
        names = [entry.name for entry in model.graph.input]
        expected = [_array(item) for item in outputs]
        if case.name in BY_ONNXRUNTIME:
            session = onnxruntime.InferenceSession(model.SerializeToString())
            expected = session.run(None, dict(zip(names, arrays, strict=True)))
        for stored in dict.fromkeys((0, max(0, len(arrays) - 1), len(arrays))):
            first = len(arrays) - stored
            try:
                wrong = _run(model, dict(zip(names, arrays, strict=True)), names[:first],
                             expected, case, folder)  # fmt: skip
            except UnsupportedError as problem:
                refusals.append(problem.faults[0].where)
                continue
            except Exception as problem:  # a wrong shape may end in any NumPy error
                wrong = f"{type(problem).__name__}: {problem}"
            accepted += 1
            if wrong:
                form = f"{stored} of {len(arrays)} operands stored"
                return Verdict(case.name, operators, "wrong", f"{form}: {wrong}")
    if accepted:
        return Verdict(case.name, operators, "passed")
    return Verdict(case.name, operators, "refused", refusals[0] if refusals else "no data")


def _run(
    model: ModelProto,
    arrays: dict[str, Array],
    given: Sequence[str],
    expected: Sequence[Array],
    case: TestCase,
    folder: Path,
) -> str:
    """What is wrong with one form of a test, or nothing; UnsupportedError if it is refused."""
    form = ModelProto()
    form.CopyFrom(model)
    kept = [entry for entry in form.graph.input if entry.name in given]
    del form.graph.input[:]
    form.graph.input.extend(kept)
    form.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in arrays.items() if name not in given
    )
    path = folder / "case.onnx"
    path.write_bytes(form.SerializeToString())
    graph = import_onnx(path, {name: arrays[name].shape for name in given}).graph
    graph.verify()
    held = {
        value.name: arrays[value.name].astype(numpy_dtype(value.type.dtype))
        for value in graph.inputs
    }
    results = evaluate(graph, held)
    for value, want in zip(graph.outputs, expected, strict=True):
        have = results[value.name]
        wanted = want.astype(numpy_dtype(value.type.dtype))
        if have.shape != want.shape:
            return f"{value.name}: shape {have.shape} instead of {want.shape}"
        if have.dtype.kind == "f":
            ok = np.allclose(
                have.astype(np.float64),
                wanted.astype(np.float64),
                rtol=max(case.rtol, 1e-3 if have.dtype == np.float16 else 0),
                atol=max(case.atol, 1e-3 if have.dtype == np.float16 else 1e-6),
                equal_nan=True,
            )
        else:
            ok = bool(np.array_equal(have, wanted))
        if not ok:
            worst = np.max(np.abs(have.astype(np.float64) - wanted.astype(np.float64)))
            return f"{value.name}: off by up to {worst:.3g}"
    return ""


def run(words: Sequence[str] = ()) -> list[Verdict]:
    """Verdicts on all chosen tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        verdicts: list[Verdict] = []
        for case in cases(words):
            try:
                verdicts.append(judge(case, folder))
            except CimcError as problem:
                verdicts.append(Verdict(case.name, (), "wrong", str(problem)))
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Print counts, wrong results, and on request refusals."""
    parser = argparse.ArgumentParser(description="Run ONNX's node tests.")
    parser.add_argument("words", nargs="*", help="only tests whose name contains one of these")
    parser.add_argument("--refused", action="store_true", help="list refusals by reason")
    options = parser.parse_args(arguments)
    verdicts = run(options.words)
    counts = Counter(verdict.result for verdict in verdicts)
    supported = counts["passed"] + counts["wrong"]
    print(f"{counts['passed']} passed of {supported} supported, {counts['refused']} refused")
    if options.refused:
        reasons = Counter(verdict.reason for verdict in verdicts if verdict.result == "refused")
        for reason, count in reasons.most_common():
            print(f"  {count:4} {reason}")
    for verdict in verdicts:
        if verdict.result == "wrong":
            print(f"wrong {verdict.name}: {verdict.reason}")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
