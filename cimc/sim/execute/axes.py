"""The axes of views as kernels walk them; equal axes of many instructions are worked out once."""

from __future__ import annotations

from functools import lru_cache

from cimc.sim.execute.codes import MOST_POSITIONS

Dims = tuple[tuple[int, int], ...]  # (extent, stride) of each axis of a view
Rows = tuple[tuple[int, tuple[int, ...]], ...]  # extent and strides of common axes

_REMEMBERED = 1 << 14
_LINE = 64  # elements; a stride that leaves the cache line
_RUN = 8  # elements that are worth a loop of their own


class Unencodable(Exception):
    """The instruction needs its plain twin."""


@lru_cache(_REMEMBERED)
def ends(dims: Dims) -> tuple[int, int]:
    """Lowest and highest element of a view, relative to its first."""
    low = high = 0
    for extent, stride in dims:
        span = (extent - 1) * stride
        low, high = low + min(span, 0), high + max(span, 0)
    return low, high


@lru_cache(_REMEMBERED)
def is_once(dims: Dims) -> bool:
    """Whether a view surely meets no element twice."""
    reach = 0
    for extent, stride in sorted(dims, key=lambda dim: abs(dim[1])):
        if extent > 1:
            if abs(stride) <= reach:
                return False
            reach += (extent - 1) * abs(stride)
    return True


@lru_cache(_REMEMBERED)
def common(views: tuple[Dims | None, ...], bounds: tuple[tuple[int, ...], ...]) -> Rows:
    """The common axes of views and of the steps of bounds; an absent view stands still.

    Axes of extent 1 go; neighbours that step together become one.

    raises  Unencodable for views with other extents than the first, none or too many
    """
    extents = tuple(extent for extent, _ in next(dims for dims in views if dims is not None))
    columns = []
    for dims in views:
        if dims is not None and tuple(extent for extent, _ in dims) != extents:
            raise Unencodable
        columns.append((0,) * len(extents) if dims is None else tuple(step for _, step in dims))
    columns += bounds
    rows: list[tuple[int, tuple[int, ...]]] = []
    for axis, extent in enumerate(extents):
        if extent <= 0:
            raise Unencodable
        strides = tuple(column[axis] for column in columns)
        if extent == 1:
            continue
        if rows and rows[-1][1] == tuple(extent * stride for stride in strides):
            rows[-1] = (rows[-1][0] * extent, strides)
        else:
            rows.append((extent, strides))
    if len(rows) >= MOST_POSITIONS:
        raise Unencodable
    return tuple(rows) or ((1, (0,) * len(columns)),)


@lru_cache(_REMEMBERED)
def table(rows: Rows) -> tuple[int, ...]:
    """Common axes as a kernel reads them: n_axes, m, (extent, stride * m) * n_axes."""
    numbers = [number for extent, strides in rows for number in (extent, *strides)]
    return (len(rows), len(rows[0][1]), *numbers)


@lru_cache(_REMEMBERED)
def own(dims: Dims) -> tuple[int, ...]:
    """One view as `marked` reads it: n_axes, (extent, stride) * n_axes, broadcast axes left out."""
    kept = tuple(sorted((dim for dim in dims if dim[1]), key=lambda dim: -abs(dim[1])))
    if not kept:
        return (1, 1, 1)
    rows = common((kept,), ())
    return (len(rows), *(number for extent, (stride,) in rows for number in (extent, stride)))


@lru_cache(_REMEMBERED)
def product_rows(acc: Dims, x: Dims, w: Dims) -> Rows:
    """The axes of a product with the two best for kernels innermost; at least two."""

    def inner(row: tuple[int, tuple[int, ...]]) -> tuple[bool, bool, int]:
        extent, strides = row
        return strides in ((1, 0, 1), (0, 1, 1)) and extent >= 4, strides[0] == 0, extent

    def mid(row: tuple[int, tuple[int, ...]]) -> tuple[bool, int]:
        return row[1][0] == 0, row[0]

    rows = list(common((acc, x, w), ()))
    innermost = max(rows, key=inner)
    rows.remove(innermost)
    beside = max(rows, key=mid, default=(1, (0, 0, 0)))
    if rows:
        rows.remove(beside)
    return (*rows, beside, innermost)


@lru_cache(_REMEMBERED)
def copy_rows(dst: Dims, src: Dims, bounds: tuple[tuple[int, ...], ...]) -> Rows:
    """The axes of a copy; the innermost reads along the source where that spares cache misses."""
    if is_once(dst):  # in any order: the inner axes of the destination inside
        order = sorted(range(len(dst)), key=lambda axis: -abs(dst[axis][1]))
        dst, src = tuple(dst[axis] for axis in order), tuple(src[axis] for axis in order)
        bounds = tuple(tuple(steps[axis] for axis in order) for steps in bounds)
    rows = list(common((dst, src), bounds))
    if abs(rows[-1][1][1]) >= _LINE and is_once(dst):
        along = [row for row in rows if abs(row[1][1]) == 1 and row[0] >= _RUN]
        if along:
            rows.remove(along[0])
            rows.append(along[0])
    return tuple(rows)
