"""What a mapping needs to know of a machine: memory levels from the outside in, spatial axes."""

from __future__ import annotations

from dataclasses import dataclass

INPUT, WEIGHT, OUTPUT = 0, 1, 2  # positions of the operands wherever they come in threes
OPERANDS = (INPUT, WEIGHT, OUTPUT)
NAMES = ("I", "W", "O")
RELEVANT: tuple[frozenset[str], frozenset[str], frozenset[str]] = (
    frozenset("ngcpqrs"),
    frozenset("gkcrs"),
    frozenset("ngkpq"),
)  # loops that move an operand's tile
REDUCED = frozenset("crs")


@dataclass(frozen=True, slots=True)
class Level:
    """A memory level, or one kind of register; sizes, widths and energies of one instance."""

    name: str
    key: str  # where the target file says its size
    size_bits: int
    read_bits: int  # per cycle
    write_bits: int
    read_pj: float  # per bit
    write_pj: float
    holds: tuple[bool, bool, bool]  # I, W, O
    double: tuple[bool, bool, bool]  # may have two buffers
    along: tuple[str, ...]  # axes that have one instance at each position


@dataclass(frozen=True, slots=True)
class Axis:
    """Up to `size` steps in space of loops over `dims`; I, W, O fan out at the levels `source`."""

    name: str
    key: str  # where the target file says its size
    size: int
    dims: frozenset[str]
    source: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Machine:
    """Levels outermost first, axes from the cores inwards, and the macro's constants."""

    name: str
    levels: tuple[Level, ...]
    axes: tuple[Axis, ...]
    psum_bits: int
    weight_bits: int  # a cell multiplies with at once; it stores multiples of them
    input_bits_per_cycle: int

    def level(self, name: str) -> int:
        """Position of a level."""
        return next(place for place, level in enumerate(self.levels) if level.name == name)

    def chain(self, operand: int) -> tuple[int, ...]:
        """Levels that may hold an operand, outermost first; the last is its register."""
        return tuple(place for place, level in enumerate(self.levels) if level.holds[operand])

    def activation_cycles(self, input_bits: int, weight_bits: int) -> int:
        """Cycles of one activation: the input comes bit by bit, wide weights take several turns."""
        return -(-input_bits // self.input_bits_per_cycle) * -(-weight_bits // self.weight_bits)
