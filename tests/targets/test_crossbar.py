"""Crossbar machines: how weights lie in arrays, what programs compute and count, what fits."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from cimc.conformance.samples import sample_graphs, sample_inputs
from cimc.errors import CimcWarning, FitError
from cimc.ir import ops
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, Op, Value, digest_of
from cimc.ir.program import Program, executions, walk
from cimc.ir.tiles import Tiles, parse_tiles
from cimc.ir.types import Array, Quant, Type
from cimc.kind import Kind, Options, load_kind
from cimc.passes.allocate import allocate
from cimc.passes.tile import tile
from cimc.sim.execute import execute
from cimc.sim.simulate import simulate
from cimc.target import Target, load_target

KIND: Kind = load_kind("crossbar")
TINY = {"array.rows": 16, "array.active_rows": 8, "array.columns": 32, "adc.columns": 16}
DIFFERENTIAL = {"array.encoding": "differential", "adc.bits": 10}
OFFSET = {"array.encoding": "offset", "adc.bits": 9}


def mapped(graph: Graph, target: Target, level: int = 2) -> Tiles:
    """The graph's layers with their places on the target."""
    return KIND.map(tile(graph, target=target), target, Options(level=level))


def counts(program: Program) -> Counter[str]:
    """Dynamic instructions by mnemonic."""
    found: Counter[str] = Counter()
    for stream in program.streams:
        for instr, loops in walk(stream.body):
            found[instr.mnemonic] += executions(instr, loops)
    return found


def events(program: Program, target: Target) -> Counter[str]:
    """Events of one sample by the program."""
    buffers, found = program.buffer_map(), Counter[str]()
    for stream in program.streams:
        for instr, loops in walk(stream.body):
            for event, times in KIND.cost(instr, buffers, target).events:
                found[event] += times * executions(instr, loops)
    return found


