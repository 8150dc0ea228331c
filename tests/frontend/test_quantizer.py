"""Float models to QDQ models: the same as onnxruntime's own way, cheaper, and silent."""

from __future__ import annotations

import io
import itertools
import logging
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from cimc.errors import UnsupportedError
from cimc.frontend import codes, import_onnx
from cimc.frontend.calibration import CalibrationData, random_calibration
from cimc.frontend.quantizer import quantize_float
from cimc.frontend.ternary import TernaryRule, ternarize_model
from cimc.frontend.versions import relabel
from cimc.ir import ops

from .conftest import Build, _model, run_onnx

BODY = (
    "g (float[1,3,8,8] x) => (float[1,5] y) {{ c = Conv <pads=[1,1,1,1]> (x, w, b) {norm}"
    "r = Relu ({relu}) p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r) "
    "d = Conv (p, v) "
    "a = Add (d, d) m = GlobalAveragePool (a) f = Flatten (m) y = Gemm <transB=1> (f, u) }}"
)
NORM = "n = BatchNormalization (c, ns, b, b, ns) "


def _network(norm: bool = False, opset: int = 17, ir_version: int = 8) -> ModelProto:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return random.standard_normal(shape).astype(np.float32)

    weights = {"w": normal(4, 3, 3, 3), "b": normal(4), "v": normal(6, 4, 3, 3), "u": normal(5, 6)}
    if norm:
        weights["ns"] = np.abs(normal(4)) + 1
    body = BODY.format(norm=NORM if norm else "", relu="n" if norm else "c")
    model = _model(body, opset, ir_version, **weights)
    model.graph.node[0].name, model.graph.node[-1].name = "first", "last"
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small float network as a file."""
    file = tmp_path / "float.onnx"
    onnx.save(_network(), str(file))
    return file


def _samples(count: int = 2) -> CalibrationData:
    random = np.random.default_rng(1)
    drawn = tuple(
        {"x": random.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)
    )
    return CalibrationData(drawn, "drawn")


@pytest.mark.parametrize("activations", ["u8", "i8"])
def test_result_is_that_of_onnxruntime(activations: str, path: Path) -> None:
    """Same nodes and same numbers as quantize_static, per channel, with min-max calibration."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # an untyped base
        """The samples one by one."""

        def __init__(self) -> None:
            self.rest = iter(_samples().samples)

        def get_next(self) -> object:
            return next(self.rest, None)

    expected_path = path.with_name("expected.onnx")
    logging.disable(logging.WARNING)
    quantize_static(
        path,
        expected_path,
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8 if activations == "u8" else QuantType.QInt8,
    )
    logging.disable(logging.NOTSET)
    want = onnx.load(str(expected_path)).graph
    have = ModelProto.FromString(quantize_float(path, _samples(), activations).content).graph
    assert [(n.op_type, *n.input, *n.output) for n in have.node] == [
        (n.op_type, *n.input, *n.output) for n in want.node
    ]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in have.initializer}
    assert stored.keys() == {tensor.name for tensor in want.initializer}
    for tensor in want.initializer:
        np.testing.assert_array_equal(stored[tensor.name], numpy_helper.to_array(tensor))


def test_nodes_keep_their_names(path: Path) -> None:
    """Named or not, a node that is still there has the name that the importer gave it."""
    given = {node.name for node in import_onnx(path).nodes}
    result = {node.name for node in import_onnx(quantize_float(path, _samples()).content).nodes}
    assert {"first", "MaxPool_2", "Conv_3", "Add_4", "last"} <= given & result
    assert given - result == {"Relu_1"}  # saturation does it


def test_normalization_is_merged(path: Path) -> None:
    """No BatchNormalization is left to be quantized by itself, and the result is close."""
    onnx.save(_network(norm=True), str(path))
    result = quantize_float(path, _samples(8))
    kinds = Counter(node.op_type for node in ModelProto.FromString(result.content).graph.node)
    assert (kinds["BatchNormalization"], kinds["Conv"]) == (0, 2)
    inputs = _samples().samples[0]
    want, have = (
        run_onnx(content, inputs)["y"].astype(np.float32)
        for content in (path.read_bytes(), result.content)
    )
    assert np.abs(have - want).max() < 0.05 * np.abs(want).max()


@pytest.mark.parametrize(("opset", "ir_version"), [(8, 3), (11, 6), (21, 10), (27, 13)])
def test_versions(opset: int, ir_version: int, path: Path) -> None:
    """Opsets too old for per-channel quantization, and newer than onnxruntime's."""
    model = _network(opset=min(opset, 17), ir_version=ir_version)
    if opset == 8:  # that old, initializers are inputs, too
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in model.graph.initializer
        )
    next(entry for entry in model.opset_import if not entry.domain).version = opset
    onnx.save(model, str(path))
    imported = import_onnx(quantize_float(path, _samples()).content)
    assert imported.opset >= 13
    assert [value.shape for value in imported.graph.outputs] == [(1, 5)]


