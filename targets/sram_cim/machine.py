"""The machine of a target file as the nest arithmetic sees it."""

from __future__ import annotations

from cimc.errors import InternalError
from cimc.mapping.machine import Axis, Level, Machine
from cimc.target import Target
from cimc.targets.sram_cim_spec import SPEC, SramCimSpec

_AXES = (("cores", "cores"), ("rows", "macro.rows"), ("columns", "macro.columns"))


def spec_of(target: Target) -> SramCimSpec:
    """The target's content as this kind's schema."""
    if not isinstance(target.spec, SPEC):
        raise InternalError(f"{target.name} is no {SPEC.__name__}")
    return target.spec


def machine_of(target: Target) -> Machine:
    """Levels, axes and macro of a target."""
    spec = spec_of(target)
    names = list(spec.memory)
    levels = []
    for name, level in spec.memory.items():
        cores = ("cores",) if level.per == "core" else ()
        levels.append(
            Level(
                name=name,
                key=f"memory.{name}.size_bits",
                size_bits=level.size_bits,
                read_bits=level.read_bits_per_cycle,
                write_bits=level.write_bits_per_cycle,
                read_pj=level.read_pj_per_bit,
                write_pj=level.write_pj_per_bit,
                holds=("I" in level.holds, "W" in level.holds, "O" in level.holds),
                double=("I" in level.double, "W" in level.double, "O" in level.double),
                along=(*cores, *level.along),
            )
        )
    sizes = {"cores": spec.cores, "rows": spec.macro.rows, "columns": spec.macro.columns}
    axes = []
    for name, key in _AXES:
        axis = getattr(spec.axis, name)
        source = axis.sourced_at
        places = (names.index(source["I"]), names.index(source["W"]), names.index(source["O"]))
        axes.append(Axis(name, key, sizes[name], frozenset(axis.loops), places))
    return Machine(
        name=target.name,
        levels=tuple(levels),
        axes=tuple(axes),
        psum_bits=spec.macro.psum_bits,
        weight_bits=spec.macro.weight_bits,
        input_bits_per_cycle=spec.macro.input_bits_per_cycle,
    )
