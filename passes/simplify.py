"""Drop and merge ops that change nothing.

before   %a : f32[1,64] = reshape %x                   with %x : f32[1,64,1,1]
         %b : f32[64] = reshape %a
         %c : f32[64] = unary %b {fn="relu"}
         %d : f32[64] = unary %c {fn="relu"}
after    %b : f32[64] = reshape %x
         %c : f32[64] = unary %b {fn="relu"}
         every use of %d reads %c
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.graph import Graph, Op, Value
from cimc.ir.rewrite import Rewrite
from cimc.pipeline.passes import graph_pass


@graph_pass("simplify")
def simplify(graph: Graph) -> Graph:
    """Forward what does nothing, merge what is done twice, until nothing is left to do."""
    while True:
        simpler = _once(graph)
        if simpler == graph:
            return simpler
        graph = simpler


def _once(graph: Graph) -> Graph:
    new = Rewrite(graph)
    for old in graph.ops:
        op = _merged(new, new.current(old))
        same = _unchanged(new, op)
        if same is not None and same.type == op.out.type:
            new.replace(op.out, same)
        else:
            new.add(op)
    return new.finish()


def _unchanged(new: Rewrite, op: Op) -> Value | None:
    """The operand that equals the op's result, if there is one."""
    match op:
        case ops.Reshape(out=out, x=x) | ops.Broadcast(out=out, x=x) | ops.Tile(out=out, x=x):
            return x if x.shape == out.shape else None
        case ops.Cast(x=x):
            return x
        case ops.Transpose(x=x, perm=perm):
            return x if perm == tuple(range(len(perm))) else None
        case ops.Pad(x=x, pads=pads):
            return x if not any(pads) else None
        case ops.Slice(out=out, x=x, steps=steps):
            whole = x.shape == out.shape and all(s > 0 for s in steps)
            return x if whole else None
        case ops.Concat(xs=(x,)):
            return x
        case ops.Resize(out=out, x=x, scales=scales):
            return x if x.shape == out.shape and all(s == 1 for s in scales) else None
        case ops.Unary(x=x, fn="clip", alpha=low, beta=high):
            return x if low == -math.inf and high == math.inf else None
        case ops.Binary(a=a, b=b, fn=fn):
            return _neutral(new, a, b, fn)
        case ops.Where(a=a, b=b):
            return _safe_softmax(new, op) or (a if a == b else None)
        case ops.Quantize(out=out, x=x):
            return _same_integers(new, op)
        case ops.Pool(x=x, kernel=kernel, strides=strides, pads=pads, fn=fn):
            alone = all(k == 1 for k in kernel) and all(s == 1 for s in strides)
            return x if alone and not any(pads) and fn in ("max", "average") else None
    return None


def _neutral(new: Rewrite, a: Value, b: Value, fn: str) -> Value | None:
    """a for a + 0, a * 1 and the like, where the number may also come first."""
    number = {"add": 0, "sub": 0, "mul": 1, "div": 1, "pow": 1}.get(fn)
    if number is None or a.type.quant is not None or b.type.quant is not None:
        return None
    for x, other in ((a, b), (b, a)):
        array = new.array(other)
        if array is not None and array.size and (array == number).all():
            return x
        if fn in ("sub", "div", "pow"):
            break
    return None


def _same_integers(new: Rewrite, op: ops.Quantize) -> Value | None:
    """x for quantize(dequantize(x)) with one scale and zero point."""
    maker = new.maker(op.x)
    if not isinstance(maker, ops.Dequantize) or maker.x.type.dtype != op.out.type.dtype:
        return None
    if maker.axis != op.axis or not _equal(new, maker.scale, op.scale):
        return None
    return maker.x if _equal(new, maker.zero, op.zero) else None


def _equal(new: Rewrite, one: Value | None, other: Value | None) -> bool:
    """True where both are the same constant; an absent zero point is 0."""
    a, b = new.array(one), new.array(other)
    if (a is None and one is not None) or (b is None and other is not None):
        return False
    a = np.zeros((), np.int32) if a is None else a
    b = np.zeros((), np.int32) if b is None else b
    return bool((a.reshape(-1) == b.reshape(-1)).all()) if a.size == b.size else False


def _safe_softmax(new: Rewrite, op: ops.Where) -> Value | None:
    """s for where(is_nan(s), 0, s) with s a softmax of rows that are never all -inf."""
    test, soft = new.maker(op.condition), new.maker(op.b)
    zero = new.array(op.a)
    if not (isinstance(test, ops.Unary) and test.fn == "is_nan" and isinstance(soft, ops.Softmax)):
        return None
    if test.x != op.b or zero is None or zero.any():
        return None
    axis = soft.axis % len(soft.x.shape) - len(soft.x.shape)
    return op.b if _rows_stay(new, soft.x, axis) else None


