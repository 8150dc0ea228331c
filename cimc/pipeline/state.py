"""Saving and reading the state of a compilation: text, and its tensors beside it by digest.

    ir/05-tile.cir          # next: map{level=2},lower,allocate
    ir/tensors/9f86d081884c7d65.npy

Every file of one folder shares the tensors. Comment lines at the start say what made the file and
which passes would come next.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from cimc.errors import Fault, UsageError
from cimc.ir import text
from cimc.ir.graph import parse_graph
from cimc.ir.program import parse_program
from cimc.ir.store import WEIGHTS_FILE, load_tensors
from cimc.ir.tiles import parse_tiles
from cimc.ir.types import Array
from cimc.kind import load_kind
from cimc.pipeline.passes import State
from cimc.target import kind_entries, load_target
from cimc.target_files import target_files

TENSORS = "tensors"  # the folder beside the text
_DIGEST = re.compile(r'"([0-9a-f]{16})"')


def save_state(state: State, path: Path, comments: tuple[str, ...] = ()) -> None:
    """Write `state` to `path` and those of its tensors that are not there yet."""
    folder = path.parent / TENSORS
    folder.mkdir(parents=True, exist_ok=True)
    content = "".join(f"# {line}\n" for line in comments) + str(state)
    tensors = state.tensors
    for digest in dict.fromkeys(_DIGEST.findall(content)):
        if digest in tensors:
            _save_tensor(tensors[digest], folder / f"{digest}.npy")
    write_whole(path, content)


def _save_tensor(array: Array, path: Path) -> None:
    if path.exists():
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    part.replace(path)


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that nobody sees half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(content, encoding="utf-8")
    part.replace(path)


def load_state(path: Path) -> State:
    """Read what `save_state` wrote, with the tensors beside it (mapped, not loaded)."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(
            Fault(f"{path}: cannot read this file", have=str(problem), code="CIM1002")
        ) from None
    return parse_state(content, _tensors(content, path.parent), str(path))


def _tensors(content: str, parent: Path) -> dict[str, Array]:
    """Those in the folder beside the text, and those of the program that it belongs to."""
    weights, folder = parent / WEIGHTS_FILE, parent / TENSORS
    found = load_tensors(weights) if weights.is_file() else {}
    for digest in dict.fromkeys(_DIGEST.findall(content)):
        path = folder / f"{digest}.npy"
        if path.is_file():
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            found[digest] = np.asarray(mapped)  # a plain array over the mapped file
    return found


def parse_state(source: str, tensors: dict[str, Array], path: str = "<text>") -> State:
    """Read a graph, tiles or a program, whichever the text is."""
    scanner = text.Scanner(source, path)
    word = scanner.take("graph", "tiles", "program")
    if word == "graph":
        return parse_graph(source, tensors, path)
    if word == "tiles":
        return parse_tiles(source, tensors, path)
    _load_instructions(source)
    return parse_program(source, tensors, path)


def _load_instructions(source: str) -> None:
    """Import the kinds whose instructions a program may hold."""
    named = re.search(r'^program "(?:[^"\\]|\\.)*" on "([^"]*)"', source, re.MULTILINE)
    if named and named.group(1) in target_files():
        load_kind(load_target(named.group(1)).kind)
        return
    for name in kind_entries():
        load_kind(name)


def target_name(state: State) -> str | None:
    """The target that tiles or a program are for."""
    return getattr(state, "target", None)


def next_steps(path: Path) -> str | None:
    """The pipeline that the file's head says comes next."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                return None
            if line.startswith("# next:"):
                return line.removeprefix("# next:").strip()
    return None
