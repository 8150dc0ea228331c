"""Recognize activation functions that a model spells out with several elementwise ops.

Not by the shape of the expression (exporters write `gelu` in a dozen orders) but by what it
computes: the expression over a single value is evaluated on a fine grid and compared with every
function that has a name.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from cimc.ir.evaluate.functions import UNARY
from cimc.ir.graph import Value
from cimc.ir.rewrite import Rewrite
from cimc.passes._cone import Elementwise, computed, read
from cimc.passes._weights import Floats

# name, alpha, beta
NAMED: tuple[tuple[str, float, float], ...] = (
    ("gelu", 0.0, 0.0),
    ("gelu_tanh", 0.0, 0.0),
    ("swish", 1.0, 0.0),
    ("swish", 1.702, 0.0),
    ("hard_swish", 0.0, 0.0),
    ("hard_sigmoid", 1 / 6, 0.5),
    ("hard_sigmoid", 0.2, 0.5),
    ("mish", 0.0, 0.0),
    ("softplus", 0.0, 0.0),
    ("softsign", 0.0, 0.0),
    ("sigmoid", 0.0, 0.0),
    ("tanh", 0.0, 0.0),
)
# beyond +-60 a spelled-out exp overflows where the named function does not
_GRID: Floats = np.concatenate(
    [np.linspace(-12, 12, 4801), np.linspace(-60, -12, 97), np.linspace(12, 60, 97)]
).astype(np.float32)
_MOST_OPS = 16  # no activation takes more; keeps the search short


def spelled(new: Rewrite, root: Elementwise) -> tuple[Value, str, float, float] | None:
    """The value, function, alpha and beta that `root` amounts to, if it is a named function.

    `root` itself is not in the new graph yet, all that it reads is.
    """
    inside: set[str] = {root.out.name}
    frontier = read(new, root)
    while frontier and len(inside) <= _MOST_OPS:
        if len(frontier) == 1 and len(inside) > 1:
            (source,) = frontier.values()
            found = _named(new, root, source)
            if found:
                return source, *found
        last = max(frontier.values(), key=new.place)
        more = read(new, new.maker(last))
        if not more:
            return None
        inside.add(last.name)
        del frontier[last.name]
        frontier.update({name: value for name, value in more.items() if name not in inside})
    return None


def _named(new: Rewrite, root: Elementwise, source: Value) -> tuple[str, float, float] | None:
    result = computed(new, root, {source.name: _GRID})
    for fn, alpha, beta in NAMED:
        if np.allclose(result, _curve(fn, alpha, beta), rtol=1e-5, atol=2e-6):
            return fn, alpha, beta
    return None


@cache
def _curve(fn: str, alpha: float, beta: float) -> Floats:
    with np.errstate(all="ignore"):
        return np.asarray(UNARY[fn](_GRID, alpha, beta), np.float32)
