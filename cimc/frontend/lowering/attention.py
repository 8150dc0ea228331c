"""Operators of transformers, taken apart into matrix products, softmax and elementwise ops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from onnx import AttributeProto

from cimc.frontend import codes
from cimc.frontend.lowering.elementwise import cast_to
from cimc.frontend.lowering.pooling import reduced
from cimc.frontend.lowering.registry import lowers
from cimc.frontend.lowering.site import Site
from cimc.frontend.tensors import ELEMENT_TYPES
from cimc.ir import ops
from cimc.ir.graph import Value
from cimc.ir.types import Type, numpy_dtype


@lowers("RMSNormalization")
def rms_norm(site: Site) -> None:
    """x / sqrt(mean of squares + epsilon) * scale over the axes from `axis` on."""
    x = site.value()
    axis = site.axis(site.attr_int("axis", -1), len(x.shape))
    axes = tuple(range(axis, len(x.shape)))
    kept = reduced(x.type, axes, True)
    squares = site.emit(ops.Binary(site.fresh("squares", x.type), x, x, "mul"))
    mean = site.emit(ops.Reduce(site.fresh("mean", kept), squares, "mean", axes))
    epsilon = site.number(site.attr_float("epsilon", 1e-5), x.type.dtype, "epsilon")
    power = site.emit(ops.Binary(site.fresh("power", kept), mean, epsilon, "add"))
    root = site.emit(ops.Unary(site.fresh("root", kept), power, "sqrt"))
    normal = site.emit(ops.Binary(site.fresh("normal", x.type), x, root, "div"))
    site.emit(ops.Binary(site.out(x.type), normal, site.value(1), "mul"))


@lowers("Attention", note="no nonpad_kv_seqlen; softmax in float32 where asked for")
def attention(site: Site) -> None:
    """softmax(q k^T * scale + mask) v for each head; past keys and values are put in front."""
    if site.has(6):
        site.refuse("Attention with nonpad_kv_seqlen is not supported")
    flat = len(site.kind(0).shape) == 3
    q = _heads(site, 0, "q", site.attr_int("q_num_heads"))
    k = _heads(site, 1, "k", site.attr_int("kv_num_heads"))
    v = _heads(site, 2, "v", site.attr_int("kv_num_heads"))
    past = 0
    if site.has(4) and site.has(5):
        past = site.kind(4).shape[2] if len(site.kind(4).shape) == 4 else 0
        k, v = _with_past(site, k, 4, 1), _with_past(site, v, 5, 2)
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[1] % k.shape[1]:
        have = f"{q.type}, {k.type}, {v.type}"
        site.refuse("the operands of Attention do not fit", have=have, code=codes.SHAPES)
    k, v = _shared(site, k, q.shape[1], "k"), _shared(site, v, q.shape[1], "v")
    scale = site.attr_float("scale", 1 / math.sqrt(max(1, q.shape[3])))
    factor = site.number(scale, q.type.dtype, "scale")
    q = site.emit(ops.Binary(site.fresh("scaled", q.type), q, factor, "mul"))
    turned = replace(k.type, shape=(*k.shape[:2], k.shape[3], k.shape[2]))
    k = site.emit(ops.Transpose(site.fresh("kt", turned), k, (0, 1, 3, 2)))
    scores = _scores(site, q, k, past)
    if q.shape[3] != k.shape[2]:
        site.refuse("the heads of Attention have different sizes", code=codes.SHAPES)
    result = Type(q.type.dtype, (*q.shape[:3], v.shape[3]))
    if not flat:
        site.emit(ops.Matmul(site.out(result), scores, v, None))
        return
    y = site.emit(ops.Matmul(site.fresh("heads", result), scores, v, None))
    n, heads, length, size = result.shape
    y = site.emit(
        ops.Transpose(
            site.fresh("tokens", replace(result, shape=(n, length, heads, size))), y, (0, 2, 1, 3)
        )
    )
    site.emit(ops.Reshape(site.out(replace(result, shape=(n, length, heads * size))), y))


def _heads(site: Site, index: int, suffix: str, heads: int) -> Value:
    """An operand as batch, heads, length, size of head."""
    x = site.value(index)
    if len(x.shape) == 4:
        return x
    if len(x.shape) != 3 or heads < 1 or x.shape[2] % heads:
        site.refuse("the operands of Attention do not fit", have=f"{x.type} of {heads} heads")
    n, length, width = x.shape
    tokens = replace(x.type, shape=(n, length, heads, width // heads))
    x = site.emit(ops.Reshape(site.fresh(f"{suffix}.tokens", tokens), x))
    kind = replace(x.type, shape=(n, heads, length, width // heads))
    return site.emit(ops.Transpose(site.fresh(f"{suffix}.heads", kind), x, (0, 2, 1, 3)))


def _with_past(site: Site, x: Value, index: int, output: int) -> Value:
    """What was cached before `x`, and `x`; an output of the node where that is asked for."""
    past = site.value(index)
    if len(past.shape) != 4 or past.type.dtype != x.type.dtype:
        site.refuse("the past of Attention does not fit", have=f"{past.type} and {x.type}")
    kind = replace(x.type, shape=(*x.shape[:2], past.shape[2] + x.shape[2], x.shape[3]))
    wanted = site.wants(output)
    out = site.out(kind, output) if wanted else site.fresh(f"present{output}", kind)
    return site.emit(ops.Concat(out, (past, x), 2))


def _shared(site: Site, x: Value, heads: int, suffix: str) -> Value:
    """Keys or values repeated for the query heads that share them."""
    n, own, length, size = x.shape
    if own == heads:
        return x
    one = replace(x.type, shape=(n, own, 1, length, size))
    many = replace(x.type, shape=(n, own, heads // own, length, size))
    x = site.emit(ops.Reshape(site.fresh(f"{suffix}.one", one), x))
    x = site.emit(ops.Broadcast(site.fresh(f"{suffix}.many", many), x))
    kind = replace(x.type, shape=(n, heads, length, size))
    return site.emit(ops.Reshape(site.fresh(f"{suffix}.shared", kind), x))


def _scores(site: Site, q: Value, k: Value, past: int) -> Value:
    """Softmax of the masked products; one stage is an output of the node where it asks for that."""
    kind = Type(q.type.dtype, (*q.shape[:3], k.shape[3]))
    mode = site.attr_int("qk_matmul_output_mode") if site.wants(3) else -1

    def stage(number: int, suffix: str) -> Value:
        return site.out(kind, 3) if number == mode else site.fresh(suffix, kind)

    limit = site.attr_float("softcap", 0.0)
    x = site.emit(ops.Matmul(stage(0, "scores"), q, k, None))
    if limit:
        cap = site.number(limit, kind.dtype, "softcap")
        x = site.emit(ops.Binary(site.fresh("relative", kind), x, cap, "div"))
        x = site.emit(ops.Unary(site.fresh("bounded", kind), x, "tanh"))
        x = site.emit(ops.Binary(stage(1, "capped"), x, cap, "mul"))
    elif mode == 1:
        x = site.emit(ops.Reshape(stage(1, "capped"), x))
    x = _masked(site, x, past)
    if mode == 2:
        x = site.emit(ops.Reshape(stage(2, "masked"), x))
    precision = site.attribute("softmax_precision", AttributeProto.INT)
    dtype = ELEMENT_TYPES.get(precision.i, kind.dtype) if precision is not None else kind.dtype
    x = cast_to(site, x, dtype, "precise")
    if dtype == kind.dtype:
        return site.emit(ops.Softmax(stage(3, "weights"), x, 3))
    x = site.emit(ops.Softmax(site.fresh("soft", x.type), x, 3))
    return site.emit(ops.Cast(stage(3, "weights"), x))


def _masked(site: Site, x: Value, past: int) -> Value:
    """Scores with -inf, or the mask's own numbers added, where a query must not look."""
    kind, (queries, keys) = x.type, x.shape[2:]
    left, right = site.attr_int("left_window_size", -1), site.attr_int("right_window_size", -1)
    if site.attr_int("is_causal"):
        right = 0 if right < 0 else min(right, 0)
    if left >= 0 or right >= 0:
        ahead = np.arange(keys)[None, :] - (np.arange(queries)[:, None] + past)
        hidden = (ahead > right if right >= 0 else False) | (-ahead > left if left >= 0 else False)
        array = np.where(hidden, -np.inf, 0).astype(numpy_dtype(kind.dtype))
        near = site.constant(array, "window")
        x = site.emit(ops.Binary(site.fresh("near_scores", kind), x, near, "add"))
    if not site.has(3):
        return x
    mask = site.value(3)
    if site.broadcast(mask.shape, kind.shape) != kind.shape:
        site.refuse("the mask of Attention does not fit", have=f"{mask.type} for {kind}")
    if mask.type.dtype == "bool":
        never = site.number(-math.inf, kind.dtype, "never")
        return site.emit(ops.Where(site.fresh("masked_scores", kind), mask, x, never))
    return site.emit(ops.Binary(site.fresh("masked_scores", kind), x, mask, "add"))
