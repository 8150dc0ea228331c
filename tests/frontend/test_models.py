"""Real models: importer and evaluator against onnxruntime, and what their import costs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from .conftest import Compare

MODELS = (
    "cifar10_resnet20_float",
    "cifar10_resnet56_float",
    "cntk_mnist",
    "imagenet_mobilenetv1_025_224_float",
    "mlperftiny_ad_float",
    "mlperftiny_ad_qdq",
    "mlperftiny_dscnn_float",
    "mlperftiny_dscnn_qdq",
    "mlperftiny_mbv1_vww_float",
    "mlperftiny_mbv1_vww_qdq",
    "mlperftiny_resnet8_float",
    "mlperftiny_resnet8_qdq",
    "ultraface_version-slim-320_simplified",
)


@pytest.mark.parametrize("name", MODELS)
def test_real_model(name: str, data: Path, compare: Compare) -> None:
    """All outputs agree on random inputs; quantized ones up to a few roundings at ties."""
    model = onnx.load(str(data / "models" / f"{name}.onnx"))
    compare(model, tolerance=0.02 if name.endswith("qdq") else 1e-5)
