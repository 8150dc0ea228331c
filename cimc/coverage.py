"""Where every node of a model went: macro, vector unit, host, fused into another, folded away.

The sum over all places equals the number of nodes, or the compiler broke its promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cimc.errors import Fault, InternalError
from cimc.ir.tiles import Layer, Tiles

PLACES = ("macro", "vector", "host", "fused", "folded")
_ESCORTS = frozenset(  # nodes that a layer is not named after if it stands for others, too
    {"QuantizeLinear", "DequantizeLinear", "Identity", "Relu", "Clip", "Reshape", "Flatten"}
)


@dataclass(frozen=True, slots=True)
class Covered:
    """One node of the model and where it went."""

    node: str
    op_type: str
    place: str  # one of PLACES
    into: str  # the layer that does it, or why it was folded


def coverage(
    nodes: Sequence[tuple[str, str]], folded: Mapping[str, str], tiles: Tiles
) -> tuple[Covered, ...]:
    """One row for each (name, operator) of the model, in the model's order.

    Each layer has one leading node, which stands where the layer stands; its other nodes are
    fused into it. A node without any op was folded: computed at compile time, or no operation.
    """
    types = dict(nodes)
    makers = {op.out.name: op for op in tiles.graph.ops}
    owner: dict[str, tuple[str, Layer]] = {}  # node -> place, layer
    for layer in tiles.layers:
        first = [name for name in makers[layer.ops[0]].nodes if name in types]
        others = [name for op in layer.ops[1:] for name in makers[op].nodes if name in types]
        free = [name for name in first if owner.get(name, ("fused",))[0] == "fused"]
        leader = _leader(free, types)
        for name in (*first, *others):
            if name == leader:
                owner[name] = (layer.place, layer)
            else:
                owner.setdefault(name, ("fused", layer))
    rows = tuple(_row(name, kind, owner, folded) for name, kind in nodes)
    _check(rows, nodes, tiles)
    return rows


def _leader(names: Iterable[str], types: Mapping[str, str]) -> str | None:
    """The node that a layer is named after: the first that is no mere escort of another."""
    return min(names, key=lambda name: types[name] in _ESCORTS, default=None)


def _row(
    name: str, kind: str, owner: Mapping[str, tuple[str, Layer]], folded: Mapping[str, str]
) -> Covered:
    if name in owner:
        place, layer = owner[name]
        return Covered(name, kind, place, layer.name)
    return Covered(name, kind, "folded", folded.get(name, "constant"))


def count(rows: Iterable[Covered]) -> dict[str, int]:
    """How many nodes went to each place."""
    found = Counter(row.place for row in rows)
    return {place: found[place] for place in PLACES}


def _check(rows: Sequence[Covered], nodes: Sequence[tuple[str, str]], tiles: Tiles) -> None:
    """Every node has one place; every node that an op stands for is in a layer."""
    placed = {name for op in tiles.graph.ops for name in op.nodes if op.mnemonic != "constant"}
    lost = [row.node for row in rows if row.place == "folded" and row.node in placed]
    if (
        lost
        or sum(count(rows).values()) != len(nodes)
        or len({row.node for row in rows}) != len(nodes)
    ):
        raise InternalError(
            Fault(
                "the coverage of the model's nodes does not add up",
                need=f"{len(nodes)} nodes, each in one place",
                have=f"{count(rows)}; lost: {', '.join(lost) or 'none'}",
                code="CIM9013",
            )
        )
