"""A folder of results that appears as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cimc.errors import Fault, UsageError

MARK = "manifest.json"  # a folder that has it is ours and may be replaced


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into; it becomes `path` at the end, and vanishes if an exception ends it.

    raises  UsageError if `path` is a file, holds what is not ours, or another run writes it
    """
    _check(path)
    path = path.resolve()
    part = path.parent / f".{path.name}.part"
    _claim(part, path)
    try:
        yield part
        (part / "pid").unlink()
        _put(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(
            Fault(f"{path} is a file", need="a folder for the results", code="CIM2020")
        )
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).is_file():
        raise UsageError(
            Fault(
                f"{path} is in use: it holds files that cimc did not write",
                help="choose another folder with -o",
                code="CIM2021",
            )
        )


def _claim(part: Path, path: Path) -> None:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.exists() and not _is_alive(part / "pid"):
            shutil.rmtree(part)  # left by a run that was killed
        part.mkdir()
        (part / "pid").write_text(str(os.getpid()), encoding="utf-8")
    except FileExistsError:
        raise UsageError(
            Fault(
                f"{path} is in use: another run of cimc writes there now",
                have=f"{part} exists",
                help="choose another folder with -o, or wait",
                code="CIM2022",
            )
        ) from None
    except OSError as problem:
        raise UsageError(
            Fault(f"{path} cannot be written", have=str(problem), code="CIM2023")
        ) from None


def _is_alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text(encoding="utf-8")), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):  # no such process, or no number
        return False
    return True


def _put(part: Path, path: Path) -> None:
    old = path.parent / f".{path.name}.old"
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    part.rename(path)
    shutil.rmtree(old, ignore_errors=True)
