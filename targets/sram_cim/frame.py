"""The loops of one layer while instructions are put into them, and the tiles they work on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cimc.ir.program import Affine, Instr, Item, Loop, View, var
from cimc.mapping.layout import Layout
from cimc.mapping.nest import DIMS, Mapped

When = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """An iteration next to this one: loops from `begin` on are at their first or last iteration.

    If it `steps`, the loop before them is one step further: `by` 1 (they begin) or -1 (they end).
    """

    begin: int = 1 << 30
    by: int = 1
    steps: bool = True


NOW = Turn()


@dataclass(frozen=True, slots=True)
class Held:
    """A tile of an operand at one level: `buffer` in use, `other` the one that moves meanwhile.

    The tile is filled in loop `loop`; up to loop `base` what comes next cannot be loaded ahead,
    since the level it comes from still holds the current tile.
    """

    layout: Layout
    buffer: str
    loop: int
    other: str = ""
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

    def start(self, low: int, high: int, turn: Turn = NOW) -> dict[str, Affine]:
        """How far each dim has moved by the loops low+1 .. high, in the iteration of `turn`."""
        found = dict.fromkeys(DIMS, Affine())
        for place in self.real(range(low + 1, high + 1)):
            (dim, bound), step = self.mapped.loops[place], self.mapped.step(place)
            at = var(self.variable(place))
            if place >= turn.begin:
                at = Affine(0 if turn.by > 0 else bound - 1)
            elif place == turn.begin - 1 and turn.steps:
                at = at + turn.by
            found[dim] = found[dim] + at * step
        return found

    def turns(self, low: int, high: int, by: int) -> list[tuple[Turn, When]]:
        """The next (`by` 1) or previous (-1) iteration of loops low+1 .. high.

        Each of these loops may be the one by whose step it is reached; with the conditions under
        which it is. None of the conditions holds where the loop `low` has to go on.
        """
        word = "last" if by > 0 else "first"
        found = []
        for place in self.real(range(low + 1, high + 1)):
            inner = self.all_of(self.real(range(place + 1, high + 1)), word)
            when = (*inner, (self.variable(place), f"not-{word}"))
            found.append((Turn(place + 1, by), when))
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
