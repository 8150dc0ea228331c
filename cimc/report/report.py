"""What a program costs on its machine: one summary row, and tables by layer, core, component ...

report = make_report(program, target, simulation, tiles=tiles)
report.summary.latency_ms;  report.table("layer").format("md")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cimc.errors import Fault, UsageError
from cimc.ir.program import Program
from cimc.ir.tiles import Tiles
from cimc.kind import Kind, Wear, Wearing, load_kind
from cimc.pipeline.tell import Searched, gap_of, network
from cimc.report.breakdown import breakdown
from cimc.report.network import network_table
from cimc.report.table import Scalar, Table, shown
from cimc.report.wear import YEAR_S, wear_table
from cimc.sim.energy import Energy, energy
from cimc.sim.estimate import Estimate, estimate, macs_of
from cimc.sim.simulate import Simulation
from cimc.sim.units import core_of_unit, is_array
from cimc.target import Target

BY = ("layer", "core", "component", "op", "unit", "stall", "network", "wear")


@dataclass(frozen=True, slots=True)
class Summary:
    """One row of stable columns. Energy is of one inference; "steady" while samples follow on."""

    model: str
    target: str
    kind: str
    macs: int | None  # true ones: no padding, no unused cells
    layers: int
    instructions: int  # of the program
    executed_instructions: int  # for one sample
    cores: int
    cores_used: int | None  # None where the machine's cores share their units
    arrays_used: int
    latency_cycles: int  # one sample alone, end to end
    latency_ms: float
    period_cycles: float | None  # between samples, steady state
    period_ms: float | None
    period_is_exact: bool | None  # False: an average, the state had not repeated
    throughput_ips: float | None
    busiest_unit: str
    busiest_utilisation: float | None  # in steady state, else of the latency
    energy_mj_per_inference: float  # one sample alone
    energy_dynamic_mj: float
    energy_static_mj: float
    energy_steady_mj: float | None  # static energy of the period instead of the latency
    power_w: float | None  # steady
    edp_mj_ms: float  # energy times latency, one sample alone
    setup_ms: float  # once: programming weights that stay
    setup_energy_mj: float
    area_mm2: float
    lifetime_inferences: float | None  # until the hottest cell fails; None: cells do not wear out
    lifetime_years: float | None  # ... at full load
    hottest_cell: str
    tops: float | None  # two operations per true MAC, steady
    tops_per_w: float | None
    tops_per_mm2: float | None
    estimated_latency_cycles: float | None
    latency_estimate_error: float | None  # estimated / simulated - 1
    estimated_period_cycles: float | None
    period_estimate_error: float | None
    estimated_energy_mj: float | None
    energy_estimate_error: float | None
    mapping_gap: float | None  # at most so much of the macro layers' cost could be saved
    mapping_seconds: float | None  # that the exact search took, in this and earlier runs
    assumed_keys: int  # constants that nobody published and that entered


@dataclass(frozen=True)
class Report:
    """All numbers of one program on one machine."""

    summary: Summary
    tables: Mapping[str, Table]  # by the names in BY
    sources: Mapping[str, str]  # group of summary columns -> "simulated", "counted" ...
    assumed: Mapping[str, Sequence[str]]  # "energy", "time", "area" -> keys of the target file
    notes: tuple[str, ...] = field(default=())

    def table(self, by: str) -> Table:
        """The table `by` one of BY.

        raises  UsageError for another name
        """
        if by not in self.tables:
            raise UsageError(
                Fault(f"no table by {by!r}", need=", ".join(self.tables), code="CIM2061")
            )
        return self.tables[by]

    def summary_table(self) -> Table:
        """The summary as one row."""
        row = dataclasses.asdict(self.summary)
        return Table("", tuple(row), (tuple(row.values()),))

    def overview(self) -> Table:
        """The summary as a person reads it: one line per quantity, estimates beside."""
        row = self.summary_table().records()[0]
        estimates = {
            "latency_ms": ("estimated_latency_cycles", "latency_estimate_error"),
            "period_ms": ("estimated_period_cycles", "period_estimate_error"),
            "energy_mj_per_inference": ("estimated_energy_mj", "energy_estimate_error"),
        }
        rows: list[tuple[Scalar, ...]] = []
        for name in OVERVIEW:
            value, note = row[name], ""
            if name in estimates and row[estimates[name][1]] is not None:
                guess, error = (row[column] for column in estimates[name])
                unit = " cycles" if estimates[name][0].endswith("cycles") else ""
                note = f"estimate {shown(guess)}{unit} ({_percent(error)})"
            if name == "period_ms" and self.summary.period_is_exact is False:
                note = f"average; {note}".rstrip("; ")
            rows.append((name, value, note))
        return Table("", ("quantity", "value", "note"), tuple(rows))


OVERVIEW = (
    *("macs", "cores_used", "arrays_used", "latency_cycles", "latency_ms", "period_ms"),
    *("throughput_ips", "energy_mj_per_inference", "energy_dynamic_mj", "energy_static_mj"),
    *("power_w", "area_mm2", "tops", "tops_per_w", "setup_ms", "assumed_keys"),
)
SOURCES = {
    "latency, period, throughput, utilisation, stalls": "simulated",
    "energy": "counted events times prices; leakage times simulated cycles",
    "instructions, macs": "counted",
    "area": "target file",
    "lifetime": "endurance by expected changes of the hottest cell, times the period",
    "estimated_*": "estimated in closed form",
}


def make_report(
    program: Program,
    target: Target,
    simulation: Simulation,
    *,
    tiles: Tiles | None = None,
    kind: Kind | None = None,
    searched: Sequence[Searched] = (),
) -> Report:
    """The report of a simulated program; with its tiles also MACs, mapping and estimates.

    raises  UsageError naming each event that the target has no price for
    """
    kind = kind or load_kind(target.kind)
    latency = simulation.latency_cycles
    spent = energy(program, target, latency, plan=simulation.plan, kind=kind)
    guess = None
    if tiles is not None:
        guess = estimate(tiles, target, pipelined=len(program.streams) > 1, kind=kind)
    area = kind.area(target)
    macs = macs_of(tiles.graph) if tiles is not None else None
    assumed = _assumed(target, spent)
    wear = kind.wear(program, target) if isinstance(kind, Wearing) else None
    seconds = target.cycles_to_ms(simulation.period_cycles or latency) / 1000
    notes: tuple[str, ...] = ()
    if simulation.period_cycles is not None and not simulation.is_periodic:
        notes = (
            f"period: average over the later half of {simulation.samples} samples; "
            "the state of the machine had not repeated",
        )
    return Report(
        _summary(program, target, simulation, spent, guess, area, macs, assumed, searched, wear),
        {
            **breakdown(simulation, spent, area, tiles, guess, macs, searched),
            "network": network_table((), target),
            "wear": wear_table(wear, seconds),
        },
        SOURCES,
        assumed,
        notes,
    )


def _summary(
    program: Program,
    target: Target,
    simulation: Simulation,
    spent: Energy,
    guess: Estimate | None,
    area: Mapping[str, float],
    macs: Mapping[str, int] | None,
    assumed: Mapping[str, Sequence[str]],
    searched: Sequence[Searched],
    wear: Wear | None,
) -> Summary:
    latency, period = simulation.latency_cycles, simulation.period_cycles
    latency_ms = target.cycles_to_ms(latency)
    period_ms = target.cycles_to_ms(period) if period else None
    steady_pj = spent.dynamic_pj + spent.leakage_pj_per_cycle * period if period else None
    power_w = steady_pj * 1e-9 / period_ms if steady_pj is not None and period_ms else None
    true_macs = sum(macs.values()) if macs is not None else None
    tops = 2 * true_macs * 1e-9 / period_ms if true_macs and period_ms else None
    square = sum(area.values())
    lasting = wear.inferences if wear is not None and wear.worn[0].changes else None
    used = [unit for unit in simulation.units if unit.instructions]
    busiest = max(used, key=lambda unit: unit.busy_cycles, default=None)
    cores = {core_of_unit(unit.name) for unit in used} - {""}
    arrays = [unit for unit in used if is_array(unit.name)]
    return Summary(
        model=program.name,
        target=target.name,
        kind=target.kind,
        macs=true_macs,
        layers=sum(1 for layer in simulation.layers if layer.name),
        instructions=len(simulation.plan.steps),
        executed_instructions=simulation.instructions,
        cores=target.spec.cores,
        cores_used=len(cores) or None,
        arrays_used=len(arrays),
        latency_cycles=latency,
        latency_ms=latency_ms,
        period_cycles=period,
        period_ms=period_ms,
        period_is_exact=simulation.is_periodic if period is not None else None,
        throughput_ips=1000 / period_ms if period_ms else None,
        busiest_unit=busiest.name if busiest else "",
        busiest_utilisation=(busiest.steady_utilisation or busiest.utilisation)
        if busiest
        else None,
        energy_mj_per_inference=_mj(spent.total_pj),
        energy_dynamic_mj=_mj(spent.dynamic_pj),
        energy_static_mj=_mj(spent.static_pj),
        energy_steady_mj=_mj(steady_pj) if steady_pj is not None else None,
        power_w=power_w,
        edp_mj_ms=_mj(spent.total_pj) * latency_ms,
        setup_ms=target.cycles_to_ms(simulation.setup_cycles),
        setup_energy_mj=_mj(spent.setup_pj),
        area_mm2=square,
        lifetime_inferences=lasting,
        lifetime_years=lasting * (period_ms or latency_ms) / 1000 / YEAR_S if lasting else None,
        hottest_cell=wear.worn[0].cell if wear and wear.worn else "",
        tops=tops,
        tops_per_w=tops / power_w if tops and power_w else None,
        tops_per_mm2=tops / square if tops and square else None,
        estimated_latency_cycles=guess.latency_cycles if guess else None,
        latency_estimate_error=_error(guess.latency_cycles, latency) if guess else None,
        estimated_period_cycles=guess.period_cycles if guess else None,
        period_estimate_error=_error(guess.period_cycles, period) if guess else None,
        estimated_energy_mj=_mj(guess.total_pj) if guess else None,
        energy_estimate_error=_error(guess.total_pj, spent.total_pj) if guess else None,
        mapping_gap=gap_of(*network(searched)) if searched else None,
        mapping_seconds=sum(item.seconds for item in searched) if searched else None,
        assumed_keys=len({key for keys in assumed.values() for key in keys}),
    )


def _mj(pj: float) -> float:
    return pj * 1e-9


def _percent(value: Scalar) -> str:
    return f"{100 * value:+.1f} %" if isinstance(value, float) else "-"


def _error(estimated: float, simulated: float | None) -> float | None:
    return estimated / simulated - 1 if simulated else None


def _assumed(target: Target, spent: Energy) -> dict[str, tuple[str, ...]]:
    """Which results rest on constants that nobody published."""
    entered = set(spent.assumed)
    found: dict[str, list[str]] = {"energy": [], "time": [], "area": []}
    for key in target.assumed_keys():
        name = key.rpartition(".")[2]
        if key in entered:
            found["energy"].append(key)
        elif name.endswith("mm2"):
            found["area"].append(key)
        elif "pj" not in name.split("_"):  # not a price of something that never happened
            found["time"].append(key)
    return {group: tuple(keys) for group, keys in found.items()}
