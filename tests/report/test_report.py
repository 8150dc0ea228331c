"""A report of a program whose numbers are worked out by hand; its files, comparisons, sweeps."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cimc.errors import Fault, FitError, UsageError
from cimc.ir.program import Loop, Program
from cimc.kind import Wear, Worn
from cimc.report import (
    BY,
    Report,
    compare_layers,
    compare_summaries,
    make_report,
    read_report,
    sweep,
    sweep_table,
    write_report,
    write_trace,
)
from cimc.report.constants import Variant, with_constants
from cimc.report.wear import shown_time, wear_table
from cimc.sim.simulate import simulate
from cimc.target import Target
from tests.sim.toy_machine import Toy, program, toy_target, work

KIND = Toy((("array.reads", "vector.op_pj"), ("link.bits", "link.pj_per_bit")))


def made(count: int = 10) -> Program:
    """Loads of two cycles and array runs of five, single-buffered, on core 0."""
    body = (
        work("link", 2, to="x", layer="conv", events=(("link.bits", 16),)),
        work("core0.array", 5, of=["x"], layer="conv", events=(("array.reads", 3),)),
    )
    return program({"x": 1}, (Loop("i", count, body),))


def report(count: int = 10, samples: int = 4) -> Report:
    """The report of `made` on the toy machine: 2 ns a cycle."""
    given, target = made(count), toy_target()
    timing = simulate(given, target, kind=KIND, samples=samples)
    return make_report(given, target, timing, kind=KIND)


def test_the_summary_has_units_in_its_names() -> None:
    row = report().summary
    assert (row.latency_cycles, row.latency_ms) == (70, 140e-6)
    assert (row.period_cycles, row.period_is_exact) == (70.0, True)
    assert row.throughput_ips == pytest.approx(1e9 / 140)
    assert (row.cores, row.cores_used, row.arrays_used) == (2, 1, 1)
    assert (row.busiest_unit, row.busiest_utilisation) == ("core0.array", 50 / 70)
    assert row.energy_dynamic_mj == pytest.approx((160 * 0.5 + 30 * 2.0) * 1e-9)
    assert row.energy_static_mj == pytest.approx(0.5 * 70 * 1e-9)
    assert row.energy_mj_per_inference == row.energy_dynamic_mj + row.energy_static_mj
    assert row.power_w == pytest.approx(row.energy_mj_per_inference / row.latency_ms)
    assert row.area_mm2 == 3.5
    assert row.assumed_keys == 2  # the clock, and the vector unit's price
    assert (row.macs, row.tops, row.estimated_latency_cycles) == (None, None, None)


def test_assumed_constants_stand_with_what_they_entered() -> None:
    assert report().assumed == {
        "energy": ("vector.op_pj",),
        "time": ("clock.period_ns",),
        "area": (),
    }


def test_layers_name_stalls_by_cause_and_energy_by_component() -> None:
    (row,) = report().table("layer").records()
    assert row["layer"] == "conv"
    assert (row["start_cycle"], row["end_cycle"], row["cycles"]) == (0, 70, 70)
    assert (row["array_runs"], row["instructions"]) == (10, 20)
    assert (row["stall_data_cycles"], row["stall_space_cycles"]) == (20, 45)
    assert (row["stall_unit_cycles"], row["stall_progress_cycles"]) == (0, 0)
    assert row["worst_stall"] == "space x"
    assert (row["energy_array_pj"], row["energy_link_pj"]) == (60.0, 80.0)


def test_every_view_adds_up_to_the_same_energy() -> None:
    given = report()
    dynamic = given.summary.energy_dynamic_mj * 1e9
    for by in ("layer", "core", "op"):
        total = sum(float(row["energy_pj"] or 0) for row in given.table(by).records())
        assert total == pytest.approx(dynamic)
    components = given.table("component").records()
    total = sum(float(row["energy_pj"] or 0) for row in components)
    assert total == pytest.approx(given.summary.energy_mj_per_inference * 1e9)
    assert {str(row["component"]): row.get("area_mm2") for row in components} == {
        "link": None,
        "array": 1.5,
        "leakage": None,
        "m": 2.0,
    }


def test_busy_units_and_stalls_have_tables() -> None:
    given = report()
    assert [row["unit"] for row in given.table("unit").records()] == ["core0.array", "link"]
    assert given.table("stall").rows == (("conv", "space", "x", 45), ("conv", "data", "x", 20))
    assert tuple(given.tables) == BY
    with pytest.raises(UsageError, match="layer, core, component, op, unit, stall"):
        given.table("weather")


def test_an_average_period_is_noted() -> None:
    given, target = program({}, (work("a", 3),), (work("b", 8),)), toy_target()
    timing = simulate(given, target, kind=KIND, samples=6)
    noted = make_report(given, target, timing, kind=KIND)
    assert noted.summary.period_is_exact is False
    assert noted.notes == (
        "period: average over the later half of 6 samples; the state of the machine had not "
        "repeated",
    )


def test_the_overview_has_one_line_per_quantity() -> None:
    lines = report().overview().text().splitlines()
    assert "latency_ms                0.00014" in lines
    assert len(lines) == 17


# --- files ---


def test_files_read_back_equal(tmp_path: Path) -> None:
    given = report()
    paths = write_report(given, tmp_path)
    assert sorted(path.name for path in paths) == ["layers.csv", "summary.csv", "summary.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    assert read_report(tmp_path) == given
    with (tmp_path / "summary.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["latency_cycles"], row["macs"]) == ("70", "")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Path, target: Path) -> Path:
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="no space"):
        write_report(report(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no report"):
        read_report(tmp_path)
    (tmp_path / "summary.json").write_text('{"summary": {"latency_cycles": 1}}', encoding="utf-8")
    with pytest.raises(UsageError, match="another version of cimc"):
        read_report(tmp_path)


# --- comparisons and sweeps ---


def test_comparisons_show_what_changed() -> None:
    shorter, longer = report(10), report(20)
    rows = {row["quantity"]: row for row in compare_summaries(shorter, longer).records()}
    assert (rows["latency_cycles"]["a"], rows["latency_cycles"]["b"]) == (70, 140)
    assert rows["latency_cycles"]["change"] == 1.0
    assert "area_mm2" not in rows
    (layer,) = compare_layers(shorter, longer, ("old", "new")).records()
    assert (layer["cycles_old"], layer["cycles_new"], layer["cycles_change"]) == (70, 140, 1.0)


def test_a_price_is_swept_without_simulating_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given, target = made(), toy_target()
    timing = simulate(given, target, kind=KIND)
    monkeypatch.setattr("cimc.report.constants.simulate", None)
    variants = [{"vector.op_pj": value} for value in (0.0, 1.0, 4.0)]
    table = sweep_table(sweep(given, target, variants, simulation=timing, kind=KIND))
    energies = [float(row["energy_dynamic_mj"] or 0) * 1e9 for row in table.records()]
    assert energies == pytest.approx([80.0, 110.0, 200.0])
    assert [row["vector.op_pj"] for row in table.records()] == [0.0, 1.0, 4.0]
    assert "problem" not in table.columns


def test_other_constants_need_the_program_made_again() -> None:
    given, target = made(), toy_target()
    variants = [{"link.bits_per_cycle": value} for value in (8, 16)]
    with pytest.raises(UsageError, match=r"link.bits_per_cycle may change the program"):
        sweep(given, target, variants, kind=KIND)
    counts = {8: 10, 16: 5}
    points = sweep(
        given,
        target,
        variants,
        rebuild=lambda changed: (made(counts[changed.spec.link.bits_per_cycle]), None),
        kind=KIND,
    )
    reports = [point.report for point in points]
    assert [one.summary.latency_cycles for one in reports if one is not None] == [70, 35]


def test_variants_that_are_impossible_say_why() -> None:
    given, target = made(), toy_target()

    def rebuild(changed: Target) -> tuple[Program, None]:
        if changed.spec.link.bits_per_cycle == 8:
            fault = Fault("tiles do not fit in gb", need="9 bits", have="8 bits")
            raise FitError([fault, fault])
        return made(), None

    variants: list[Variant] = [{"link.bits_per_cycle": value} for value in (8, 16, -1)]
    table = sweep_table(sweep(given, target, variants, rebuild=rebuild, kind=KIND))
    first, second, third = table.records()
    assert first["problem"] == "tiles do not fit in gb; need 9 bits; have 8 bits (and 1 more)"
    assert first["latency_ms"] is None
    assert second["problem"] == ""
    assert second["latency_ms"] is not None
    assert "greater than 0" in str(third["problem"])
    with pytest.raises(FitError, match="tiles do not fit in gb"):
        sweep(given, target, variants[:1], rebuild=rebuild, kind=KIND)


def test_unknown_constants_and_wrong_values_are_refused() -> None:
    wrong: list[Variant] = [{"vector.op_pJ": 1.0, "vector.lanez": 2}]
    with pytest.raises(UsageError, match=r"did you mean vector\.op_pj") as caught:
        sweep(made(), toy_target(), wrong, kind=KIND)
    assert len(caught.value.faults) == 2
    with pytest.raises(UsageError, match="greater than or equal to 0"):
        with_constants(toy_target(), {"vector.op_pj": -1.0})
    changed = with_constants(
        toy_target(), {"memory.m.read_pj_per_bit": 9.0, "memory.m.write_pj_per_bit": 8.0}
    )
    assert changed.spec.memory["m"].read_pj_per_bit == 9.0
    assert changed.spec.memory["m"].write_pj_per_bit == 8.0
    assert changed.assumed_keys() == toy_target().assumed_keys()


# --- timeline ---


def test_a_trace_has_one_slice_for_each_hold_of_a_unit(tmp_path: Path) -> None:
    given, target = made(3), toy_target()
    timing = simulate(given, target, kind=KIND, samples=1, trace=True)
    path = tmp_path / "trace.json"
    assert write_trace(timing, target, path) == 6
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["otherData"]["note"] == "complete"
    events = content["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert names == {(0, 1): "link", (1, 1): "array"}
    slices = [event for event in events if event["ph"] == "X"]
    assert [(s["tid"], s["args"]["cycle"], s["dur"]) for s in slices[:3]] == [
        (1, 0, 0.004),
        (1, 2, 0.01),
        (1, 7, 0.004),
    ]
    for thread in names:  # no unit does two things at once
        mine = [s for s in slices if (s["pid"], s["tid"]) == thread]
        ends = [s["args"]["cycle"] + s["args"]["cycles"] for s in mine]
        assert all(end <= s["args"]["cycle"] for end, s in zip(ends, mine[1:], strict=False))


def test_a_trace_that_is_cut_short_says_so(tmp_path: Path) -> None:
    given, target = made(100), toy_target()
    timing = simulate(given, target, kind=KIND, samples=1, trace=50)
    path = tmp_path / "trace.json"
    assert write_trace(timing, target, path, limit=20) == 20
    content = json.loads(path.read_text(encoding="utf-8"))
    note = "cut short: 20 slices, of the first 50 of 200 instructions"
    assert content["otherData"]["note"] == note
    assert content["traceEvents"][-1]["name"] == note


def test_a_trace_must_have_been_asked_for(tmp_path: Path) -> None:
    timing = simulate(made(), toy_target(), kind=KIND, samples=1)
    with pytest.raises(UsageError, match="kept no trace"):
        write_trace(timing, toy_target(), tmp_path / "trace.json")
    assert not list(tmp_path.iterdir())


def test_lifetime_of_machines_that_wear_out() -> None:
    table = wear_table(Wear((Worn("", "array 0", "carry", 1e4),), 1e8, "counted"), 2.0)
    assert table.records() == [
        {
            "layer": "all",
            "cell": "array 0",
            "holds": "carry",
            "changes_per_inference": 1e4,
            "lifetime_inferences": 1e4,
            "lifetime": "5.56 hours",
        }
    ]
    assert wear_table(None, 2.0).rows == ()
    assert report().summary.lifetime_inferences is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 seconds"), (90, "1.5 minutes"), (86400, "1 days"), (4e9, "127 years")],
)
def test_times_in_a_readable_unit(seconds: float, text: str) -> None:
    assert shown_time(seconds) == text
