"""Pools, reductions and normalizations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cimc.frontend import codes
from cimc.frontend.lowering.registry import lowers
from cimc.frontend.lowering.site import Site
from cimc.frontend.lowering.windows import Window, window
from cimc.ir import ops
from cimc.ir.graph import Value
from cimc.ir.types import Type


def pool_type(site: Site, x: Value) -> tuple[Window, Type]:
    """Window and result type of a pool.

    With ceil_mode the size is rounded up, but no window starts beyond the input and its begin pads.
    """
    axes = len(x.shape) - 2
    if axes < 1:
        site.refuse(f"{site.op_type} needs N, C and spatial axes", have=str(x.type))
    view = window(site, x.shape[2:], None)
    out: list[int] = []
    for axis, extent in enumerate(x.shape[2:]):
        stride = view.strides[axis]
        begin, end = view.pads[axis], view.pads[axes + axis]
        room = extent + begin + end - view.reach(axis)
        size = room // stride + 1
        if site.attr_int("ceil_mode"):
            size = -(-room // stride) + 1
            if (size - 1) * stride >= extent + begin:
                size -= 1
        if size < 1:
            site.refuse(
                f"the kernel of {site.op_type} is larger than its padded input",
                have=f"input {x.shape[2:]}, kernel {view.kernel}, pads {view.pads}",
                code=codes.SHAPES,
            )
        out.append(size)
    return view, site.checked(Type(x.type.dtype, (*x.shape[:2], *out)))


@lowers("MaxPool", note="without its Indices output")
def max_pool(site: Site) -> None:
    """Keeps the quantization of its input."""
    x = site.value()
    view, kind = pool_type(site, x)
    out = site.out(replace(kind, quant=x.type.quant))
    site.emit(ops.Pool(out, x, "max", view.kernel, view.strides, view.pads, view.dilations))


@lowers("AveragePool", note="ceil_mode, count_include_pad, dilations, auto_pad")
def average_pool(site: Site) -> None:
    """One pool."""
    emit_average(site, site.value())


def emit_average(site: Site, x: Value, suffix: str = "") -> Value:
    """An average pool into the node's output, or into a new value of that suffix."""
    view, kind = pool_type(site, x)
    include = bool(site.attr_int("count_include_pad"))
    out = site.fresh(suffix, kind) if suffix else site.out(kind)
    return site.emit(
        ops.Pool(out, x, "average", view.kernel, view.strides, view.pads, view.dilations, include)
    )


@lowers("LpPool")
def lp_pool(site: Site) -> None:
    """One pool of power p."""
    x, p = site.value(), site.attr_int("p", 2)
    if not 1 <= p <= 64:
        site.refuse("p of LpPool is impossible", "1 .. 64", str(p))
    view, kind = pool_type(site, x)
    site.emit(
        ops.Pool(site.out(kind), x, "lp", view.kernel, view.strides, view.pads, view.dilations, p=p)
    )


@lowers("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", note="GlobalLpPool: p 1 or 2")
def global_pool(site: Site) -> None:
    """A reduction over all spatial axes."""
    fn = {"GlobalAveragePool": "mean", "GlobalMaxPool": "max"}.get(site.op_type)
    if fn is None:
        p = site.attr_int("p", 2)
        if p not in (1, 2):
            site.refuse("p of GlobalLpPool is not supported", "1 or 2", str(p))
        fn = f"l{p}"
    x = site.value()
    if len(x.shape) < 3:
        site.refuse(f"{site.op_type} needs N, C and spatial axes", have=str(x.type))
    axes = tuple(range(2, len(x.shape)))
    site.emit(ops.Reduce(site.out(reduced(x.type, axes, True)), x, fn, axes))


_SMALLEST = {"f16": 2.0**-14, "f64": 2.0**-1022}  # positive normal numbers

