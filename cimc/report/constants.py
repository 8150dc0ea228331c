"""What if a constant of the target file were another one?

    points = sweep(program, target, "adc.energy_pj", [0.5, 1.0, 2.0])
    sweep_table("adc.energy_pj", points)

Prices and areas (keys with `pj` or `mm2` in their name) need neither a new program nor a new
simulation: the counts stay and are priced again. Any other constant may change what the compiler
makes, so the program is made again by `rebuild`; without it such a key is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence

from pydantic import BaseModel, ValidationError

from cimc.errors import Fault, UsageError
from cimc.ir.program import Program
from cimc.ir.tiles import Tiles
from cimc.kind import Kind
from cimc.report.report import Report, make_report
from cimc.report.table import Scalar, Table
from cimc.sim.simulate import Simulation, simulate
from cimc.target import Target

Rebuild = Callable[[Target], tuple[Program, Tiles | None]]
COLUMNS = (
    "latency_ms",
    "period_ms",
    "energy_mj_per_inference",
    "energy_dynamic_mj",
    "energy_static_mj",
    "energy_steady_mj",
    "area_mm2",
    "tops_per_w",
)


def sweep(
    program: Program,
    target: Target,
    key: str,
    values: Sequence[Scalar],
    *,
    simulation: Simulation | None = None,
    tiles: Tiles | None = None,
    rebuild: Rebuild | None = None,
    kind: Kind | None = None,
) -> tuple[tuple[Scalar, Report], ...]:
    """A report for each value of a constant; `simulation` of `program` saves simulating it.

    raises  UsageError for a key that the target does not have, a value that it does not take, or a
            key that needs a new program where `rebuild` is missing
    """
    targets = [(value, with_constant(target, key, value)) for value in values]
    if not is_price(key) and rebuild is None:
        raise UsageError(
            Fault(
                f"{key} may change the program",
                need="a constant that only prices or measures (its name has pj or mm2), "
                "or the model, to compile it again for each value",
                help=f"cimc compile MODEL -t {target.name} --set {key}=VALUE",
                code="CIM2066",
            )
        )
    found = []
    for value, changed in targets:
        if is_price(key) or rebuild is None:
            simulation = simulation or simulate(program, target, kind=kind)
            report = make_report(program, changed, simulation, tiles=tiles, kind=kind)
        else:
            built, mapped = rebuild(changed)
            timing = simulate(built, changed, kind=kind)
            report = make_report(built, changed, timing, tiles=mapped, kind=kind)
        found.append((value, report))
    return tuple(found)


def sweep_table(key: str, points: Sequence[tuple[Scalar, Report]]) -> Table:
    """One row for each value: the key, and the summary columns that a constant moves."""
    rows = []
    for value, report in points:
        row = report.summary_table().records()[0]
        rows.append((value, *(row[column] for column in COLUMNS)))
    return Table(key, (key, *COLUMNS), tuple(rows))


def is_price(key: str) -> bool:
    """Whether a constant enters energy or area only."""
    return bool({"pj", "mm2"} & set(key.rpartition(".")[2].split("_")))


def with_constant(target: Target, key: str, value: Scalar) -> Target:
    """The target with one value replaced, by its dotted key.

    raises  UsageError for an unknown key, with the nearest known one, or a value of another type
    """
    known = list(_keys(target.spec, ""))
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        raise UsageError(
            Fault(
                f"{target.path}: no constant is called {key}",
                help=f"did you mean {near[0]}?" if near else "`cimc targets show NAME` lists all",
                code="CIM2006",
            )
        )
    content = target.spec.model_dump(exclude_unset=True)
    *parents, last = key.split(".")
    node = content
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    try:
        return Target(target.name, target.path, type(target.spec).model_validate(content))
    except ValidationError as problem:
        raise UsageError(
            Fault(f"{target.path}: {key}", need=item["msg"], have=repr(value), code="CIM2007")
            for item in problem.errors()
        ) from None


def _keys(node: BaseModel, prefix: str) -> Iterator[str]:
    for key in type(node).model_fields:
        value = getattr(node, key)
        children = value.items() if isinstance(value, dict) else [("", value)]
        for name, child in children:
            path = ".".join(part for part in (prefix, key, name) if part)
            if isinstance(child, BaseModel):
                yield from _keys(child, path)
            else:
                yield path
