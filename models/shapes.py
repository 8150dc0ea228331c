"""Draw the images of the `shapes` data set: eight figures, 16 x 16 grey pixels, noise and clutter.

    python models/shapes.py models/shapes_test.npz --images 500 --seed 1

The set is ours, drawn by this file, so that a small model and data to run it on can ship with the
project. An image holds one figure of random size, place, turn and brightness over random noise and
a random line; pixels are 0..255.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

CLASSES = ("disc", "ring", "square", "frame", "triangle", "cross", "half-disc", "bars")
SIZE = 16


def _figure(kind: int, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points (u, v) of the figure's own plane, about -1..1, belong to it."""
    radius, square = np.hypot(u, v), np.maximum(abs(u), abs(v))
    masks = (
        radius < 1,
        (radius < 1) & (radius > 0.6),
        square < 0.85,
        (square < 0.9) & (square > 0.55),
        (v > -0.7) & (v < 1.0 - 1.8 * abs(u)),
        (square < 1) & (np.minimum(abs(u), abs(v)) < 0.25),
        (radius < 1) & (v > 0),
        (square < 0.95) & (np.floor((u + 1) * 2.5) % 2 == 0),
    )
    return masks[kind]


def draw(images: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels uint8[images, 1, 16, 16] and labels uint8[images]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), images)
    grid = (np.arange(SIZE) - (SIZE - 1) / 2) / (SIZE / 2)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    pixels = np.empty((images, 1, SIZE, SIZE))
    for index, kind in enumerate(labels):
        turn, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.8)
        dy, dx = rng.uniform(-0.25, 0.25, 2)
        u = ((x - dx) * np.cos(turn) + (y - dy) * np.sin(turn)) / scale
        v = ((y - dy) * np.cos(turn) - (x - dx) * np.sin(turn)) / scale
        ground, contrast = rng.uniform(40, 120), rng.uniform(50, 110)
        image = ground + contrast * _figure(kind, u, v)
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8)
        line = abs(x * np.cos(angle) + y * np.sin(angle) - offset) < 0.06
        image[line] += rng.uniform(-60, 60)
        pixels[index, 0] = image + rng.normal(0, 18, image.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), labels.astype(np.uint8)


def main() -> None:
    """Draw a set into an NPZ file with arrays `x` (float32, as the models take it) and `labels`."""
    parser = argparse.ArgumentParser(description="draw a set of shapes")
    parser.add_argument("file")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    pixels, labels = draw(args.images, args.seed)
    np.savez_compressed(args.file, x=pixels, labels=labels, classes=np.array(CLASSES))


if __name__ == "__main__":
    main()