_REDUCE: dict[str, str] = {
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "log_sum_exp",
    "ReduceMax": "max",
    "ReduceMean": "mean",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceSum": "sum",
    "ReduceSumSquare": "sum_square",
}


@lowers(*_REDUCE, note="constant axes")
def reduce(site: Site) -> None:
    """Axes from the attribute (old opsets) or the operand; none means all, or with noop none."""
    x = site.value()
    rank = len(x.shape)
    by_operand = site.version >= (13 if site.op_type == "ReduceSum" else 18)
    given = (site.integers(1) if site.has(1) else None) if by_operand else site.attr_ints("axes")
    if not given and by_operand and site.attr_int("noop_with_empty_axes"):
        axes: tuple[int, ...] = ()  # the function of each element by itself
    else:
        axes = site.axes(given, rank) if given else tuple(range(rank))
    keep = site.attr_int("keepdims", 1) == 1
    site.emit(
        ops.Reduce(site.out(reduced(x.type, axes, keep)), x, _REDUCE[site.op_type], axes, keep)
    )


def reduced(kind: Type, axes: tuple[int, ...], keep: bool) -> Type:
    """The type after a reduction over `axes`."""
    if keep:
        shape = tuple(1 if axis in axes else extent for axis, extent in enumerate(kind.shape))
    else:
        shape = tuple(extent for axis, extent in enumerate(kind.shape) if axis not in axes)
    return Type(kind.dtype, shape)


@lowers("ArgMax", "ArgMin")
def arg_reduce(site: Site) -> None:
    """First index of the extreme, or the last one."""
    x = site.value()
    axis = site.axis(site.attr_int("axis"), len(x.shape))
    keep, last = site.attr_int("keepdims", 1) == 1, bool(site.attr_int("select_last_index"))
    fn = site.op_type.removeprefix("Arg").lower()
    out = site.out(Type("i64", reduced(x.type, (axis,), keep).shape))
    site.emit(ops.ArgReduce(out, x, fn, axis, keep, last))


@lowers("BatchNormalization", note="inference only")
def batch_norm(site: Site) -> None:
    """One batch_norm."""
    if site.attr_int("training_mode") or (site.version < 9 and not site.attr_int("spatial", 1)):
        site.refuse(
            "BatchNormalization is supported for inference over channels only",
            have="training_mode = 1" if site.attr_int("training_mode") else "spatial = 0",
            help_="export the model for inference (model.eval() in PyTorch)",
        )
    x = site.value()
    if len(x.shape) < 2 or any(site.kind(i).shape != (x.shape[1],) for i in range(1, 5)):
        have = ", ".join(str(site.kind(i)) for i in range(5))
        site.refuse("the operands of BatchNormalization do not fit", have=have, code=codes.SHAPES)
    scale, bias, mean, variance = (site.value(i) for i in range(1, 5))
    epsilon = site.attr_float("epsilon", 1e-5)
    out = site.out(x.type)
    site.emit(ops.BatchNorm(out, x, scale, bias, mean, variance, epsilon))


@lowers("InstanceNormalization")
def instance_norm(site: Site) -> None:
    """A group norm with one channel per group."""
    x = site.value()
    if len(x.shape) < 3 or any(site.kind(i).shape != (x.shape[1],) for i in (1, 2)):
        site.refuse("the operands of InstanceNormalization do not fit", code=codes.SHAPES)
    epsilon = site.attr_float("epsilon", 1e-5)
    site.emit(
        ops.LayerNorm(
            site.out(x.type), x, site.value(1), site.value(2), 1, epsilon, groups=x.shape[1]
        )
    )


