"""Operators that only exist at import: constants, shapes, and index arithmetic on them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from onnx import AttributeProto, TensorProto

from cimc.errors import raise_if
from cimc.frontend import codes
from cimc.frontend.lowering.registry import lowers
from cimc.frontend.lowering.site import Refused, Site
from cimc.frontend.tensors import (
    ELEMENT_TYPES,
    ExternalFiles,
    element_name,
    is_external,
    read_tensor,
    tensor_faults,
)
from cimc.ir import ops
from cimc.ir.types import Array, Type

MAX_GENERATED = 2**24  # elements of one tensor that is made at import, not stored in the file


def _stored(site: Site, tensor: TensorProto) -> tuple[Array, str]:
    """A tensor attribute: its array and element type."""
    if is_external(tensor):
        site.refuse(f"{site.op_type} keeps its tensor in another file")
    files = ExternalFiles(Path())
    raise_if(tensor_faults(tensor, files, weights=True), Refused)
    if tensor.data_type not in ELEMENT_TYPES:
        site.refuse(
            f"{site.op_type} has an unsupported element type",
            have=element_name(tensor.data_type),
            code=codes.ELEMENT_TYPE,
        )
    return read_tensor(tensor, files), ELEMENT_TYPES[tensor.data_type]


@lowers("Constant", note="numbers; no strings or sparse tensors")
def constant(site: Site) -> None:
    """Any of the attributes that hold numbers."""
    for attribute in site.node.attribute:
        site.known.add(attribute.name)
        if attribute.type == AttributeProto.TENSOR:
            array, dtype = _stored(site, attribute.t)
            site.fold(array, dtype=dtype)
        elif attribute.type == AttributeProto.FLOAT:
            site.fold(np.array(attribute.f, np.float32))
        elif attribute.type == AttributeProto.FLOATS:
            site.fold(np.array(attribute.floats, np.float32))
        elif attribute.type == AttributeProto.INT:
            site.fold(np.array(attribute.i, np.int64))
        elif attribute.type == AttributeProto.INTS:
            site.fold(np.array(attribute.ints, np.int64))
        else:
            site.refuse("Constant holds no numbers", have=attribute.name)
        return
    site.refuse("Constant lacks its value", code=codes.INVALID)


@lowers("ConstantOfShape", note="shapes known at compile time")
def constant_of_shape(site: Site) -> None:
    """One value everywhere; a large result is repeated at run time instead of stored."""
    shape = site.integers(0)
    found = site.attribute("value", AttributeProto.TENSOR)
    array, dtype = (np.zeros(1, np.float32), "f32") if found is None else _stored(site, found.t)
    if array.size != 1:
        site.refuse("the value of ConstantOfShape is one number", have=str(array.shape))
    kind = site.checked(Type(dtype, shape))
    one = array.reshape(())
    if kind.elements <= MAX_GENERATED:
        site.fold(np.full(shape, one), dtype=dtype)
    else:
        site.emit(ops.Broadcast(site.out(kind), site.constant(one, "value", dtype)))


@lowers("Shape")
def shape(site: Site) -> None:
    """The static shape, or the part of it between start and end."""
    extents = site.kind().shape
    end = site.attribute("end", AttributeProto.INT)
    part = extents[slice(site.attr_int("start"), None if end is None else end.i)]
    site.fold(np.array(part, np.int64))


@lowers("Size")
def size(site: Site) -> None:
    """The static number of elements."""
    site.fold(np.array(site.kind().elements, np.int64))


@lowers("Range", note="constant operands")
def range_(site: Site) -> None:
    """start, start + delta ... below limit."""
    if any(site.kind(index).elements != 1 for index in range(3)):
        site.refuse("the operands of Range are single numbers", code=codes.SHAPES)
    start, limit, delta = (site.array(index).reshape(()) for index in range(3))
    with np.errstate(all="ignore"):
        count = np.ceil((np.float64(limit) - np.float64(start)) / np.float64(delta))
    if not np.isfinite(count) or count > MAX_GENERATED:
        site.refuse("Range is endless or too long", f"<= {MAX_GENERATED} elements", str(count))
    steps = np.arange(max(0, int(count))).astype(start.dtype)
    site.fold(np.add(start, np.multiply(steps, delta)).astype(start.dtype))


_BY_REFERENCE = (
    "Compress",
    "CumSum",
    "EyeLike",
    "GatherElements",
    "GatherND",
    "NonZero",
    "ScatterElements",
    "ScatterND",
    "TopK",
    "Trilu",
    "Unique",
)


@lowers(*_BY_REFERENCE, note="on constants only", constants_only=True)
def by_reference(site: Site) -> None:
    """Computed by ONNX's own reference implementation."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator  # slow to import, rarely needed

    arrays = {
        name: site.array(index) for index, name in enumerate(site.node.input) if site.has(index)
    }
    sizes = [max(1, array.size) for array in arrays.values()]
    largest = math.prod(sizes) if site.op_type == "GatherND" else sum(sizes)
    if largest > MAX_GENERATED:
        site.refuse(f"{site.op_type} of constants that are too large", code=codes.TOO_LARGE)
    inputs = [
        helper.make_tensor_value_info(
            name, numpy_helper.from_array(array).data_type, list(array.shape)
        )
        for name, array in arrays.items()
    ]
    wanted = [name for name in site.node.output if name]
    outputs = [helper.make_empty_tensor_value_info(name) for name in wanted]
    graph = helper.make_graph([site.node], "constants", inputs, outputs)
    opset = [helper.make_opsetid(site.domain, site.opset)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=site.ir_version)
    try:
        results = ReferenceEvaluator(model).run(None, arrays)
    except Exception as problem:  # whatever NumPy finds wrong with the user's operands
        site.refuse(
            f"the operands of {site.op_type} do not fit each other",
            have=(str(problem).splitlines() or [type(problem).__name__])[0][:300],
            code=codes.SHAPES,
        )
    for name, result in zip(wanted, results, strict=True):
        site.fold(np.asarray(result), list(site.node.output).index(name))
