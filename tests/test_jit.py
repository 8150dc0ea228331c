"""Compiled kernels: the cache is keyed by all files that they come from."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from cimc import jit
from cimc.sim.execute import kernels

PACKAGE = "cimc.sim.execute"
FOLDER = Path(kernels.__file__).parent
KERNELS = [path for path in sorted(FOLDER.glob("*.py")) if "jit." in path.read_text()]


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_kernels_name_every_file_that_they_come_from(path: Path) -> None:
    tree = ast.parse(path.read_text())
    modules: dict[str, str] = {}  # module -> the name it has here
    needed: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            modules.update({alias.name: alias.asname or alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            needed.add(str(node.module).removeprefix(f"{PACKAGE}."))
    source = path.read_text()
    start = source.index("compiler(") if "_FILES = (" not in source else source.index("_FILES = (")
    named = source[start : source.index("\n\n", start)]
    assert "__file__" in named
    for module in {*modules, *needed}:
        assert module in modules, f"{path.name} imports {module} only by its names"
        assert modules[module] in named, f"{path.name} does not name {module}"


def test_another_content_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    kernel, helper = tmp_path / "kernel.py", tmp_path / "helper.py"
    kernel.write_text("a")
    found = set()
    for content in ("1", "2"):
        helper.write_text(content)
        jit._cache_folder.cache_clear()
        found.add(jit._cache_folder(str(kernel), str(helper)))
    assert len(found) == 2
    assert all(Path(folder).is_dir() for folder in found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_without_a_place_to_write_kernels_still_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(stat.S_IRUSR)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    jit._cache_folder.cache_clear()
    assert jit._cache_folder(__file__) == ""


def test_floats_are_computed_as_numpy_does() -> None:
    @jit.compiler(__file__)
    def quotient(x: float, y: float) -> float:
        return x / y

    assert np.isinf(quotient(1.0, 0.0))


def test_constants_make_no_kernels_of_their_own() -> None:
    inner = jit.compiler(__file__, inner=True)

    @inner
    def added(x: int, y: int) -> int:
        return x + y

    @jit.compiler(__file__)
    def calls(x: int) -> int:
        return added(x, 1) + added(2, x) + added(3, y=4)

    assert calls(5) == 6 + 7 + 7
    assert len(getattr(added, "signatures")) == 1  # noqa: B009  # it looks like a function
