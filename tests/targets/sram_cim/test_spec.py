"""Target files of SRAM-CiM machines: published sums, and what the schema refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimc.errors import UsageError
from cimc.kind import load_kind
from cimc.target import load_target
from cimc.targets.sram_cim.energy import activation_events, activation_pj, leakage_pj
from cimc.targets.sram_cim.machine import spec_of


@pytest.mark.parametrize(
    ("name", "pj", "leakage_nj"),
    [
        ("miredo-default", 25.619328, 0.035930852808574304),
        ("miredo-transformer", 71.12448, 0.4719655086538611),
    ],
)
def test_published_energies(name: str, pj: float, leakage_nj: float) -> None:
    spec = spec_of(load_target(name))
    assert activation_pj(spec, 8, 8) == pytest.approx(pj, rel=1e-12)
    assert leakage_pj(spec) == pytest.approx(leakage_nj * 1e3, rel=1e-12)


def test_a_balanced_tree_has_one_adder_bit_more_at_each_stage() -> None:
    spec = spec_of(load_target("edge-digital"))
    assert spec.macro.adder_tree == "balanced"
    stages = sum((64 >> stage) * (8 + stage - 1) for stage in range(1, 7))
    assert spec.macro.tree_adders(8) == stages * 64
    accumulators = (8 + 8 + 6) * 64
    assert activation_events(spec, 8, 8) == {
        "macro.multiplier": 8 * 64 * 64 * 8,
        "macro.adder": (stages * 64 + accumulators) * 8,
        "macro.register": accumulators * 8,
    }


def test_narrow_inputs_take_fewer_cycles_and_wide_weights_more() -> None:
    spec = spec_of(load_target("miredo-default"))
    eight = activation_events(spec, 8, 8)["macro.multiplier"]
    assert activation_events(spec, 4, 8)["macro.multiplier"] == eight // 2
    assert activation_events(spec, 8, 16)["macro.multiplier"] == eight * 2


def test_area_counts_every_instance() -> None:
    target = load_target("miredo-default")
    area = load_kind("sram-cim").area(target)
    assert area["memory.oreg"] == pytest.approx(8 * 16 * 5.8944e-05)
    assert area["memory.ireg"] == pytest.approx(8 * 32 * 2.9472e-05)
    assert area["memory.gb"] == pytest.approx(0.8022823)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("macro.columns", 32, "macro.adder_tree = 'miredo' counts -96 adders for 32 x 32 cells"),
        ("axis.cores.sourced_at", {"I": "gb", "W": "gb"}, "sourced_at names no level for O"),
        ("memory.ib.double", ["I", "O"], "memory.ib.double has O, which it does not hold"),
        ("memory.ireg.along", ["columns"], "the innermost level of I must hold nothing else"),
        ("memory.dram.holds", ["I", "W"], "the outermost level, must hold I, W and O"),
    ],
)
def test_inconsistent_files_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_target("miredo-default", {key: value})
    assert message in str(caught.value)


def test_templates_are_data() -> None:
    """Nothing in the code knows the templates."""
    for path in Path(__file__).parents[3].joinpath("targets").rglob("*.py"):
        assert "miredo-" not in path.read_text(encoding="utf-8"), path
