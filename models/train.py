"""Train the small models that ship with the project, and write them as ONNX (needs torch).

    python models/train.py shapes              # models/shapes_float.onnx, shapes_ternary.onnx
    CIMC_DATA=folder python models/train.py cifar10 --width 24 --epochs 15

Two networks of one architecture are trained from scratch on the same data: one in float32, one
with ternary weights {-a, 0, +a} per output channel (Li 2016: zero below 0.7 of the mean magnitude)
and four-bit activations, both in the forward pass with straight-through gradients. The
architecture has what a compiler must handle: strided, depthwise and pointwise convolutions, a
residual addition, batch norm, global average pool, a linear layer. BatchNorm is folded into the
scales of the ternary file. Both accuracies on the test set are printed and stored in the files'
metadata.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
from pathlib import Path

import numpy as np
import onnx
import shapes
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
LEVELS = 15  # four-bit activations


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Signs {-1, 0, 1} and the scale of each output channel."""
    flat = weight.flatten(1)
    kept = flat.abs() > 0.7 * flat.abs().mean(1, keepdim=True)
    scale = (flat.abs() * kept).sum(1) / kept.sum(1).clamp(min=1)
    return (torch.sign(flat) * kept).reshape(weight.shape), scale


class Rounding(nn.Module):
    """Round to four bits: unsigned after a ReLU, else around zero; the range follows the data."""

    def __init__(self, signed: bool, active: bool) -> None:
        super().__init__()
        self.zero, self.active = (8 if signed else 0), active
        self.register_buffer("scale", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantized x with a straight-through gradient."""
        if not self.active:
            return x
        if self.training:
            span = x.detach().abs().flatten()
            top = torch.quantile(span[:: max(1, span.numel() // 10000)], 0.997)
            now = top.clamp(min=1e-3) / (LEVELS - self.zero)
            self.scale.copy_(now if self.scale == 0 else 0.95 * self.scale + 0.05 * now)
        low, high = -self.zero * self.scale, (LEVELS - self.zero) * self.scale
        kept = x.clamp(float(low), float(high))
        return kept + (torch.round(kept / self.scale) * self.scale - kept).detach()


class Layer(nn.Module):
    """Convolution, BatchNorm, optional ReLU, rounding."""

    def __init__(
        self, inner: int, out: int, kernel: int, stride: int, group: int, relu: bool, coarse: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, out, kernel, stride, kernel // 2, groups=group, bias=False)
        self.norm, self.relu, self.coarse = nn.BatchNorm2d(out), relu, coarse
        self.rounding = Rounding(not relu, coarse)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's activations."""
        weight = self.conv.weight
        if self.coarse:
            signs, scale = ternary(weight)
            rounded = signs * scale.reshape(-1, 1, 1, 1)
            weight = weight + (rounded - weight).detach()
        conv = self.conv
        y = functional.conv2d(x, weight, None, conv.stride, conv.padding, 1, conv.groups)
        y = self.norm(y)
        return self.rounding(torch.relu(y) if self.relu else y)


class Network(nn.Module):
    """Stem, one residual block a stage, depthwise-pointwise steps between stages, pool, linear."""

    def __init__(self, channels: int, width: int, stages: int, classes: int, coarse: bool) -> None:
        super().__init__()
        self.stem = Layer(channels, width, 3, 1, 1, True, coarse)
        self.blocks, self.sums, self.steps = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage in range(stages):
            first = Layer(width, width, 3, 1, 1, True, coarse)
            self.blocks.append(nn.ModuleList([first, Layer(width, width, 3, 1, 1, False, coarse)]))
            self.sums.append(Rounding(False, coarse))
            if stage + 1 < stages:
                down = Layer(width, width, 3, 2, width, True, coarse)
                wide = Layer(width, 2 * width, 1, 1, 1, True, coarse)
                self.steps.append(nn.ModuleList([down, wide]))
                width *= 2
        self.pooled = Rounding(False, coarse)
        self.linear = nn.Linear(width, classes)
        self.coarse = coarse

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of normalized images."""
        x = self.stem(x)
        for index, (first, second) in enumerate(self.blocks):
            x = self.sums[index](torch.relu(second(first(x)) + x))
            if index < len(self.steps):
                down, wide = self.steps[index]
                x = wide(down(x))
        x = self.pooled(x.mean((2, 3)))
        weight = self.linear.weight
        if self.coarse:
            signs, scale = ternary(weight)
            weight = weight + (signs * scale.reshape(-1, 1) - weight).detach()
        return functional.linear(x, weight, self.linear.bias)


class Writer:
    """Writes a trained network as ONNX: float as it is, ternary as QDQ with folded BatchNorm."""

    def __init__(self, coarse: bool) -> None:
        self.coarse = coarse
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        """A node whose result has its name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        """An initializer."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def rounded(self, x: str, rounding: Rounding) -> str:
        """Clip to four bits, quantize, dequantize."""
        if not rounding.active:
            return x
        scale = np.float32(float(rounding.scale))
        ends = (-rounding.zero * scale, (LEVELS - rounding.zero) * scale)
        names = [self.constant(f"{x}_end{i}", np.float32(end)) for i, end in enumerate(ends)]
        x = self.add("Clip", [x, *names], f"{x}_clip")
        pair = [
            self.constant(f"{x}_scale", np.array(scale)),
            self.constant(f"{x}_zero", np.array(rounding.zero, np.uint8)),
        ]
        q = self.add("QuantizeLinear", [x, *pair], f"{x}_q")
        return self.add("DequantizeLinear", [q, *pair], f"{x}_dq")

    def signs(self, name: str, weight: Tensor, gain: np.ndarray) -> str:
        """Ternary weights with one scale for each output channel, `gain` folded into it."""
        codes, scale = ternary(weight)
        factor = scale.numpy() * gain
        flip = np.where(factor < 0, -1, 1).reshape([-1] + [1] * (weight.dim() - 1))
        parts = [
            self.constant(f"{name}_w", (codes.numpy() * flip).astype(np.int8)),
            self.constant(f"{name}_ws", np.maximum(abs(factor), 1e-8).astype(np.float32)),
            self.constant(f"{name}_wz", np.zeros(len(factor), np.int8)),
        ]
        return self.add("DequantizeLinear", parts, f"{name}_wd", axis=0)

    def layer(self, x: str, layer: Layer, name: str) -> str:
        """One convolution with what follows it."""
        conv, norm = layer.conv, layer.norm
        stats = [t.detach().numpy() for t in (norm.weight, norm.bias)]
        stats += [norm.running_mean.numpy(), norm.running_var.numpy()]
        shape = {
            "kernel_shape": list(conv.kernel_size),
            "strides": list(conv.stride),
            "pads": [conv.padding[0]] * 4,
            "group": conv.groups,
        }
        if self.coarse:
            gain = stats[0] / np.sqrt(stats[3] + norm.eps)
            bias = (stats[1] - stats[2] * gain).astype(np.float32)
            weight = self.signs(name, conv.weight.detach(), gain)
            y = self.add("Conv", [x, weight, self.constant(f"{name}_b", bias)], name, **shape)
        else:
            weight = self.constant(f"{name}_w", conv.weight.detach().numpy())
            y = self.add("Conv", [x, weight], name, **shape)
            names = [self.constant(f"{name}_bn{i}", stat) for i, stat in enumerate(stats)]
            y = self.add("BatchNormalization", [y, *names], f"{name}_bn", epsilon=norm.eps)
        if layer.relu:
            y = self.add("Relu", [y], f"{name}_relu")
        return self.rounded(y, layer.rounding)

    def network(self, net: Network, mean: np.ndarray, spread: np.ndarray) -> None:
        """All layers; the input holds raw pixels 0..255."""
        scale = self.constant("spread", (1 / spread).reshape(1, -1, 1, 1).astype(np.float32))
        centre = self.constant("mean", mean.reshape(1, -1, 1, 1).astype(np.float32))
        x = self.add("Mul", [self.add("Sub", ["x", centre], "centred"), scale], "normalized")
        if self.coarse:
            x = self.input_codes(x, mean, spread)
        x = self.layer(x, net.stem, "stem")
        for index, (first, second) in enumerate(net.blocks):
            y = self.layer(self.layer(x, first, f"b{index}a"), second, f"b{index}b")
            y = self.add("Relu", [self.add("Add", [y, x], f"b{index}_sum")], f"b{index}_out")
            x = self.rounded(y, net.sums[index])
            if index < len(net.steps):
                down, wide = net.steps[index]
                x = self.layer(self.layer(x, down, f"d{index}"), wide, f"p{index}")
        x = self.add("Flatten", [self.add("GlobalAveragePool", [x], "pool")], "flat")
        x = self.rounded(x, net.pooled)
        weight, bias = net.linear.weight.detach(), net.linear.bias.detach().numpy()
        name = self.signs("fc", weight, np.ones(len(bias))) if self.coarse else ""
        name = name or self.constant("fc_w", weight.numpy())
        self.add("Gemm", [x, name, self.constant("fc_b", bias)], "scores", transB=1)

    def input_codes(self, x: str, mean: np.ndarray, spread: np.ndarray) -> str:
        """Eight-bit input of the ternary network, one scale for all channels."""
        low = float((-mean / spread).min())
        high = float(((255 - mean) / spread).max())
        scale = np.float32((high - low) / 255)
        pair = [
            self.constant("x_scale", np.array(scale)),
            self.constant("x_zero", np.array(round(-low / scale), np.uint8)),
        ]
        return self.add(
            "DequantizeLinear", [self.add("QuantizeLinear", [x, *pair], "x_q"), *pair], "x_dq"
        )

    def model(self, name: str, shape: list[int], classes: int, accuracy: float) -> onnx.ModelProto:
        """The finished file, with its accuracy as metadata."""
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])
        y = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, classes])
        graph = helper.make_graph(self.nodes, name, [x], [y], self.weights)
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        helper.set_model_props(model, {"accuracy": f"{accuracy:.4f}", "recipe": "models/train.py"})
        onnx.checker.check_model(model)
        return model


def cifar10(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of CIFAR-10 from the folder named by CIMC_DATA."""
    from PIL import Image

    with np.load(Path(os.environ["CIMC_DATA"]) / f"cifar10_{part}.npz") as data:
        jpeg, offsets, labels = data["jpeg"], data["offsets"], data["labels"]
    images = [
        np.asarray(Image.open(io.BytesIO(jpeg[a:b].tobytes())).convert("RGB")).transpose(2, 0, 1)
        for a, b in itertools.pairwise(offsets)
    ]
    return np.stack(images), labels


def accuracy(net: Network, x: Tensor, labels: Tensor) -> float:
    """Share of right answers."""
    net.eval()
    with torch.no_grad():
        hits = [
            (net(part).argmax(1) == wanted).sum()
            for part, wanted in zip(x.split(500), labels.split(500), strict=True)
        ]
    return float(sum(hits)) / len(labels)


def train(net: Network, x: Tensor, labels: Tensor, epochs: int, crop: int) -> None:
    """Adam, one cycle; random shifts of up to `crop` pixels and, with them, mirrored images."""
    steps = epochs * (len(x) // 128)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        net.train()
        total = 0.0
        for picked in torch.randperm(len(x)).split(128):
            if len(picked) < 128:
                continue
            batch = x[picked]
            if crop:
                batch = batch.flip(3) if torch.rand(()) < 0.5 else batch
                dy, dx = (int(v) for v in torch.randint(0, 2 * crop + 1, (2,)))
                side = batch.shape[-1]
                padded = functional.pad(batch, (crop,) * 4)
                batch = padded[:, :, dy : dy + side, dx : dx + side]
            loss = loss_of(net(batch), labels[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss)
        print(f"epoch {epoch + 1}: loss {total / (len(x) // 128):.4f}", flush=True)


def main() -> None:
    """Train both networks on one data set and write their files."""
    parser = argparse.ArgumentParser(description="train the models that ship with the project")
    parser.add_argument("data", choices=("shapes", "cifar10"))
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--only", choices=("float", "ternary"))
    args = parser.parse_args()
    torch.manual_seed(0)
    sets = (shapes.draw(20000, 0), shapes.draw(2000, 1)) if args.data == "shapes" else None
    (pixels, labels), (test, wanted) = sets or (cifar10("train"), cifar10("test"))
    mean, spread = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    normal = [
        torch.from_numpy(((p - mean[:, None, None]) / spread[:, None, None]).astype(np.float32))
        for p in (pixels, test)
    ]
    truth = [torch.from_numpy(item.astype(np.int64)) for item in (labels, wanted)]
    classes = int(labels.max()) + 1
    for name in ("float", "ternary"):
        if args.only not in (None, name):
            continue
        stages = 2 if args.data == "shapes" else 3
        net = Network(pixels.shape[1], args.width, stages, classes, name == "ternary")
        train(net, normal[0], truth[0], args.epochs, 0 if args.data == "shapes" else 3)
        score = accuracy(net, normal[1], truth[1])
        writer = Writer(name == "ternary")
        writer.network(net, mean, spread)
        model = writer.model(f"{args.data}_{name}", list(pixels.shape[1:]), classes, score)
        onnx.save(model, HERE / f"{args.data}_{name}.onnx")
        print(f"{args.data}_{name}: accuracy {score:.4f} on {len(wanted)} images")


if __name__ == "__main__":
    main()
