"""One row of a pooled feature map, so that pools keep pace with the layers around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cimc.ir.evaluate import evaluate_op
from cimc.ir.graph import Value
from cimc.ir.ops import Pool
from cimc.ir.program import Affine, Instr, Machine, View, register_instr
from cimc.ir.types import Quant, Type


@register_instr
@dataclass(frozen=True, slots=True)
class PoolRow(Instr):
    """dst[c, q] = row `row` of `cimc.ir.ops.Pool` on one sample's map of `shape`."""

    dst: View  # axes C, Q
    src: View  # one axis over the sample's C*H*W elements
    row: Affine
    fn: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]  # before rows, before columns, after rows, after columns
    dilations: tuple[int, int]
    shape: tuple[int, int, int]  # C, H, W
    quant: tuple[float, int]  # scale and zero point of src
    out_quant: tuple[float, int]
    include_pad: bool = False
    p: int = 2
    mnemonic: ClassVar[str] = "pool-row"
    writes: ClassVar[tuple[str, ...]] = ("dst",)

    def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
        """The evaluator's pool of the rows that the window reaches."""
        channels, height, width = self.shape
        ((_, _), (columns, _)) = self.dst.dims
        first = self.row.at(loops) * self.strides[0] - self.pads[0]
        end = first + self.reach
        low, high = max(first, 0), min(end, height)
        view = View(
            self.src.buffer,
            self.src.offset + low * width,
            ((channels, height * width), (high - low, width), (width, 1)),
        )
        kind = Type(machine.dtype(self.src.buffer), (1, channels, high - low, width))
        made = Type(machine.dtype(self.dst.buffer), (1, channels, 1, columns))
        x = Value("x", Type(kind.dtype, kind.shape, Quant(*self.quant)))
        out = Value("out", Type(made.dtype, made.shape, Quant(*self.out_quant)))
        below = max(0, min(end, height + self.pads[2]) - height)
        pads = (low - first, self.pads[1], below, self.pads[3])
        op = Pool(
            out,
            x,
            self.fn,
            self.kernel,
            self.strides,
            pads,
            self.dilations,
            self.include_pad,
            self.p,
        )
        held = {"x": machine.read(view, loops).reshape(x.shape)}
        machine.write(self.dst, loops, evaluate_op(op, held).reshape(channels, columns))

    @property
    def reach(self) -> int:
        """Rows from the window's first to its last."""
        return (self.kernel[0] - 1) * self.dilations[0] + 1

    @property
    def read_elements(self) -> int:
        """Elements of src that a row away from the edges reads."""
        channels, height, width = self.shape
        return channels * min(self.reach, height) * width
