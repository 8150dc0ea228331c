"""Solved layers, kept between runs: one file for each problem, named by the problem's content.

    <user cache>/mappings/3f/3f0c....json      CIMC_MAPPINGS=DIR: elsewhere;  =off: nowhere

The name is a digest of the workload, the machine's constants that cost or legality can depend on,
objective and timing. The file carries a digest of the code that judged the mapping: under other
code only the mapping itself is used, as a start, and judged anew. Many processes may write at the
same time; a better result replaces a worse one, and none is seen by half.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cimc
from cimc.errors import CimcError, Fault, FitError, warn
from cimc.ir import text
from cimc.ir.tiles import Nest, nest_text, scan_nest
from cimc.mapping.nest import nest_faults
from cimc.target import Target
from cimc.targets.sram_cim.exact.problem import Problem, Solution
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.private_ports.schedule import private_schedule
from cimc.user_cache import user_cache

VARIABLE = "CIMC_MAPPINGS"
FORMAT = 1
_JUDGES = ("targets/sram_cim", "mapping", "sim", "lowering", "ir/program", "kind.py")
_NO_COST = frozenset(  # what a target file says and no mapping's cycles or pJ depend on
    {"summary", "source", "error", "assumed", "area_mm2", "clock", "requant"}
)


@dataclass(frozen=True, slots=True)
class Stored:
    """What an earlier run found; `is_current`: judged by the same code, so all of it holds."""

    solution: Solution
    is_current: bool


class Store:
    """The folder of solved layers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, problem: Problem, target: Target) -> Path:
        """The file of a problem."""
        key = problem_key(problem, target)
        return self.folder / key[:2] / f"{key}.json"

    def get(self, problem: Problem, target: Target) -> Stored | None:
        """What is known of a problem; a file that cannot be used is a warning."""
        path = self.path(problem, target)
        try:
            content = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as problem_:
            _ignored(path, str(problem_))
            return None
        try:
            return _parsed(content, problem, target)
        except (ValueError, KeyError, TypeError, CimcError) as problem_:
            _ignored(path, f"{type(problem_).__name__}: {problem_}".splitlines()[0])
            return None

    def put(self, problem: Problem, target: Target, solution: Solution) -> Solution:
        """Keep what is better of `solution` and what is there; returns it.

        A folder that cannot be written is a warning.
        """
        path = self.path(problem, target)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / "lock"):
                known = self.get(problem, target)
                if known is not None and known.is_current:
                    solution = merged(known.solution, solution)
                _replace(path, _text(problem, solution))
        except OSError as refused:
            help = f"set {VARIABLE} to another folder, or to off"
            warn(Fault(f"{path} cannot be written", have=str(refused), help=help, code="CIM4021"))
        return solution


def default_store() -> Store | None:
    """The store that a person's environment names; None if it is switched off."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() in ("off", "0", "none"):
        return None
    return Store(Path(given) if given else user_cache("mappings"))


def merged(first: Solution, second: Solution) -> Solution:
    """The cheaper mapping with the better bound; times and nodes are those of `second`."""
    best = min((second, first), key=lambda solution: solution.cost)
    bound = min(best.cost, max(first.bound, second.bound))
    return Solution(
        best.nest,
        best.cost,
        bound,
        best.latency,
        best.energy_pj,
        max(first.nodes, second.nodes),
        max(first.seconds, second.seconds),
        first.finished or second.finished,
    )


# --- keys ---


def problem_key(problem: Problem, target: Target) -> str:
    """Digest of what a problem's solution depends on."""
    content = json.dumps(
        {"problem": _described(problem), "machine": _constants(spec_of(target).model_dump())},
        sort_keys=True,
        default=list,
    )
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _described(problem: Problem) -> dict[str, object]:
    shape = problem.workload.shape
    return {
        "dims": dict(shape.dims),
        "size": [shape.h, shape.w],
        "strides": shape.strides,
        "pads": shape.pads,
        "dilations": shape.dilations,
        "matmul": shape.matmul,
        "bits": problem.workload.bits,
        "epilogue": problem.epilogue,
        "objective": str(problem.objective),
        "timing": problem.timing,
        "spatial": None if problem.spatial is None else [str(axis) for axis in problem.spatial],
    }


def _constants(node: object) -> object:
    """The constants of a target file, without what tells where they come from."""
    if isinstance(node, Mapping):
        return {key: _constants(value) for key, value in node.items() if key not in _NO_COST}
    return node


@functools.cache
def judges_digest() -> str:
    """Digest of the code whose word on cycles, pJ and legality a stored result rests on."""
    state = hashlib.blake2b(digest_size=16)
    root = Path(cimc.__file__).parent
    for part in _JUDGES:
        path = root / part
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            state.update(str(file.relative_to(root)).encode())
            state.update(file.read_bytes())
    return state.hexdigest()


# --- files ---


def _text(problem: Problem, solution: Solution) -> str:
    content = {
        "format": FORMAT,
        "judges": judges_digest(),
        "problem": _described(problem),
        "nest": list(nest_text(solution.nest)),
        "cost": solution.cost,
        "bound": solution.bound,
        "latency": solution.latency,
        "energy_pj": solution.energy_pj,
        "nodes": solution.nodes,
        "seconds": solution.seconds,
        "finished": solution.finished,
    }
    return json.dumps(content, indent=1) + "\n"


def _parsed(content: str, problem: Problem, target: Target) -> Stored:
    found = json.loads(content)
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']} instead of {FORMAT}")
    nest = _nest(found["nest"])
    faults = _faults(nest, problem, target)
    if faults:
        raise ValueError(faults[0].where)
    solution = Solution(
        nest,
        _number(found["cost"]),
        _number(found["bound"]),
        _number(found["latency"]),
        _number(found["energy_pj"]),
        int(found["nodes"]),
        _number(found["seconds"]),
        bool(found["finished"]),
    )
    if not 0 <= solution.bound <= solution.cost:
        raise ValueError(f"bound {solution.bound} of cost {solution.cost}")
    return Stored(solution, found["judges"] == judges_digest())


def _faults(nest: Nest, problem: Problem, target: Target) -> Sequence[Fault]:
    """What is wrong with a nest: the two timings count the bits of results differently."""
    if problem.timing == "shared":
        return nest_faults(nest, problem.workload, machine_of(target))
    try:
        private_schedule(nest, target, problem.workload)
    except FitError as refused:
        return refused.faults
    return ()


def _nest(lines: list[str]) -> Nest:
    scanner = text.Scanner("\n".join([*lines, "}"]), "nest")
    nest = scan_nest(scanner)
    scanner.take("}")
    if not scanner.done:
        raise scanner.error("the end of the nest")
    return nest


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _replace(path: Path, content: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among the writers; where there are no locks, the last writer wins."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ignored(path: Path, reason: str) -> None:
    help = "it is written anew"
    warn(Fault(f"{path} is damaged and ignored", have=reason, help=help, code="CIM4023"))
