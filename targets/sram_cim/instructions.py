"""The instructions of SRAM-CiM machines: tiles move between levels, macros activate.

A buffer at a level that each core has stands for all its instances at once: memory "ib.x8" is the
ib of 8 cores side by side. What one instance of each level moves, and how many take part, stands in
the instruction, since data that cores share are held once in such a buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from cimc.ir.program import Bound, Copy, Instr, Machine, Mvm, View, register_instr


@register_instr
@dataclass(frozen=True, slots=True)
class Transfer(Instr):
    """A tile from one level to another: a `copy` that knows the instances behind its views.

    Each of `readers` instances of the source hands out `read` elements, each of `writers` instances
    of the destination takes `stored`; a shared element is handed out once and taken by many. A
    buffer that is loaded ahead or emptied later (`meanwhile` "dst", "src" or "both") is the second
    bank of its level: it has a port of its own.
    """

    dst: View
    src: View
    fill: int = 0
    read_bounds: tuple[Bound, ...] = ()
    write_bounds: tuple[Bound, ...] = ()
    operand: str = field(default="I", kw_only=True)  # "I", "W", "O"
    meanwhile: str = field(default="", kw_only=True)
    read: int = field(default=0, kw_only=True)
    readers: int = field(default=1, kw_only=True)
    stored: int = field(default=0, kw_only=True)
    writers: int = field(default=1, kw_only=True)
    mnemonic: ClassVar[str] = "transfer"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """As the copy."""
        self.form().execute(machine, loops)

    def form(self) -> Copy:
        """The copy it is."""
        return Copy(self.dst, self.src, self.fill, self.read_bounds, self.write_bounds)


@register_instr
@dataclass(frozen=True, slots=True)
class Flip(Instr):
    """The two buffers of a double buffer change places: what was loaded ahead is now in use.

    It takes no time and moves nothing; as values go, `dst` becomes `src`.
    """

    dst: View
    src: View
    mnemonic: ClassVar[str] = "flip"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """As a copy."""
        self.form().execute(machine, loops)

    def form(self) -> Copy:
        """The copy it stands for."""
        return Copy(self.dst, self.src)


@register_instr
@dataclass(frozen=True, slots=True)
class Activate(Instr):
    """All macros at once: acc[...] += sum of x[...] * w[...], an `mvm` over the spatial axes.

    `cores` macros take part, with `rows` x `columns` of their cells in use.
    """

    acc: View  # i32
    x: View
    w: View
    cores: int
    rows: int
    columns: int
    mnemonic: ClassVar[str] = "activate"
    updates: ClassVar[tuple[str, ...]] = ("acc",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """Exact products and sums."""
        self.form().execute(machine, loops)

    def form(self) -> Mvm:
        """The product it is."""
        return Mvm(self.acc, self.x, self.w)


def second_banks(dst: bool, src: bool) -> str:
    """`meanwhile` of a transfer: which of its ends is the second buffer of its level."""
    return ("both" if src else "dst") if dst else "src" if src else ""
