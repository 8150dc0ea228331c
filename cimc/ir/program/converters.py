"""The form in which a kind describes products whose partial sums pass analog-digital converters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.ir.program.structure import View

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Phase:
    """What the cells of rows driven together hold, and how their columns' results are weighed.

    Every slice is one column of cells for each logical column: its factor, and the cells' levels
    (negative ones: the difference of a pair). `ones` weighs the converted sum of the inputs.
    """

    slices: tuple[tuple[Ints, Ints], ...]  # (factor[columns], cells[rows, columns]) of each
    ones: Ints  # [columns]


@dataclass(frozen=True, slots=True)
class ConverterMvm:
    """acc[c] (+)= sum over phases p, steps t of

        f_t * (sum over slices j of factor_pjc * adc(x_pt . cells_pjc) + ones_pc * adc(sum of x_pt))

    with adc(s) = clip(s, low, high) and x_pt the `width` bits of the phase's inputs from bit
    `bottom` on. acc, x and w have the axes (rows, columns) with strides (0, a), (b, 0), (c, d).
    """

    acc: View  # i32
    x: View
    w: View
    fresh: bool
    active_rows: int  # rows of one phase
    steps: tuple[tuple[int, int, int], ...]  # f_t, bottom, width
    low: int
    high: int
    phase: Callable[[Ints], Phase]  # from the weights w[rows, columns] of one phase
