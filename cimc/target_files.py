"""Where target files are found: built-in ones, plug-ins, and folders named by CIMC_TARGETS.

Light to import, so that listing targets costs nothing; `cimc.target` reads and checks the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path

from cimc.errors import Fault, warn

TARGETS_GROUP = "cimc.targets"  # entry points: a package that holds target files
PATH_VARIABLE = "CIMC_TARGETS"  # further folders with target files, for development


def folders() -> Iterator[Path]:
    """Folders that may hold target files, those of CIMC_TARGETS first."""
    for folder in os.environ.get(PATH_VARIABLE, "").split(os.pathsep):
        if folder:
            yield Path(folder)
    for entry in metadata.entry_points(group=TARGETS_GROUP):
        try:
            package = resources.files(entry.value)
        except ImportError as problem:
            place = f"entry point {entry.name} = {entry.value}"
            warn(Fault(f"targets of {place} are left out", have=str(problem), code="CIM2008"))
            continue
        if isinstance(package, Path):
            yield package


def target_files() -> dict[str, Path]:
    """Every target that can be named: name -> file; of two with one name the first folder's."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))
