"""Float models to integers: onnxruntime's static quantization in QDQ form, per channel.

    model -> opset that quantization needs -> constants folded, BatchNormalization merged
          -> ranges of all tensors on the samples -> QDQ model by onnxruntime's quantizer

Ranges are collected here with one session that returns every tensor; onnxruntime's own calibrator
would serialize and optimize the model several times for the same numbers.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from cimc.errors import Fault, UnsupportedError
from cimc.frontend import codes
from cimc.frontend.calibration import CalibrationData
from cimc.frontend.few_bits import narrow_activations
from cimc.frontend.reader import STANDARD_DOMAINS
from cimc.frontend.structure import node_names
from cimc.frontend.tensors import external_place, is_external
from cimc.frontend.ternary import TernaryRule, ternarize_model
from cimc.frontend.versions import relabel
from cimc.ir.types import Array

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OLDEST_OPSET = 13  # per-channel QuantizeLinear
# operators around which onnxruntime's basic optimization leaves something simpler to quantize
_UNTIDY = {
    "BatchNormalization",
    "Cast",
    "Constant",
    "ConstantOfShape",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Expand",
    "Identity",
    "Mul",
    "Shape",
    "Sub",
}
_LARGEST = 2**31 - 2**20  # bytes of a model in one piece
Ranges = dict[str, tuple[Array, Array]]


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A QDQ model as bytes of an ONNX file, and how it came to be."""

    content: bytes
    note: str


def quantize_float(
    path: str | Path,
    data: CalibrationData,
    activations: str = "u8",
    *,
    ternary: TernaryRule | None = None,
    activation_bits: int = 8,
) -> QuantizedModel:
    """The model at `path` with 8-bit weights (symmetric, per channel) and activations "u8" or "i8".

    With `ternary` weights are made ternary before ranges are taken. Activations may have 2 to 8
    bits; with fewer than 8 they stay in bytes.
    raises  UnsupportedError where onnxruntime cannot run or quantize the model
    """
    model = _loaded(Path(path))
    for node, name in zip(model.graph.node, node_names(model.graph.node), strict=True):
        node.name = name  # so that the nodes of both models have the same names
    if ternary is not None:
        ternarize_model(model, ternary)
    with _quiet(), _blamed(path):
        model = _upgraded(model)
        if any(node.op_type in _UNTIDY for node in model.graph.node):
            model = _tidied(model)
            if any(node.op_type == "BatchNormalization" for node in model.graph.node):
                model = _tidied(model)  # now that their operands are folded
        ranges = _ranges(model, data)
    _check(ranges)
    with _quiet(), _blamed(path):
        result = _quantized(model, ranges, activations)
    for entry in list(result.opset_import):
        if entry.domain not in (*STANDARD_DOMAINS, "com.microsoft"):
            result.opset_import.remove(entry)
    note = f"quantized with {data.source} samples"
    if activation_bits < 8:
        narrow_activations(result, activation_bits, ternary is not None and ternary.keeps_ends)
        note += f", activations to {activation_bits} bits"
    return QuantizedModel(result.SerializeToString(), note)


def _loaded(path: Path) -> ModelProto:
    model = onnx.load(str(path), load_external_data=False)
    external = [external_place(t)[2] or 0 for t in model.graph.initializer if is_external(t)]
    if path.stat().st_size + sum(external) >= _LARGEST:
        raise UnsupportedError(
            Fault(
                f"{path} is too large to quantize in one piece",
                "less than 2 GB of weights",
                help="quantize it with onnxruntime.quantization and give the QDQ model",
                code=codes.QUANTIZER,
            )
        )
    if external:
        onnx.load_external_data_for_model(model, str(path.parent))
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No advice from onnxruntime's quantizer on stderr."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _blamed(path: str | Path) -> Iterator[None]:
    """What onnxruntime or the version converter finds wrong with the model, as a fault."""
    try:
        yield
    except Exception as problem:  # their exceptions have no common base
        text = " ".join(str(problem).split())[:300] or type(problem).__name__
        raise UnsupportedError(
            Fault(
                f"onnxruntime cannot quantize {path}",
                have=text,
                help="quantize it with your own tool and give the QDQ model",
                code=codes.QUANTIZER,
            )
        ) from problem


def _upgraded(model: ModelProto) -> ModelProto:
    relabel(model, newest_ir=8)  # all that float models need
    opset = next(e.version for e in model.opset_import if e.domain in STANDARD_DOMAINS)
    if opset >= OLDEST_OPSET:
        return model
    converted: ModelProto = onnx.version_converter.convert_version(model, OLDEST_OPSET)
    converted.ir_version = max(converted.ir_version, 7)
    return converted


def _session(model: ModelProto, saved: Path | None = None) -> InferenceSession:
    import onnxruntime  # slow to import

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_DISABLE_ALL if saved is None else levels.ORT_ENABLE_BASIC
    )
    if saved is not None:
        options.optimized_model_filepath = str(saved)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _tidied(model: ModelProto) -> ModelProto:
    """The model after onnxruntime's basic optimization: constants folded, normalization merged."""
    with tempfile.TemporaryDirectory(prefix="cimc-") as folder:
        saved = Path(folder) / "tidied.onnx"
        _session(model, saved)
        tidied: ModelProto = onnx.load(str(saved))
    return tidied


def _ranges(model: ModelProto, data: CalibrationData) -> Ranges:
    """Lowest and highest value of every float tensor over all samples."""
    outputs = {entry.name for entry in model.graph.output}
    kept = len(model.graph.output)
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in outputs)
    session = _session(model)
    del model.graph.output[kept:]
    wanted = [entry.name for entry in session.get_outputs()]
    ranges: Ranges = {}
    for sample in data.samples:
        arrays = dict(zip(wanted, session.run(wanted, dict(sample)), strict=True))
        for name, array in (*sample.items(), *arrays.items()):
            if array.dtype == np.float32 and array.size:
                low, high = ranges.get(name, (array.flat[0], array.flat[0]))
                ranges[name] = (np.minimum(low, array.min()), np.maximum(high, array.max()))
    return ranges


def _check(ranges: Ranges) -> None:
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UnsupportedError(
                Fault(
                    f"tensor {name} becomes infinite or not a number on the calibration data",
                    have=f"{low} .. {high}",
                    help="check the calibration data and the model's preprocessing",
                    code=codes.QUANTIZER,
                )
            )


def _quantized(model: ModelProto, ranges: Ranges, activations: str) -> ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    known = {entry.name for entry in (*model.graph.value_info, *model.graph.output)}
    model.graph.value_info.extend(  # the quantizer asks for element types only
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ranges
        if name not in known
    )
    # says that types are inferred; else the quantizer goes through the disk to infer them
    inferred = model.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    quantizer = QDQQuantizer(
        model,
        True,  # per channel
        False,  # all 8 bits
        QuantType.QInt8,
        QuantType.QUInt8 if activations == "u8" else QuantType.QInt8,
        TensorsData(CalibrationMethod.MinMax, dict(ranges)),
        [],
        [],
        sorted({*QLinearOpsRegistry, *QDQRegistry}),
        {},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: ModelProto = quantizer.model.model
    result.metadata_props.remove(inferred)
    return result
