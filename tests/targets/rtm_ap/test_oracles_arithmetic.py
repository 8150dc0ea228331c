"""Oracles of the arithmetic: T6-T8 on random slices, T9 on a network, T12 on arrays that run.

T6  sharing never raises the count, keeps M*x, cuts by at most 1 - (1-s^n)/(n(1-s)), by 0 for n = 1
T7  duplicated or negated rows cost no further additions in the slice
T8  means of 50 slices of 512 x 9 at sparsity 0.8: 921.6 additions before, 636 after
T9  ResNet-18: 1.814 GMAC, 11.167 M weights, 2.23 M additions before sharing at sparsity 0.8
T12 ternary convs on the arrays are NumPy's, in widths that some input needs to the last bit
More of T6-T9, by property tests: `tests/passes/test_signed_sums.py`, `test_ternary_pairs.py`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from cimc.ir.graph import Graph, digest_of, parse_graph
from cimc.ir.program import Program, walk
from cimc.passes._signed_sums import reduced, shared_rows, signed_sums
from cimc.passes.allocate import allocate
from cimc.passes.tile import tile
from cimc.sim.execute import Executor
from cimc.target import Target, load_target
from cimc.targets.rtm_ap import KIND, ApRead, ApRun, isa
from cimc.targets.rtm_ap.arrays import Chip, chip_of
from cimc.targets.rtm_ap.codegen import Style
from cimc.targets.rtm_ap.plan import Plan, Tile
from cimc.targets.rtm_ap.span import Span
from cimc.targets.rtm_ap.work import work_of
from tests.passes.test_signed_sums import RESNET18, ternary

Ints = NDArray[np.int64]


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
@pytest.mark.parametrize(("rows", "inputs"), [(64, 1), (64, 9), (512, 9), (64, 72)])
def test_t6_sharing_within_its_bounds(rows: int, inputs: int, sparsity: float) -> None:
    before = after = 0
    random = np.random.default_rng(rows + inputs)
    for _ in range(10):
        weights = ternary(random, rows, inputs, sparsity)
        plain = signed_sums(weights)
        found = reduced(shared_rows(plain))
        x = random.integers(-99, 100, inputs)
        assert (found.matrix() @ x == weights @ x).all()
        assert found.additions <= plain.additions
        assert inputs > 1 or found.additions == plain.additions
        before, after = before + plain.additions, after + found.additions
    cut, density = 1 - after / before, 1 - sparsity
    assert cut <= 1 - (1 - sparsity**inputs) / (inputs * density) + 0.02  # sampling


def test_t7_copies_of_rows_are_free() -> None:
    weights = ternary(np.random.default_rng(7), 40, 9, 0.4)
    once = reduced(shared_rows(signed_sums(weights)))
    copies = np.concatenate([weights, -weights, weights])
    again = reduced(shared_rows(signed_sums(copies)))
    assert again.slice_additions <= once.slice_additions
    assert (again.matrix() == copies).all()


def test_t8_means_of_random_slices() -> None:
    counts = []
    for seed in range(50):
        plain = signed_sums(ternary(np.random.default_rng(seed), 512, 9, 0.8))
        counts.append((plain.additions, reduced(plain).additions))
    before, after = np.mean(counts, axis=0)
    assert before == pytest.approx(921.6, rel=0.03)
    assert after == pytest.approx(636, rel=0.03)


def test_t9_resnet18_in_numbers() -> None:
    random, weights, macs, additions = np.random.default_rng(9), 0, 0, 0
    for kernel, c, k, side in RESNET18:
        layer = ternary(random, k, c * kernel**2, 0.8)
        weights, macs = weights + layer.size, macs + layer.size * side**2
        additions += signed_sums(layer).additions
    assert macs == pytest.approx(1.814e9, rel=1e-3)
    assert weights == pytest.approx(11.167e6, rel=1e-4)
    assert additions == pytest.approx(2.23e6, rel=0.01)


# --- T12 ---

SHAPE = (12, 8, 3, 3)


@cache
def machine() -> Target:
    return load_target("rtm-ap")


@cache
def signs() -> Ints:
    random = np.random.default_rng(12)
    return np.where(random.random(SHAPE) < 0.6, 0, random.choice([-1, 1], SHAPE))


def conv(side: int) -> Graph:
    """A conv without padding, of 8-bit numbers."""
    return parse_graph(f"""
        graph "t12"
        %x : u8[1,8,{side},{side}]<1,0> = input
        %w : i2[12,8,3,3] = constant {{value={tuple(signs().reshape(-1).tolist())}}}
        %y : i32[1,12,{side - 2},{side - 2}] = conv %x, %w, _ {{strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)}}
        return %y
    """)  # noqa: E501


def lowered(side: int, share: bool = True) -> Program:
    """Weights as the program, in two chunks of inputs."""
    tiles = tile(conv(side), target=machine())
    (layer,) = tiles.layers
    assert layer.nest is not None
    plan = Plan("program", Tile(1, side - 2, side - 2), 1, 1, Style(36, share))
    nest = plan.nest(layer.nest, machine(), work_of(layer, tiles).shape)
    tiles = replace(tiles, layers=(replace(layer, nest=nest),))
    return allocate(KIND.lower(tiles, machine()), target=machine())


def ran(program: Program, x: NDArray[np.uint8]) -> tuple[Ints, Chip]:
    """The result, and the arrays as they are afterwards."""
    executor = Executor(program, machine())
    y = executor.run({"x": x})["y"]
    chip = chip_of(executor.memories)
    assert isinstance(chip, Chip)
    return y.astype(np.int64), chip


def accumulators(chip: Chip, read: ApRead) -> Ints:
    """What a read-out finds: [outputs, rows]."""
    return chip.arrays(Span(read.array, read.arrays, *read.size)).fetch(read.slots())


def convolved(x: NDArray[np.uint8]) -> Ints:
    """The definition, by NumPy."""
    windows = np.lib.stride_tricks.sliding_window_view(x[0].astype(np.int64), (3, 3), axis=(1, 2))
    found: Ints = np.einsum("cpqrs,kcrs->kpq", windows, signs())[None]
    return found


def test_t12_convs_are_numpys_within_their_widths() -> None:
    program, random = lowered(6), np.random.default_rng(0)
    reads = [
        instr for s in program.streams for instr, _ in walk(s.body) if isinstance(instr, ApRead)
    ]
    x = random.integers(0, 256, (1, 8, 6, 6)).astype(np.uint8)
    y, chip = ran(program, x)
    assert (y == convolved(x)).all()
    bound = 255 * np.abs(signs()).sum(axis=(1, 2, 3))  # sum over +1, plus sum over -1
    for read in reads:
        assert read.bits <= int(bound.max()).bit_length()
        assert (accumulators(chip, read) <= bound.max()).all()


def extremal(channel: int) -> NDArray[np.uint8]:
    """Drives the sum of one output channel to its highest: 255 under +1, 0 under -1."""
    return np.where(signs()[channel] > 0, 255, 0).astype(np.uint8)[None]


@pytest.mark.parametrize("share", [False, True])
def test_t12_the_extremal_input_needs_every_bit(share: bool) -> None:
    program = lowered(3, share)
    (read,) = (i for s in program.streams for i, _ in walk(s.body) if isinstance(i, ApRead))
    highest = 0
    for channel in range(12):
        x = extremal(channel)
        y, chip = ran(program, x)
        assert (y == convolved(x)).all()
        held = accumulators(chip, read)[channel, 0]
        bound = 255 * np.abs(signs()[channel]).sum()  # the exact one of this filter
        # what is subtracted is complemented: where it is shared, its unused codes come on top
        assert held >= bound if share else held == bound
        highest = max(highest, int(held))
    assert highest.bit_length() == read.bits


def narrower(program: Program) -> Program:
    """The program with one bit less wherever a sum has all the bits of an accumulator."""
    buffers = program.buffer_map()
    runs = [i for s in program.streams for i, _ in walk(s.body) if isinstance(i, ApRun)]
    (read,) = (i for s in program.streams for i, _ in walk(s.body) if isinstance(i, ApRead))
    tensors, changed = dict(program.tensors), dict(buffers)
    for name in {run.code.buffer for run in runs}:
        init = buffers[name].init
        assert init is not None
        words = program.tensors[init].astype(np.uint32)
        full = (words >> isa.WIDTH_AT & 0x3F == read.bits) & (words & 0x1F == isa.ADD)
        words[full] -= np.uint32(1 << isa.WIDTH_AT)
        assert full.any()
        changed[name] = replace(buffers[name], init=digest_of(words))
        tensors[digest_of(words)] = words
    return replace(program, buffers=tuple(changed.values()), tensors=tensors)


def test_t12_one_bit_less_overflows() -> None:
    program = lowered(3)
    channel = int(np.abs(signs()).sum(axis=(1, 2, 3)).argmax())
    x = extremal(channel)
    assert (ran(program, x)[0] == convolved(x)).all()
    assert (ran(narrower(program), x)[0] != convolved(x)).any()
