"""The target files of racetrack associative processors.

A chip has `cores` controllers. Each drives `ap.arrays` associative arrays in lockstep: all their
rows run the same column operations. A cell is a racetrack with `ap.domains` bits, one of which is
under a port; the tracks of a column shift together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from cimc.target import NonNegative, PositiveFloat, PositiveInt, Table, TargetSpec

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]


class Ap(Table):
    """The associative arrays of one core.

    A pass is a search of all rows and a write into those that match:

        time    passes * (search_cycles + write_cycles) + shift steps * shift_cycles
        energy  rows * (searched cells * search_pj + driven cells * write_pj + steps * shift_pj)

    Rows without data are searched all the same. Shift energy counts every track of every column
    that moves; columns move side by side, so time counts the longest move.

    A step can leave a track one domain off, and it stays so. With `realign_steps` a position code
    beside the data is read after so many steps of a column, and tracks that are off by no more than
    `realign_reach` are moved back: realign_cycles of time, realign_pj for each track.
    """

    arrays: PositiveInt  # driven by one controller
    rows: PositiveInt
    columns: PositiveInt
    domains: PositiveInt
    ports: PositiveInt  # along a track, evenly spaced from its first domain on
    shift_policy: Literal["lazy", "eager"]  # a track stays where it is, or returns after each use
    carries: PositiveInt  # columns that take turns to hold the carry: its cells wear fastest
    search_cycles: PositiveInt
    write_cycles: PositiveInt
    shift_cycles: PositiveInt  # one step
    search_pj: NonNegative  # one cell compared
    write_pj: NonNegative  # one cell driven
    shift_pj: NonNegative  # one track, one step
    read_pj: NonNegative  # one cell read out
    endurance: PositiveFloat  # changes that a cell survives
    fault_per_step: Probability  # that a track ends one domain off; for `cimc run --noise` only
    realign_steps: NonNegativeInt  # of a column between checks of its tracks; 0: never checked
    realign_reach: PositiveInt  # the code tells a track that is off by up to so many domains
    realign_cycles: PositiveInt  # one check of a column, all rows at once, and what it mends
    realign_pj: NonNegative  # one check of one track
    # what sources say of keys that are assumed here
    documented: dict[str, tuple[NonNegative, ...]] = Field(default_factory=dict)
    area_mm2: NonNegative = 0.0  # one array with its periphery
    controller_mm2: NonNegative = 0.0


class RtmApSpec(TargetSpec):
    """A whole racetrack associative processor."""

    reductions: ClassVar[tuple[str, ...]] = (
        "fold-weights", "interchange-channels", "share-rows", "share-terms", "order-sums",
    )  # fmt: skip

    ap: Ap

    @model_validator(mode="after")
    def _consistent(self) -> RtmApSpec:
        faults = list(_faults(self))
        if faults:
            raise ValueError("; ".join(faults))
        return self


_LEAST_COLUMNS = 32  # bits of an accumulator


def _faults(spec: RtmApSpec) -> Iterator[str]:
    ap = spec.ap
    if ap.rows % 64:
        yield f"ap.rows = {ap.rows} is no multiple of 64"
    if ap.columns > 4096:
        yield f"ap.columns = {ap.columns}, at most 4096 can be addressed"
    if ap.domains > 256:
        yield f"ap.domains = {ap.domains}, at most 256 can be addressed"
    if ap.columns < ap.carries + _LEAST_COLUMNS:
        shares = f"{ap.carries} for carries and {_LEAST_COLUMNS} for the shortest sum"
        least = ap.carries + _LEAST_COLUMNS
        yield f"ap.columns = {ap.columns}, needed are at least {least}: {shares}"
    for key in ap.documented.keys() - Ap.model_fields.keys():
        yield f"ap.documented names {key}, which is no key of ap"
    if ap.ports > ap.domains:
        yield f"ap.ports = {ap.ports} exceeds ap.domains = {ap.domains}"
    levels = list(spec.memory)
    if len(levels) < 2 or any(spec.memory[level].per != "chip" for level in levels[:2]):
        yield "memory needs two levels per chip: one for feature maps and programs, one for sums"


SPEC = RtmApSpec
