"""Operators that move elements: reshape, transpose, slice, concat, pad, gather, resize ..."""

from __future__ import annotations

import math
from dataclasses import replace

from cimc.frontend import codes
from cimc.frontend.lowering.registry import lowers
from cimc.frontend.lowering.site import Site
from cimc.ir import ops
from cimc.ir.types import Type


@lowers("Reshape", note="target shapes known at compile time")
def reshape(site: Site) -> None:
    """0 copies an extent (unless allowzero), one -1 stands for what is left."""
    kind = site.kind()
    wanted = list(site.integers(1))
    if not site.attr_int("allowzero"):
        wanted = [
            kind.shape[axis] if size == 0 and axis < len(kind.shape) else size
            for axis, size in enumerate(wanted)
        ]
    if wanted.count(-1) == 1:
        known = math.prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = kind.elements // known if known else 0
    emit_reshape(site, tuple(wanted))


def emit_reshape(site: Site, shape: tuple[int, ...]) -> None:
    """The node's first operand in another shape."""
    kind = site.kind()
    if any(size < 0 for size in shape) or math.prod(shape) != kind.elements:
        site.refuse(
            f"{site.op_type} changes the number of elements",
            have=f"{kind} to {shape}",
            code=codes.SHAPES,
        )
    site.emit(ops.Reshape(site.out(replace(kind, shape=shape)), site.value()))


