"""Batches, dilations, groups, uneven pads, and products of two computed operands."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import cimc
from cimc.conformance.samples import Sketch, sample_inputs
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.program import Program, walk
from cimc.kind import Options, load_kind
from cimc.passes.allocate import allocate
from cimc.passes.fuse_layers import fuse_layers
from cimc.passes.tile import tile
from cimc.sim.energy import energy
from cimc.sim.execute import execute
from cimc.sim.simulate import simulate
from cimc.target import load_target
from cimc.targets.sram_cim.instructions import Activate, Transfer

KIND = load_kind("sram-cim")
NAMES = ("miredo-default", "edge-digital", "miredo-transformer")

ATTENTION = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[{n},{heads},6,8] q, float[{n},{heads},10,8] k, float[{n},{heads},10,8] v)
  => (float[{n},{heads},6,8] y)
{{
  t = Transpose <perm=[0,1,3,2]> (k)
  s = MatMul (q, t)
  p = Softmax <axis=-1> (s)
  y = MatMul (p, v)
}}
"""


@pytest.mark.parametrize(("n", "heads"), [(1, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_attention_writes_computed_operands_into_the_macros(
    n: int, heads: int, name: str, tmp_path: Path
) -> None:
    model = onnx.parser.parse_model(ATTENTION.format(n=n, heads=heads))
    path = tmp_path / "attention.onnx"
    onnx.save(model, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = cimc.compile(path, name, calibrate="random").compiled
    products = [layer for layer in compiled.tiles.layers if layer.place == "macro"]
    assert len(products) == 2
    loads = written(compiled.program, compiled.target.spec.memory)
    for layer in products:
        assert layer.nest is not None
        assert (layer.nest.extent("g"), layer.nest.extent("n")) == (n * heads, 1)
        assert loads[layer.name] > 0
    random = np.random.default_rng(3)
    inputs = {
        value.name: random.standard_normal(value.shape).astype(np.float32)
        for value in compiled.graph.inputs
    }
    found = execute(compiled.program, compiled.target, inputs)
    for result, array in evaluate(compiled.graph, inputs).items():
        assert (found[result] == array).all()


def written(program: Program, memory: object) -> dict[str, int]:
    """Transfers of W into the macros, by layer; all that is activated must have come that way."""
    assert isinstance(memory, dict)
    cells = list(memory)[-1]
    memories = {buffer.name: buffer for buffer in program.buffers}
    found: dict[str, int] = {}
    for stream in program.streams:
        for instr, _ in walk(stream.body):
            if isinstance(instr, Transfer) and memories[instr.dst.buffer].memory.startswith(cells):
                assert instr.operand == "W"
                found[instr.layer] = found.get(instr.layer, 0) + 1
            if isinstance(instr, Activate):
                assert memories[instr.w.buffer].memory.startswith(cells)
    return found


def conv(draw: Sketch, n: int) -> Graph:
    x = draw.input((n, 16, 12, 12))
    return draw.graph(draw.requant(draw.conv(x, 32, (3, 3), pads=(1, 1, 1, 1))))


@pytest.mark.parametrize("objective", ["latency", "energy"])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_costs_less_than_its_samples(name: str, objective: str) -> None:
    """Samples run like rows, so that weights are loaded for several of them."""
    target = load_target(name)
    costs = []
    for n in (1, 4):
        graph = fuse_layers(conv(Sketch("batch"), n))
        options = Options(objective=objective)
        tiles = KIND.map(tile(graph, target=target), target, options)
        (layer,) = (layer for layer in tiles.layers if layer.place == "macro")
        assert layer.nest is not None
        assert layer.nest.extent("n") == n
        program = allocate(KIND.lower(tiles, target), target=target)
        inputs = sample_inputs(graph)
        found = execute(program, target, inputs)
        for result, array in evaluate(graph, inputs).items():
            assert (found[result] == array).all()
        cycles = simulate(program, target, samples=1).latency_cycles
        spent = energy(program, target, cycles).total_pj
        costs.append(cycles if objective == "latency" else spent)
    assert costs[1] < 4 * costs[0]


@dataclass(frozen=True)
class Geometry:
    kernel: tuple[int, int] = (3, 3)
    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1


GEOMETRIES = {
    "dilated": Geometry(dilations=(2, 3), pads=(2, 3, 2, 3)),
    "uneven pads": Geometry(pads=(0, 2, 1, 0)),
    "uneven pads, strides": Geometry((5, 3), pads=(3, 0, 1, 2), strides=(2, 3)),
    "groups": Geometry(pads=(1, 1, 1, 1), group=3),
    "depthwise, strides": Geometry((5, 5), pads=(2, 2, 2, 2), strides=(2, 2), group=6),
    "depthwise, dilated": Geometry(dilations=(2, 2), group=6),
}


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_geometries_of_batches(case: str, level: int) -> None:
    target = load_target("miredo-default" if level != 1 else "edge-digital")
    sketch = Sketch(case)
    given = GEOMETRIES[case]
    made = sketch.conv(
        sketch.input((3, 6, 9, 8)),
        12,
        given.kernel,
        strides=given.strides,
        pads=given.pads,
        dilations=given.dilations,
        group=given.group,
    )
    graph = fuse_layers(sketch.graph(sketch.requant(made)))
    tiles = KIND.map(tile(graph, target=target), target, Options(level=level))
    program = allocate(KIND.lower(tiles, target), target=target)
    inputs = sample_inputs(graph)
    found = execute(program, target, inputs)
    for result, array in evaluate(graph, inputs).items():
        assert (found[result] == array).all()
