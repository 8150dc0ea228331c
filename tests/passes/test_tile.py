"""tile: places, nests, layers in an order that can run, all unsupported ops at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cimc.errors import Fault, InternalError, UnsupportedError
from cimc.ir.graph import Graph, Op
from cimc.ir.tiles import Tiles, parse_tiles
from cimc.pipeline.passes import pass_named
from cimc.target import Target, load_target
from tests.conftest import Golden
from tests.passes.texts import graph_of

CONVS = """
%x : i8[1,3,8,8]<0.5,0> = input
%w : i8[4,3,3,3] = constant {digest="0000000000000001"}
%m : f32[] = constant {value=(0.01,)}
%a : i32[1,4,8,8] = conv %x, %w, _ {strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1)} @("A",)
%aq : i8[1,4,8,8]<0.5,0> = requant %a, %m, _ {layer="a"} @("A",)
%sum : i8[1,4,8,8]<0.5,0> = binary %aq, %bq {fn="add", layer="a"} @("Add",)
%b : i32[1,4,8,8] = conv %x, %w, _ {strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1)} @("B",)
%bq : i8[1,4,8,8]<0.5,0> = requant %b, %m, _ @("B",)
%y : f32[1,4,8,8] = dequantize %sum, %m, _ @("Out",)
return %y
"""
LINES = CONVS.strip().splitlines()
# the second conv comes first in the graph, but its layer is made after the first one's
GRAPH = "\n".join([*LINES[:5], *LINES[6:8], LINES[5], *LINES[8:]])


@pytest.fixture
def target() -> Target:
    return load_target("edge-digital")


@dataclass
class Pretender:
    """A kind that refuses some ops."""

    refused: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def place(self, op: Op, graph: Graph, target: Target) -> str | Fault:
        self.asked.append(op.out.name)
        if op.out.name in self.refused:
            return Fault(f"{op.mnemonic} is not supported on {target.name}", need="no such op")
        return "macro" if op.mnemonic == "conv" else "vector"


def tiled(
    monkeypatch: pytest.MonkeyPatch, target: Target, kind: Pretender, **options: bool
) -> Tiles:
    monkeypatch.setattr("cimc.passes.tile.load_kind", lambda name: kind)
    tiles = pass_named("tile").run(graph_of(GRAPH), options, target)
    assert isinstance(tiles, Tiles)
    tiles.verify()
    assert parse_tiles(str(tiles)) == tiles
    return tiles


def test_layers(monkeypatch: pytest.MonkeyPatch, target: Target, golden: Golden) -> None:
    kind = Pretender()
    tiles = tiled(monkeypatch, target, kind)
    golden.check(tiles)
    assert kind.asked == ["a", "aq", "b", "bq", "sum", "y"]
    names = [layer.name for layer in tiles.layers]
    assert names == ["b", "bq", "a", "y"]  # a's epilogue reads what b makes
    assert tiles.layers[2].ops == ("a", "aq", "sum")


def test_unsupported_ops_come_together(monkeypatch: pytest.MonkeyPatch, target: Target) -> None:
    with pytest.raises(UnsupportedError) as caught:
        tiled(monkeypatch, target, Pretender(("sum", "b")))
    assert [str(fault) for fault in caught.value.faults] == [
        "error CIM1203: conv is not supported on edge-digital\n"
        "  node:    B   (conv, input i8[1,3,8,8]<0.5,0>, i8[4,3,3,3])\n"
        "  need:    no such op\n"
        "  help:    --host-fallback",
        "error CIM1203: binary is not supported on edge-digital\n"
        "  node:    Add   (binary, input i8[1,4,8,8]<0.5,0>, i8[1,4,8,8]<0.5,0>)\n"
        "  need:    no such op\n"
        "  help:    --host-fallback",
    ]


def test_host_fallback(monkeypatch: pytest.MonkeyPatch, target: Target) -> None:
    tiles = tiled(monkeypatch, target, Pretender(("sum", "b")), host_fallback=True)
    places = {layer.name: (layer.place, layer.ops) for layer in tiles.layers}
    assert places == {
        "a": ("macro", ("a", "aq")),
        "b": ("host", ("b",)),
        "bq": ("vector", ("bq",)),
        "sum": ("host", ("sum",)),
        "y": ("vector", ("y",)),
    }


def test_an_epilogue_without_its_macro(monkeypatch: pytest.MonkeyPatch, target: Target) -> None:
    """Where the heavy op is left to the host, its epilogue runs on its own."""
    tiles = tiled(monkeypatch, target, Pretender(("a",)), host_fallback=True)
    places = {layer.name: layer.place for layer in tiles.layers}
    assert places == {
        "a": "host",
        "aq": "vector",
        "b": "macro",
        "bq": "vector",
        "sum": "vector",
        "y": "vector",
    }


def test_layers_in_a_circle(monkeypatch: pytest.MonkeyPatch, target: Target) -> None:
    """Two epilogues that read each other's layers cannot be ordered: a mistake of `fuse-layers`."""
    text = GRAPH.replace(
        '%y : f32[1,4,8,8] = dequantize %sum, %m, _ @("Out",)',
        """
%late : i8[1,4,8,8]<0.5,0> = binary %bq, %aq {fn="add", layer="b"}
%y : f32[1,4,8,8] = dequantize %sum, %m, _""",
    ).replace(
        "%bq : i8[1,4,8,8]<0.5,0> = requant %b, %m, _",
        '%bq : i8[1,4,8,8]<0.5,0> = requant %b, %m, _ {layer="b"}',
    )
    monkeypatch.setattr("cimc.passes.tile.load_kind", lambda name: Pretender())
    with pytest.raises(InternalError, match="read each other in a circle"):
        pass_named("tile").run(graph_of(text), {}, target)
