"""Ternary weights from trained ones: the threshold and scale rule of ternary weight networks.

    delta = 0.7 * mean |w|      sign(w) where |w| > delta, else 0      a = mean of |w| that is kept

(Li et al. 2016, eqs. 5 and 6), for each output channel or for the whole tensor. The rule is made
for networks that are trained with it; applied to others it costs accuracy, often most of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from cimc.ir.types import Array

THRESHOLD = 0.7


@dataclass(frozen=True, slots=True)
class TernaryRule:
    """Which layers get ternary weights, and what shares a magnitude."""

    layers: str = "all"  # or "inner": not the first and not the last
    scale: str = "channel"  # or "tensor"

    @property
    def keeps_ends(self) -> bool:
        """True where the first and the last layer stay at 8 bits."""
        return self.layers == "inner"

    def chosen(self, count: int) -> range:
        """Places of the layers with weights, of `count` in their order, that become ternary."""
        return range(1, count - 1) if self.layers == "inner" else range(count)


def ternary(weights: Array, axis: int, scale: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Signs, and the magnitude of each place on `axis` ("channel"), or of all ("tensor")."""
    sizes = np.abs(weights.astype(np.float64))
    others = tuple(i for i in range(weights.ndim) if i != axis % weights.ndim)
    over = others if scale == "channel" else None
    kept = sizes > THRESHOLD * sizes.mean(axis=over, keepdims=True)
    count = kept.sum(axis=over, keepdims=True)
    magnitude = (sizes * kept).sum(axis=over, keepdims=True) / np.maximum(count, 1)
    magnitude = np.where(count > 0, magnitude, 1.0).reshape(-1)
    signs = (np.sign(weights) * kept).astype(np.int8)
    return signs, np.broadcast_to(magnitude, weights.shape[axis]).astype(np.float32)


def spread(magnitude: NDArray[np.float32], axis: int, rank: int) -> NDArray[np.float32]:
    """A number for each place on `axis`, shaped to multiply the weights."""
    return magnitude.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def ternarize_model(model: ModelProto, rule: TernaryRule) -> None:
    """Make stored weights of a float model ternary, in place; calibration then sees what will run.

    Weights that are computed are left to the pass `ternarize`.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    places = list(_weights(model.graph.node, set(stored)))
    for place in rule.chosen(len(places)):
        name, axis = places[place]
        array = numpy_helper.to_array(stored[name])
        signs, magnitude = ternary(array, axis, rule.scale)
        changed = (signs * spread(magnitude, axis, array.ndim)).astype(array.dtype)
        stored[name].CopyFrom(numpy_helper.from_array(changed, name))


def _weights(nodes: Sequence[NodeProto], stored: set[str]) -> Iterator[tuple[str, int]]:
    """Name and output channel axis of the weights of each layer."""
    for node in nodes:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        if len(node.input) < 2 or node.input[1] not in stored:
            continue
        turned = any(entry.name == "transB" and entry.i for entry in node.attribute)
        axis = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if turned else 1}.get(node.op_type, -1)
        yield node.input[1], axis
