"""Private ports against vectors that MIREDO's own simulator confirmed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cimc.errors import FitError
from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.lowering import ConvShape
from cimc.sim.private_ports import simulate_private
from cimc.target import load_target

LEVELS = {
    "1": "dram",
    "2": "gb",
    "3": "ob",
    "4": "ib",
    "5": "oreg",
    "6": "ireg",
    "7": "macro",
}


@dataclass(frozen=True)
class Vector:
    """A mapped layer with its published latency (cycles) and energy (nJ)."""

    name: str
    target: str
    shape: str  # "c32 k8"
    spatial: str  # "cores k8 rows c16"
    loops: str  # "c2:115": dim, bound, digits of the levels of I, W, O
    double: str
    latency: int
    energy_nj: float


VECTORS = (
    Vector("se_conv2", "default", "c32 k8", "cores k8 rows c16", "c2:115", "", 52, 21.066066),
    Vector(
        "se_conv13",
        "default",
        "c6 k144",
        "rows c3 columns k16",
        "k3:111 k3:112 c2:125",
        "gb/O gb/W",
        236,
        88.586694,
    ),
    Vector(
        "attn_tile",
        "transformer",
        "c32 k32 p32 g2",
        "cores p8 g2 rows c32 columns k16",
        "p2:171 k2:173 p2:475",
        "ob/O ib/I",
        182,
        621.216287,
    ),
    Vector(
        "c1x1_64",
        "default",
        "c64 k64 p7 q7",
        "cores k8 rows c32 columns k8",
        "q7:171 p7:173 c2:273",
        "gb/I ob/O",
        1693,
        954.028253,
    ),
    Vector(
        "L3",
        "default",
        "c256 k512 p7 q7",
        "cores k8 rows c32 columns k16",
        "k2:111 k2:113 c2:113 c2:123 q7:123 p7:273 c2:275",
        "dram/W gb/I gb/W ob/O",
        31315,
        16799.207555,
    ),
    Vector(
        "L5",
        "default",
        "c80 k480 p14 q14",
        "cores k6 rows c20 columns k16",
        "k5:111 q2:111 q7:111 p7:113 p2:473 c2:475 c2:475",
        "dram/O ob/O ib/I",
        50730,
        22109.965358,
    ),
)


def shape_of(text: str) -> ConvShape:
    """ "c32 k8" as a shape of stride 1 without padding."""
    given = {word[0]: int(word[1:]) for word in text.split()}
    n, g, k, c, p, q, r, s = (given.get(dim, 1) for dim in "gnkcpqrs".replace("gn", "ng"))
    return ConvShape(n, g, k, c, p, q, r, s, h=p + r - 1, w=q + s - 1)


def nest_of(vector: Vector) -> Nest:
    """The vector's mapping."""
    spatial: dict[str, list[tuple[str, int]]] = {}
    axis = ""
    for word in vector.spatial.split():
        if word in ("cores", "rows", "columns"):
            axis = word
        else:
            spatial.setdefault(axis, []).append((word[0], int(word[1:])))
    loops = []
    for word in vector.loops.split():
        bound, levels = word[1:].split(":")
        i, w, o = (LEVELS[digit] for digit in levels)
        loops.append(TemporalLoop(word[0], int(bound), (i, w, o)))
    double = []
    for word in vector.double.split():
        level, operand = word.split("/")
        double.append((level, operand))
    axes = tuple(Spatial(name, tuple(factors)) for name, factors in spatial.items())
    return Nest(shape_of(vector.shape).dims, axes, tuple(loops), tuple(double))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_published_vectors(vector: Vector) -> None:
    target = load_target(f"miredo-{vector.target}")
    run = simulate_private(nest_of(vector), target, shape_of(vector.shape))
    assert run.latency == vector.latency
    assert run.energy_nj == pytest.approx(vector.energy_nj, rel=1e-6)


def test_tile_larger_than_its_level() -> None:
    vector = Vector("x", "default", "c32 k8 p64", "rows c16", "k8:111 c2:115 p64:175", "", 0, 0)
    with pytest.raises(FitError) as caught:
        simulate_private(nest_of(vector), load_target("miredo-default"), shape_of(vector.shape))
    assert str(caught.value) == (
        "error CIM4010: tiles do not fit in oreg\n"
        "  need:    1024 bits (O 1024)\n"
        "  have:    16 bits (miredo-default: memory.oreg.size_bits)"
    )
