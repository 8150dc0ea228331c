"""Random float networks: importer and evaluator against onnxruntime.

Opset 22 is the first that infers the sizes of pools with ceil_mode as onnxruntime computes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from cimc.ir.types import Array

from .conftest import _compare

Shape = tuple[int, int, int, int]


@dataclass
class Network:
    """Nodes and weights of a network that grows by one layer at a time."""

    draw: st.DrawFn
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    made: dict[str, Shape] = field(default_factory=dict)

    def pick(self, *choices: object) -> object:
        """One of the choices."""
        return self.draw(st.sampled_from(choices))

    def number(self, low: int, high: int) -> int:
        """A number in low .. high."""
        return self.draw(st.integers(low, high))

    def weight(self, *shape: int) -> str:
        """A new initializer of normal numbers."""
        name = f"w{len(self.weights)}"
        random = np.random.default_rng(len(self.weights))
        self.weights[name] = random.standard_normal(shape).astype(np.float32)
        return name

    def add(self, op_type: str, inputs: list[str], shape: Shape, **attributes: object) -> None:
        """Append a node whose result has `shape`."""
        name = f"v{len(self.nodes)}"
        node = helper.make_node(op_type, inputs, [name])
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items()
        )
        self.nodes.append(node)
        self.made[name] = shape

    def layer(self) -> None:
        """Append a random layer on a random value."""
        x = self.draw(st.sampled_from(sorted(self.made)))
        n, c, h, w = self.made[x]
        kind = self.number(0, 8)
        if kind <= 1:
            self.conv(x, kind == 1)
        elif kind == 2:
            self.pool(x)
        elif kind == 3:
            op_type = self.pick(
                "Relu", "Sigmoid", "LeakyRelu", "HardSwish", "Elu", "Softplus", "Neg"
            )
            self.add(str(op_type), [x], self.made[x])
        elif kind == 4:
            alike = [name for name, shape in self.made.items() if shape == self.made[x]]
            other = self.draw(st.sampled_from(alike))
            self.add(str(self.pick("Add", "Sub", "Mul", "Max")), [x, other], self.made[x])
        elif kind == 5:
            order = self.draw(st.permutations((1, 2, 3)))
            shape = (n, *(self.made[x][axis] for axis in order))
            self.add("Transpose", [x], (shape[0], shape[1], shape[2], shape[3]), perm=[0, *order])
        elif kind == 6:
            alike = [s for s, shape in self.made.items() if (shape[2], shape[3]) == (h, w)]
            other = self.draw(st.sampled_from(alike))
            shape4 = (n, c + self.made[other][1], h, w)
            self.add("Concat", [x, other], shape4, axis=1)
        elif kind == 7:
            self.weights["axes"] = np.array([2, 3])
            self.add("ReduceMean", [x, "axes"], (n, c, 1, 1))
        else:
            self.add("Softmax", [x], self.made[x], axis=self.number(-4, 3))

    def conv(self, x: str, grouped: bool) -> None:
        """A convolution with random geometry that fits."""
        n, c, h, w = self.made[x]
        kernel = [self.number(1, min(3, extent)) for extent in (h, w)]
        strides = [self.number(1, 2) for _ in range(2)]
        dilations = [
            self.number(1, 2) if (k - 1) * 2 < e else 1 for k, e in zip(kernel, (h, w), strict=True)
        ]
        pads = [self.number(0, 2) for _ in range(4)]
        group = c if grouped else 1
        kernels = group * self.number(1, 2 if grouped else 5)
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        out = [
            (e + pads[i] + pads[i + 2] - reach[i]) // strides[i] + 1 for i, e in enumerate((h, w))
        ]
        inputs = [x, self.weight(kernels, c // group, *kernel)]
        if self.pick(True, False):
            inputs.append(self.weight(kernels))
        self.add(
            "Conv", inputs, (n, kernels, out[0], out[1]),
            group=group, strides=strides, dilations=dilations, pads=pads,
        )  # fmt: skip

    def pool(self, x: str) -> None:
        """A pool whose pads are smaller than its kernel."""
        n, c, h, w = self.made[x]
        kernel = [self.number(1, min(3, extent)) for extent in (h, w)]
        strides = [self.number(1, 3) for _ in range(2)]
        pads = [self.number(0, kernel[i % 2] - 1) for i in range(4)]
        ceil = self.number(0, 1)
        out = []
        for i, extent in enumerate((h, w)):
            room = extent + pads[i] + pads[i + 2] - kernel[i]
            size = (-(-room // strides[i]) if ceil else room // strides[i]) + 1
            out.append(size - (ceil and (size - 1) * strides[i] >= extent + pads[i]))
        attributes: dict[str, object] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
        op_type = str(self.pick("MaxPool", "AveragePool"))
        if op_type == "AveragePool":
            attributes["count_include_pad"] = self.number(0, 1)
        self.add(op_type, [x], (n, c, out[0], out[1]), ceil_mode=ceil, **attributes)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Networks of one to eight layers on an input of a random shape."""
    network = Network(draw)
    shape = (network.number(1, 2), network.number(1, 4), network.number(1, 7), network.number(1, 7))
    network.made["x"] = shape
    for _ in range(network.number(1, 8)):
        network.layer()
    return network


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(networks())
def test_random_network(network: Network) -> None:
    """Every value of the network is an output and compared."""
    model = helper.make_model(
        helper.make_graph(
            network.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, network.made["x"])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in network.made.items()
                if name != "x"
            ],
            [numpy_helper.from_array(array, name) for name, array in network.weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 22)],
        ir_version=8,
    )
    _compare(model, tolerance=1e-4)
