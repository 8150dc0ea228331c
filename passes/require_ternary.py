"""Refuse weights that are not ternary: the machine could run them, but not as cheaply as was meant.

fine       each output channel holds -a, 0 and +a only, whatever its a
refused    an output channel with several magnitudes: all such layers at once
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cimc.errors import Fault, UnsupportedError, raise_if
from cimc.ir import ops
from cimc.ir.graph import Graph
from cimc.passes._absorb import weight_axis, weight_value
from cimc.pipeline.passes import graph_pass


@graph_pass("require-ternary")
def require_ternary(graph: Graph) -> Graph:
    """Raise UnsupportedError unless all constant weights of integer products are ternary."""
    raise_if(_faults(graph), UnsupportedError)
    return graph


def _faults(graph: Graph) -> Iterator[Fault]:
    for op in graph.ops:
        if not isinstance(op, ops.Conv | ops.Matmul):
            continue
        array = graph.tensor(weight_value(op))
        if array is None or array.ndim < 2:
            continue
        channels = np.moveaxis(np.abs(array.astype(np.float64)), weight_axis(op), 0)
        for number, channel in enumerate(channels):
            magnitudes = np.unique(channel[channel != 0])
            if len(magnitudes) > 1:
                yield Fault(
                    f"weights of {op.out} are not ternary",
                    need="-a, 0 and +a only in every output channel",
                    have=f"output channel {number} has {len(magnitudes)} magnitudes, "
                    f"{magnitudes[0]:g} to {magnitudes[-1]:g}",
                    help="--ternarize all makes them ternary (lossy); "
                    "without --require-ternary they run as signed digits",
                    code="CIM3204",
                    node=op.nodes[0] if op.nodes else "",
                )
                break
