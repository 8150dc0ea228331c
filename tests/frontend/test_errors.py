"""What is said about models that cannot be imported: code, node, reason, remedy, all at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import cimc.frontend
from cimc.errors import CimcError, UnsupportedError, UsageError
from cimc.frontend import ImportFault, codes, import_onnx

from .conftest import Build


def _fault_codes(model: ModelProto | bytes | Path, **options: object) -> list[str]:
    content = model.SerializeToString() if isinstance(model, ModelProto) else model
    with pytest.raises(CimcError) as caught:
        import_onnx(content, **options)  # type: ignore[arg-type]  # options of the call under test
    assert caught.value.exit_code in (2, 3)
    return [fault.code for fault in caught.value.faults]


def test_all_unsupported_nodes_are_named_at_once(model: Build) -> None:
    """Two operators of two kinds, and how many nodes are fine."""
    proto = model(
        "g (float[1,4,6,6] x, float[1,2,3,2] grid) => (float[1,4,3,2] z) "
        "{ s = GridSample (x, grid) r = Relu (s) y = own.Strange (x) z = Add (r, y) }"
    )
    proto.graph.node[0].name, proto.graph.node[2].name = "sample", "odd"
    with pytest.raises(ImportFault) as caught:
        import_onnx(proto.SerializeToString())
    assert (caught.value.nodes, caught.value.supported) == (4, 2)
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "error CIM1201: operator GridSample is not supported\n"
        "  node:    sample (GridSample, opset 17, inputs f32[1,4,6,6], f32[1,2,3,2])\n"
        "  help:    cimc ops lists the operators that are supported\n"
        "error CIM1202: operator own::Strange is not supported\n"
        "  node:    odd (Strange, opset 1, inputs f32[1,4,6,6])\n"
        "  need:    ONNX's own operators, or those of com.microsoft, finn.custom_op.general, "
        "onnx.brevitas, qonnx.custom_op.general in the support table\n"
        "  help:    export without this operator; cimc ops lists those that are supported"
    )


def test_dynamic_dimension_names_itself_and_the_option(model: Build) -> None:
    """Every open dimension, and the option that fixes it."""
    proto = model("g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu (x) }")
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(proto.SerializeToString())
    assert str(caught.value).splitlines()[:4] == [
        "error CIM1112: dimension 0 (N) of input x is dynamic",
        "  need:    static shapes",
        "  have:    x=Nx3xHxW",
        "  help:    --shape x=1x3x224x224 (with the sizes that you need)",
    ]
    assert [fault.code for fault in caught.value.faults] == [codes.DYNAMIC] * 3
    graph = import_onnx(proto.SerializeToString(), {"x": (2, 3, 8, 8)}).graph
    assert graph.outputs[0].shape == (2, 3, 8, 8)


def test_batch_alone_becomes_one_with_a_note(model: Build) -> None:
    """Nothing else is open, so the leading dimension is set and said."""
    proto = model("g (float[N,3] x, float[N,3] w) => (float[N,3] y) { y = Add (x, w) }")
    imported = import_onnx(proto.SerializeToString())
    assert [value.shape for value in imported.graph.inputs] == [(1, 3), (1, 3)]
    assert imported.notes == (
        "input x: batch N set to 1 (--shape x=1x3 to say otherwise)",
        "input w: batch N set to 1 (--shape w=1x3 to say otherwise)",
    )
    imported = import_onnx(proto.SerializeToString(), {"x": (5, 3)})
    assert [value.shape for value in imported.graph.inputs] == [(5, 3), (5, 3)]


@pytest.mark.parametrize("shape", [{"x": (1, 4)}, {"x": (1,)}, {"x": (-1, 3)}, {"q": (1, 3)}])
def test_shape_that_does_not_fit(shape: dict[str, tuple[int, ...]], model: Build) -> None:
    """Fixed dimensions, ranks and names are the model's."""
    proto = model("g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }")
    with pytest.raises(UsageError) as caught:
        import_onnx(proto.SerializeToString(), shape)
    assert [fault.code for fault in caught.value.faults] == [codes.SHAPE_OPTION]


