"""Activations of fewer than 8 bits in a QDQ model.

before   x -> QuantizeLinear(scale, zero)                     codes 0 .. 255
after    x -> Clip -> QuantizeLinear(scale', zero')           codes 0 .. 2^bits - 1, still in uint8

The range of real numbers stays the same: scale' = scale * 255 / (2^bits - 1). Biases, which were
counted in units of the old scales, become floats.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

LEAST_BITS, MOST_BITS = 2, 8
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def narrow_activations(model: ModelProto, bits: int, keep_ends: bool) -> None:
    """Quantize activations to `bits`, in place; results of the model keep their 8 bits.

    With `keep_ends` so do the model's inputs and what its last layer reads.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = _kept(model, keep_ends)
    top = 2**bits - 1
    clips: dict[str, tuple[str, str]] = {}  # by the name of the scale: names of both bounds
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if _is_bias(node, stored):
            model.graph.initializer.append(_real_bias(node, stored))
            continue
        is_activation = node.op_type == "QuantizeLinear" and node.input[0] not in stored
        if is_activation and node.input[1] not in kept and _is_byte(node, stored):
            scale, zero = node.input[1:3]
            if scale not in clips:
                clips[scale] = _narrowed(model, stored[scale], stored[zero], top)
            clipped = f"{node.input[0]}.{bits}bit"
            bounds = clips[scale]
            name = f"{node.name}.clip"
            nodes.append(helper.make_node("Clip", [node.input[0], *bounds], [clipped], name=name))
            node.input[0] = clipped
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _is_bias(node: NodeProto, stored: dict[str, TensorProto]) -> bool:
    """True for a dequantized constant of 32 bits."""
    return (
        node.op_type == "DequantizeLinear"
        and all(name in stored for name in node.input[:2])
        and stored[node.input[0]].data_type == TensorProto.INT32
    )


def _real_bias(node: NodeProto, stored: dict[str, TensorProto]) -> TensorProto:
    integers, scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
    return numpy_helper.from_array((integers * scale).astype(np.float32), node.output[0])


def _is_byte(node: NodeProto, stored: dict[str, TensorProto]) -> bool:
    """True for one scale and an unsigned zero point."""
    if len(node.input) < 3 or node.input[1] not in stored or node.input[2] not in stored:
        return False
    zero = stored[node.input[2]]
    return bool(zero.data_type == TensorProto.UINT8 and np.prod(zero.dims) == 1)


def _narrowed(
    model: ModelProto, scale: TensorProto, zero: TensorProto, top: int
) -> tuple[str, str]:
    """Rewrite scale and zero point for codes up to `top`; names of the clip's bounds."""
    given, origin = numpy_helper.to_array(scale), numpy_helper.to_array(zero)
    step = (given.astype(np.float64) * 255 / top).astype(np.float32)
    place = np.rint(origin * (top / 255)).astype(np.uint8)
    scale.CopyFrom(numpy_helper.from_array(step, scale.name))
    zero.CopyFrom(numpy_helper.from_array(place, zero.name))
    names = (f"{scale.name}.low", f"{scale.name}.high")
    for name, code in zip(names, (0, top), strict=True):
        bound = np.float32((code - float(place.reshape(()))) * float(step.reshape(())))
        model.graph.initializer.append(numpy_helper.from_array(np.array(bound), name))
    return names


def _kept(model: ModelProto, keep_ends: bool) -> set[str]:
    """Names of the scales that stay: of tensors that keep 8 bits, and of all that share them."""
    outputs = {entry.name for entry in model.graph.output}
    inputs = {entry.name for entry in model.graph.input}
    made = {name: node for node in model.graph.node for name in node.output}
    kept = {
        node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.output[0] in outputs
    }
    if keep_ends:
        kept |= {
            node.output[0]
            for node in model.graph.node
            if node.op_type == "QuantizeLinear" and node.input[0] in inputs
        }
        heavy = [node for node in model.graph.node if node.op_type in _HEAVY]
        if heavy and heavy[-1].input[0] in made:
            kept.add(made[heavy[-1].input[0]].input[0])
    return {made[name].input[1] for name in kept if name in made and len(made[name].input) > 1}
