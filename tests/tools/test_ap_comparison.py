"""The comparison's arithmetic: bills equal reports, and what it says about the claim is true."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from cimc import api
from cimc.target import load_target

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tools" / "ap_comparison.py"
MODEL = ROOT / "models" / "shapes_ternary.onnx"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ap_comparison", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ap_comparison"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pair(tool: ModuleType):  # type: ignore[no-untyped-def]  # a class of the tool
    return tool.compared(MODEL, "shapes", "isaac", 4)


def test_a_bill_is_the_energy_of_the_report(tool: ModuleType) -> None:
    program = api.compile(MODEL, "rtm-ap", verify="none")
    made, summary = tool.bill(program), program.report(samples=1).summary
    assert made.pj() * 1e-9 == pytest.approx(summary.energy_mj_per_inference)
    assert sum(made.parts.values()) == pytest.approx(made.pj())
    assert made.pj(made.leakage) * 1e-9 == pytest.approx(summary.energy_dynamic_mj)
    assert made.latency_ms == pytest.approx(summary.latency_ms)


def test_other_constants_give_what_another_machine_would(tool: ModuleType) -> None:
    compiled = api.compile(MODEL, "rtm-ap", verify="none").compiled
    made = tool.bill(api.Program(compiled))
    for key in ("ap.write_pj", "ap.search_pj", "memory.rtm.leakage_pj_per_cycle"):
        other = replace(compiled, target=load_target("rtm-ap", {key: 0.7}))
        assert made.pj({key: 0.7}) == pytest.approx(tool.bill(api.Program(other)).pj())


def test_the_value_for_the_claim_makes_it_hold(tool: ModuleType, pair) -> None:  # type: ignore[no-untyped-def]  # a class of the tool
    for key in ("adc.conversions (price)", "dac.energy_pj"):
        needed = pair.crossbar.value_for(key, pair.ap.pj() * tool.CLAIM)
        ratio = pair.crossbar.pj({key: needed}) / pair.ap.pj()
        assert ratio == pytest.approx(tool.CLAIM)
    assert pair.ap.value_for("ap.read_pj", 0.0) is None


def test_tables_name_every_assumed_price(tool: ModuleType, pair) -> None:  # type: ignore[no-untyped-def]  # a class of the tool
    rows = tool.sensitivity_table(pair).records()
    named = " ".join(str(row["constant"]) for row in rows)
    assert all(key in named for key in pair.ap.assumed & pair.ap.counts.keys())
    for row in rows:
        ratios = [row["ratio_x0.1"], row["ratio_x1"], row["ratio_x10"]]
        assert ratios == sorted(ratios, reverse="rtm-ap" in row["constant"])
        assert row["ratio_x1"] == pytest.approx(pair.ratio())
    (network,) = tool.networks_table([pair]).records()
    assert network["claimed"] is None  # the paper says nothing of this network
    said = list(tool.statements(pair))
    assert f"the ratio is {pair.ratio():.3g}" in said[0]


def test_functions_are_priced_on_both(tool: ModuleType) -> None:
    rows = tool.functions_table(load_target("rtm-ap")).records()
    assert {row["function"] for row in rows} >= {"relu", "clip", "max pool", "average pool"}
    assert all(row["cheaper"] == "vector unit" for row in rows)
    dear = load_target("rtm-ap", {"vector.op_pj": 50.0})
    assert all(row["cheaper"] == "arrays" for row in tool.functions_table(dear).records())
