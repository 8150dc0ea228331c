"""A folder of results is whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cimc.errors import UsageError
from cimc.pipeline.folder import MARK, whole_folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def interrupted(out: Path) -> None:
    with whole_folder(out) as part:
        (part / MARK).write_text("third")
        raise KeyboardInterrupt


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as part:
        (part / MARK).write_text("{}")
        assert not out.exists()
    assert files(tmp_path) == ["deep", "deep/out", f"deep/out/{MARK}"]


def test_nothing_is_left_of_an_interrupted_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "out")
    assert files(tmp_path) == []


def test_an_interrupted_run_leaves_the_earlier_result(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for content in ("first", "second"):
        with whole_folder(out) as part:
            (part / MARK).write_text(content)
    with pytest.raises(KeyboardInterrupt):
        interrupted(out)
    assert files(tmp_path) == ["out", f"out/{MARK}"]
    assert (out / MARK).read_text() == "second"


def test_folders_with_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="is in use: it holds files"), whole_folder(tmp_path):
        pass
    with pytest.raises(UsageError, match="is a file"), whole_folder(tmp_path / "thesis.tex"):
        pass


def test_two_runs_cannot_write_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        whole_folder(out) as part,
        pytest.raises(UsageError, match="another run of cimc writes there now"),
        whole_folder(out),
    ):
        pass
    part.mkdir()
    (part / "pid").write_text("4194304999")  # no such process: the run was killed
    with whole_folder(out):
        pass
    assert out.is_dir()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written"), whole_folder(tmp_path / "out"):
        pass
