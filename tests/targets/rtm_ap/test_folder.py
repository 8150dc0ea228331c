"""A compiled network on disk, whose sums were too many for its text."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimc import api
from cimc.ir import sums
from cimc.pipeline.observe import Dump
from cimc.pipeline.state import load_state

MODEL = Path(__file__).parents[3] / "models" / "shapes_ternary.onnx"


def test_networks_with_many_sums_load_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "MOST_SHOWN", 10)
    dump = Dump(tmp_path / "ir")
    program = api.compile(MODEL, "rtm-ap", tmp_path / "out", verify="none", observers=[dump])
    compiled, again = program.compiled, api.load(tmp_path / "out").compiled
    assert again.tiles == compiled.tiles
    dumps = {path.stem[3:]: path for path in (tmp_path / "ir").glob("*.cir")}
    assert "digest=" in dumps["map-share-terms"].read_text().split("\nsums ")[-1]
    assert load_state(dumps["map-share-terms"]) == load_state(dumps["map-share-terms"])
