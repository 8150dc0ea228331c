"""What if constants of the target file were others?

    points = sweep(program, target, [{"adc.energy_pj": 0.5}, {"adc.energy_pj": 1.0}])
    sweep_table(points)

Prices and areas (keys with `pj` or `mm2` in their name) need neither a new program nor a new
simulation: the counts stay and are priced again. Any other constant may change what the compiler
makes, so the program is made again by `rebuild`; without it such a key is refused. A variant that
the model does not fit, or that is no machine at all, is a row that says why.

Constants that are not named stay as they are: a memory of twice the size has the energy per bit,
the leakage and the area of the one in the target file, unless the variant gives those, too.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import BaseModel, ValidationError

from cimc.errors import CimcError, Fault, InternalError, UsageError, raise_if
from cimc.ir.program import Program
from cimc.ir.tiles import Tiles
from cimc.kind import Kind
from cimc.report.report import Report, make_report
from cimc.report.table import Scalar, Table
from cimc.sim.simulate import Simulation, simulate
from cimc.target import Target

Rebuild = Callable[[Target], tuple[Program, Tiles | None]]
Constant: TypeAlias = "Scalar | Sequence[Scalar]"
Variant: TypeAlias = Mapping[str, Constant]  # dotted key -> value
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


@dataclass(frozen=True, slots=True)
class Point:
    """One variant of a machine: its report, or why it has none."""

    variant: Variant
    report: Report | None
    problem: CimcError | None = None


def sweep(
    program: Program,
    target: Target,
    variants: Iterable[Variant],
    *,
    simulation: Simulation | None = None,
    tiles: Tiles | None = None,
    rebuild: Rebuild | None = None,
    kind: Kind | None = None,
) -> tuple[Point, ...]:
    """A report for each variant; `simulation` of `program` saves simulating it.

    raises  UsageError for keys that the target does not have, or that need a new program where
            `rebuild` is missing; what is wrong with the first variant if no variant is possible
    """
    found: list[Point] = []
    for variant in variants:
        raise_if(_key_faults(variant, target, rebuild is not None), UsageError)
        try:
            changed = with_constants(target, variant)
            if all(is_price(key) for key in variant) or rebuild is None:
                simulation = simulation or simulate(program, target, kind=kind)
                report = make_report(program, changed, simulation, tiles=tiles, kind=kind)
            else:
                built, mapped = rebuild(changed)
                timing = simulate(built, changed, kind=kind)
                report = make_report(built, changed, timing, tiles=mapped, kind=kind)
        except InternalError:
            raise
        except CimcError as problem:
            found.append(Point(variant, None, problem))
        else:
            found.append(Point(variant, report))
    problems = [point.problem for point in found if point.problem is not None]
    if problems and len(problems) == len(found):
        raise problems[0]
    return tuple(found)


def sweep_table(points: Sequence[Point]) -> Table:
    """One row for each variant: its constants, and the summary columns that constants move."""
    keys = tuple(dict.fromkeys(key for point in points for key in point.variant))
    failed = any(point.problem is not None for point in points)
    rows = []
    for point in points:
        values = tuple(_cell(point.variant.get(key)) for key in keys)
        row = point.report.summary_table().records()[0] if point.report is not None else {}
        problem = (_reason(point.problem),) if failed else ()
        rows.append((*values, *(row.get(column) for column in COLUMNS), *problem))
    columns = (*keys, *COLUMNS, *(("problem",) if failed else ()))
    return Table(", ".join(keys), columns, tuple(rows))


def _cell(value: Constant) -> Scalar:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return value


def _reason(problem: CimcError | None) -> str:
    """The first fault in one line, and how many there are."""
    if problem is None:
        return ""
    first, *others = problem.faults
    parts = [first.where, first.need and f"need {first.need}", first.have and f"have {first.have}"]
    text = "; ".join(part for part in parts if part)
    return f"{text} (and {len(others)} more)" if others else text


def _key_faults(variant: Variant, target: Target, can_rebuild: bool) -> Iterator[Fault]:
    known = list(_keys(target.spec, ""))
    for key in variant:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            yield Fault(
                f"{target.path}: no constant is called {key}",
                help=f"did you mean {near[0]}?" if near else "`cimc targets show NAME` lists all",
                code="CIM2006",
            )
        elif not is_price(key) and not can_rebuild:
            yield Fault(
                f"{key} may change the program",
                need="a constant that only prices or measures (its name has pj or mm2), "
                "or the model, to compile it again for each value",
                help=f"cimc compile MODEL -t {target.name} --set {key}=VALUE",
                code="CIM2066",
            )


def is_price(key: str) -> bool:
    """Whether a constant enters energy or area only."""
    return bool({"pj", "mm2"} & set(key.rpartition(".")[2].split("_")))


def with_constants(target: Target, variant: Variant) -> Target:
    """The target with some values replaced, by their dotted keys, which it must have.

    raises  UsageError for values that the machine cannot have
    """
    content = target.spec.model_dump(exclude_unset=True)
    for key, value in variant.items():
        *parents, last = key.split(".")
        node = content
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    try:
        return Target(target.name, target.path, type(target.spec).model_validate(content))
    except ValidationError as problem:
        shown = ", ".join(f"{key} = {_cell(value)!r}" for key, value in variant.items())
        raise UsageError(
            Fault(f"{target.path}: {', '.join(variant)}", item["msg"], shown, code="CIM2007")
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
