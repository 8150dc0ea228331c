"""Energy of the macro, the leakage and the area of an SRAM-CiM machine."""

from __future__ import annotations

import math

from cimc.targets.sram_cim_spec import SramCimSpec


def activation_events(spec: SramCimSpec, input_bits: int, weight_bits: int) -> dict[str, int]:
    """1-bit operations of one activation of one macro, whole array, used or not.

        multiplier  W*X*Y * t        adder  (tree(I) + (I + W + ceil(log2 X))*Y) * t
        register    (I + W + ceil(log2 X))*Y * t

    X rows, Y columns, I and W bits, t cycles of the activation; tree: `Macro.tree_adders`. The
    second adder term and the registers are each column's accumulator.  [MIREDO public code]
    """
    macro = spec.macro
    x, y, w = macro.rows, macro.columns, macro.weight_bits
    t = -(-input_bits // macro.input_bits_per_cycle) * -(-weight_bits // w)
    sums = (input_bits + w + (math.ceil(math.log2(x)) if x > 1 else 0)) * y
    return {
        "macro.multiplier": w * x * y * t,
        "macro.adder": (macro.tree_adders(input_bits) + sums) * t,
        "macro.register": sums * t,
    }


def activation_pj(spec: SramCimSpec, input_bits: int, weight_bits: int) -> float:
    """Energy of one activation of one macro."""
    events = activation_events(spec, input_bits, weight_bits)
    macro = spec.macro
    return (
        events["macro.multiplier"] * macro.multiplier_pj
        + events["macro.adder"] * macro.adder_pj
        + events["macro.register"] * macro.register_pj
    )


def leakage_pj(spec: SramCimSpec) -> float:
    """Leakage of the whole chip per cycle; a memory's value is that of one core's."""
    return sum(
        level.leakage_pj_per_cycle * (spec.cores if level.per == "core" else 1)
        for level in spec.memory.values()
    )


def area(spec: SramCimSpec) -> dict[str, float]:
    """mm2 by component, whole chip; registers and cells count once for each row, column or cell."""
    sizes = {"rows": spec.macro.rows, "columns": spec.macro.columns}
    found = {
        f"memory.{name}": level.area_mm2
        * (spec.cores if level.per == "core" else 1)
        * math.prod(sizes[axis] for axis in level.along)
        for name, level in spec.memory.items()
    }
    found["macro"] = spec.macro.area_mm2 * spec.cores
    found["vector"] = spec.vector.area_mm2 * (spec.cores if spec.vector.per == "core" else 1)
    found["link"] = spec.link.area_mm2
    return found
