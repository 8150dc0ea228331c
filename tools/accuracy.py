"""Accuracy of a model as a program on a machine, beside its accuracy in software.

    CIMC_DATA=folder python tools/accuracy.py models/cifar10_ternary.onnx -t rtm-ap --data cifar10
    CIMC_DATA=folder python tools/accuracy.py qonnx_TFC_2W2A.onnx -t isaac --data mnist \\
        --scale 255 --batch 250

The emitted program is executed on the first `--count` test images (all by default); software is
onnxruntime on the model's file, and for QONNX models, which it cannot run, the float evaluator on
the model as it was imported. Pixels are divided by `--scale`. The exit code is 1 if the two
accuracies differ by more than `--tolerance` images.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import cimc
from cimc.frontend import import_onnx
from cimc.ir.types import Array
from cimc.sim.execute import Executor
from cimc.verify import reference_of

Bytes = NDArray[np.uint8]


def folder() -> Path:
    """The folder of real data."""
    named = os.environ.get("CIMC_DATA")
    if not named:
        sys.exit("CIMC_DATA does not name a folder with images")
    return Path(named)


def mnist() -> tuple[Bytes, Bytes]:
    """Test images [n, 1, 28, 28] and labels."""
    parts = []
    for name, header in (("images-idx3", 16), ("labels-idx1", 8)):
        content = gzip.decompress((folder() / f"mnist-t10k-{name}-ubyte.gz").read_bytes())
        parts.append(np.frombuffer(content, np.uint8)[header:])
    return parts[0].reshape(-1, 1, 28, 28), parts[1]


def cifar10() -> tuple[Bytes, Bytes]:
    """Test images [n, 3, 32, 32] and labels."""
    import io
    import itertools

    from PIL import Image

    with np.load(folder() / "cifar10_test.npz") as data:
        jpeg, offsets, labels = data["jpeg"], data["offsets"], data["labels"]
    images = [
        np.asarray(Image.open(io.BytesIO(jpeg[a:b].tobytes())).convert("RGB")).transpose(2, 0, 1)
        for a, b in itertools.pairwise(offsets)
    ]
    return np.stack(images), labels


DATA = {"mnist": mnist, "cifar10": cifar10}


def inputs(images: Bytes, scale: float, shape: tuple[int, ...]) -> Iterator[Array]:
    """Batches of images as the model's input."""
    for first in range(0, len(images), shape[0]):
        yield (images[first : first + shape[0]] / np.float32(scale)).astype(np.float32)


def chosen(outputs: dict[str, Array], count: int) -> Array:
    """The place of the largest score of each image."""
    return np.asarray(next(iter(outputs.values())).reshape(count, -1).argmax(axis=1))


def with_batch(model: Path, size: int) -> dict[str, tuple[int, ...]]:
    """The shape of the model's only input for so many images."""
    (value,) = import_onnx(model, weights=False).graph.inputs
    return {value.name: (size, *value.shape[1:])}


def main() -> int:
    """Execute, compare, print."""
    parser = argparse.ArgumentParser(description="accuracy on a machine and in software")
    parser.add_argument("model", type=Path)
    parser.add_argument("-t", "--target", required=True)
    parser.add_argument("--data", choices=sorted(DATA), required=True)
    parser.add_argument("--scale", type=float, default=1.0, help="pixels are divided by it")
    parser.add_argument("--count", type=int, help="only the first images")
    parser.add_argument("--batch", type=int, default=1, help="images at once")
    parser.add_argument("--tolerance", type=int, default=0, help="images")
    args = parser.parse_args()
    images, labels = DATA[args.data]()
    count = (args.count or len(labels)) // args.batch * args.batch
    images, labels = images[:count], labels[:count]
    program = cimc.compile(
        args.model, args.target, shapes=with_batch(args.model, args.batch)
    ).compiled
    ((name, kind),) = program.program.inputs
    machine, reference = Executor(program.program, program.target), reference_of(args.model)
    seconds, mine, theirs = 0.0, [], []
    for x in inputs(images, args.scale, kind.shape):
        start = time.perf_counter()
        mine.append(chosen(machine.run({name: x}), len(x)))
        seconds += time.perf_counter() - start
        if reference.by == "onnxruntime":  # the model's own batch
            theirs += [chosen(reference.run({name: one[None]}), 1) for one in x]
        else:
            theirs.append(chosen(reference.run({name: x}), len(x)))
    here, there = np.concatenate(mine), np.concatenate(theirs)
    right, software = int((here == labels).sum()), int((there == labels).sum())
    print(f"{args.model.name} on {args.target}: {count} images, executed in {seconds:.1f} s")
    print(f"  {args.target:<16}{right / count:.2%}  ({right} right)")
    print(f"  {reference.by:<16}{software / count:.2%}  ({software} right)")
    print(f"  {int((here != there).sum())} images are classified otherwise")
    return int(abs(right - software) > args.tolerance)


if __name__ == "__main__":
    sys.exit(main())
