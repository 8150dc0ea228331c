"""The table of additions: what it stands beside, and that what it counts was generated."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cimc.target import load_target

FILE = Path(__file__).parents[2] / "tools" / "ap_arithmetic.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ap_arithmetic", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ap_arithmetic"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("place", [0, 1])
def test_vgg9_beside_its_expected_figures(tool: ModuleType, place: int) -> None:
    target, expected = load_target("rtm-ap"), tool.EXPECTED["vgg9"][place]
    row = tool.row_of("vgg9", expected, 0, 18, target)
    found = (row.before, row.greedy)
    for counts, instructions, row_adds in zip(
        found, expected.instructions, expected.row_adds, strict=True
    ):
        assert counts.instructions / 1e3 == pytest.approx(instructions, rel=0.02)
        assert counts.row_adds / 1e6 == pytest.approx(row_adds, rel=0.02)
    assert row.ours.row_adds <= 0.85 * row.greedy.row_adds
    assert row.ours.instructions == row.room.additions
    assert row.room.columns <= 256
    text = "\n".join(tool.table([row], target))
    assert "vgg9" in text