BROKEN = {
    "integer arithmetic of unequal types": (
        "g (float[2] x, int32[2] i) => (float[2] y) { y = Add (x, i) }", codes.SHAPES),
    "shapes that do not broadcast": (
        "g (float[2,3] x, float[4] w) => (float[2,4] y) { y = Mul (x, w) }", codes.SHAPES),
    "conv channels": (
        "g (float[1,3,8,8] x, float[4,2,3,3] w) => (float[1,4,6,6] y) { y = Conv (x, w) }",
        codes.SHAPES),
    "kernel larger than input": (
        "g (float[1,3,2,2] x, float[4,3,3,3] w) => (float[1,4,1,1] y) { y = Conv (x, w) }",
        codes.SHAPES),
    "zero stride": (
        "g (float[1,3,8,8] x) => (float[1,3,8,8] y) "
        "{ y = MaxPool <kernel_shape=[2,2], strides=[0,1]> (x) }", codes.SHAPES),
    "huge pads": (
        "g (float[1,3,8,8] x) => (float[1,3,8,8] y) "
        "{ y = MaxPool <kernel_shape=[2,2], pads=[4611686018427387904,0,0,0]> (x) }",
        codes.SHAPES),
    "axis": ("g (float[2,3] x) => (float[2,3] y) { y = Softmax <axis=7> (x) }", codes.SHAPES),
    "perm": ("g (float[2,3] x) => (float[2,3] y) { y = Transpose <perm=[0,0]> (x) }", codes.FORM),
    "computed shape": (
        "g (float[6] x, int64[2] s) => (float[2,3] y) { y = Reshape (x, s) }", codes.NOT_CONSTANT),
    "wrong element count": (
        "g (float[6] x) => (float[2,2] y) <int64[2] s = {2, 2}> { y = Reshape (x, s) }",
        codes.SHAPES),
    "loop": ("g (float[6] x) => (float[6] y) { y = Einsum <equation=\"i->i\"> (x) }",
             codes.OPERATOR),
    "recurrent": (
        "g (float[1,1,2] x, float[1,8,2] w, float[1,8,2] r) => (float[1,1,1,2] y) "
        "{ y = LSTM <hidden_size=2> (x, w, r) }", codes.CONTROL_FLOW),
    "unknown operator": ("g (float[6] x) => (float[6] y) { y = Rellu (x) }", codes.OPERATOR),
    "attribute that does not exist": (
        "g (float[6] x) => (float[6] y) { y = Relu <slope=1> (x) }", codes.INVALID),
    "missing operand": ("g (float[6] x) => (float[6] y) { y = Add (x) }", codes.INVALID),
    "undefined value": ("g (float[6] x) => (float[6] y) { y = Add (x, w) }", codes.UNDEFINED),
    "cycle": ("g (float[6] x) => (float[6] y) { y = Add (x, z) z = Neg (y) }", codes.CYCLE),
    "value made twice": (
        "g (float[6] x) => (float[6] y) { y = Neg (x) y = Abs (x) }", codes.DUPLICATE),
    "element type": (
        "g (bfloat16[6] x) => (bfloat16[6] y) { y = Neg (x) }", codes.ELEMENT_TYPE),
    "element type of a cast": (
        "g (float[6] x) => (bfloat16[6] y) { y = Cast <to=16> (x) }", codes.ELEMENT_TYPE),
    "sequence": ("g (seq(float[6]) x) => (float[6] y) { y = SequenceAt (x, y) }",
                 codes.CYCLE),
    "dynamic quantization": (
        "g (float[6] x) => (uint8[6] y) { y, s, z = DynamicQuantizeLinear (x) }",
        codes.OPERATOR),
    "indices of a pool": (
        "g (float[1,1,4,4] x) => (float[1,1,2,2] y, int64[1,1,2,2] i) "
        "{ y, i = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x) }", codes.FORM),
    "training": (
        "g (float[1,2,4,4] x, float[2] s) => (float[1,2,4,4] y) "
        "{ y, a, b = BatchNormalization <training_mode=1> (x, s, s, s, s) }", codes.FORM),
    "huge constant": (
        "g (float[1] x) => (float[n] y) <int64[4] s = {65536, 65536, 65536, 65536}> "
        "{ c = ConstantOfShape (s) y = Add (x, c) }", codes.TOO_LARGE),
    "huge expansion": (
        "g (float[1] x) => (float[n] y) <int64[2] s = {2147483647, 4}> "
        "{ y = Expand (x, s) }", codes.TOO_LARGE),
    "endless range": (
        "g (float[1] x) => (float[n] y) <float a = {0.0}, float b = {1e9}, float d = {1e-9}> "
        "{ r = Range (a, b, d) y = Add (x, r) }", codes.FORM),
    "cubic resize": (
        "g (float[1,1,4,4] x) => (float[1,1,8,8] y) <float[4] s = {1.0, 1.0, 2.0, 2.0}> "
        "{ y = Resize <mode=\"cubic\"> (x, , s) }", codes.FORM),
    "attribute that nothing knows": (
        "g (uint8[4] x) => (uint8[4] y) <float s = {0.1}, uint8 z = {1}> "
        "{ y = com.microsoft.QLinearSigmoid <twist=1> (x, s, z, s, z) }", codes.FORM),
    "negative scale": (
        "g (uint8[4] x) => (float[4] y) <float s = {-1.0}> { y = DequantizeLinear (x, s) }",
        codes.FORM),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_model(name: str, model: Build) -> None:
    """Each kind of mistake has its code, the name of its node, and no traceback."""
    body, code = BROKEN[name]
    assert code in _fault_codes(model(body))


def test_opsets_out_of_reach(model: Build) -> None:
    """Too old and too new, said with the numbers."""
    body = "g (float[6] x) => (float[6] y) { y = Relu (x) }"
    assert _fault_codes(model(body, 6)) == [codes.TOO_OLD]
    assert _fault_codes(model(body, 500)) == [codes.TOO_NEW]
    assert _fault_codes(model(body, ir_version=500)) == [codes.TOO_NEW]


def test_files_that_are_no_models(tmp_path: Path, model: Build) -> None:
    """Missing, empty, text, cut short."""
    path = tmp_path / "x.onnx"
    assert _fault_codes(path) == [codes.UNREADABLE]
    assert _fault_codes(tmp_path) == [codes.UNREADABLE]
    assert _fault_codes(Path("/dev/zero")) == [codes.UNREADABLE]
    assert _fault_codes(tmp_path / "nul\0.onnx") == [codes.UNREADABLE]
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(2**33)  # sparse: takes no room on disk, and must take none in memory
    assert _fault_codes(tmp_path / "huge.onnx") == [codes.NOT_ONNX]
    content = model("g (float[6] x) => (float[6] y) { y = Relu (x) }").SerializeToString()
    for broken in (b"", b"not a model", content[:-3], content[3:], b"\x00" * 100):
        path.write_bytes(broken)
        assert _fault_codes(path) in ([codes.NOT_ONNX], [codes.INVALID], [codes.TOO_OLD])


def _external(tmp_path: Path, location: str, **entries: str) -> Path:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "folder" / "m.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    return path


def test_external_weights(tmp_path: Path) -> None:
    """Mapped from beside the model; missing, short or outside files are refused."""
    values = np.arange(8, dtype=np.float32)
    path = _external(tmp_path, "w.bin", offset="8", length="16")
    assert _fault_codes(path) == [codes.MISSING_DATA]
    shapes_only = import_onnx(path, weights=False)
    assert [str(op.out.type) for op in shapes_only.graph.ops] == ["f32[4]"] * 3
    assert shapes_only.graph.tensors == {}
    (path.parent / "w.bin").write_bytes(values.tobytes()[:12])
    assert _fault_codes(path) == [codes.MISSING_DATA]
    (path.parent / "w.bin").write_bytes(values.tobytes())
    (array,) = import_onnx(path).graph.tensors.values()
    assert array.tolist() == [2, 3, 4, 5]
    assert not array.flags.owndata


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "", "link.bin"])
def test_external_weights_stay_in_the_folder(location: str, tmp_path: Path) -> None:
    """Neither up, nor absolute, nor through a link."""
    (tmp_path / "w.bin").write_bytes(bytes(16))
    path = _external(tmp_path, location)
    (path.parent / "link.bin").symlink_to(tmp_path / "w.bin")
    assert _fault_codes(path) == [codes.OUTSIDE_DATA]


