"""From weights to few additions: each pass before and after, on a layer small enough to follow.

A conv with four output channels over two input channels, windows of two: its inputs are x0, x1 (of
channel 0) and x2, x3 (of channel 1). Its weights, row by row, and what becomes of them:

     1  1 -1  0     fold-weights           y0 += x0 + x1 - x2, three additions; no weight is left
    -1 -1  1  0                            y1, y2 and y3 have three, three and two: 11 in all
     1  1  0  1     interchange-channels   both channels are loaded at once: still one piece
     0  1  0 -1     share-rows             t4 = x0 + x1 - x2 is made once (2), y0 adds it, y1
                                           subtracts it: 9 in all
                    share-terms            x0 + x1 stands in t4 and in y2: a value of its own, 8
                    order-sums             each t is one addition, before its first use

The golden text shows exactly this.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cimc.errors import UsageError, VerifyError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph, parse_graph
from cimc.ir.sums import MOST_SHOWN, Piece, Sums, sums_of
from cimc.ir.text import TextError
from cimc.ir.tiles import Tiles, parse_tiles
from cimc.passes.allocate import allocate
from cimc.passes.fold_weights import fold_weights
from cimc.passes.interchange_channels import interchange_channels
from cimc.passes.lower import lower
from cimc.passes.order_sums import order_sums
from cimc.passes.share_rows import share_rows
from cimc.passes.share_terms import share_terms
from cimc.passes.tile import tile
from cimc.pipeline.run import run_pipeline
from cimc.pipeline.spec import parse_pipeline
from cimc.sim.execute import execute
from cimc.target import Target, load_target
from cimc.targets.rtm_ap.codegen import Style
from cimc.targets.rtm_ap.plan import Plan
from cimc.targets.rtm_ap.plan import Tile as Rows
from cimc.targets.rtm_ap.work import work_of
from tests.conftest import Golden

PASSES = (fold_weights, interchange_channels, share_rows, share_terms, order_sums)
WEIGHTS = (1, 1, -1, 0, -1, -1, 1, 0, 1, 1, 0, 1, 0, 1, 0, -1)
SMALL = f"""
graph "small"
%x : u8[1,2,3,4]<1,0> = input
%w : i2[4,2,1,2] = constant {{value={WEIGHTS}}}
%y : i32[1,4,3,3] = conv %x, %w, _ {{strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)}}
return %y
"""


@cache
def machine() -> Target:
    return load_target("rtm-ap")


def mapped(graph: Graph, chunk: int, k_groups: int = 1, c_groups: int = 1) -> Tiles:
    """Tiles with a mapping that a person could have written."""
    tiles = tile(graph, target=machine())
    layers = []
    for layer in tiles.layers:
        assert layer.nest is not None
        shape = work_of(layer, tiles).shape
        plan = Plan("program", Rows(1, shape.p, shape.q), k_groups, c_groups, Style(chunk))
        layers.append(replace(layer, nest=plan.nest(layer.nest, machine(), shape)))
    return replace(tiles, layers=tuple(layers))


def wide(group: int = 1) -> Graph:
    """A conv with 12 channels each way, in groups."""
    random = np.random.default_rng(group)
    shape = (12, 12 // group, 3, 3)
    signs = np.where(random.random(shape) < 0.5, 0, random.choice([-1, 1], shape))
    values = tuple(signs.reshape(-1).tolist())
    extents = ",".join(map(str, shape))
    return parse_graph(f"""
        graph "wide"
        %x : u8[1,12,5,6]<1,0> = input
        %w : i2[{extents}] = constant {{value={values}}}
        %y : i32[1,12,5,6] = conv %x, %w, _ {{strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), group={group}}}
        return %y
    """)  # noqa: E501


def additions(tiles: Tiles) -> int:
    return sum(piece.sums.additions for piece in tiles.sums)


def sums_lines(tiles: Tiles) -> str:
    text = str(tiles)
    return text[text.index("sums %") :]


def test_a_small_layer_pass_by_pass(golden: Golden) -> None:
    tiles, shown, counts = mapped(parse_graph(SMALL), chunk=4), [], []
    for step in PASSES:
        tiles = step(tiles)
        shown.append(f"after {step.__name__.replace('_', '-')}\n{sums_lines(tiles)}")
        counts.append(additions(tiles))
        (piece,) = tiles.sums
        assert piece.sums.matrix().reshape(-1).tolist() == list(WEIGHTS)
        assert parse_tiles(str(tiles), dict(tiles.tensors)) == tiles
    assert counts == [11, 11, 9, 8, 8]
    golden.check("\n".join(shown))


@pytest.mark.parametrize("group", [1, 3, 12])
@pytest.mark.parametrize(("chunk", "k_groups", "c_groups"), [(9, 1, 1), (27, 2, 1), (36, 3, 2)])
def test_every_pass_keeps_the_weights(group: int, chunk: int, k_groups: int, c_groups: int) -> None:
    graph = wide(group)
    tiles = mapped(graph, chunk, k_groups, c_groups)
    weights = work_of(tiles.layers[0], tiles).weights
    assert weights is not None
    before = 0
    for number, step in enumerate(PASSES):
        tiles = step(tiles)
        found = np.zeros((12, 12 * 9), np.int64)
        for piece in tiles.sums:
            rows, columns = slice(*piece.outputs), slice(*(9 * c for c in piece.channels))
            found[rows, columns] += piece.sums.matrix()
        for k, row in enumerate(weights):
            first = k // (12 // group) * len(row)
            assert (found[k, first : first + len(row)] == row).all()
        assert np.count_nonzero(found) == np.count_nonzero(weights)
        assert number == 0 or additions(tiles) <= before
        before = additions(tiles)
    program = allocate(lower(tiles, target=machine()), target=machine())
    x = np.random.default_rng(0).integers(0, 256, (1, 12, 5, 6)).astype(np.uint8)
    assert (execute(program, machine(), {"x": x})["y"] == evaluate(graph, {"x": x})["y"]).all()


def test_lowering_without_the_passes_shares_all_the_same() -> None:
    tiles = mapped(wide(), 36)
    plain = lower(tiles, target=machine())
    for step in PASSES:
        if step is not share_rows:
            tiles = step(tiles)
    assert [str(stream) for stream in lower(tiles, target=machine()).streams] == [
        str(stream) for stream in plain.streams
    ]


def test_many_sums_are_kept_apart() -> None:
    tiles = fold_weights(mapped(wide(), 36))
    (piece,) = tiles.sums
    many = replace(tiles, sums=tuple(piece for _ in range(MOST_SHOWN // len(piece.sums.terms) + 1)))
    assert "digest=" in sums_lines(many)
    assert parse_tiles(str(many), dict(many.tensors)) == many
    with pytest.raises(TextError, match="tensors that were saved"):
        parse_tiles(str(many), dict(many.graph.tensors))


def test_shifted_digits_have_a_text() -> None:
    sums = sums_of(2, [[0 << 8, 1 << 8 | 3 << 1 | 1]], [[2 << 8 | 2 << 1, 1 << 8], []])
    piece = Piece("y", (4, 6), (0, 2), sums)
    tiles = replace(mapped(parse_graph(SMALL), 4), sums=(piece,))
    assert "t2 = x0 - (x1 << 3)" in str(tiles)
    assert "y4 += (t2 << 2) + x1" in str(tiles)
    assert parse_tiles(str(tiles), dict(tiles.tensors)) == tiles


@pytest.mark.parametrize(
    ("line", "need"),
    [("t5 = x0 + x1", "t4, or a y"), ("y9 += x0", "one of y0 .. y3, each once"),
     ("y0 += t7", "x0 .. x3, or a t that was made before"),
     ("y0 += q1", "x, t or y with a number")],
)  # fmt: skip
def test_texts_that_make_no_sense(line: str, need: str) -> None:
    tiles = fold_weights(mapped(parse_graph(SMALL), 4))
    text = str(tiles).replace("y0 += x0 + x1 - x2", line)
    with pytest.raises(TextError) as problem:
        parse_tiles(text, dict(tiles.tensors))
    assert problem.value.faults[0].need == need


def test_sums_that_are_not_the_weights_are_refused() -> None:
    tiles = fold_weights(mapped(parse_graph(SMALL), 4))
    text = str(tiles).replace("y0 += x0 + x1 - x2", "y0 += x0 + x1 + x2")
    wrong = parse_tiles(text, dict(tiles.tensors))
    with pytest.raises(VerifyError, match="outputs 0:4, channels 0:2, are not its weights"):
        lower(wrong, target=machine())


def test_shared_sums_cannot_be_cut() -> None:
    tiles = share_rows(fold_weights(mapped(parse_graph(SMALL), 2)))
    with pytest.raises(UsageError, match="run fold-weights first"):
        interchange_channels(tiles)


def test_passes_run_by_name() -> None:
    tiles = mapped(wide(), 36)
    names = "fold-weights,interchange-channels,share-rows,share-terms{rounds=8},order-sums"
    found = run_pipeline(tiles, parse_pipeline(names), target=machine(), verify="each")
    assert isinstance(found, Tiles)
    for step in PASSES:
        tiles = step(tiles)
    assert additions(found) <= additions(tiles)


def test_equal_sums_are_equal() -> None:
    one, two = (Sums(2, 0, np.array([0, 1]), np.array([term])) for term in (0, 1))
    assert one == Sums(2, 0, np.array([0, 1]), np.array([0]))
    assert one != two
    assert one != "sums"
