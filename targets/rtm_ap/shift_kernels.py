"""How far the tracks of a column move, and how often their alignment is checked."""

from __future__ import annotations

import numpy as np

from cimc import jit
from cimc.targets.rtm_ap import expand_kernels
from cimc.targets.rtm_ap.expand_kernels import FILES, Ints, Number

njit_inner = jit.compiler(__file__, expand_kernels.__file__, *FILES, inner=True)


@njit_inner
def move(
    head: Ints, column: Number, domain: Number, domains: int, ports: int, eager: bool
) -> Number:
    """Steps that a column's tracks take to bring `domain` under its nearest port.

    Lazy tracks stay there; eager ones return, which takes as many steps again.
    """
    best: Number = np.int64(1) << 40
    target: Number = 0
    for port in range(ports):
        wanted = domain - port * domains // ports
        steps = abs(wanted - head[column])
        if steps < best:
            best, target = steps, wanted
    if eager:
        return 2 * best
    head[column] = target
    return best


@njit_inner
def checks(since: Ints, column: Number, steps: Number, period: int) -> Number:
    """Checks of a column that moves on by `steps`: one after every `period` of its steps."""
    if period == 0:
        return 0
    since[column] += steps
    found: Number = since[column] // period
    since[column] -= found * period
    return found
