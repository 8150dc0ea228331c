"""Where the windows of a tile of output positions lie in the input, and the loops around a tile."""

from __future__ import annotations

from collections.abc import Sequence

from cimc.ir.program import Affine, Bound, Item, Loop, View, var
from cimc.lowering import ConvShape
from cimc.targets.rtm_ap.plan import Tile
from cimc.targets.rtm_ap.work import Work

Dims = tuple[tuple[int, int], ...]


def looped(body: Sequence[Item], tile: Tile, shape: ConvShape) -> tuple[Item, ...]:
    """Steps in time around a tile's instructions."""
    found = tuple(body)
    for dim, trips in reversed(tile.trips(shape).items()):
        if trips > 1:
            found = (Loop(dim, trips, found),)
    return found


def start_of(dim: str, tile: Tile, shape: ConvShape) -> Affine:
    """First coordinate of a tile along a dimension."""
    if tile.trips(shape).get(dim, 1) == 1:
        return Affine()
    return var(dim) * tile.extent(dim)


def needed(bounds: Sequence[Bound], dims: Dims, trips: dict[str, int]) -> tuple[Bound, ...]:
    """Those of the bounds that some element in some iteration leaves."""
    return tuple(bound for bound in bounds if _leaves(bound, dims, trips))


def _leaves(bound: Bound, dims: Dims, trips: dict[str, int]) -> bool:
    last = bound.start.const + sum(f * (trips[name] - 1) for name, f in bound.start.terms)
    last += sum(step * (extent - 1) for step, (extent, _) in zip(bound.steps, dims, strict=True))
    return bound.start.const < 0 or last >= bound.limit


def window_view(
    work: Work, buffer: str, tile: Tile, channels: tuple[int, int]
) -> tuple[View, tuple[Bound, ...]]:
    """Windows of a tile of positions over some input channels: axes n, p, q, then c, r, s."""
    s, xs = work.shape, work.shape.x_strides
    n, p, q = (start_of(dim, tile, s) for dim in "npq")
    row, column = p * s.strides[0] + -s.pads[0], q * s.strides[1] + -s.pads[1]
    dims = (
        (tile.n, xs["n"]),
        (tile.p, s.strides[0] * xs["h"]),
        (tile.q, s.strides[1] * xs["w"]),
        (channels[1] - channels[0], xs["c"]),
        (s.r, s.dilations[0] * xs["h"]),
        (s.s, s.dilations[1] * xs["w"]),
    )
    offset = n * xs["n"] + row * xs["h"] + column * xs["w"] + channels[0] * xs["c"]
    bounds = (
        Bound(n, (1, 0, 0, 0, 0, 0), s.n),
        Bound(row, (0, s.strides[0], 0, 0, s.dilations[0], 0), s.h),
        Bound(column, (0, 0, s.strides[1], 0, 0, s.dilations[1]), s.w),
    )
    return View(buffer, offset, dims), needed(bounds, dims, tile.trips(s))


def distinct(work: Work, tile: Tile, channels: int) -> int:
    """Elements of the input that the windows of a tile touch: overlaps count once."""
    s = work.shape
    rows = min(s.h, (tile.p - 1) * s.strides[0] + (s.r - 1) * s.dilations[0] + 1)
    columns = min(s.w, (tile.q - 1) * s.strides[1] + (s.s - 1) * s.dilations[1] + 1)
    return tile.n * channels * min(rows, tile.p * s.r) * min(columns, tile.q * s.s)
