"""A whole network, pass by pass: what its arrays count is what its program says."""

from __future__ import annotations

from pathlib import Path

from cimc import api
from cimc.dataset import random_dataset
from cimc.runs import input_ranges
from cimc.sim.energy import energy
from cimc.sim.execute import Executor
from cimc.targets.rtm_ap.probe import PROBE, probe_of
from cimc.targets.rtm_ap.work import spec_of

MODEL = Path(__file__).parents[3] / "models" / "shapes_ternary.onnx"


def test_counts_of_a_network_equal_its_closed_forms() -> None:
    """Searched cells and shift steps exactly; written cells are expected for uniform bits."""
    few = {"ap.columns": 96, "ap.domains": 32}  # so few that tracks shift
    compiled = api.compile(MODEL, "rtm-ap", verify="none", overrides=few).compiled
    program, target = compiled.program, compiled.target
    probe = probe_of(spec_of(target))
    machine = Executor(program, target, "fast", {PROBE: probe})
    (sample,) = random_dataset(program.inputs, 1, 0, input_ranges(compiled.graph))
    machine.run(sample)
    probe.close_all()
    total, counted = probe.total(), energy(program, target, 0).by_event()
    assert total.searched == counted["ap.searched_bits"][0]
    assert total.moves == counted["ap.shift_steps"][0] > 0
    # carries are rarer in upper bits, and rows without data change little
    assert 0.4 < total.written / counted["ap.written_bits"][0] < 1
    assert total.changed < total.written
    assert len(probe.counts) > 1
