"""Requantize with an integer multiplier and a shift, for machines without floating point.

before   %m : f32[1] = constant {value=(0.0078125,)}
         %y : i8[64]<0.5,0> = requant %a, %m, _ {axis=0}
after    %y.fixed : i32[1] = constant {value=(1073741824,)}
         %y.shift : i32[1] = constant {value=(37,)}
         %y : i8[64]<0.5,0> = requant %a, %y.fixed, %y.shift {axis=0, round="fixed"}

A value may change by one where float rounding and exact rounding up of halves differ: at ties, and
where the sum has more than 24 bits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cimc.ir import ops
from cimc.ir.graph import Graph
from cimc.ir.rewrite import Rewrite
from cimc.ir.types import Array
from cimc.pipeline.passes import graph_pass

MOST_SHIFT = 62  # sum and multiplier have 31 bits each, so the product has 62


@graph_pass("fixed-point")
def fixed_point(graph: Graph, *, bits: int = 31) -> Graph:
    """Write each float multiplier as an integer of `bits` bits times a power of two."""
    new = Rewrite(graph)
    for old in graph.ops:
        op = new.current(old)
        array = new.array(op.multiplier) if isinstance(op, ops.Requant) else None
        if isinstance(op, ops.Requant) and op.round == "float" and array is not None:
            multiplier, shift = fixed(array, bits)
            held = new.constant(multiplier, new.fresh(f"{op.out.name}.fixed"))
            by = new.constant(shift, new.fresh(f"{op.out.name}.shift"))
            op = replace(op, multiplier=held, shift=by, round="fixed")
        new.add(op)
    return new.finish()


def fixed(factors: Array, bits: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Integers m and s with m * 2**-s nearest to each factor, |m| < 2**bits and 0 <= s <= 62."""
    fraction, exponent = np.frexp(factors.astype(np.float64))
    shift = np.clip(bits - exponent, 0, MOST_SHIFT)
    multiplier = np.rint(np.ldexp(fraction, exponent + shift))
    grown = np.abs(multiplier) >= 2.0**bits  # 0.111...1 was rounded up to 1.0
    shift = np.where(grown & (shift > 0), shift - 1, shift)
    multiplier = np.rint(np.ldexp(fraction, exponent + shift))
    highest = 2.0**bits - 1
    return np.clip(multiplier, -highest, highest).astype(np.int32), shift.astype(np.int32)