def test_external_weights(path: Path) -> None:
    """Weights in a second file."""
    content = quantize_float(path, _samples()).content
    onnx.save(
        _network(),
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert quantize_float(path, _samples()).content == content


def test_silence(
    path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing on stdout or stderr, no log, no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_float(path, _samples())
    assert tuple(capfd.readouterr()) == ("", "")
    assert not caplog.records
    assert logging.root.manager.disable == logging.NOTSET


def test_infinite_ranges_are_refused(path: Path) -> None:
    """The tensor is named."""
    data = CalibrationData(({"x": np.full((1, 3, 8, 8), np.inf, np.float32)},), "inf")
    with pytest.raises(UnsupportedError) as caught:
        quantize_float(path, data)
    assert caught.value.faults[0].code == codes.QUANTIZER
    assert caught.value.faults[0].where == (
        "tensor x becomes infinite or not a number on the calibration data"
    )


def test_what_onnxruntime_cannot_run(path: Path, model: Build) -> None:
    """Its message becomes a fault with a remedy."""
    onnx.save(model("g (float[2] x) => (float[2] y) { y = own.Strange (x) }"), str(path))
    with pytest.raises(UnsupportedError) as caught:
        quantize_float(path, CalibrationData(({"x": np.zeros(2, np.float32)},), "zeros"))
    fault = caught.value.faults[0]
    assert fault.code == codes.QUANTIZER
    assert "Strange" in fault.have
    assert fault.help


def test_light_structures() -> None:
    """A structure of the onnx package: opset 9, weights made by ConstantOfShape."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    path = folder / "light_squeezenet.onnx"
    if not path.is_file():
        pytest.skip("this onnx package has no light models")
    data = random_calibration(import_onnx(path).graph.inputs)
    graph = import_onnx(quantize_float(path, data).content).graph
    kinds = Counter(op.mnemonic for op in graph.ops)
    assert kinds["conv"] == 26
    assert kinds["quantize"] > 26


def test_accuracy_survives(data: Path) -> None:
    """A CIFAR-10 network answers as its float model does on at least 19 of 20 images."""
    image = pytest.importorskip("PIL.Image")
    stored = np.load(data / "cifar10_test.npz")
    places = stored["offsets"][:201]
    pixels = [
        np.asarray(image.open(io.BytesIO(stored["jpeg"][a:b].tobytes())).convert("RGB"), np.float32)
        for a, b in itertools.pairwise(places)
    ]
    mean, spread = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    images = ((np.stack(pixels) / 255 - mean) / spread).transpose(0, 3, 1, 2)
    path = data / "models" / "cifar10_resnet20_float.onnx"
    samples = tuple({"input": item[None]} for item in images[:8])
    result = quantize_float(path, CalibrationData(samples, "test images"))
    answers = [
        run_onnx(content, {"input": images[8:]})["logits"].argmax(axis=1)
        for content in (path.read_bytes(), result.content)
    ]
    assert (answers[0] == answers[1]).mean() >= 0.95


def test_relabelled_models_mean_the_same() -> None:
    """Newest version numbers are lowered, but not below what an operator's version needs."""
    model = _network(ir_version=14)
    model.opset_import[0].version = 28
    relabel(model)
    assert model.ir_version == 10
    assert 22 <= model.opset_import[0].version < 28  # Conv changed in 22, nothing here in 28
    inputs = _samples().samples[0]
    want = run_onnx(_network(opset=17).SerializeToString(), inputs)["y"]
    np.testing.assert_array_equal(run_onnx(model.SerializeToString(), inputs)["y"], want)


def _codes(model: ModelProto) -> list[int]:
    """The largest code of each quantized activation, as onnxruntime computes them."""
    names = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    found = [run_onnx(model.SerializeToString(), sample) for sample in _samples().samples]
    return [max(int(outputs[name].max()) for outputs in found) for name in names]


@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_activations_of_fewer_bits_use_fewer_codes(bits: int, path: Path) -> None:
    result = onnx.load_from_string(quantize_float(path, _samples(), activation_bits=bits).content)
    largest = _codes(result)
    assert max(largest[:-1]) == 2**bits - 1
    assert largest[-1] > 2**bits - 1  # the result of the model keeps its 8 bits
    assert not any(tensor.data_type == onnx.TensorProto.INT32 for tensor in _used(result))


def _used(model: ModelProto) -> list[onnx.TensorProto]:
    """Initializers that a node reads."""
    read = {name for node in model.graph.node for name in node.input}
    return [tensor for tensor in model.graph.initializer if tensor.name in read]


def test_ends_may_keep_eight_bits(path: Path) -> None:
    rule = TernaryRule("inner")
    content = quantize_float(path, _samples(), ternary=rule, activation_bits=2).content
    result = onnx.load_from_string(content)
    largest = _codes(result)
    assert largest[0] > 3  # the model's input
    assert 3 in largest  # something between
    assert sum(code > 3 for code in largest) >= 3  # input, the last layer's operand, the result


@pytest.mark.parametrize("scale", ["channel", "tensor"])
def test_ternary_weights_are_made_before_ranges_are_taken(scale: str, path: Path) -> None:
    result = quantize_float(path, _samples(), ternary=TernaryRule("all", scale)).content
    graph = import_onnx(result).graph
    weights = [op for op in graph.ops if isinstance(op, ops.Dequantize) and op.axis is not None]
    codes = [graph.tensor(op.x) for op in weights if op.x.type.dtype == "i8"]
    assert len(codes) == 3
    for array in codes:
        assert array is not None
        assert set(np.unique(np.abs(array.astype(int)))) <= {0, 127}


def test_the_middle_layer_alone(path: Path) -> None:
    model = onnx.load(path)
    before = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    ternarize_model(model, TernaryRule("inner"))
    after = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"v"}
    assert len(np.unique(np.abs(after["v"][0]))) == 2
