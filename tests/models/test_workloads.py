"""Layer lists of networks: counts, products, and the layers that published studies name."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from cimc.lowering import ConvShape

MODELS = Path(__file__).parent.parent.parent / "models"


@pytest.fixture
def workloads(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(MODELS))
    return importlib.import_module("workloads")


def test_five_networks_have_174_convolutions(workloads: ModuleType) -> None:
    counts = {name: len(workloads.convolutions(name)) for name in workloads.CNNS}
    assert counts == {
        "resnet18": 20,
        "vgg19": 16,
        "alexnet": 5,
        "mobilenet_v2": 52,
        "efficientnet_b0": 81,
    }
    assert sum(counts.values()) == 174  # as MIREDO counts them


@pytest.mark.parametrize(
    ("network", "shape"),
    [  # layers that MIREDO's ablations and vectors name
        ("resnet18", ConvShape(1, 1, 128, 128, 28, 28, 3, 3, 28, 28, (1, 1), (1, 1))),
        ("vgg19", ConvShape(1, 1, 512, 512, 28, 28, 3, 3, 28, 28, (1, 1), (1, 1))),
        ("resnet18", ConvShape(1, 1, 512, 256, 7, 7, 1, 1, 14, 14, (2, 2))),
        ("efficientnet_b0", ConvShape(1, 1, 480, 80, 14, 14, 1, 1, 14, 14)),
        ("efficientnet_b0", ConvShape(1, 1, 8, 32, 1, 1, 1, 1, 1, 1)),
    ],
)
def test_published_case_layers_are_there(
    workloads: ModuleType, network: str, shape: ConvShape
) -> None:
    assert shape in workloads.distinct(workloads.convolutions(network))


def test_convolutions_fit_their_images(workloads: ModuleType) -> None:
    for name in workloads.CNNS:
        for shape in workloads.convolutions(name).values():
            (a, b), (above, left) = shape.strides, shape.pads
            assert shape.p == (shape.h + 2 * above - shape.r) // a + 1
            assert shape.q == (shape.w + 2 * left - shape.s) // b + 1


@pytest.mark.parametrize(
    ("name", "macs"),
    [  # tokens * (weights of the block) + 2 * tokens^2 * hidden
        ("bert_base", 12 * (128 * 12 * 768**2 + 2 * 128**2 * 768) + 768**2),
        ("gpt2_medium_block", 1024 * 12 * 1024**2 + 2 * 1024**2 * 1024),
        (
            "tinyllama_block",
            1024 * 2048 * (2 * 2048 + 2 * 256 + 3 * 5632) + 2 * 1024**2 * 2048,
        ),
    ],
)
def test_transformers_have_their_products(workloads: ModuleType, name: str, macs: int) -> None:
    layers = workloads.layers_of(name)
    assert sum(shape.macs for shape in layers.values()) == macs
    assert all(shape.matmul for shape in layers.values())
