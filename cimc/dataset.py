"""Samples for a model's inputs, read from .npy, .npz or a folder of them.

x.npy       float32[n, 3, 32, 32]              n samples of the only input
x.npz       x: float32[n, 3, 32, 32], labels: uint8[n]    inputs by name; labels are optional
folder/     a.npy, b.npy ...                   one sample each, in the order of their names
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from cimc.errors import Fault, UsageError
from cimc.ir.types import Array, Type, int_range, numpy_dtype

LABELS = "labels"
Inputs = Sequence[tuple[str, Type]]


@dataclass(frozen=True)
class Dataset:
    """Inputs by name, each with one more axis in front that counts runs, and labels where known."""

    arrays: Mapping[str, Array]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values()), ()))

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for number in range(len(self)):
            yield {name: array[number] for name, array in self.arrays.items()}

    def first(self, count: int) -> Dataset:
        """The first `count` runs."""
        labels = None if self.labels is None else self.labels[: count * self._batch()]
        return Dataset({name: array[:count] for name, array in self.arrays.items()}, labels)

    def _batch(self) -> int:
        shape = next(iter(self.arrays.values())).shape
        return shape[1] if len(shape) > 1 else 1


def read_dataset(path: Path, inputs: Inputs) -> Dataset:
    """Read the samples at `path` for inputs of these names and types."""
    try:
        found = _read(path)
    except (OSError, ValueError, EOFError, BadZipFile) as problem:
        raise UsageError(
            Fault(f"{path}: cannot read samples", have=str(problem), code="CIM2040")
        ) from None
    return make_dataset(found, inputs, str(path))


def _read(path: Path) -> dict[str, Array]:
    if path.is_dir():
        return _read_folder(path)
    with path.open("rb") as file:  # np.load(path) leaves a broken archive open
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        return {name: loaded[name] for name in loaded.files}


def _read_folder(folder: Path) -> dict[str, Array]:
    files = sorted([*folder.glob("*.npy"), *folder.glob("*.npz")])
    if not files:
        raise FileNotFoundError(f"no .npy or .npz in {folder}")
    parts = [_read(file) for file in files]
    if any(set(part) != set(parts[0]) for part in parts):
        raise ValueError("the files hold different arrays")
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def make_dataset(given: Mapping[str, Array], inputs: Inputs, where: str) -> Dataset:
    """Bring arrays into the shapes and types of `inputs`; raises UsageError with all faults."""
    arrays = dict(given)
    labels = arrays.pop(LABELS, None)
    names = [name for name, _ in inputs]
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    faults = [
        Fault(
            f"{where}: no samples for input {name}",
            need=f"an array called {name}",
            have=", ".join(sorted(arrays)) or "none",
            code="CIM2041",
        )
        for name in names
        if name not in arrays
    ]
    found: dict[str, Array] = {}
    for name, kind in inputs:
        if name in arrays:
            fitted = _fitted(arrays[name], kind, f"{where}: input {name}")
            if isinstance(fitted, Fault):
                faults.append(fitted)
            else:
                found[name] = fitted
    if len({len(array) for array in found.values()}) > 1:
        have = ", ".join(f"{name}: {len(array)}" for name, array in found.items())
        faults.append(Fault(f"{where}: as many samples for each input", have=have, code="CIM2042"))
    if faults:
        raise UsageError(faults)
    return Dataset(found, labels)


def _fitted(array: Array, kind: Type, where: str) -> Array | Fault:
    shape = kind.shape
    wanted = numpy_dtype(kind.dtype)
    if array.shape == shape:
        array = array[None]
    elif shape and shape[0] == 1 and array.shape == shape[1:]:
        array = array[None, None]
    elif shape and array.ndim == len(shape) and array.shape[1:] == shape[1:]:
        if array.shape[0] % shape[0]:
            return Fault(
                f"{where}: the number of samples is no multiple of the batch",
                need=f"a multiple of {shape[0]}",
                have=str(array.shape[0]),
                code="CIM2043",
            )
        array = array.reshape(-1, *shape)
    elif array.shape[1:] != shape:
        return Fault(
            f"{where} has another shape",
            need=f"{list(shape)}, or several of them",
            have=str(list(array.shape)),
            help="compile with --shape NAME=EXTENTS for another shape",
            code="CIM2044",
        )
    if array.dtype != wanted and not _is_exact(array, wanted):
        return Fault(
            f"{where} has another element type",
            need=str(wanted),
            have=str(array.dtype),
            code="CIM2045",
        )
    return array.astype(wanted, copy=False)


def _is_exact(array: Array, wanted: np.dtype[np.generic]) -> bool:
    """True where nothing that counts is lost: integers stay equal, floats may lose digits."""
    if wanted.kind == "f":
        return array.dtype.kind in "fiub"
    with np.errstate(all="ignore"):
        return bool((array.astype(wanted) == array).all())


def random_dataset(
    inputs: Inputs, count: int, seed: int, ranges: Mapping[str, tuple[float, float]] | None = None
) -> Dataset:
    """Random samples: integers uniform over their range, floats over `ranges`, else normal.

    Integers of more than 16 bits are 0 or 1: they are most likely indices.
    """
    random = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for name, kind in inputs:
        shape = (count, *kind.shape)
        if kind.is_integer:
            low, high = int_range(kind.dtype) if kind.bits <= 16 * kind.elements else (0, 1)
            drawn: Array = random.integers(low, high, shape, np.int64, endpoint=True)
        elif ranges is not None and name in ranges:
            drawn = random.uniform(*ranges[name], shape)
        else:
            drawn = random.normal(size=shape)
        arrays[name] = drawn.astype(numpy_dtype(kind.dtype))
    return Dataset(arrays)
