"""Which ONNX operators run on a machine, and where: the table that `cimc ops` prints.

Operators come from the importer's registry; where one runs, the machine's kind says of a small
example of the op that it becomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cimc.conformance.samples import Sketch
from cimc.errors import Fault
from cimc.frontend import Support, support_table
from cimc.frontend.lowering.registry import lowering_of
from cimc.ir.graph import Graph, Op
from cimc.kind import load_kind
from cimc.target import Target

# Operators that become convolutions and matrix products; all others are work for the vector unit.
HEAVY = {
    "Conv": "conv",
    "ConvInteger": "conv",
    "ConvTranspose": "conv",
    "QLinearConv": "conv",
    "Attention": "matmul",
    "Einsum": "matmul",
    "Gemm": "matmul",
    "MatMul": "matmul",
    "MatMulInteger": "matmul",
    "QGemm": "matmul",
    "QLinearMatMul": "matmul",
}


@dataclass(frozen=True, slots=True)
class Supported:
    """One operator on one machine."""

    operator: str
    opsets: str  # "7-28"
    where: str  # "macro", "vector", "compile time", or why nowhere
    note: str


def operator_table(target: Target) -> tuple[Supported, ...]:
    """Every operator that the importer knows, ONNX's own first."""
    places = dict(_places(target))
    return tuple(_row(row, places) for row in support_table())


def _row(row: Support, places: dict[str, str]) -> Supported:
    lowering = lowering_of(row.domain, row.op_type)
    where = places[HEAVY.get(row.op_type, "vector")]
    if lowering is not None and lowering.constants_only:
        where = "compile time"
    name = f"{row.domain}::{row.op_type}" if row.domain else row.op_type
    return Supported(name, f"{row.since}-{row.until}", where, row.note)


def _places(target: Target) -> Iterator[tuple[str, str]]:
    """Where small examples run: a convolution, a product with constants, an addition."""
    conv = Sketch("conv")
    yield "conv", _place(conv.graph(conv.conv(conv.input((1, 3, 8, 8)), 4, (3, 3))), target)
    matmul = Sketch("matmul")
    yield "matmul", _place(matmul.graph(matmul.matmul(matmul.input((1, 16)), 4)), target)
    add = Sketch("add")
    yield "vector", _place(add.graph(add.add(add.input((1, 16)), add.input((1, 16)))), target)


def _place(graph: Graph, target: Target) -> str:
    op: Op = graph.ops[-1]
    place = load_kind(target.kind).place(op, graph, target)
    return f"not: {place.where}" if isinstance(place, Fault) else place


def markdown(target: Target, rows: Sequence[Supported]) -> str:
    """The table as a page of documentation."""
    lines = [
        f"# Operators on {target.name}",
        "",
        f"Written by `cimc ops --target {target.name} --format md`.",
        "",
        "| operator | opset | where | note |",
        "|---|---|---|---|",
    ]
    lines += [f"| {row.operator} | {row.opsets} | {row.where} | {row.note} |" for row in rows]
    return "\n".join(lines)