@lowers("GroupNormalization", note="before opset 21: constant scale and bias")
def group_norm(site: Site) -> None:
    """Scale and bias per channel; the old form has them per group."""
    x, groups = site.value(), site.attr_int("num_groups")
    if len(x.shape) < 3 or groups < 1 or x.shape[1] % groups:
        site.refuse(
            "GroupNormalization needs channels in whole groups",
            have=f"{x.type}, num_groups = {groups}",
            code=codes.SHAPES,
        )
    epsilon = site.attr_float("epsilon", 1e-5)
    parameters: list[Value] = []
    for index, what in ((1, "scale"), (2, "bias")):
        if site.kind(index).shape == (x.shape[1],):
            parameters.append(site.value(index))
        elif site.kind(index).shape == (groups,) and site.version < 21:
            repeated = np.repeat(site.array(index), x.shape[1] // groups)
            parameters.append(site.constant(repeated, what))
        else:
            have = str(site.kind(index))
            site.refuse(f"the {what} of GroupNormalization does not fit", have=have)
    scale, bias = parameters
    site.emit(ops.LayerNorm(site.out(x.type), x, scale, bias, 1, epsilon, groups))


@lowers("LayerNormalization", note="without its Mean and InvStdDev outputs")
def layer_norm(site: Site) -> None:
    """One layer_norm."""
    x = site.value()
    axis = site.axis(site.attr_int("axis", -1), len(x.shape))
    epsilon = site.attr_float("epsilon", 1e-5)
    site.emit(ops.LayerNorm(site.out(x.type), x, site.value(1), site.optional(2), axis, epsilon))


@lowers("LRN")
def lrn(site: Site) -> None:
    """One lrn."""
    x, size = site.value(), site.attr_int("size")
    if len(x.shape) < 2 or not 1 <= size <= 2 * max(1, x.shape[1]) + 1:
        site.refuse("size of LRN is impossible", "1 .. twice the channels", str(size))
    alpha, beta = site.attr_float("alpha", 1e-4), site.attr_float("beta", 0.75)
    site.emit(ops.Lrn(site.out(x.type), x, size, alpha, beta, site.attr_float("bias", 1.0)))


@lowers("LpNormalization", note="p 1 or 2")
def lp_normalization(site: Site) -> None:
    """x / norm along one axis."""
    x, p = site.value(), site.attr_int("p", 2)
    if p not in (1, 2):
        site.refuse("p of LpNormalization is not supported", "1 or 2", str(p))
    axis = site.axis(site.attr_int("axis", -1), len(x.shape))
    kept = reduced(x.type, (axis,), True)
    norm = site.emit(ops.Reduce(site.fresh("norm", kept), x, f"l{p}", (axis,)))
    tiny = site.number(_SMALLEST.get(x.type.dtype, 1e-38), x.type.dtype, "tiny")
    norm = site.emit(ops.Binary(site.fresh("divisor", kept), norm, tiny, "max"))  # 0 / 0 is 0
    site.emit(ops.Binary(site.out(x.type), x, norm, "div"))


@lowers("MeanVarianceNormalization")
def mean_variance(site: Site) -> None:
    """(x - mean) / (sqrt(mean of squares - squared mean) + 1e-9), as ONNX defines it."""
    x = site.value()
    axes = site.axes(site.attr_ints("axes") or (0, 2, 3), len(x.shape))
    kept = reduced(x.type, axes, True)

    def step(name: str, kind: Type, a: Value, b: Value, fn: str) -> Value:
        return site.emit(ops.Binary(site.fresh(name, kind), a, b, fn))

    mean = site.emit(ops.Reduce(site.fresh("mean", kept), x, "mean", axes))
    squares = step("squares", x.type, x, x, "mul")
    power = site.emit(ops.Reduce(site.fresh("power", kept), squares, "mean", axes))
    variance = step("variance", kept, power, step("mean_square", kept, mean, mean, "mul"), "sub")
    deviation = site.emit(ops.Unary(site.fresh("deviation", kept), variance, "sqrt"))
    tiny = site.number(1e-9, x.type.dtype, "tiny")
    spread = step("spread", kept, deviation, tiny, "add")
    site.emit(ops.Binary(site.out(x.type), step("centered", x.type, x, mean, "sub"), spread, "div"))
