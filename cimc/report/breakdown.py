"""The tables of a report: where time and energy go."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from cimc.ir.tiles import Layer, Tiles
from cimc.pipeline.tell import Searched
from cimc.report.table import Scalar, Table
from cimc.sim.energy import STATIC, Counted, Energy
from cimc.sim.estimate import Estimate
from cimc.sim.simulate import CAUSES, LayerTime, Simulation
from cimc.sim.units import core_of_unit, is_array

Row = dict[str, Scalar]


def breakdown(
    simulation: Simulation,
    spent: Energy,
    area: Mapping[str, float],
    tiles: Tiles | None,
    guess: Estimate | None,
    macs: Mapping[str, int] | None,
    searched: Sequence[Searched] = (),
) -> dict[str, Table]:
    """One table for each way to look at a program's cost."""
    return {
        "layer": _layers(simulation, spent, tiles, guess, macs, searched),
        "core": _cores(simulation, spent),
        "component": _components(spent, area),
        "op": _ops(simulation, spent),
        "unit": _units(simulation),
        "stall": _stalls(simulation),
    }


BRIEF_LAYER = (
    *("layer", "place", "macs", "array_runs", "cycles"),
    *(f"stall_{cause}_cycles" for cause in CAUSES),
    *("energy_pj", "estimated_cycles", "estimate_error"),
)


def _table(
    title: str, rows: Sequence[Row], last: Sequence[str] = (), brief: Sequence[str] = ()
) -> Table:
    """A table of all columns that occur, those in `last` at the end."""
    found = dict.fromkeys(column for row in rows for column in row)
    columns = tuple(name for name in found if name not in last)
    columns += tuple(name for name in last if name in found)
    cells = tuple(tuple(row.get(name) for name in columns) for row in rows)
    return Table(title, columns, cells, tuple(brief))


def _energy_columns(spent: Energy) -> dict[str, str]:
    """Component -> column, the largest first."""
    names = [name for name in spent.by_component() if name != STATIC]
    return {name: f"energy_{name}_pj" for name in names}


def _layers(
    simulation: Simulation,
    spent: Energy,
    tiles: Tiles | None,
    guess: Estimate | None,
    macs: Mapping[str, int] | None,
    searched: Sequence[Searched],
) -> Table:
    times = {layer.name: layer for layer in simulation.layers}
    pj = spent.by_layer()
    runs: dict[str, int] = {}
    plan = simulation.plan
    for step, executed in zip(plan.steps, simulation.outcome.executed, strict=True):
        if any(is_array(unit) for unit, _ in step.cost.holds):
            runs[step.instr.layer] = runs.get(step.instr.layer, 0) + executed
    worst: dict[str, str] = {}
    for stall in simulation.stalls:
        worst.setdefault(stall.layer, f"{stall.cause} {stall.name}")
    known = {layer.name: layer for layer in tiles.layers} if tiles is not None else {}
    makers = tiles.graph.producers() if tiles is not None else {}
    columns = _energy_columns(spent)
    proofs = {name: _proof(item) for item in searched for name in item.layers}
    rows: list[Row] = []
    for name in (*known, *(name for name in times if name not in known)):
        layer = known.get(name)
        row: Row = {"layer": name}
        if layer is not None:
            ops = [makers[op] for op in layer.ops]
            row["nodes"] = " ".join(dict.fromkeys(node for op in ops for node in op.nodes))
            row["place"] = layer.place
            row["mapping"] = _mapping(layer)
            row["macs"] = sum(macs.get(op, 0) for op in layer.ops) if macs else 0
        row["array_runs"] = runs.get(name, 0)
        row |= _time(times.get(name))
        row["worst_stall"] = worst.get(name, "")
        row["energy_pj"] = sum(pj.get(name, {}).values())
        row |= {column: pj.get(name, {}).get(part, 0.0) for part, column in columns.items()}
        if guess is not None and name in guess.layers:
            cycles = guess.layers[name].cycles
            taken = row["cycles"]
            row["estimated_cycles"] = cycles
            row["estimate_error"] = cycles / taken - 1 if isinstance(taken, int) and taken else None
            row["estimated_energy_pj"] = guess.layer_pj[name]
        row |= proofs.get(name, {})
        rows.append(row)
    return _table("layers", rows, brief=BRIEF_LAYER)


def _proof(item: Searched) -> Row:
    """What an exact search says of one layer alone: its cost in units of the objective."""
    return {
        "mapping_objective": item.objective,
        "mapping_cost": item.cost,
        "mapping_bound": item.bound,
        "mapping_gap": item.gap,
        "mapping_seconds": item.seconds,
        "mapping_proof": item.outcome,
    }


