"""Where the sums of a block's slices come together.

Each core first adds its own slices. If a block lies in several cores, each of the first few then
owns a share of the channels: it adds the others' sums of that share in a buffer of its own, so that
transfers use all network ports at once and nobody waits for a sum to be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cimc.targets.crossbar.mapping import Place
from cimc.targets.crossbar.plan import Block

OWNERS = 8  # cores that share the sums of one block, at most


@dataclass(frozen=True, slots=True)
class Share:
    """Channels whose sums a core finishes."""

    core: int
    channel: int
    channels: int


def cores_of(places: Iterable[Place], per_core: int) -> Mapping[int, Mapping[Block, list[Place]]]:
    """The slices of one copy by core and block, in order."""
    found: dict[int, dict[Block, list[Place]]] = {}
    for place in places:
        blocks = found.setdefault(place.array // per_core, {})
        blocks.setdefault(place.block, []).append(place)
    return found


def holders(cores: Mapping[int, Mapping[Block, list[Place]]]) -> Mapping[Block, list[int]]:
    """The cores that hold slices of each block, in order."""
    found: dict[Block, list[int]] = {}
    for core, blocks in cores.items():
        for block in blocks:
            found.setdefault(block, []).append(core)
    return found


def shares(block: Block, cores: list[int]) -> list[Share]:
    """Equal shares of a block's channels for the first of its cores."""
    count = min(len(cores), OWNERS, block.channels)
    bounds = [block.channel + block.channels * number // count for number in range(count + 1)]
    return [
        Share(core, start, end - start)
        for core, start, end in zip(cores, bounds, bounds[1:], strict=False)
    ]


def transfers(block: Block, cores: list[int]) -> Iterator[tuple[Share, int]]:
    """Which share's owner fetches from which core, in rounds in which each fetches from another."""
    owned = shares(block, cores)
    for step in range(1, len(cores)):
        for number, share in enumerate(owned):
            yield share, cores[(number + step) % len(cores)]


def alone(held: Mapping[Block, list[int]]) -> list[Share]:
    """Blocks that lie in one core, adjacent ones of a core together."""
    found: list[Share] = []
    for block, cores in held.items():
        if len(cores) > 1:
            continue
        last = found[-1] if found else None
        if last and last.core == cores[0] and last.channel + last.channels == block.channel:
            found[-1] = Share(last.core, last.channel, last.channels + block.channels)
        else:
            found.append(Share(cores[0], block.channel, block.channels))
    return found
