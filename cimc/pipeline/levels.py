"""The passes of each optimization level, from imported graph to allocated program.

    -O0   legal only: what the target needs, nothing more
    -O1   fusion, and the simple mapping
    -O2   fusion, the heuristic mapping, and the steps across layers (the default)
    -O3   as -O2, but mappings are searched for exactly, within the time limit

All levels give the same values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from cimc.ir import text
from cimc.ir.graph import Graph
from cimc.ir.tiles import Nest, Tiles
from cimc.pipeline.passes import State, pass_named
from cimc.pipeline.phases import NETWORK_STEPS, PHASES, phase_of
from cimc.pipeline.spec import Step, step
from cimc.target import Target

LEVELS = (0, 1, 2, 3)
_ROUNDS = (0, 0, 0, 20)  # of `share-terms`, by level
Objective: TypeAlias = str  # "latency", "period", "energy", "edp" or "0.3*latency+0.7*energy"


@dataclass(frozen=True, slots=True)
class Effort:
    """What a person asked of a compilation, and the passes that do it."""

    level: int = 2
    host_fallback: bool = False
    objective: Objective = "latency"
    time_limit_s: float = 60.0
    layer_time_limit_s: float | None = field(default=None, kw_only=True)
    gap: float = field(default=0.0, kw_only=True)
    jobs: int | None = field(default=None, kw_only=True)
    without: str = ""  # network steps to leave out, with commas between
    ternarize: str = field(default="", kw_only=True)  # "all" layers, or the "inner" ones
    ternary_scale: str = field(default="channel", kw_only=True)  # or "tensor"
    require_ternary: bool = field(default=False, kw_only=True)  # or else refuse the model
    activation_bits: int = field(default=8, kw_only=True)  # of a float model

    def steps(self, target: Target) -> tuple[Step, ...]:
        """All passes from an imported graph to a program with addresses."""
        return (*self.graph_steps(target), *self.machine_steps(target))

    def steps_after(self, state: State, target: Target) -> tuple[Step, ...]:
        """The passes that are left for a state that does not say which come next.

        A mapping that is there is kept: somebody may have written it.
        """
        if isinstance(state, Graph):
            return self.steps(target)
        steps = self.machine_steps(target)
        if not isinstance(state, Tiles):
            return steps[-1:]
        if state.sums:
            return steps[-2:]
        return steps[-2 - len(self.reductions(target)) :] if _is_mapped(state) else steps[1:]

    def graph_steps(self, target: Target) -> tuple[Step, ...]:
        """The passes of phase `graph`."""
        optimizing = self.level > 0
        fixed = target.spec.requant == "fixed"
        wanted = (
            ("canonicalize", True),
            ("fold-constants", True),
            ("fold-batch-norm", True),
            ("simplify", optimizing),
            ("integerize", True),
            ("simplify", optimizing),  # pads that were quantized apart from their conv
            ("fixed-point", fixed),  # before detect-ternary, which keeps the bits it finds
            ("detect-ternary", optimizing),
            ("require-ternary", self.require_ternary),
            ("drop-dead-code", True),
            ("fuse-layers", optimizing),
        )
        return (*self.lossy_steps(), *(step(name) for name, is_wanted in wanted if is_wanted))

    def lossy_steps(self) -> tuple[Step, ...]:
        """The pass that changes what the model computes, where it is asked for."""
        if not self.ternarize:
            return ()
        return (step("ternarize", {"layers": self.ternarize, "scale": self.ternary_scale}),)

    def reductions(self, target: Target) -> tuple[Step, ...]:
        """The passes that make a mapped layer's arithmetic less, where the machine has such."""
        rounds = _ROUNDS[self.level]
        return tuple(
            step(name, {"rounds": rounds} if name == "share-terms" and rounds else {})
            for name in target.spec.reductions
            if self.level > 0
        )

    def machine_steps(self, target: Target | None = None) -> tuple[Step, ...]:
        """The passes of phases `tile`, `map`, `lower` and `allocate`, on any machine or on one."""
        mapping: dict[str, text.Literal] = {
            "level": self.level,
            "time_limit_s": self.time_limit_s,
            "objective": self.objective,
        }
        limits: dict[str, text.Literal] = {
            "layer_time_limit_s": self.layer_time_limit_s,
            "gap": self.gap or None,
            "jobs": self.jobs,
        }
        exact = {name: value for name, value in limits.items() if value is not None}
        left_out = self.without.split(",")
        wanted = [name for name in NETWORK_STEPS if self.level > 1 and name not in left_out]
        return (
            step("tile", {"host_fallback": True} if self.host_fallback else {}),
            step("map", {**mapping, **exact}),
            *(step(name, mapping) for name in wanted),
            *(self.reductions(target) if target is not None else ()),
            step("lower"),
            step("allocate"),
        )


def _is_mapped(tiles: Tiles) -> bool:
    nests = [layer.nest for layer in tiles.layers if layer.nest is not None]
    return any(nest != Nest(nest.dims) for nest in nests)


def until(steps: tuple[Step, ...], phase: str) -> tuple[Step, ...]:
    """The steps up to and with those of `phase`."""
    last = PHASES.index(phase)
    found = []
    for item in steps:
        if PHASES.index(phase_of(pass_named(item.name))) > last:
            break
        found.append(item)
    return tuple(found)