@dataclass
class Residual:
    """A residual network with random weights and one requantization per layer."""

    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Array] = field(default_factory=dict)
    quant: Quant = field(default_factory=lambda: Quant(0.0625, 0))

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(0)

    def constant(self, array: Array, dtype: str) -> Value:
        """A tensor."""
        self.tensors[digest_of(array)] = array
        value = Value(f"c{len(self.ops)}", Type(dtype, array.shape))
        self.ops.append(ops.Constant(value, digest_of(array)))
        return value

    def conv(self, x: Value, k: int, r: int, stride: int, add: Value | None = None) -> Value:
        """A conv with padding r//2, its requantization, and the sum with `add`."""
        c, pad = x.shape[1], r // 2
        extent = (x.shape[2] + 2 * pad - r) // stride + 1
        w = self.constant(self.random.integers(-127, 128, (k, c, r, r)).astype(np.int8), "i8")
        scale = np.array([1 / (70 * math.sqrt(c * r * r))], np.float32)
        m = self.constant(scale, "f32")
        sums = Value(f"conv{len(self.ops)}", Type("i32", (1, k, extent, extent)))
        self.ops.append(
            ops.Conv(sums, x, w, None, (stride,) * 2, (pad,) * 4, (1, 1), nodes=(sums.name,))
        )
        out = Value(f"q{len(self.ops)}", Type("i8", sums.shape, self.quant))
        self.ops.append(ops.Requant(out, sums, m, None, layer=sums.name))
        if add is not None:
            total = Value(f"add{len(self.ops)}", out.type)
            self.ops.append(ops.Binary(total, out, add, "add", 0, layer=sums.name))
            return total
        return out

    def resnet(self, size: int, blocks: tuple[int, ...]) -> Graph:
        """ResNet of basic blocks for 1000 classes; (2, 2, 2, 2) at 224 pixels is ResNet-18."""
        x = Value("x", Type("i8", (1, 3, size, size), self.quant))
        self.ops.append(ops.Input(x))
        y = self.conv(x, 64, 7, 2)
        shape = (1, 64, y.shape[2] // 2, y.shape[3] // 2)
        pooled = Value("pool", Type("i8", shape, self.quant))
        self.ops.append(ops.Pool(pooled, y, "max", (3, 3), (2, 2), (1,) * 4, (1, 1)))
        y = pooled
        for stage, count in enumerate(blocks):
            for block in range(count):
                k, stride = 64 << stage, 2 if stage and not block else 1
                shortcut = self.conv(y, k, 1, stride) if stride == 2 else y
                y = self.conv(self.conv(y, k, 3, stride), k, 3, 1, shortcut)
        mean = Value("mean", Type("i8", (1, y.shape[1], 1, 1), self.quant))
        self.ops.append(ops.Reduce(mean, y, "mean", (2, 3)))
        flat = Value("flat", Type("i8", (1, y.shape[1]), self.quant))
        self.ops.append(ops.Reshape(flat, mean))
        w = self.random.integers(-127, 128, (y.shape[1], 1000)).astype(np.int8)
        out = Value("y", Type("i32", (1, 1000)))
        self.ops.append(ops.Matmul(out, flat, self.constant(w, "i8"), None))
        graph = Graph("resnet", tuple(self.ops), (out,), self.tensors)
        graph.verify()
        return graph


@pytest.fixture(scope="module")
def resnet18() -> Graph:
    return Residual().resnet(224, (2, 2, 2, 2))


@pytest.mark.parametrize("machine", ["isaac", "reram-128"])
@pytest.mark.parametrize("level", [0, 2])
def test_resnet18_takes_132500_products(resnet18: Graph, machine: str, level: int) -> None:
    target = load_target(machine)
    program = KIND.lower(mapped(resnet18, target, level), target)
    closed_form = sum(
        op.out.shape[2] * op.out.shape[3] * math.ceil(math.prod(op.w.shape[1:]) / 128)
        for op in resnet18.ops
        if isinstance(op, ops.Conv)
    ) + math.ceil(512 / 128)
    assert closed_form == 132_500
    assert counts(program)["analog-mvm"] == closed_form
    static = sum(1 for stream in program.streams for _ in walk(stream.body))
    assert static <= 30_000


def test_copies_shorten_the_slowest_layer(resnet18: Graph) -> None:
    target = load_target("isaac")
    alone, doubled = mapped(resnet18, target, 0), mapped(resnet18, target, 2)
    cycles = [
        max(KIND.estimate(layer, tiles, target).cycles for layer in tiles.layers)
        for tiles in (alone, doubled)
    ]
    assert cycles[0] == 112 * 112 * 8 * 128 + 128  # the first layer, one position after the other
    assert cycles[1] < cycles[0] / 50
    used = sum(layer.nest.option("arrays", 0) for layer in doubled.layers if layer.nest)
    assert used <= 168 * 96


@pytest.mark.parametrize(("changes", "level"), [({}, 2), (TINY, 2), (DIFFERENTIAL, 2), (OFFSET, 0)])
def test_programs_compute_and_count(changes: dict[str, object], level: int) -> None:
    target = load_target("isaac", changes)
    for graph in sample_graphs():
        if "large" in graph.name or (changes and "ternary" in graph.name):
            continue  # many products, slow in plain Python
        tiles = mapped(graph, target, level)
        program = KIND.lower(tiles, target)
        inputs = sample_inputs(graph)
        expected = evaluate(graph, inputs)
        found = execute(allocate(program, target=target), target, inputs, engine="plain")
        for name, array in expected.items():
            assert (found[name] == array).all(), (graph.name, name)
        estimated: Counter[str] = Counter()
        for layer in tiles.layers:
            estimated.update(dict(KIND.estimate(layer, tiles, target).events))
        assert +events(program, target) == estimated, graph.name
        assert set(estimated) <= set(KIND.energies(target))


def test_an_adc_of_too_few_bits_clips() -> None:
    graph = next(graph for graph in sample_graphs() if graph.name == "conv_plain")
    inputs = sample_inputs(graph)
    expected = next(iter(evaluate(graph, inputs).values()))
    for bits, equal in ((8, True), (5, False)):
        target = load_target("isaac", {"adc.bits": bits})
        program = allocate(KIND.lower(mapped(graph, target), target), target=target)
        found = next(iter(execute(program, target, inputs, engine="plain").values()))
        assert (found == expected).all() == equal


def test_a_network_beyond_the_chip_says_how_many_cores_it_needs(resnet18: Graph) -> None:
    target = load_target("isaac", {"cores": 20})
    with pytest.raises(FitError) as caught:
        mapped(resnet18, target)
    assert str(caught.value) == (
        "error CIM3102: the weights do not fit on isaac\n"
        "  most:    conv78 576, conv83 576, conv87 576 arrays\n"
        "  need:    2880 arrays in 30 cores\n"
        f"  have:    1920 arrays in 20 cores ({target.path}: cores)\n"
        "  help:    set cores=30, or use cells of more bits or weights of fewer"
    )
    mapped(resnet18, load_target("isaac", {"cores": 30}))


def test_feature_maps_beyond_the_banks_take_turns() -> None:
    graph = Residual().resnet(16, (1, 1))
    inputs = {"x": np.random.default_rng(2).integers(-128, 128, (1, 3, 16, 16)).astype(np.int8)}
    expected = evaluate(graph, inputs)["y"]
    enough = load_target("isaac")
    streams = len(KIND.lower(mapped(graph, enough), enough).streams)
    tight = load_target("isaac", {"memory.edram.size_bits": 8 * 12_500})
    with pytest.warns(CimcWarning, match="run one after the other"):
        program = KIND.lower(mapped(graph, tight), tight)
    assert len(program.streams) < streams
    placed = allocate(program, target=tight)
    assert (execute(placed, tight, inputs, engine="plain")["y"] == expected).all()


def test_mapped_layers_are_text_that_can_be_edited() -> None:
    graph = next(graph for graph in sample_graphs() if graph.name == "shortcut_conv")
    target = load_target("isaac")
    tiles = mapped(graph, target, 0)
    again = parse_tiles(str(tiles), graph.tensors)
    assert again == tiles
    assert KIND.lower(again, target) == KIND.lower(tiles, target)
    moved = parse_tiles(str(tiles).replace("array=0 ", "array=9000 "), graph.tensors)
    program = allocate(KIND.lower(moved, target), target=target)
    inputs = sample_inputs(graph)
    for name, array in evaluate(graph, inputs).items():
        assert (execute(program, target, inputs, engine="plain")[name] == array).all()
    for text, message in (
        (str(tiles).replace("array=2 ", "array=0 "), "lies over another one"),
        (str(tiles).replace("array=0 ", "array=16128 "), "layers lie beyond isaac"),
        (str(tile(graph, target=target)), "has no place"),
    ):
        with pytest.raises(FitError, match=message):
            KIND.lower(parse_tiles(text, graph.tensors), target)


def test_depthwise_groups_share_arrays() -> None:
    graph = next(graph for graph in sample_graphs() if graph.name == "conv_depthwise")
    target = load_target("isaac")
    layer = mapped(graph, target, 0).layers[0]
    assert layer.nest is not None
    assert layer.nest.option("arrays", 0) == 1  # 7 groups of 9 rows lie on one diagonal


def test_narrow_weights_take_fewer_cells() -> None:
    graph = next(graph for graph in sample_graphs() if graph.name == "conv_large_ternary")
    eight, two = load_target("isaac"), load_target("isaac", {"operands.weight_bits": 2})
    arrays = [
        layer.nest.option("arrays", 0)
        for target in (eight, two)
        for layer in mapped(graph, target, 0).layers
        if layer.nest
    ]
    assert arrays[1] < arrays[0]


def test_a_layer_alone_takes_what_the_estimate_says() -> None:
    net = Residual()
    x = Value("x", Type("i8", (1, 128, 14, 14), net.quant))
    other = Value("other", Type("i8", (1, 128, 14, 14), net.quant))
    net.ops += [ops.Input(x), ops.Input(other)]
    graph = Graph("layer", (), (net.conv(x, 128, 3, 1, other),), net.tensors)
    graph = dataclasses.replace(graph, ops=tuple(net.ops))
    for machine, level in (("isaac", 0), ("reram-128", 2)):
        target = load_target(machine)
        tiles = mapped(graph, target, level)
        estimated = KIND.estimate(tiles.layers[0], tiles, target).cycles
        program = allocate(KIND.lower(tiles, target), target=target)
        found = simulate(program, target, samples=1, engine="plain").latency_cycles
        assert estimated <= found
        if level == 0:  # 196 passes hide all but the first fetch and the last sums
            assert found <= 1.01 * estimated


def test_published_area_of_isaac() -> None:
    # ISAAC, table I: 85.4 mm2 with the HyperTransport links.
    assert sum(KIND.area(load_target("isaac")).values()) == pytest.approx(85.4, rel=0.002)


def test_published_peak_of_isaac() -> None:
    # ISAAC, section VIII: 478.9 GOPS/s/mm2 of 16-bit operations, two per multiply-accumulate.
    target = load_target("isaac", {"operands.weight_bits": 16, "operands.input_bits": 16})
    program = KIND.lower(mapped(next(iter(sample_graphs())), target, 0), target)
    instr = next(i for s in program.streams for i, _ in walk(s.body) if i.mnemonic == "analog-mvm")
    (hold,) = KIND.cost(instr, program.buffer_map(), target).holds
    seconds = hold[1] * target.spec.clock.period_ns * 1e-9
    assert seconds == pytest.approx(1.6e-6)  # 16 bits of 100 ns
    macs = 168 * 96 * 128 * (128 // 8) / seconds
    assert 2 * macs / 1e9 / 85.4 == pytest.approx(478.9, rel=0.02)
