"""A compiled program with all that later questions need, in memory and as a folder.

manifest.json         versions, model, machine, options, phase times, digests of the files
program.bin, weights.safetensors
graph.cir, tiles.cir  the integer graph that was compiled, and its mapping
target.toml           the machine, with the values that were replaced
reference.onnx        the quantized model, where a float one was given
mapping.json          what an exact search proved of each layer
coverage.json, time_per_phase.json
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cimc import __version__
from cimc.build import Model
from cimc.coverage import Covered, count
from cimc.errors import Fault, UsageError, raise_if
from cimc.ir.graph import Graph, parse_graph
from cimc.ir.program import FORMAT_VERSION, Program
from cimc.ir.store import PROGRAM_FILE, WEIGHTS_FILE, load_program, save_program
from cimc.ir.tiles import Tiles, parse_tiles
from cimc.kind import load_kind
from cimc.pipeline.folder import MARK
from cimc.pipeline.tell import Searched
from cimc.report import Report, make_report, network_table
from cimc.sim.simulate import simulate
from cimc.target import Target, load_target
from cimc.target_text import target_text

REFERENCE_FILE, SEARCH_FILE = "reference.onnx", "mapping.json"
GRAPH_FILE, TILES_FILE, TARGET_FILE = "graph.cir", "tiles.cir", "target.toml"
_DIGESTED = (PROGRAM_FILE, WEIGHTS_FILE, GRAPH_FILE, TILES_FILE, TARGET_FILE)

Option: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True)
class History:
    """How a program came to be; all of it is in the manifest."""

    model: str  # path as it was given
    model_digest: str
    nodes: int
    opset: int
    is_quantized_here: bool
    options: Mapping[str, Option]
    pipeline: str
    seconds: Mapping[str, float]  # per phase
    notes: Sequence[str] = ()
    stages: Sequence[Mapping[str, Option]] = ()  # what each step across layers brought


@dataclass(frozen=True)
class Compiled:
    """A program, the machine it is for, and how it came to be."""

    program: Program
    target: Target
    graph: Graph
    tiles: Tiles
    history: History
    rows: tuple[Covered, ...]
    quantized: bytes | None = None  # the QDQ model that we wrote for a float one
    searched: tuple[Searched, ...] = ()  # what an exact search for mappings found

    def report(self, samples: int = 64) -> Report:
        """Simulate the program and say what it costs."""
        simulation = simulate(self.program, self.target, samples=samples)
        made = make_report(
            self.program, self.target, simulation, tiles=self.tiles, searched=self.searched
        )
        table = network_table(self.history.stages, self.target)
        return dataclasses.replace(made, tables={**made.tables, "network": table})


def history_of(
    model: Model, options: Mapping[str, Option], pipeline: str, seconds: Mapping[str, float]
) -> History:
    """The history of a program that was just made from `model`."""
    return History(
        str(model.path),
        model.given.digest,
        len(model.given.nodes),
        model.given.opset,
        model.quantized is not None,
        options,
        pipeline,
        seconds,
        model.notes,
    )


def save(compiled: Compiled, folder: Path) -> None:
    """Write everything into an existing folder; the manifest comes last."""
    graph, program = compiled.graph, compiled.program
    named = {str(getattr(op, "digest", "")) for op in graph.ops if op.mnemonic == "constant"}
    shared = {digest: array for digest, array in graph.tensors.items() if digest in named}
    shared.update(program.tensors)
    save_program(dataclasses.replace(program, tensors=shared), folder)
    _write(folder / GRAPH_FILE, str(graph))
    _write(folder / TILES_FILE, str(compiled.tiles))
    _write(folder / TARGET_FILE, target_text(compiled.target, defaults=False))
    if compiled.quantized is not None:
        (folder / REFERENCE_FILE).write_bytes(compiled.quantized)
    _write_json(folder / "coverage.json", _coverage(compiled))
    if compiled.searched:
        _write_json(folder / SEARCH_FILE, [dataclasses.asdict(item) for item in compiled.searched])
    _write_json(folder / "time_per_phase.json", dict(compiled.history.seconds))
    _write_json(folder / MARK, _manifest(compiled, folder))


def _coverage(compiled: Compiled) -> dict[str, object]:
    rows = [dataclasses.asdict(row) for row in compiled.rows]
    return {"nodes": compiled.history.nodes, "places": count(compiled.rows), "rows": rows}


def _manifest(compiled: Compiled, folder: Path) -> dict[str, object]:
    history = dataclasses.asdict(compiled.history)
    return {
        "cimc": __version__,
        "format": FORMAT_VERSION,
        "target": compiled.target.name,
        "kind": compiled.target.kind,
        **history,
        "files": {name: _digest(folder / name) for name in _DIGESTED},
        "status": "ok",
    }


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


def _write_json(path: Path, content: object) -> None:
    _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- reading ---


def load(folder: Path) -> Compiled:
    """Read a folder that `save` wrote.

    raises  UsageError for a folder of another format version, or a file that changed since
    """
    manifest = read_manifest(folder)
    names = [item.name for item in dataclasses.fields(History)]
    raise_if(_damages(folder, manifest, [*names, "target", "files"]), UsageError)
    given = load_target(folder / TARGET_FILE)
    target = dataclasses.replace(given, name=str(manifest["target"]))
    load_kind(target.kind)  # so that its instructions are known
    program = load_program(folder)
    tensors = dict(program.tensors)
    graph_path, tiles_path = folder / GRAPH_FILE, folder / TILES_FILE
    graph = parse_graph(graph_path.read_text(encoding="utf-8"), tensors, str(graph_path))
    tiles = parse_tiles(tiles_path.read_text(encoding="utf-8"), tensors, str(tiles_path))
    history = History(**{name: manifest[name] for name in names})  # type: ignore[arg-type]  # we wrote it
    rows = json.loads((folder / "coverage.json").read_text(encoding="utf-8"))["rows"]
    reference = folder / REFERENCE_FILE
    quantized = reference.read_bytes() if history.is_quantized_here else None
    covered = tuple(Covered(**row) for row in rows)
    searched = _searched(folder / SEARCH_FILE)
    return Compiled(program, target, graph, tiles, history, covered, quantized, searched)


def _searched(path: Path) -> tuple[Searched, ...]:
    if not path.is_file():
        return ()
    rows = json.loads(path.read_text(encoding="utf-8"))
    return tuple(Searched(**{**row, "layers": tuple(row["layers"])}) for row in rows)


def read_manifest(folder: Path) -> dict[str, object]:
    """What manifest.json says; refuses a folder that is none of ours, or of another format."""
    path = folder / MARK
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found["format"]
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise UsageError(
            Fault(
                f"{folder} holds no compiled program",
                have=f"{type(problem).__name__}: {problem}",
                help="`cimc compile MODEL -t TARGET -o DIR` makes one",
                code="CIM2050",
            )
        ) from None
    if version != FORMAT_VERSION:
        raise UsageError(
            Fault(
                f"{folder} was written by cimc {found.get('cimc')}",
                need=f"program format {FORMAT_VERSION}, which cimc {__version__} reads",
                have=f"program format {version}",
                help="compile the model again",
                code="CIM2051",
            )
        )
    manifest: dict[str, object] = found
    return manifest


def _damages(folder: Path, manifest: Mapping[str, object], needed: Sequence[str]) -> list[Fault]:
    files = manifest.get("files")
    missing = [name for name in needed if name not in manifest]
    if missing or not isinstance(files, dict):
        where, have = f"{folder / MARK} is damaged", f"no {', '.join(missing) or 'files'}"
        return [Fault(where, have=have, help="compile the model again", code="CIM2053")]
    found = []
    for name, digest in files.items():
        path = folder / name
        have = _digest(path) if path.is_file() else "no such file"
        if have != digest:
            found.append(
                Fault(
                    f"{path} is not the file that was compiled",
                    need=f"sha256 {digest}",
                    have=have,
                    help="compile the model again",
                    code="CIM2052",
                )
            )
    return found
