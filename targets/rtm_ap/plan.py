"""How one heavy op lies on the chip: rows, cores, chunks, and the style of its column program.

A plan is kept in the layer's nest, so that it can be read and edited as text:

    spatial rows(n=1, p=28, q=28) cores(k=2, c=1)
    for p 4 I=rtm W=rtm O=sums
    options style="program" chunk=72 inputs="across" temps="along" share=1 dead=1

style "program": weights are the program; rows are output positions, `cores` splits output channels
(k) and input channels (c) among groups of arrays. style "multiply": weights are data; rows are
output positions, output channels k and parts c of the reduction, all side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cimc.errors import Fault, FitError, InternalError
from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.lowering import ConvShape
from cimc.target import Target
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.codegen import Style
from cimc.targets.rtm_ap.regions import Geometry
from cimc.targets.rtm_ap.work import spec_of

STYLES = ("program", "multiply")


@dataclass(frozen=True, slots=True)
class Tile:
    """Extents of what lies side by side in rows; g and k are 0 where channels do not."""

    n: int
    p: int
    q: int
    g: int = 0
    k: int = 0
    parts: int = 1  # of the reduction, in neighbouring rows

    @property
    def positions(self) -> int:
        """Output positions."""
        return self.n * self.p * self.q

    @property
    def lines(self) -> int:
        """Array rows."""
        return self.positions * max(1, self.g) * max(1, self.k) * self.parts

    def extent(self, dim: str) -> int:
        """Extent along n, g, p, q or k."""
        return {"n": self.n, "g": self.g, "p": self.p, "q": self.q, "k": self.k}[dim]

    def trips(self, shape: ConvShape) -> dict[str, int]:
        """Steps in time along each dimension that lies in rows."""
        extents = dict(shape.dims)
        sizes = {dim: self.extent(dim) for dim in "ngpqk"}
        return {dim: -(-extents[dim] // size) for dim, size in sizes.items() if size}


@dataclass(frozen=True, slots=True)
class Plan:
    """The choices for one layer."""

    kind: str  # one of STYLES
    tile: Tile
    k_groups: int  # groups of arrays with output channels of their own
    c_groups: int  # ... with input channels of their own
    style: Style

    @property
    def groups(self) -> int:
        """Groups of arrays that work side by side."""
        return self.k_groups * self.c_groups

    def arrays(self, rows: int) -> int:
        """Arrays of one group."""
        return -(-self.tile.lines // rows)

    def nest(self, nest: Nest, target: Target, shape: ConvShape) -> Nest:
        """The plan as part of a nest."""
        outer, sums = list(target.spec.memory)[:2]
        loops = tuple(
            TemporalLoop(dim, trips, (outer, outer, sums))
            for dim, trips in self.tile.trips(shape).items()
            if trips > 1
        )
        tile, style = self.tile, self.style
        rows: tuple[tuple[str, int], ...] = (("n", tile.n), ("p", tile.p), ("q", tile.q))
        if self.kind == "multiply":
            rows = (*rows, ("g", tile.g), ("k", tile.k), ("c", tile.parts))
        return replace(
            nest,
            spatial=(
                Spatial("rows", rows),
                Spatial("cores", (("k", self.k_groups), ("c", self.c_groups))),
            ),
            loops=loops,
            double=(),
            options=(
                ("style", self.kind),
                ("chunk", style.chunk),
                ("inputs", isa.LAYOUTS[style.input_layout]),
                ("temps", isa.LAYOUTS[style.temp_layout]),
                ("share", int(style.share)),
                ("dead", int(style.dead)),
            ),
        )


def plan_of(nest: Nest) -> Plan:
    """The plan that a nest holds."""
    options = dict(nest.options)
    spatial = {axis.axis: dict(axis.factors) for axis in nest.spatial}
    kind = options.get("style")
    if kind not in STYLES or not {"rows", "cores"} <= spatial.keys():
        raise InternalError("a macro layer has no mapping of kind rtm-ap: run the pass map first")
    rows, cores = spatial["rows"], spatial["cores"]
    channels = rows.get("g", 0), rows.get("k", 0), rows.get("c", 1)
    tile = Tile(rows["n"], rows["p"], rows["q"], *channels)
    style = Style(
        chunk=nest.option("chunk", 1),
        share=bool(nest.option("share", 0)),
        dead=bool(nest.option("dead", 0)),
        input_layout=isa.LAYOUTS.index(str(options.get("inputs", "across"))),
        temp_layout=isa.LAYOUTS.index(str(options.get("temps", "across"))),
    )
    return Plan(str(kind), tile, cores["k"], cores["c"], style)


def geometry_of(target: Target) -> Geometry:
    """Size of an array."""
    ap = spec_of(target).ap
    return Geometry(ap.columns, ap.domains, ap.carries)


def position_tile(shape: ConvShape, most: int) -> Tile:
    """Output positions in at most `most` rows: whole rows of the result, then whole samples."""
    q = min(shape.q, most)
    p = min(shape.p, most // shape.q) if q == shape.q else 1
    n = min(shape.n, most // (shape.p * shape.q)) if p == shape.p else 1
    tile = Tile(max(1, n), max(1, p), q)
    return evened(tile, shape)


def evened(tile: Tile, shape: ConvShape) -> Tile:
    """The smallest tile with as many steps in time."""
    extents = dict(shape.dims)
    sizes = {dim: -(-extents[dim] // trips) for dim, trips in tile.trips(shape).items()}
    return replace(tile, **sizes)


def too_large(layer: str, need: str, have: str, help_: str) -> FitError:
    """A layer that does not fit the arrays."""
    return FitError(Fault(f"layer {layer} does not fit the arrays", need, have, help_, "CIM3201"))
