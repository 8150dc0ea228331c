"""Samples that a float model is run on to find the ranges of its tensors."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault, UsageError, raise_if
from cimc.frontend import codes
from cimc.ir.graph import Value
from cimc.ir.types import Array, Type, numpy_dtype

IMAGES = (".png", ".jpg", ".jpeg", ".bmp")
ARRAYS = (".npy", ".npz")
Sample = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """Samples, each with an array for every input, and where they come from."""

    samples: tuple[Sample, ...]
    source: str
    real: bool = True  # False for random numbers: accuracy then means nothing


def random_calibration(inputs: Sequence[Value], seed: int = 0, samples: int = 1) -> CalibrationData:
    """Standard normal numbers for float inputs, uniform ones over small integers for the others."""
    rng = np.random.default_rng(seed)

    def one(kind: Type) -> Array:
        if kind.is_integer:
            return rng.integers(0, 2, kind.shape).astype(numpy_dtype(kind.dtype))
        return rng.standard_normal(kind.shape, np.float32).astype(numpy_dtype(kind.dtype))

    drawn = tuple({value.name: one(value.type) for value in inputs} for _ in range(samples))
    return CalibrationData(drawn, f"{samples} random, seed {seed}", real=False)


def read_calibration(path: str | Path, inputs: Sequence[Value], limit: int) -> CalibrationData:
    """Up to `limit` samples from a folder of arrays or images, or from one npz or npy file.

    An npz holds arrays by input name, or a single array where the model has one input; an npy is
    that single array. An array is one sample, or many along its first axis. Images are scaled to
    0 .. 1 and resized to the input's height and width; store arrays where the model expects anything
    else.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in (*IMAGES, *ARRAYS))
        need = "a folder with .npy, .npz, .png or .jpg files"
    else:
        files = [path] if path.is_file() and path.suffix.lower() in (*IMAGES, *ARRAYS) else []
        need = "an .npz, .npy or image file, or a folder of them"
    if not files:
        have = "nothing of that kind" if path.exists() else "no such file or folder"
        raise UsageError(
            Fault(f"no calibration data in {path}", need, have, code=codes.CALIBRATION)
        )
    samples: list[Sample] = []
    for file in files:
        samples.extend(_samples(file, inputs, limit - len(samples)))
        if len(samples) >= limit:
            break
    return CalibrationData(tuple(samples), f"{len(samples)} from {path}")


def _samples(file: Path, inputs: Sequence[Value], limit: int) -> Iterator[Sample]:
    """Samples of one file."""
    held = _image(file, inputs) if file.suffix.lower() in IMAGES else _arrays(file, inputs)
    raise_if(_missing(file, held, inputs), UsageError)
    split = {value.name: _split(file, held[value.name], value) for value in inputs}
    counts = {name: len(parts) for name, parts in split.items()}
    if len(set(counts.values())) > 1:
        have = ", ".join(f"{name}: {count}" for name, count in counts.items())
        fault = Fault(f"{file} has unequal numbers of samples", have=have,
                      code=codes.CALIBRATION_SHAPE)  # fmt: skip
        raise UsageError(fault)
    for index in range(min(limit, next(iter(counts.values()), 0))):
        yield {
            value.name: np.ascontiguousarray(
                split[value.name][index].astype(numpy_dtype(value.type.dtype))
            )
            for value in inputs
        }


def _missing(file: Path, held: Mapping[str, Array], inputs: Sequence[Value]) -> Iterator[Fault]:
    for value in inputs:
        if value.name not in held:
            yield Fault(
                f"{file} has no array for input {value.name}",
                need=f"an array named {value.name}: {value.type}",
                have=", ".join(sorted(held)) or "no arrays",
                code=codes.CALIBRATION,
            )


def _arrays(file: Path, inputs: Sequence[Value]) -> dict[str, Array]:
    try:
        loaded = np.load(file, allow_pickle=False)
        held = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise UsageError(
            Fault(f"cannot read {file}", have=str(problem), code=codes.CALIBRATION)
        ) from None
    if len(held) == 1 and len(inputs) == 1:
        held = {inputs[0].name: next(iter(held.values()))}
    return held


def _split(file: Path, array: Array, value: Value) -> Sequence[Array]:
    """One array as samples of the input's shape."""
    shape = value.shape
    if array.dtype.kind in "fiub":
        if array.shape == shape:
            return [array]
        if shape and array.shape == shape[1:] and shape[0] == 1:
            return [array.reshape(shape)]
        if array.ndim == len(shape) and array.shape[1:] == shape[1:] and shape[0]:
            whole = len(array) // shape[0]
            return list(array[: whole * shape[0]].reshape(whole, *shape))
        if array.shape[1:] == shape:
            return list(array)
    raise UsageError(
        Fault(
            f"{file} does not fit input {value.name}",
            need=f"{value.type}, or many of them along the first axis",
            have=f"{array.dtype}{list(array.shape)}",
            code=codes.CALIBRATION_SHAPE,
        )
    )


def _image(file: Path, inputs: Sequence[Value]) -> dict[str, Array]:
    """An image for the model's only input: channels first or last, as its shape says."""
    shape = inputs[0].shape if len(inputs) == 1 else ()
    if len(shape) != 4 or not {shape[1], shape[3]} & {1, 3}:
        need = "one input of shape N, C, H, W or N, H, W, C with 1 or 3 channels"
        raise UsageError(
            Fault(f"{file}: images do not fit this model", need, code=codes.CALIBRATION_SHAPE)
        )
    first = shape[1] in (1, 3)
    channels, height, width = shape[1:] if first else (shape[3], *shape[1:3])
    pixels = _pixels(file, channels, height, width)
    ordered = pixels.transpose(2, 0, 1) if first else pixels
    return {inputs[0].name: np.broadcast_to(ordered, shape)}


def _pixels(file: Path, channels: int, height: int, width: int) -> NDArray[np.float32]:
    """Height, width, channels in 0 .. 1."""
    try:
        from PIL import Image, UnidentifiedImageError  # optional dependency
    except ImportError:
        raise UsageError(
            Fault(
                f"cannot read {file}",
                "the package pillow",
                "it is not installed",
                "pip install pillow",
                code=codes.CALIBRATION,
            )
        ) from None
    try:
        with Image.open(file) as image:
            sized = image.convert("RGB" if channels == 3 else "L").resize((width, height))
            pixels = np.asarray(sized, np.float32) / np.float32(255)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as problem:
        raise UsageError(
            Fault(f"cannot read {file}", "an image", str(problem), code=codes.CALIBRATION)
        ) from None
    return pixels.reshape(height, width, channels)
