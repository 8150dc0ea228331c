"""Work batch normalizations into the weights before them.

before   %a : f32[1,16,8,8] = conv %x, %w, _ ...
         %y : f32[1,16,8,8] = batch_norm %a, %scale, %bias, %mean, %variance
after    %y : f32[1,16,8,8] = conv %x, %y.weight, %y.bias ...

A pad with zeros between them moves behind the normalization where that gives every channel the same
number for zero. Without weights before it, a normalization becomes a mul and an add per channel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cimc.ir import ops
from cimc.ir.graph import Graph, Value
from cimc.ir.rewrite import Rewrite, with_nodes
from cimc.passes._absorb import absorbed, used_once
from cimc.passes._weights import Floats, put_float, weights_of
from cimc.pipeline.passes import graph_pass


@graph_pass("fold-batch-norm")
def fold_batch_norm(graph: Graph) -> Graph:
    """Turn each batch_norm into other weights of what is before it, or into a mul and an add."""
    new = Rewrite(graph)
    once = used_once(graph)
    for old in graph.ops:
        op = new.current(old)
        if not isinstance(op, ops.BatchNorm) or not _folded(new, op, once):
            new.add(op)
    return new.finish()


def _folded(new: Rewrite, op: ops.BatchNorm, once: set[str]) -> bool:
    """Add what computes the same as `op`; False where its parameters are not constant."""
    numbers = [weights_of(new, value) for value in (op.scale, op.bias, op.mean, op.variance)]
    scale, bias, mean, variance = (
        None if n is None else n.real.astype(np.float64) for n in numbers
    )
    if scale is None or bias is None or mean is None or variance is None:
        return False
    exact = scale / np.sqrt(variance + op.epsilon)
    factor, shift = exact.astype(np.float32), (bias - mean * exact).astype(np.float32)
    maker = new.maker(op.x) if op.x.name in once else None
    pad: ops.Pad | None = None
    if isinstance(maker, ops.Pad) and maker.x.name in once:
        pad, maker = maker, new.maker(maker.x)
    if isinstance(maker, ops.Conv | ops.ConvTranspose) or (
        isinstance(maker, ops.Matmul) and len(op.x.shape) == 2
    ):
        out = maker.out if pad else op.out
        out = Value(new.fresh(out.name), out.type) if pad else out
        heavy = absorbed(new, maker, factor, shift, out, op.nodes)
        value = None if pad is None else _padding_after(pad, factor, shift)
        if heavy and pad is None:
            new.add(heavy)
            return True
        if heavy and pad and value is not None:
            new.add(heavy)
            new.add(with_nodes(replace(pad, out=op.out, x=heavy.out, value=value), op.nodes))
            return True
    shape = (-1, *(1,) * (len(op.x.shape) - 2))
    name = op.out.name
    by, plus = (
        put_float(new, a.reshape(shape), f"{name}.{n}")
        for a, n in ((factor, "factor"), (shift, "shift"))
    )
    product = Value(new.fresh(f"{name}.scaled"), op.out.type)
    new.add(ops.Binary(product, op.x, by, "mul", nodes=op.nodes))
    new.add(ops.Binary(op.out, product, plus, "add", nodes=op.nodes))
    return True


def _padding_after(pad: ops.Pad, factor: Floats, shift: Floats) -> float | None:
    """What the pad has to fill in behind the normalization; None if that differs by channel."""
    crosses_channels = any(pad.pads[axis] or pad.pads[len(pad.x.shape) + axis] for axis in (0, 1))
    if crosses_channels:
        return None
    if pad.mode != "constant":
        return pad.value  # copies of normalized elements are normalized elements
    filled = np.float32(pad.value) * factor + shift
    return float(filled[0]) if (filled == filled[0]).all() else None
