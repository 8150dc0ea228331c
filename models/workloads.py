"""The heavy layers of usual networks as shapes: what the mapping of a network has to cover.

    python models/workloads.py            # a table of all of them
    python models/workloads.py resnet18 --json resnet18.json

Convolutions come from the recipes of `networks.py`, whose weights are never drawn here. The
transformers are lists of matrix products at a sequence's prefill: BERT-Base over 128 tokens, whole
(Devlin 2019, with the pooler); one block of GPT-2 medium (Radford 2019, q k v in one product) and
one of TinyLlama (Zhang 2024, its 4 heads of keys and values serve 8 heads of queries each, so they
are repeated) over 1024. In attention both operands are computed, and heads are the groups.
Embeddings, norms, activations and classifiers are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import networks
import numpy as np
import onnx
from onnx import TensorProto, helper

from cimc.lowering import ConvShape

Layers = dict[str, ConvShape]  # by name, in the network's order


class _Unweighted(networks.Builder):
    """A recipe's nodes with constants as inputs, whose shapes alone are known."""

    def draw(self, shape: tuple[int, ...], fan: int) -> tuple[np.ndarray, np.ndarray | None]:
        return np.broadcast_to(np.float32(0), shape), None

    def constant(self, name: str, array: np.ndarray) -> str:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.weights.append(helper.make_tensor_value_info(name, kind, array.shape))
        return name


def convolutions(name: str) -> Layers:
    """All convolutions of a network of `networks.py`, by the names of their nodes."""
    recipe, size, _ = networks.NETWORKS[name]
    net = _Unweighted(name)
    result = recipe(net)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])
    y = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
    graph = helper.make_graph(net.nodes, name, [x, *net.weights], [y])
    opsets = [helper.make_opsetid("", networks.OPSET)]
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets))
    shapes = {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    return {
        node.name: _conv(node, shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]])
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def _conv(
    node: onnx.NodeProto, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]
) -> ConvShape:
    """The loop bounds of a Conv node from its tensors' shapes."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    groups = attributes.get("group", 1)
    return ConvShape(
        n=x[0],
        g=groups,
        k=w[0] // groups,
        c=w[1],
        p=y[2],
        q=y[3],
        r=w[2],
        s=w[3],
        h=x[2],
        w=x[3],
        strides=tuple(attributes.get("strides", (1, 1))),
        pads=tuple(attributes.get("pads", (0, 0))[:2]),
        dilations=tuple(attributes.get("dilations", (1, 1))),
    )


def product(rows: int, inner: int, columns: int, groups: int = 1) -> ConvShape:
    """`groups` products [rows, inner] @ [inner, columns]."""
    return ConvShape(1, groups, columns, inner, rows, 1, 1, 1, rows, 1, matmul=True)


def attention(tokens: int, heads: int, width: int) -> Layers:
    """Scores (queries times keys) and context (their softmax times values) of all heads."""
    return {
        "scores": product(tokens, width, tokens, heads),
        "context": product(tokens, tokens, width, heads),
    }


def bert_base(tokens: int = 128) -> Layers:
    """BERT-Base: 12 blocks of hidden size 768 (FFN 3072, 12 heads of 64), and the pooler."""
    block = {name: product(tokens, 768, 768) for name in ("query", "key", "value")}
    block |= attention(tokens, 12, 64)
    block |= {
        "output": product(tokens, 768, 768),
        "up": product(tokens, 768, 3072),
        "down": product(tokens, 3072, 768),
    }
    layers = {f"block{n}.{name}": shape for n in range(12) for name, shape in block.items()}
    return layers | {"pooler": product(1, 768, 768)}


def gpt2_medium_block(tokens: int = 1024) -> Layers:
    """One block of GPT-2 medium: hidden size 1024, FFN 4096, 16 heads of 64."""
    return {
        "qkv": product(tokens, 1024, 3 * 1024),
        **attention(tokens, 16, 64),
        "output": product(tokens, 1024, 1024),
        "up": product(tokens, 1024, 4096),
        "down": product(tokens, 4096, 1024),
    }


def tinyllama_block(tokens: int = 1024) -> Layers:
    """One block of TinyLlama: hidden size 2048, FFN 5632, 32 heads of 64, 4 of them own k and v."""
    return {
        "query": product(tokens, 2048, 2048),
        "key": product(tokens, 2048, 4 * 64),
        "value": product(tokens, 2048, 4 * 64),
        **attention(tokens, 32, 64),
        "output": product(tokens, 2048, 2048),
        "gate": product(tokens, 2048, 5632),
        "up": product(tokens, 2048, 5632),
        "down": product(tokens, 5632, 2048),
    }


CNNS = ("resnet18", "vgg19", "alexnet", "mobilenet_v2", "efficientnet_b0")
TRANSFORMERS: dict[str, Callable[[], Layers]] = {
    "bert_base": bert_base,
    "gpt2_medium_block": gpt2_medium_block,
    "tinyllama_block": tinyllama_block,
}


def layers_of(name: str) -> Layers:
    """The heavy layers of a network, convolutional or not."""
    return TRANSFORMERS[name]() if name in TRANSFORMERS else convolutions(name)


def distinct(layers: Layers) -> dict[ConvShape, list[str]]:
    """Equal layers once, with the names of all of them."""
    found: dict[ConvShape, list[str]] = {}
    for name, shape in layers.items():
        found.setdefault(shape, []).append(name)
    return found


def _rows(names: list[str]) -> Iterator[str]:
    for name in names:
        layers = layers_of(name)
        shapes = distinct(layers)
        macs = sum(shape.macs for shape in layers.values())
        yield f"{name}: {len(layers)} layers, {len(shapes)} distinct, {macs / 1e9:.3f} GMAC"
        for shape, same in shapes.items():
            bounds = " ".join(f"{dim}{bound}" for dim, bound in shape.dims if bound > 1)
            stride = f" stride {shape.strides[0]}" if shape.strides != (1, 1) else ""
            yield f"  {len(same):>3} x {bounds}{stride}   ({same[0]})"


def main() -> None:
    """Print the layers of networks."""
    parser = argparse.ArgumentParser(description="list the heavy layers of networks")
    known = [*networks.NETWORKS, *TRANSFORMERS]
    parser.add_argument("network", nargs="*", choices=[[], *known], default=[])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write distinct shapes, too")
    args = parser.parse_args()
    names = args.network or [*CNNS, *TRANSFORMERS]
    print("\n".join(_rows(names)))
    if args.json:
        every = dict.fromkeys(shape for name in names for shape in layers_of(name).values())
        args.json.write_text(json.dumps([asdict(shape) for shape in every]), encoding="utf-8")


if __name__ == "__main__":
    main()
