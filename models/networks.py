"""Build the usual networks as ONNX files, with seeded random weights.

    python models/networks.py resnet18 resnet18.onnx
    python models/networks.py resnet18 resnet18_ternary.onnx --ternary 0.8 --activation-bits 4

Shapes and hyper-parameters are those of the papers (He 2016; Simonyan 2015; Sandler 2018;
Tan 2019), weights are drawn (He initialization), so the files serve to measure compilers, not
accuracy. Float files keep their BatchNorms. `--ternary S` draws weights from {-a, 0, +a} per
output channel with a share S of zeros, and writes a quantized (QDQ) file whose activations have
`--activation-bits` bits (kept in bytes, clipped to the lowest codes); its scales follow from the
statistics of normalized layers, not from calibration.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 10


@dataclass(slots=True)
class Builder:
    """Collects nodes and weights of one network; layers return the name of their result."""

    name: str
    seed: int = 0
    ternary: float | None = None  # share of zeros; None: float network
    activation_bits: int = 8
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        """One node; its result is named after it."""
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.channels[name] = self.channels.get(inputs[0], 0)
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        """An initializer."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def draw(self, shape: tuple[int, ...], fan: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Weights, and for ternary ones the scale of each output channel."""
        if self.ternary is None:
            return self.rng.normal(0, np.sqrt(2 / fan), shape).astype(np.float32), None
        signs = self.rng.choice([-1, 1], shape) * (self.rng.random(shape) >= self.ternary)
        spread = np.sqrt(2 / (fan * (1 - self.ternary)))
        scale = (spread * self.rng.uniform(0.8, 1.2, shape[0])).astype(np.float32)
        return signs.astype(np.int8), scale

    def weight(self, shape: tuple[int, ...], fan: int) -> str:
        """A weight tensor, dequantized where the network is ternary."""
        name = f"w{len(self.weights)}"
        array, scale = self.draw(shape, fan)
        if scale is None:
            return self.constant(name, array)
        scales = self.constant(f"{name}_scale", scale)
        zeros = self.constant(f"{name}_zero", np.zeros(shape[0], np.int8))
        return self.add("DequantizeLinear", [self.constant(name, array), scales, zeros], axis=0)

    def quantized(self, x: str, low: float, high: float) -> str:
        """Round activations to the network's bits (ternary networks only)."""
        if self.ternary is None:
            return x
        levels = 2**self.activation_bits - 1
        scale = np.float32((high - low) / levels)
        zero = round(-low / float(scale))
        if self.activation_bits < 8:
            ends = ((0 - zero) * scale, (levels - zero) * scale)
            names = [self.constant(f"{x}_{i}", np.float32(end)) for i, end in enumerate(ends)]
            x = self.add("Clip", [x, *names])
        scale_name = self.constant(f"{x}_scale", np.array(scale))
        zero_name = self.constant(f"{x}_zero", np.array(zero, np.uint8))
        q = self.add("QuantizeLinear", [x, scale_name, zero_name])
        return self.add("DequantizeLinear", [q, scale_name, zero_name])

    def conv(
        self,
        x: str,
        out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: str = "Relu",
        norm: bool = True,
    ) -> str:
        """Convolution, BatchNorm (a drawn bias in ternary networks), activation."""
        inner = self.channels[x] // groups
        fan = inner * kernel * kernel
        inputs = [x, self.weight((out, inner, kernel, kernel), fan)]
        if self.ternary is not None or not norm:
            bias = self.rng.normal(0, 0.1, out).astype(np.float32)
            inputs.append(self.constant(f"b{len(self.weights)}", bias))
        pad = (kernel - 1) // 2
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        y = self.add("Conv", inputs, group=groups, **shape)
        self.channels[y] = out
        if norm and self.ternary is None:
            y = self.batch_norm(y)
        return self.activation(y, act)

    def batch_norm(self, x: str) -> str:
        """BatchNorm whose running statistics are near those of its input."""
        n, count = self.channels[x], len(self.weights)
        parts = (
            self.rng.uniform(0.8, 1.2, n),
            self.rng.normal(0, 0.1, n),
            self.rng.normal(0, 0.1, n),
            self.rng.uniform(0.8, 1.2, n),
        )
        names = [self.constant(f"bn{count}_{i}", p.astype(np.float32)) for i, p in enumerate(parts)]
        return self.add("BatchNormalization", [x, *names])

    def activation(self, x: str, act: str) -> str:
        """Relu, Relu6, Swish, Sigmoid or none, then rounding."""
        if act == "Relu6":
            six = [self.constant(f"{x}_{v}", np.float32(v)) for v in (0, 6)]
            return self.quantized(self.add("Clip", [x, *six]), 0, 6)
        if act == "Swish":
            return self.quantized(self.add("Mul", [x, self.add("Sigmoid", [x])]), -0.3, 4)
        if act:
            return self.quantized(self.add(act, [x]), 0, 4 if act == "Relu" else 1)
        return self.quantized(x, -4, 4)

    def join(self, a: str, b: str, act: str = "") -> str:
        """Residual addition."""
        return self.activation(self.add("Add", [a, b]), act)

    def max_pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        """Max pooling."""
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        return self.add("MaxPool", [x], **shape)

    def linear(self, x: str, out: int, inner: int, act: str = "") -> str:
        """Fully connected layer."""
        bias = self.constant(f"b{len(self.weights)}", np.zeros(out, np.float32))
        y = self.add("Gemm", [x, self.weight((out, inner), inner), bias], transB=1)
        self.channels[y] = out
        return self.activation(y, act) if act else y

    def head(self, x: str, classes: int = 1000) -> str:
        """Global average pool, flatten, classifier."""
        pooled = self.quantized(self.add("GlobalAveragePool", [x]), -0.3, 4)
        return self.linear(self.add("Flatten", [pooled]), classes, self.channels[x])

    def model(self, output: str, size: int, classes: int) -> onnx.ModelProto:
        """The finished model; its input is `x`, one image, channels first."""
        shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, classes])
        graph = helper.make_graph(self.nodes, self.name, [shape], [result], self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _start(net: Builder) -> str:
    net.channels["x"] = 3
    return net.quantized("x", -2.5, 2.5)


def resnet(net: Builder, blocks: tuple[int, ...], bottleneck: bool) -> str:
    """ResNet for 224 x 224 images."""
    x = net.max_pool(net.conv(_start(net), 64, 7, 2), 3, 2, 1)
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        out = width * (4 if bottleneck else 1)
        for block in range(count):
            stride = 2 if stage and not block else 1
            if bottleneck:
                y = net.conv(net.conv(x, width, 1), width, 3, stride)
                y = net.conv(y, out, 1, act="")
            else:
                y = net.conv(net.conv(x, width, 3, stride), out, 3, act="")
            if stride != 1 or net.channels[x] != out:
                x = net.conv(x, out, 1, stride, act="")
            x = net.join(y, x, "Relu")
    return net.head(x)


def resnet18(net: Builder) -> str:
    """ResNet-18: 1.814 GMAC, 11.7 M weights."""
    return resnet(net, (2, 2, 2, 2), bottleneck=False)


def resnet50(net: Builder) -> str:
    """ResNet-50 (stride in the 3x3 convolution): 4.09 GMAC, 25.5 M weights."""
    return resnet(net, (3, 4, 6, 3), bottleneck=True)


def vgg19(net: Builder) -> str:
    """VGG-19 with BatchNorm: 19.6 GMAC, 143.7 M weights."""
    x = _start(net)
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            x = net.conv(x, width, 3)
        x = net.max_pool(x, 2, 2)
    x = net.add("Flatten", [x])
    x = net.linear(net.linear(x, 4096, 512 * 49, "Relu"), 4096, 4096, "Relu")
    return net.linear(x, 1000, 4096)


def vgg_cifar(net: Builder, widths: tuple[tuple[int, ...], ...]) -> str:
    """VGG for 32 x 32 images: stages of 3x3 convolutions, a pool after each, one linear layer."""
    x = _start(net)
    for stage in widths:
        for width in stage:
            x = net.conv(x, width, 3)
        x = net.max_pool(x, 2, 2)
    return net.head(x, 10)


def vgg9(net: Builder) -> str:
    """VGG-9-like for 32 x 32 images."""
    return vgg_cifar(net, ((64, 64), (128, 128), (256, 256)))


def vgg11(net: Builder) -> str:
    """VGG-11 for 32 x 32 images."""
    return vgg_cifar(net, ((64,), (128,), (256, 256), (512, 512), (512, 512)))


def mobilenet_v2(net: Builder) -> str:
    """MobileNetV2 1.0: 0.30 GMAC, 3.5 M weights."""
    x = net.conv(_start(net), 32, 3, 2, act="Relu6")
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2))
    table += ((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, out, count, first_stride in table:
        for block in range(count):
            stride, inner = (first_stride if block == 0 else 1), net.channels[x] * expand
            y = net.conv(x, inner, 1, act="Relu6") if expand != 1 else x
            y = net.conv(y, inner, 3, stride, groups=inner, act="Relu6")
            y = net.conv(y, out, 1, act="")
            x = net.join(x, y) if stride == 1 and net.channels[x] == out else y
    return net.head(net.conv(x, 1280, 1, act="Relu6"))


def efficientnet_b0(net: Builder) -> str:
    """EfficientNet-B0 with squeeze-and-excitation: 0.39 GMAC, 5.3 M weights."""
    x = net.conv(_start(net), 32, 3, 2, act="Swish")
    table = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3))
    table += ((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
    for expand, out, count, first_stride, kernel in table:
        for block in range(count):
            stride, before = (first_stride if block == 0 else 1), net.channels[x]
            y = net.conv(x, before * expand, 1, act="Swish") if expand != 1 else x
            y = net.conv(y, before * expand, kernel, stride, before * expand, act="Swish")
            squeezed = net.quantized(net.add("GlobalAveragePool", [y]), -0.3, 4)
            gate = net.conv(squeezed, max(1, before // 4), 1, act="Swish", norm=False)
            gate = net.conv(gate, before * expand, 1, act="Sigmoid", norm=False)
            y = net.quantized(net.add("Mul", [y, gate]), -0.3, 4)
            y = net.conv(y, out, 1, act="")
            x = net.join(x, y) if stride == 1 and before == out else y
    return net.head(net.conv(x, 1280, 1, act="Swish"))


def alexnet(net: Builder) -> str:
    """AlexNet, one tower: 0.7 GMAC, 61 M weights."""
    x = _start(net)
    weight = net.weight((64, 3, 11, 11), 363)
    bias = net.constant("b_stem", np.zeros(64, np.float32))
    shape = {"kernel_shape": [11, 11], "strides": [4, 4], "pads": [2, 2, 2, 2]}
    x = net.add("Conv", [x, weight, bias], **shape)
    net.channels[x] = 64
    x = net.max_pool(net.activation(x, "Relu"), 3, 2)
    x = net.max_pool(net.conv(x, 192, 5, norm=False), 3, 2)
    for width in (384, 256, 256):
        x = net.conv(x, width, 3, norm=False)
    x = net.add("Flatten", [net.max_pool(x, 3, 2)])
    x = net.linear(net.linear(x, 4096, 256 * 36, "Relu"), 4096, 4096, "Relu")
    return net.linear(x, 1000, 4096)


NETWORKS: dict[str, tuple[Callable[[Builder], str], int, int]] = {
    "alexnet": (alexnet, 224, 1000),
    "efficientnet_b0": (efficientnet_b0, 224, 1000),
    "mobilenet_v2": (mobilenet_v2, 224, 1000),
    "resnet18": (resnet18, 224, 1000),
    "resnet50": (resnet50, 224, 1000),
    "vgg11": (vgg11, 32, 10),
    "vgg19": (vgg19, 224, 1000),
    "vgg9": (vgg9, 32, 10),
}


def build(
    name: str, ternary: float | None = None, activation_bits: int = 8, seed: int = 0
) -> onnx.ModelProto:
    """The network called `name`; `ternary` is the share of zero weights, None: float network."""
    layers, size, classes = NETWORKS[name]
    net = Builder(name, seed, ternary, activation_bits)
    return net.model(layers(net), size, classes)


def main() -> None:
    """Write one network to a file."""
    parser = argparse.ArgumentParser(description="write a network with drawn weights as ONNX")
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("file")
    parser.add_argument("--ternary", type=float, metavar="S", help="ternary weights, share S zero")
    parser.add_argument("--activation-bits", type=int, default=8, choices=range(2, 9))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    onnx.save(build(args.network, args.ternary, args.activation_bits, args.seed), args.file)


if __name__ == "__main__":
    main()