def _rows_stay(new: Rewrite, value: Value, axis: int) -> bool:
    """True unless a row along `axis` (from the end) may be -inf all over: only masks make such."""
    array = new.array(value)
    if array is not None:
        return _some_in_each_row(array != -np.inf, axis)
    match new.maker(value):
        case ops.Binary(a=a, b=b, fn="add" | "sub" | "mul" | "div"):
            return _rows_stay(new, a, axis) and _rows_stay(new, b, axis)
        case ops.Where(condition=condition, a=a, b=b):
            for shown, hidden, when in ((a, b, True), (b, a, False)):
                fill, chosen = new.array(hidden), new.array(condition)
                if fill is not None and not np.isfinite(fill).all():
                    rows = chosen is not None and _some_in_each_row(chosen == when, axis)
                    return rows and _rows_stay(new, shown, axis)
            return _rows_stay(new, a, axis) and _rows_stay(new, b, axis)
        case ops.Reshape(x=x) | ops.Transpose(x=x) | ops.Broadcast(x=x) if x.shape == value.shape:
            return _rows_stay(new, x, axis)
        case ops.Input() | ops.Concat() | ops.Unary(fn="log"):
            return False
    return True


def _some_in_each_row(kept: NDArray[np.bool_], axis: int) -> bool:
    """True where every row along `axis` (from the end) has an element that is kept."""
    return bool(kept.any(axis=axis).all()) if -axis <= kept.ndim else bool(kept.all())


def _merged(new: Rewrite, op: Op) -> Op:
    """The op reading further up, where the op before it can be skipped."""
    match op:
        case ops.Reshape(x=x):
            before = new.maker(x)
            if isinstance(before, ops.Reshape) and before.x.type.quant == x.type.quant:
                return replace(op, x=before.x)
        case ops.Transpose(out=out, x=x, perm=perm):
            before = new.maker(x)
            if isinstance(before, ops.Transpose) and before.x.type.quant == x.type.quant:
                joined = tuple(before.perm[axis] for axis in perm)
                return replace(op, x=before.x, perm=joined)
            order = [axis for axis in perm if x.shape[axis] != 1]
            if order == sorted(order) and perm != tuple(range(len(perm))):
                return ops.Reshape(out, x, nodes=op.nodes)
        case ops.Unary(x=x) if _bounds(op) is not None:
            before = new.maker(x)
            inner = _bounds(before) if isinstance(before, ops.Unary) else None
            if isinstance(before, ops.Unary) and inner is not None:
                return _clip(op, before.x, inner, _bounds(op) or inner)
        case ops.Conv(x=x, pads=pads):
            before = new.maker(x)
            if isinstance(before, ops.Pad) and _only_spatial_zeros(before):
                axes, rank = len(x.shape) - 2, len(x.shape)
                more = (*before.pads[2:rank], *before.pads[rank + 2 :])
                assert len(more) == 2 * axes
                joined = tuple(p + m for p, m in zip(pads, more, strict=True))
                return replace(op, x=before.x, pads=joined)
    return op


def _only_spatial_zeros(pad: ops.Pad) -> bool:
    """True where a pad adds real zeros around the spatial axes, as a conv's own pads do."""
    rank = len(pad.x.shape)
    inside = not any(pad.pads[axis] or pad.pads[rank + axis] for axis in (0, 1))
    grows = all(p >= 0 for p in pad.pads)
    zeros = pad.mode == "constant" and pad.value == 0
    return inside and grows and zeros and pad.x.type.quant == pad.out.type.quant


def _bounds(op: Op | None) -> tuple[float, float] | None:
    """Lowest and highest result of a relu or clip on floats."""
    if not isinstance(op, ops.Unary) or op.x.type.is_integer or op.out.type.is_integer:
        return None
    if op.fn == "relu":
        return 0.0, math.inf
    return (op.alpha, op.beta) if op.fn == "clip" else None


def _clip(
    op: ops.Unary, x: Value, first: tuple[float, float], then: tuple[float, float]
) -> ops.Unary:
    """One op for a clamp after another one: min(high, max(low, x)) of both."""
    low = min(then[1], max(then[0], first[0]))
    high = min(then[1], max(then[0], first[1]))
    if (low, high) == (0.0, math.inf):
        return replace(op, x=x, fn="relu", alpha=0.0, beta=0.0)
    return replace(op, x=x, fn="clip", alpha=low, beta=high)
