"""The loops of one layer while instructions are put into them, and the tiles they work on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cimc.ir.program import Affine, Instr, Item, Loop, View, var
from cimc.mapping.layout import Layout
from cimc.mapping.nest import DIMS, Mapped

When = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A tile of an operand at one level: `buffer` in use, `ahead` the one loaded meanwhile.

    The tile is filled in loop `loop`; up to loop `base` what comes next cannot be loaded ahead,
    since the level it comes from still holds the current tile.
    """

    layout: Layout
    buffer: str
    loop: int
    ahead: str = ""
    base: int = -1


def memory_of(mapped: Mapped, level: int) -> str:
    """The memory of all instances of a level side by side: "ib.x8" for those of 8 cores."""
    found = mapped.machine.levels[level]
    return f"{found.name}.x{mapped.used(0) if 'cores' in found.along else 1}"


def whole(buffer: str, layout: Layout) -> View:
    """All of a tile's buffer."""
    runs = (run for runs in layout.runs for run in runs)
    return View(buffer, Affine(), tuple((run.extent, run.stride) for run in runs))


class Frame:
    """Loops of a mapped nest, with room before and after the inner loops in each body.

    Place -1 is outside all loops. Loops of bound 1 are no loops of the program; what is put into
    one lands in the body around it.
    """

    def __init__(self, mapped: Mapped) -> None:
        self.mapped = mapped
        self.before: dict[int, list[Item]] = {place: [] for place in range(-1, len(mapped.loops))}
        self.after: dict[int, list[Item]] = {place: [] for place in range(-1, len(mapped.loops))}
        self.trips = {
            self.variable(place): bound
            for place, (_, bound) in enumerate(mapped.loops)
            if bound > 1
        }

    def variable(self, place: int) -> str:
        """The variable of a loop."""
        return f"{self.mapped.loops[place][0]}{place}"

    def real(self, places: Iterable[int]) -> list[int]:
        """Those of `places` that are loops of the program."""
        return [place for place in places if place >= 0 and self.mapped.loops[place][1] > 1]

    def start(self, low: int, high: int, stepped: int | None = None) -> dict[str, Affine]:
        """How far each dim has moved by the loops low+1 .. high.

        With `stepped`, the iteration in which that loop goes one further and those inside it begin
        again; where it is not above `low`, all of them begin again.
        """
        found = dict.fromkeys(DIMS, Affine())
        if stepped is not None and stepped <= low:
            return found
        for place in self.real(range(low + 1, high + 1)):
            if stepped is not None and place > stepped:
                continue
            dim, step = self.mapped.loops[place][0], self.mapped.step(place)
            moved = var(self.variable(place)) + (1 if place == stepped else 0)
            found[dim] = found[dim] + moved * step
        return found

    # --- conditions ---

    def all_of(self, places: Sequence[int], word: str) -> When:
        """All of `places` are in their "first" or "last" iteration."""
        return tuple((self.variable(place), word) for place in places)

    def not_all_of(self, places: Sequence[int], word: str) -> list[When]:
        """Some of `places` is not, as conditions of which exactly one holds then."""
        return [
            (*self.all_of(places[:number], word), (self.variable(place), f"not-{word}"))
            for number, place in enumerate(places)
        ]

    # --- the whole ---

    def items(self, inner: Iterable[Instr]) -> list[Item]:
        """Everything put in so far around what the innermost body does."""
        body: list[Item] = list(inner)
        for place in reversed(range(len(self.mapped.loops))):
            body = [*self.before[place], *body, *self.after[place]]
            if self.mapped.loops[place][1] > 1:
                body = [Loop(self.variable(place), self.mapped.loops[place][1], tuple(body))]
        return [*self.before[-1], *body, *self.after[-1]]
