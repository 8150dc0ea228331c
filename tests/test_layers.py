"""Imports run one way through the layers, and the packages are those that pyproject names."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"cimc": ROOT / "cimc", "cimc.passes": ROOT / "passes", "cimc.targets": ROOT / "targets"}

# Lowest first; a module may import from its own layer and from those before it.
LAYERS = (
    ("cimc.errors", "cimc.user_cache", "cimc.jit"),
    ("cimc.target_files",),
    ("cimc.target",),
    ("cimc.target_text",),
    ("cimc.ir", "cimc.dataset"),
    ("cimc.kind",),
    ("cimc.frontend",),
    ("cimc.lowering", "cimc.mapping"),
    ("cimc.pipeline",),
    ("cimc.passes",),
    ("cimc.targets",),
    ("cimc.sim",),
    ("cimc.search", "cimc.targets.sram_cim.exact"),
    ("cimc.report", "cimc.coverage", "cimc.verify"),
    ("cimc.build", "cimc.runs"),
    ("cimc.network", "cimc.trials"),
    ("cimc.compiled",),
    ("cimc.compiling", "cimc.legality"),
    ("cimc.api",),
    ("cimc.conformance",),
    ("cimc.optable",),
    ("cimc.cli", "cimc.__main__"),
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the project with its file; links are not followed."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if package == "cimc" and parts[0] in ("passes", "targets"):
                continue
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


def layer(module: str) -> str | None:
    """The layer that a module belongs to."""
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        name = ".".join(parts[:length])
        if name in RANKS:
            return name
    return None


def imports(path: Path) -> Iterator[str]:
    """Modules of the project that a file imports when it runs, not those for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name.startswith("cimc."))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cimc"):
            assert node.level == 0
            for item in node.names:
                yield f"{node.module}.{item.name}"


MODULES = dict(modules())


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"cimc"}))
def test_imports_run_one_way(module: str) -> None:
    own = layer(module)
    assert own is not None, f"{module} is in no layer; name it in LAYERS"
    for imported in imports(MODULES[module]):
        used = layer(imported)
        if used is not None:
            assert RANKS[used] <= RANKS[own], f"{module} imports {imported} from a layer above"


def test_no_relative_imports() -> None:
    for path in MODULES.values():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not any(levels), path


def test_packages_are_those_of_the_folders() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert listed == found
