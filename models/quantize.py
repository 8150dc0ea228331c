"""Quantize the shipped float network with onnxruntime's quantizer: models/shapes_int8.onnx.

    python models/quantize.py

Calibrated on 200 drawn images (seed 2), apart from those of training and test; the accuracy of
both files on the shipped test images is printed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import shapes

from cimc.frontend.calibration import CalibrationData
from cimc.frontend.quantizer import quantize_float

HERE = Path(__file__).parent


def accuracy(model: str | bytes) -> float:
    """Share of right answers on the shipped test images."""
    session = onnxruntime.InferenceSession(model)
    with np.load(HERE / "shapes_test.npz") as data:
        images, labels = data["x"].astype(np.float32), data["labels"]
    found = [session.run(None, {"x": image[None]})[0].argmax() for image in images]
    return float(np.mean(np.array(found) == labels))


def main() -> None:
    """Quantize, write, measure."""
    images, _ = shapes.draw(200, 2)
    float_file = HERE / "shapes_float.onnx"
    samples = tuple({"x": image[None].astype(np.float32)} for image in images)
    quantized = quantize_float(float_file, CalibrationData(samples, "200 drawn images"))
    (HERE / "shapes_int8.onnx").write_bytes(quantized.content)
    print(f"float {accuracy(str(float_file)):.4f}, int8 {accuracy(quantized.content):.4f}")


if __name__ == "__main__":
    main()
