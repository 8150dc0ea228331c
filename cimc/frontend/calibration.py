"""Samples that a float model is run on to find the ranges of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc.dataset import make_dataset, random_dataset, read_dataset
from cimc.errors import Fault, UsageError
from cimc.frontend import codes
from cimc.ir.graph import Value
from cimc.ir.types import Array

IMAGES = (".bmp", ".jpeg", ".jpg", ".png")


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """Samples, each with an array for every input, and where they come from."""

    samples: tuple[Mapping[str, Array], ...]
    source: str
    labels: Array | None = None  # of the samples, where the file has them


def random_calibration(inputs: Sequence[Value], seed: int = 0, samples: int = 1) -> CalibrationData:
    """Random numbers: the costs of the quantized model are right, its accuracy means nothing."""
    kinds = [(value.name, value.type) for value in inputs]
    return CalibrationData(tuple(random_dataset(kinds, samples, seed)), f"{samples} random")


def read_calibration(path: str | Path, inputs: Sequence[Value], limit: int) -> CalibrationData:
    """Up to `limit` samples: images, or what `cimc.dataset` reads (.npy, .npz, a folder of them).

    Images are scaled to 0 .. 1 and resized to the input's height and width; store arrays where the
    model expects anything else.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(
            Fault(
                f"there is no calibration data at {path}",
                need="a folder, an .npz, an .npy or an image",
                have="no such file or folder",
                code=codes.CALIBRATION,
            )
        )
    kinds = [(value.name, value.type) for value in inputs]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    images = [file for file in files if file.suffix.lower() in IMAGES]
    if images:
        shape = _image_shape(path, inputs)
        stacked = np.stack([_image(file, shape) for file in images[:limit]])
        found = make_dataset({inputs[0].name: stacked}, kinds, str(path))
    else:
        found = read_dataset(path, kinds).first(limit)
    if not len(found):
        raise UsageError(Fault(f"{path} holds no samples", code=codes.CALIBRATION))
    return CalibrationData(tuple(found), f"{len(found)} from {path}", found.labels)


def _image_shape(path: Path, inputs: Sequence[Value]) -> tuple[int, int, int, int]:
    """Shape of the only input, one image of 1 or 3 channels, first or last."""
    shape = inputs[0].shape if len(inputs) == 1 else ()
    if len(shape) == 4 and shape[0] == 1 and (shape[1] in (1, 3) or shape[3] in (1, 3)):
        return (shape[0], shape[1], shape[2], shape[3])
    raise UsageError(
        Fault(
            f"the images in {path} do not fit this model",
            need="one input of shape 1, C, H, W or 1, H, W, C with 1 or 3 channels",
            have=", ".join(f"{value.name}: {value.type}" for value in inputs),
            help="store the samples as arrays (.npy, .npz)",
            code=codes.CALIBRATION_SHAPE,
        )
    )


def _image(file: Path, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """One image in 0 .. 1 with `shape`."""
    try:
        from PIL import Image  # an optional dependency
    except ImportError:
        raise UsageError(
            Fault(
                f"cannot read {file}",
                need="the package pillow",
                help="pip install pillow, or store the samples as arrays (.npy, .npz)",
                code=codes.CALIBRATION,
            )
        ) from None
    first = shape[1] in (1, 3)
    channels, height, width = shape[1:] if first else (shape[3], shape[1], shape[2])
    try:
        with Image.open(file) as image:
            sized = image.convert("RGB" if channels == 3 else "L").resize((width, height))
    except (OSError, ValueError, Image.DecompressionBombError) as problem:
        raise UsageError(
            Fault(f"cannot read {file}", "an image", str(problem), code=codes.CALIBRATION)
        ) from None
    pixels = np.asarray(sized, np.float32).reshape(height, width, channels) / np.float32(255)
    return (pixels.transpose(2, 0, 1) if first else pixels).reshape(shape)
