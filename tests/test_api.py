"""The functions of the package do what the command line does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cimc
from cimc.errors import UsageError
from cimc.ir.types import Array

SHAPES = Path(__file__).parent.parent / "models" / "shapes_int8.onnx"


@pytest.fixture(scope="module")
def program() -> cimc.Program:
    return cimc.compile(SHAPES, "edge-digital")


@pytest.fixture(scope="module")
def images() -> Array:
    with np.load(SHAPES.parent / "shapes_test.npz") as held:
        x: Array = held["x"][:3]
    return x


def test_run_equals_the_evaluator(program: cimc.Program, images: Array) -> None:
    outputs = program.run(images)
    graph = program.compiled.graph
    for number in range(len(images)):
        one = images[number : number + 1]
        wanted = cimc.evaluate(graph, one)
        assert wanted.keys() == outputs.keys()
        for name, array in wanted.items():
            assert (outputs[name][number] == array[0]).all()
        named = program.run({graph.inputs[0].name: one})
        assert all((named[name][0] == outputs[name][number]).all() for name in wanted)


def test_a_saved_program_is_the_same(program: cimc.Program, images: Array, tmp_path: Path) -> None:
    program.save(tmp_path / "out")
    again = cimc.load(tmp_path / "out")
    assert again.compiled.program == program.compiled.program
    assert again.compiled.tiles == program.compiled.tiles
    assert again.compiled.target.spec == program.compiled.target.spec
    assert again.target.name == "edge-digital"
    assert again.compiled.rows == program.compiled.rows
    one, two = again.run(images), program.run(images)
    assert all((one[name] == two[name]).all() for name in two)
    assert again.simulate(1).latency_cycles == program.simulate(1).latency_cycles > 0


def test_values_of_the_machine_can_be_replaced() -> None:
    given = {"clock.period_ns": 3.5}
    assert cimc.compile(SHAPES, "edge-digital", overrides=given).target.spec.clock.period_ns == 3.5


def test_check() -> None:
    assert cimc.check(SHAPES, "edge-digital").faults == ()
    found = cimc.check(SHAPES, "edge-digital", overrides={"memory.dram.size_bits": 1024})
    assert found.supported == found.nodes


def test_inputs_that_do_not_fit(program: cimc.Program) -> None:
    with pytest.raises(UsageError, match="another shape"):
        program.run(np.zeros((1, 1, 5, 5), np.float32))


def test_targets_and_version() -> None:
    assert "edge-digital" in cimc.list_targets()
    assert cimc.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'compyle'"):
        _ = cimc.compyle
