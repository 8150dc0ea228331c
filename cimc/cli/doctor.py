"""`cimc doctor`: versions, plug-ins, and a small test of everything."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata

import click

import cimc
from cimc.cli.console import Console, Json, table
from cimc.cli.verb import Verb


@click.command(cls=Verb)
@click.pass_obj
def command(console: Console) -> None:
    """Say which versions and plug-ins are here, and whether all of it works.

    \b
    Example:
      cimc doctor
    """
    from cimc.errors import Fault, VerifyError, raise_if

    rows: list[dict[str, Json]] = []
    failed: list[Fault] = []
    for subject, look in (*_versions(), *_tests()):
        try:
            rows.append({"what": subject, "ok": True, "detail": look()})
        except Exception as problem:  # whatever is wrong is what a doctor is asked for
            rows.append({"what": subject, "ok": False, "detail": f"{problem}"})
            failed.append(Fault(f"{subject} does not work", have=str(problem), code="CIM8100"))
    shown = [[str(row["what"]), "ok" if row["ok"] else "WRONG", str(row["detail"])] for row in rows]
    console.result({"ok": not failed, "checks": rows}, lambda: table(["what", "", "detail"], shown))
    raise_if(failed, VerifyError)


Look = tuple[str, Callable[[], str]]


def _versions() -> Iterator[Look]:
    yield "cimc", lambda: f"{cimc.__version__} in {cimc.__path__[0]}"
    yield "Python", lambda: f"{sys.version.split()[0]} on {platform.platform(terse=True)}"
    for requirement in metadata.requires("cimc") or ():
        if "extra ==" not in requirement:
            yield _required(requirement)


def _required(requirement: str) -> Look:
    """A package with its version, which must be as new as is asked for."""
    name, _, least = requirement.partition(">=")

    def look() -> str:
        have = metadata.version(name)
        if _numbers(have) < _numbers(least):
            raise ValueError(f"version {have}, needed is {least} or newer")
        return have

    return name, look


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _tests() -> Iterator[Look]:
    from cimc.pipeline.passes import all_passes
    from cimc.target import kind_entries
    from cimc.target_files import target_files

    yield "passes", lambda: f"{len(all_passes())} load"
    yield "solved mappings", _mappings
    for name in sorted(kind_entries()):
        yield f"kind {name}", partial(_kind, name)
    for name in target_files():
        yield f"target {name}", partial(_machine, name)
    yield "onnxruntime", _onnxruntime


def _mappings() -> str:
    """Where exact searches keep what they found."""
    from cimc.targets.sram_cim.exact.store import default_store

    store = default_store()
    if store is None:
        return "are not kept: CIMC_MAPPINGS is off"
    return f"{sum(1 for _ in store.folder.rglob('*.json'))} in {store.folder}"


def _kind(name: str) -> str:
    from cimc.kind import load_kind

    return load_kind(name).summary


def _machine(name: str) -> str:
    """A small network, compiled and executed on the machine by both engines."""
    from cimc.conformance.samples import sample_graphs
    from cimc.conformance.target import sample_results
    from cimc.target import load_target

    target = load_target(name)
    fixed = target.spec.requant == "fixed"
    graph = next(graph for graph in sample_graphs(fixed) if graph.name == "residual")
    results = list(sample_results(graph, target, levels=(2,)))
    failed = [result for result in results if result.outcome != "passed"]
    if failed:
        raise ValueError(f"{failed[0].check}: {failed[0].detail}")
    return f"{len(results)} checks of a residual block passed"


def _onnxruntime() -> str:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {"x": np.array([-1, 2], np.float32)})
    if list(result) != [0, 2]:
        raise ValueError(f"relu of (-1, 2) is {result}")
    return f"runs models of onnx {onnx.__version__}"
