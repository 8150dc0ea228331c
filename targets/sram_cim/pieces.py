"""Long transfers in pieces: spread over the loops inside the one in whose iterations they happen.

A tile that is loaded ahead, or that leaves later, has a whole iteration's time. As one transfer it
would keep others from its ports for long, and those of loops inside cannot wait. So it is cut along
the axes of its buffer, by loops inside: with loops p (4 iterations) and q (2)

    transfer %x.next, %x                         64 rows at once
    transfer %x.next[8*(2*p + q) ...], %x[...]   8 rows in each iteration of q

Each piece moves an equal share of the elements. Loops that divide no axis run it the first time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from cimc.ir.program import Affine, Bound, View, var
from cimc.mapping.flows import Flow
from cimc.mapping.layout import Layout
from cimc.targets.sram_cim.frame import Frame, When
from cimc.targets.sram_cim.instructions import Transfer

SHORT = 8  # cycles of a port; shorter transfers are left whole


@dataclass(frozen=True, slots=True)
class Pieces:
    """How a transfer is cut: `count` pieces in the body of loop `place`, where `when` holds."""

    place: int
    count: int
    extents: tuple[int, ...]  # of a piece, along the axes of its views
    start: tuple[Affine, ...]  # of a piece, in elements along each axis
    when: When

    def cut(self, whole: Transfer) -> Transfer:
        """The transfer of one piece."""
        return dataclasses.replace(
            whole,
            dst=self._part(whole.dst),
            src=self._part(whole.src),
            read_bounds=self._bounds(whole.read_bounds),
            write_bounds=self._bounds(whole.write_bounds),
            read=whole.read // self.count,
            stored=whole.stored // self.count,
            when=(*whole.when, *self.when),
        )

    def _part(self, view: View) -> View:
        offset = view.offset
        for start, (_, stride) in zip(self.start, view.dims, strict=True):
            offset = offset + start * stride
        strides = (stride for _, stride in view.dims)
        return View(view.buffer, offset, tuple(zip(self.extents, strides, strict=True)))

    def _bounds(self, bounds: tuple[Bound, ...]) -> tuple[Bound, ...]:
        found = []
        for bound in bounds:
            first = bound.start
            for start, step in zip(self.start, bound.steps, strict=True):
                first = first + start * step
            found.append(Bound(first, bound.steps, bound.limit))
        return tuple(found)


def pieces_of(
    frame: Frame, flow: Flow, layout: Layout, bits: int, until: int | None = None
) -> Pieces | None:
    """How the transfers of a flow's tiles are cut; None where they are short, or nothing divides.

    bits    of an element
    until   the last loop that may cut
    """
    machine, loops = frame.mapped.machine, frame.mapped.loops
    levels = machine.levels[flow.outer.level], machine.levels[flow.inner.level]
    if any(level.along for level in levels):
        return None
    width = min(*(level.read_bits for level in levels), *(level.write_bits for level in levels))
    extents = [run.extent for runs in layout.runs for run in runs]
    start = [Affine()] * len(extents)
    count, when, found = 1, list[tuple[str, str]](), None
    last = len(loops) - 1 if until is None else until
    for place in frame.real(range(flow.loop + 1, last + 1)):
        if flow.inner_elements * bits <= count * SHORT * width:
            break
        bound, name = loops[place][1], frame.variable(place)
        axis = _axis(extents, bound)
        if (
            axis is None
            or flow.inner_elements % (count * bound)
            or (flow.outer_elements % (count * bound))
        ):
            when.append((name, "first"))
            continue
        count *= bound
        extents[axis] //= bound
        start[axis] = start[axis] + var(name) * extents[axis]
        found = Pieces(place, count, tuple(extents), tuple(start), tuple(when))
    return found


def _axis(extents: Sequence[int], bound: int) -> int | None:
    """The first axis that so many pieces divide."""
    return next((axis for axis, extent in enumerate(extents) if extent % bound == 0), None)