@pytest.mark.parametrize(
    "entries", [{"offset": "-4"}, {"length": "17"}, {"offset": "x"}, {"length": str(2**70)}]
)
def test_external_weights_of_the_wrong_size(entries: dict[str, str], tmp_path: Path) -> None:
    """Offsets and lengths that do not fit the shape."""
    path = _external(tmp_path, "w.bin", **entries)
    (path.parent / "w.bin").write_bytes(bytes(16))
    assert _fault_codes(path) == [codes.BROKEN_TENSOR]


def _spoiled(change: Callable[[TensorProto], object]) -> ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    weights = numpy_helper.from_array(np.ones(4, np.float32), "w")
    change(weights)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [weights])
    opset = [helper.make_opsetid("", 17)]
    model: ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return model


def test_tensors_that_do_not_fit_their_bytes() -> None:
    """Sizes are checked before anything is allocated."""

    def dims(*extents: int) -> ModelProto:
        return _spoiled(lambda tensor: tensor.dims.__setitem__(slice(None), extents))

    assert _fault_codes(dims(5)) == [codes.BROKEN_TENSOR]
    assert _fault_codes(dims(-4)) == [codes.BROKEN_TENSOR]
    assert _fault_codes(dims(2**40, 2**40)) == [codes.TOO_LARGE]
    assert _fault_codes(dims(0, 2**62)) == [codes.TOO_LARGE]
    assert _fault_codes(_spoiled(lambda t: t.ClearField("raw_data"))) == [codes.BROKEN_TENSOR]
    half = _spoiled(lambda tensor: setattr(tensor, "data_type", TensorProto.FLOAT16))
    assert _fault_codes(half) == [codes.BROKEN_TENSOR]
    strange = _spoiled(lambda tensor: setattr(tensor, "data_type", TensorProto.BFLOAT16))
    assert _fault_codes(strange) == [codes.ELEMENT_TYPE]


