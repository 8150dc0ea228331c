"""Samples from files: shapes, names, types, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cimc.dataset import Dataset, make_dataset, random_dataset, read_dataset
from cimc.errors import UsageError
from cimc.ir.types import Array, Type

IMAGE = [("x", Type("f32", (1, 3, 4, 4)))]


@pytest.mark.parametrize(
    ("shape", "runs"),
    [((1, 3, 4, 4), 1), ((3, 4, 4), 1), ((5, 3, 4, 4), 5), ((2, 1, 3, 4, 4), 2)],
)
def test_shapes(shape: tuple[int, ...], runs: int) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = make_dataset({"": array}, IMAGE, "x.npy")
    assert len(found) == runs
    assert [sample["x"].shape for sample in found] == [(1, 3, 4, 4)] * runs
    assert (found.arrays["x"].reshape(-1) == array.reshape(-1)).all()


def test_files(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", x=array, labels=np.arange(3))
    (tmp_path / "folder").mkdir()
    for number in range(3):
        np.save(tmp_path / "folder" / f"{number}.npy", array[number])
    for name in ("x.npy", "x.npz", "folder"):
        found = read_dataset(tmp_path / name, IMAGE)
        assert len(found) == 3
        assert (found.arrays["x"][:, 0] == array).all()
    labelled = read_dataset(tmp_path / "x.npz", IMAGE).first(2)
    assert labelled.labels is not None
    assert labelled.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"": np.zeros((2, 3, 4, 5), np.float32)}, "has another shape"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "no samples for input x"),
        ({"": np.full((1, 3, 4, 4), "a")}, "has another element type"),
    ],
)
def test_what_does_not_fit(given: dict[str, Array], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_dataset(given, IMAGE, "x.npy")


def test_integers_must_keep_their_values() -> None:
    kind = [("x", Type("i8", (1, 2)))]
    assert make_dataset({"": np.array([[1.0, -128.0]])}, kind, "x").arrays["x"].dtype == np.int8
    for wrong in ([[1.5, 0]], [[300, 0]]):
        with pytest.raises(UsageError, match="element type"):
            make_dataset({"": np.array(wrong)}, kind, "x")


def test_batches_are_kept_whole() -> None:
    kind = [("x", Type("f32", (2, 3)))]
    assert len(make_dataset({"": np.zeros((4, 3))}, kind, "x")) == 2
    with pytest.raises(UsageError, match="multiple of the batch"):
        make_dataset({"": np.zeros((3, 3))}, kind, "x")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00"])
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UsageError, match="cannot read samples"):
        read_dataset(tmp_path / "x.npz", IMAGE)
    with pytest.raises(UsageError, match="cannot read samples"):
        read_dataset(tmp_path / "missing.npy", IMAGE)


def test_random_samples_repeat() -> None:
    kinds = [("a", Type("i8", (1, 50))), ("b", Type("f32", (1, 4))), ("c", Type("bool", (9,)))]
    first, again = random_dataset(kinds, 2, 7), random_dataset(kinds, 2, 7)
    assert isinstance(first, Dataset)
    for name, kind in kinds:
        assert (first.arrays[name] == again.arrays[name]).all()
        assert first.arrays[name].shape == (2, *kind.shape)