def _time(layer: LayerTime | None) -> Row:
    stalls = {f"stall_{cause}_cycles": 0 for cause in CAUSES}
    if layer is None:
        return {"start_cycle": None, "end_cycle": None, "cycles": 0, "instructions": 0, **stalls}
    return {
        "start_cycle": layer.start_cycle,
        "end_cycle": layer.end_cycle,
        "cycles": layer.cycles,
        "instructions": layer.instructions,
        **{f"stall_{cause}_cycles": layer.stall_cycles[cause] for cause in CAUSES},
    }


def _mapping(layer: Layer) -> str:
    """How the layer lies on the machine: spatial loops and options of its nest."""
    if layer.nest is None:
        return ""
    options = [f"{key}={value}" for key, value in layer.nest.options]
    return " ".join([*(str(axis) for axis in layer.nest.spatial), *options])


def _by_energy(spent: Energy, head: str, key: Callable[[Counted], str]) -> dict[str, Row]:
    columns = _energy_columns(spent)
    rows: dict[str, Row] = {}
    for name, parts in spent.by(key).items():
        row: Row = {head: name, "energy_pj": sum(parts.values())}
        row |= {column: parts.get(part, 0.0) for part, column in columns.items()}
        rows[name] = row
    return rows


def _cores(simulation: Simulation, spent: Energy) -> Table:
    found = _by_energy(spent, "core", lambda item: item.core)
    units: dict[str, list[float]] = {}
    arrays: dict[str, int] = {}
    for unit in simulation.units:
        core = core_of_unit(unit.name)
        units.setdefault(core, []).append(unit.steady_utilisation or unit.utilisation)
        arrays[core] = arrays.get(core, 0) + is_array(unit.name)
    rows: list[Row] = []
    for name in sorted({*found, *units}, key=_natural):
        row: Row = {"core": name or "shared", "units": len(units.get(name, ()))}
        row["arrays_used"] = arrays.get(name, 0)
        row["busiest_utilisation"] = max(units.get(name, ()), default=0.0)
        row |= {key: value for key, value in found.get(name, {}).items() if key != "core"}
        rows.append(row)
    return _table("cores", rows)


def _components(spent: Energy, area: Mapping[str, float]) -> Table:
    total = spent.total_pj or 1.0
    rows: list[Row] = [
        {"component": name, "energy_pj": pj, "energy_share": pj / total}
        for name, pj in spent.by_component().items()
    ]
    events: dict[str, list[str]] = {}
    for event, (count, _) in spent.by_event().items():
        component, _, short = event.rpartition(".")
        events.setdefault(component or event, []).append(f"{short} {count}")
    for row in rows:
        row["events"] = ", ".join(events.get(str(row["component"]), ()))
    square = sum(area.values()) or 1.0
    places = {str(row["component"]): row for row in rows}
    for name, mm2 in area.items():
        short = name.removeprefix("memory.")
        if short not in places:
            places[short] = {"component": short, "energy_pj": 0.0, "energy_share": 0.0}
            rows.append(places[short])
        places[short] |= {"area_mm2": mm2, "area_share": mm2 / square}
    return _table("components", rows, last=("events",))


def _ops(simulation: Simulation, spent: Energy) -> Table:
    rows = _by_energy(spent, "instruction", lambda item: item.mnemonic)
    plan, outcome = simulation.plan, simulation.outcome
    counts: dict[str, list[int]] = {}
    for step, executed in zip(plan.steps, outcome.executed, strict=True):
        row = counts.setdefault(step.instr.mnemonic, [0, 0, 0])
        row[0] += 1
        row[1] += executed
        row[2] += executed * step.cost.cycles
    stalls: dict[str, int] = {}
    for (number, _, _), cycles in outcome.stalls.items():
        name = plan.steps[number].instr.mnemonic
        stalls[name] = stalls.get(name, 0) + cycles
    shown: list[Row] = []
    for name, (written, executed, cycles) in counts.items():
        head: Row = {"instruction": name, "written": written, "executed": executed}
        head |= {"cycles": cycles, "stall_cycles": stalls.get(name, 0)}
        shown.append(head | rows.get(name, {}))
    return _table("instructions", sorted(shown, key=lambda row: -float(row.get("energy_pj") or 0)))


def _units(simulation: Simulation) -> Table:
    order = sorted(simulation.units, key=lambda unit: (-unit.busy_cycles, _natural(unit.name)))
    rows: list[Row] = [
        {
            "unit": unit.name,
            "instructions": unit.instructions,
            "busy_cycles": unit.busy_cycles,
            "utilisation": unit.utilisation,
            "steady_utilisation": unit.steady_utilisation,
        }
        for unit in order
    ]
    return _table("units", rows)


def _stalls(simulation: Simulation) -> Table:
    rows: list[Row] = [
        {"layer": item.layer, "cause": item.cause, "name": item.name, "cycles": item.cycles}
        for item in simulation.stalls
    ]
    return _table("stalls", rows)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts core2 before core10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