def test_functions_that_explode() -> None:
    """A chain of functions that double is counted, not expanded; a cycle is named."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]

    def function(name: str, callee: str) -> onnx.FunctionProto:
        nodes = [
            helper.make_node(callee, ["a"], ["b"], domain="own"),
            helper.make_node(callee, ["b"], ["c"], domain="own"),
        ]
        made: onnx.FunctionProto = helper.make_function("own", name, ["a"], ["c"], nodes, opset)
        return made

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("f0", ["x"], ["y"], domain="own")], "g", [x], [y])
    chain = [function(f"f{depth}", f"f{depth + 1}") for depth in range(60)]
    model = helper.make_model(graph, functions=chain, opset_imports=opset, ir_version=8)
    assert _fault_codes(model) == [codes.TOO_LARGE]
    cycle = [function("f0", "f1"), function("f1", "f0")]
    model = helper.make_model(graph, functions=cycle, opset_imports=opset, ir_version=8)
    assert _fault_codes(model) == [codes.CYCLE]


def test_every_code_is_documented_and_used() -> None:
    """The table in `codes` is the whole truth."""
    names = {key: value for key, value in vars(codes).items() if str(value).startswith("CIM1")}
    assert set(names.values()) == set(codes.CODES)
    folder = Path(cimc.frontend.__file__).parent
    text = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    text += (folder.parent / "build.py").read_text()
    for name, code in names.items():
        assert re.search(rf"codes\.{name}\b", text) or f'"{code}"' in text.split("CODES:")[-1]