@lowers("Flatten")
def flatten(site: Site) -> None:
    """A matrix: axes before `axis` by axes from it on."""
    shape = site.kind().shape
    axis = site.attr_int("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        site.refuse(f"axis {axis} of Flatten does not exist", have=f"{len(shape)} axes")
    axis += len(shape) if axis < 0 else 0
    emit_reshape(site, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@lowers("Squeeze", "Unsqueeze", note="axes known at compile time")
def squeeze(site: Site) -> None:
    """Axes from the attribute (old opsets) or the operand."""
    shape = site.kind().shape
    if site.version < 13:
        given = site.attr_ints("axes")
    else:
        given = site.integers(1) if site.has(1) else None
    if site.op_type == "Unsqueeze":
        rank = len(shape) + len(given or ())
        axes = site.axes(given or (), rank)
        rest = iter(shape)
        emit_reshape(site, tuple(1 if axis in axes else next(rest) for axis in range(rank)))
        return
    if given is None:
        given = tuple(axis for axis, extent in enumerate(shape) if extent == 1)
    axes = site.axes(given, len(shape))
    emit_reshape(site, tuple(extent for axis, extent in enumerate(shape) if axis not in axes))


@lowers("Transpose")
def transpose(site: Site) -> None:
    """Permute axes; without `perm` reverse them."""
    x = site.value()
    rank = len(x.shape)
    perm = site.attr_ints("perm") or tuple(reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        site.refuse("perm of Transpose is no permutation", have=f"{perm} of {rank} axes")
    shape = tuple(x.shape[axis] for axis in perm)
    site.emit(ops.Transpose(site.out(replace(x.type, shape=shape)), x, perm))


@lowers("Concat")
def concat(site: Site) -> None:
    """Join along one axis; the result is quantized where all operands are so in the same way."""
    axis = site.axis(site.attr_int("axis"), len(site.kind().shape))
    filled = [i for i in range(len(site.inputs)) if site.kind(i).elements]
    xs = tuple(site.value(i) for i in filled or range(len(site.inputs)))
    first = xs[0].type
    if any(len(x.shape) != len(first.shape) or x.type.dtype != first.dtype for x in xs):
        have = ", ".join(str(x.type) for x in xs)
        site.refuse("the operands of Concat do not fit", have=have, code=codes.SHAPES)
    if len({x.type.quant for x in xs}) > 1:
        site.refuse("Concat of integers of different scales is not supported")
    shape = [*first.shape]
    shape[axis] = sum(x.shape[axis] for x in xs)
    site.emit(ops.Concat(site.out(replace(first, shape=tuple(shape))), xs, axis))


@lowers("Split", note="constant sizes")
def split(site: Site) -> None:
    """One slice for each output."""
    x = site.value()
    rank = len(x.shape)
    axis = site.axis(site.attr_int("axis"), rank)
    extent, count = x.shape[axis], len(site.node.output)
    sizes = site.integers(1) if site.has(1) else site.attr_ints("split")
    if not sizes:
        if site.attr_int("num_outputs", count) != count:
            site.refuse("num_outputs of Split is not its number of outputs", code=codes.SHAPES)
        part = -(-extent // count)
        sizes = (*(part for _ in range(count - 1)), extent - part * (count - 1))
        if site.version < 18 and extent % count:
            site.refuse("Split needs equal parts", have=f"{extent} in {count}", code=codes.SHAPES)
    if len(sizes) != count or sum(sizes) != extent or any(size < 0 for size in sizes):
        site.refuse("the sizes of Split do not fit", str(extent), str(sizes), code=codes.SHAPES)
    start = 0
    for index, size in enumerate(sizes):
        if site.node.output[index]:
            shape = tuple(size if i == axis else e for i, e in enumerate(x.shape))
            starts = tuple(start if i == axis else 0 for i in range(rank))
            out = site.out(replace(x.type, shape=shape), index)
            site.emit(ops.Slice(out, x, starts, (1,) * rank))
        start += size


@lowers("Slice", note="constant starts, ends, axes and steps")
def slice_(site: Site) -> None:
    """Starts and ends are clamped as ONNX defines it."""
    x = site.value()
    rank = len(x.shape)
    if site.version < 10:
        starts, ends = site.attr_ints("starts") or (), site.attr_ints("ends") or ()
        given, strides = site.attr_ints("axes"), None
    else:
        starts, ends = site.integers(1), site.integers(2)
        given = site.integers(3) if site.has(3) else None
        strides = site.integers(4) if site.has(4) else None
    axes = tuple(range(len(starts))) if given is None else given
    steps = strides or (1,) * len(axes)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        site.refuse("starts, ends, axes and steps of Slice do not fit", code=codes.SHAPES)
    axes = tuple(site.axis(axis, rank) for axis in axes)
    if len(set(axes)) != len(axes):
        site.refuse("Slice names an axis twice", have=str(axes))
    begin, step, shape = [0] * rank, [1] * rank, list(x.shape)
    for axis, start, end, stride in zip(axes, starts, ends, steps, strict=True):
        extent = x.shape[axis]
        taken = range(*slice(start, end, stride).indices(extent))
        begin[axis], step[axis], shape[axis] = (taken.start if taken else 0), stride, len(taken)
    out = site.out(replace(x.type, shape=tuple(shape)))
    site.emit(ops.Slice(out, x, tuple(begin), tuple(step)))


@lowers("Pad", note="constant pads and value")
def pad(site: Site) -> None:
    """Pads for every axis; negative ones crop."""
    x = site.value()
    rank = len(x.shape)
    mode = site.attr_string("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        site.refuse("mode of Pad is unknown", have=mode)
    if site.version < 11:
        pads, value = site.attr_ints("pads") or (), site.attr_float("value", 0.0)
        axes = tuple(range(rank))
    else:
        pads = site.integers(1)
        value = site.scalar(2) if site.has(2) else 0.0
        axes = site.integers(3) if site.has(3) else tuple(range(rank))
        axes = tuple(site.axis(axis, rank) for axis in axes)
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        site.refuse("pads of Pad do not fit its axes", have=f"{pads} for {axes}", code=codes.SHAPES)
    full = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        full[axis], full[rank + axis] = pads[place], pads[len(axes) + place]
    shape = tuple(extent + full[axis] + full[rank + axis] for axis, extent in enumerate(x.shape))
    kind = site.checked(replace(x.type, shape=shape))
    for axis, extent in enumerate(x.shape):
        begin, end = full[axis], full[rank + axis]
        kept = extent + min(0, begin) + min(0, end)
        most = {"constant": kind.elements, "reflect": kept - 1}.get(mode, kept if kept > 0 else 0)
        if kept < 0 or (mode in ("reflect", "edge", "wrap") and kept < 1 and max(begin, end) > 0):
            site.refuse("pads of Pad crop more than there is", have=f"{pads} of {x.type}")
        if mode in ("reflect", "wrap") and max(begin, end) > most:
            site.refuse(f"pads of Pad are too large to {mode}", have=f"{pads} of {x.type}")
    quant = x.type.quant
    if quant is not None:  # ONNX gives the integer, the graph the number that it stands for
        value = quant.scale * (value - quant.zero)
    site.emit(ops.Pad(site.out(kind), x, tuple(full), mode, value))


@lowers("Gather", note="indices may be computed")
def gather(site: Site) -> None:
    """Take along one axis."""
    x, indices = site.value(0), site.value(1)
    axis = site.axis(site.attr_int("axis"), len(x.shape))
    known = site.bound(1).array
    extent = x.shape[axis] if x.shape else 0
    if known is not None and known.size and not -extent <= known.min() <= known.max() < extent:
        site.refuse("indices of Gather lie outside", f"{-extent} .. {extent - 1}",
                    f"{known.min()} .. {known.max()}", code=codes.SHAPES)  # fmt: skip
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    site.emit(ops.Gather(site.out(replace(x.type, shape=shape)), x, indices, axis))


@lowers("Expand", note="target shapes known at compile time")
def expand(site: Site) -> None:
    """NumPy's broadcasting."""
    x, wanted = site.value(), site.integers(1)
    if any(size < 0 for size in wanted):
        site.refuse("the shape of Expand is impossible", have=str(wanted), code=codes.SHAPES)
    shape = site.broadcast(x.shape, wanted)
    site.emit(ops.Broadcast(site.out(replace(x.type, shape=shape)), x))


@lowers("Tile", note="constant repeats")
def tile(site: Site) -> None:
    """Whole copies along every axis."""
    x, repeats = site.value(), site.integers(1)
    if len(repeats) != len(x.shape) or any(count < 0 for count in repeats):
        site.refuse("repeats of Tile do not fit", have=f"{repeats} for {x.type}")
    shape = tuple(extent * count for extent, count in zip(x.shape, repeats, strict=True))
    site.emit(ops.Tile(site.out(replace(x.type, shape=shape)), x))


@lowers("DepthToSpace", "SpaceToDepth")
def depth_and_space(site: Site) -> None:
    """Reshape, transpose, reshape."""
    x, block = site.value(), site.attr_int("blocksize")
    if len(x.shape) != 4 or not 1 <= block <= 2**15:
        site.refuse(f"{site.op_type} needs N, C, H, W and a blocksize", have=f"{x.type}, {block}")
    n, c, h, w = x.shape
    if site.op_type == "SpaceToDepth":
        if h % block or w % block:
            site.refuse("SpaceToDepth needs whole blocks", have=f"{x.type}, {block}")
        mode = site.attr_string("mode", "DCR")
        inner: tuple[int, ...] = (n, c, h // block, block, w // block, block)
        perm: tuple[int, ...] = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
        shape = (n, c * block * block, h // block, w // block)
    else:
        if c % (block * block):
            site.refuse("DepthToSpace needs whole blocks", have=f"{x.type}, {block}")
        mode, deep = site.attr_string("mode", "DCR"), c // (block * block)
        inner = (n, block, block, deep, h, w) if mode == "DCR" else (n, deep, block, block, h, w)
        perm = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
        shape = (n, deep, h * block, w * block)
    if mode not in ("DCR", "CRD"):
        site.refuse(f"mode of {site.op_type} is unknown", "DCR or CRD", mode)
    split_kind = replace(x.type, shape=inner)
    turned_kind = replace(x.type, shape=tuple(inner[axis] for axis in perm))
    x = site.emit(ops.Reshape(site.fresh("blocks", split_kind), x))
    x = site.emit(ops.Transpose(site.fresh("turned", turned_kind), x, perm))
    site.emit(ops.Reshape(site.out(replace(x.type, shape=shape)), x))


_COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)


@lowers("Resize", "Upsample", note="nearest and linear; no cubic, antialias or crop modes")
def resize(site: Site) -> None:
    """Scales for every axis; the sizes are those that ONNX infers."""
    x = site.value()
    mode = site.attr_string("mode", "nearest")
    old = site.op_type == "Upsample" or site.version < 11
    coordinates = site.attr_string("coordinate_transformation_mode", "half_pixel")
    nearest = site.attr_string("nearest_mode", "round_prefer_floor")
    if old:  # both defined by onnxruntime: asymmetric, rounding down
        coordinates, nearest = "asymmetric", "floor"
    if mode == "bilinear":
        mode = "linear"
    if mode not in ("nearest", "linear") or coordinates not in _COORDINATES:
        site.refuse(
            f"{site.op_type} in this mode is not supported",
            need=f"nearest or linear; {', '.join(_COORDINATES)}",
            have=f"{mode}; {coordinates}",
        )
    if nearest not in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        site.refuse("nearest_mode of Resize is unknown", have=nearest)
    if site.attr_int("antialias"):
        site.refuse("antialias of Resize is not supported")
    if mode == "linear" and x.type.is_integer:
        site.refuse(f"linear {site.op_type} of integers is not supported", have=str(x.type))
    scales, sizes = _scales(site, x.type)
    shape = tuple(
        sizes.get(axis, math.floor(extent * scale))
        for axis, (extent, scale) in enumerate(zip(x.shape, scales, strict=True))
    )
    out = site.out(replace(x.type, shape=shape))
    if 0 in x.shape or 0 in out.shape:
        site.refuse(f"{site.op_type} of an empty tensor", have=f"{x.type} to {out.type}")
    site.emit(ops.Resize(out, x, scales, mode, coordinates, nearest))


def _scales(site: Site, kind: Type) -> tuple[tuple[float, ...], dict[int, int]]:
    """One scale for each axis, and the sizes of axes that are given by size."""
    rank = len(kind.shape)
    named = site.attr_ints("axes")
    order = tuple(range(rank)) if named is None else tuple(site.axis(axis, rank) for axis in named)
    sizes: tuple[int, ...] = ()
    if site.op_type == "Upsample" and site.version < 9:
        given = site.attr_floats("scales") or ()
    else:
        place = 1 if site.op_type == "Upsample" or site.version < 11 else 2
        known = site.has(place) and site.kind(place).elements > 0
        given = tuple(float(item) for item in site.array(place).reshape(-1)) if known else ()
    if not given and site.op_type == "Resize" and site.version >= 11 and site.has(3):
        sizes = site.integers(3)
        if len(sizes) != len(order) or any(not 0 < size < 2**31 for size in sizes):
            site.refuse("sizes of Resize do not fit", have=str(sizes), code=codes.SHAPES)
        extents = [max(1, kind.shape[axis]) for axis in order]
        given = tuple(size / extent for size, extent in zip(sizes, extents, strict=True))
        policy = site.attr_string("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            if policy not in ("not_larger", "not_smaller"):
                site.refuse("keep_aspect_ratio_policy of Resize is unknown", have=policy)
            common = min(given) if policy == "not_larger" else max(given)
            given = (common,) * len(given)
            sizes = tuple(math.floor(extent * common + 0.5) for extent in extents)
    if (
        len(given) != len(order)
        or len(set(order)) != len(order)
        or any(not 0 < scale < 2**24 for scale in given)
    ):
        site.refuse(f"scales of {site.op_type} do not fit", have=str(given), code=codes.SHAPES)
    full = [1.0] * rank
    for axis, scale in zip(order, given, strict=True):
        full[axis] = scale
    return tuple(full), dict(zip(order, sizes, strict=True)) if sizes else {}
