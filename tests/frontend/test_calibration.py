"""Calibration data from folders, archives and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cimc.errors import UsageError
from cimc.frontend import codes
from cimc.frontend.calibration import random_calibration, read_calibration
from cimc.ir.graph import Value
from cimc.ir.types import Type

X = Value("x", Type("f32", (1, 3, 4, 6)))
Y = Value("y", Type("f32", (2,)))


def test_arrays(tmp_path: Path) -> None:
    """An npz with many samples by input name; no more than asked for."""
    random = np.random.default_rng(0)
    x, y = random.random((5, 3, 4, 6)).astype(np.float32), random.random((5, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    data = read_calibration(tmp_path / "data.npz", [X, Y], 3)
    assert len(data.samples) == 3
    np.testing.assert_array_equal(data.samples[2]["x"], x[2:3])
    np.testing.assert_array_equal(data.samples[2]["y"], y[2])
    assert data.source == f"3 from {tmp_path / 'data.npz'}"


def test_random_numbers() -> None:
    """As many as asked for, the same for the same seed."""
    data = random_calibration([X, Y], seed=3, samples=2)
    assert [sample["x"].shape for sample in data.samples] == [X.shape] * 2
    again = random_calibration([X, Y], seed=3, samples=2)
    np.testing.assert_array_equal(data.samples[1]["y"], again.samples[1]["y"])


@pytest.mark.parametrize(
    ("shape", "suffix"),
    [((1, 3, 4, 6), "png"), ((1, 4, 6, 3), "jpg"), ((1, 1, 4, 6), "png"), ((1, 4, 6, 1), "bmp")],
)
def test_images(shape: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    """In color or grey, channels first or last, resized, 0 .. 1."""
    image = pytest.importorskip("PIL.Image")
    for number in range(3):
        pixels = np.full((8, 12, 3), 100 + number, np.uint8)
        image.fromarray(pixels).save(tmp_path / f"{number}.{suffix}")
    data = read_calibration(tmp_path, [Value("x", Type("f32", shape))], 2)
    assert [sample["x"].shape for sample in data.samples] == [shape] * 2
    found = data.samples[1]["x"].astype(np.float32)
    np.testing.assert_allclose(found, 101 / 255, atol=0.01)


def _code(path: Path, *inputs: Value) -> str:
    with pytest.raises(UsageError) as caught:
        read_calibration(path, inputs, 4)
    return caught.value.faults[0].code


def test_what_cannot_be_used(tmp_path: Path) -> None:
    """Missing folders, broken images, images for models that take none."""
    assert _code(tmp_path / "none", X) == codes.CALIBRATION
    (tmp_path / "a.png").write_bytes(b"no image")
    assert _code(tmp_path, X) == codes.CALIBRATION
    assert _code(tmp_path, X, Y) == codes.CALIBRATION_SHAPE
    assert _code(tmp_path, Y) == codes.CALIBRATION_SHAPE
