"""How few additions ternary networks need on a racetrack AP, beside published and derived figures.

    python tools/ap_arithmetic.py [--networks resnet18,vgg9] [--rounds N] [--seed N]

Weights are independent and random, a share `sparsity` of them zero, as in the table that this one
stands beside (mean of a closed form and of greedy pair sharing, one input channel at a time; the
columns "expected"). For every layer:

    before    one addition for each weight that is not zero
    greedy    the greedy pair rule on one input channel at a time, all output channels together
    ours      the passes share-rows, share-terms and order-sums on several channels at a time

An addition is one instruction for all rows (output positions) of an array; a row-add is an addition
times the layer's output positions. "Ours" is what fits one array: code is generated for every piece
on the target's columns and domains, at most `_OUTPUTS` outputs per array, and where shared values
find no place they are made again. Columns: the most that any piece takes. Steps: shifts per
addition (a value that is not under its port is as good as spilled), and what they are of the time.
CPU seconds are those of the reductions alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cimc.ir.sums import Sums
from cimc.passes._signed_sums import in_order, reduced, shared_rows, signed_sums
from cimc.target import Target, load_target
from cimc.targets.rtm_ap.codegen import Style, codes_of_sums
from cimc.targets.rtm_ap.plan import geometry_of
from cimc.targets.rtm_ap.pricing import Price, Pricer
from cimc.targets.rtm_ap.work import spec_of

Ints = NDArray[np.int64]
_OUTPUTS = 256  # of one array: their accumulators leave half of the columns to inputs and sums
_CHUNKS = (36, 72, 108, 144, 216, 288, 432, 576)  # inputs at a time to try
_WORK = 4e6  # pairs of terms that one piece may have
_INPUT_BITS = 4


@dataclass(frozen=True, slots=True)
class Conv:
    """A layer: output and input channels, kernel and output positions along one side."""

    k: int
    c: int
    kernel: int
    side: int

    @property
    def window(self) -> int:
        """Inputs of one channel."""
        return self.kernel**2


@dataclass(frozen=True, slots=True)
class Expected:
    """Thousand instructions and million row-adds, before and after greedy sharing."""

    sparsity: float
    instructions: tuple[float, float]
    row_adds: tuple[float, float]


def _vgg(*stages: tuple[int, int]) -> tuple[Conv, ...]:
    """3 x 3 convs on 32 x 32 images: (channels, side) one after the other."""
    inputs = (3, *(channels for channels, _ in stages))
    return tuple(Conv(k, c, 3, side) for (k, side), c in zip(stages, inputs, strict=False))


def _resnet18() -> tuple[Conv, ...]:
    found = [Conv(64, 3, 7, 112), *[Conv(64, 64, 3, 56)] * 4]
    for k, side in ((128, 28), (256, 14), (512, 7)):
        found += [Conv(k, k // 2, 3, side), Conv(k, k // 2, 1, side), *[Conv(k, k, 3, side)] * 3]
    return tuple(found)


NETWORKS = {
    "resnet18": _resnet18(),
    "vgg11": _vgg((64, 32), (128, 16), (256, 8), (256, 8), (512, 4), (512, 4), (512, 2), (512, 2)),
    "vgg9": _vgg((64, 32), (64, 32), (128, 16), (128, 16), (256, 8), (256, 8)),
}
EXPECTED = {
    "resnet18": (
        Expected(0.5, (5578, 2791), (907, 502)),
        Expected(0.8, (2245, 1594), (366, 281)),
        Expected(0.9, (1124, 974), (182, 165)),
    ),
    "vgg11": (
        Expected(0.85, (1391, 1063), (23.0, 18.2)),
        Expected(0.9, (929, 795), (15.3, 13.5)),
    ),
    "vgg9": (
        Expected(0.85, (172, 142), (23.1, 19.7)),
        Expected(0.9, (115, 103), (15.3, 14.1)),
    ),
}


@dataclass(slots=True)
class Counts:
    """Sums over the layers of a network."""

    instructions: int = 0
    row_adds: int = 0
    seconds: float = 0.0

    def add(self, instructions: int, positions: int, seconds: float) -> None:
        """Another layer, or a part of one."""
        self.instructions += instructions
        self.row_adds += instructions * positions
        self.seconds += seconds


def ternary(random: np.random.Generator, layer: Conv, sparsity: float) -> Ints:
    """Independent signs, zero with probability `sparsity`: [outputs, inputs]."""
    shape = layer.k, layer.c * layer.window
    signs = random.choice(np.array([-1, 1]), shape)
    return np.where(random.random(shape) < sparsity, 0, signs)


def greedy(weights: Ints, window: int) -> int:
    """Additions by the greedy pair rule, one input channel at a time."""
    slices = (weights[:, begin : begin + window] for begin in range(0, weights.shape[1], window))
    return sum(reduced(signed_sums(each)).additions for each in slices)


def shared(weights: Ints, rounds: int) -> Sums:
    """What the passes make of one chunk."""
    return in_order(reduced(shared_rows(signed_sums(weights)), rounds=rounds))


def chunk_of(weights: Ints, window: int, target: Target) -> int:
    """Inputs at a time: of some numbers of whole channels, the one with fewest additions.

    Tried on the first chunk, beside accumulators as wide as those of all inputs.
    """
    rows, inputs = weights.shape
    density = max(1e-3, np.count_nonzero(weights) / weights.size)
    found: dict[float, int] = {}
    for wanted in _CHUNKS:
        size = min(inputs, max(1, wanted // window) * window)
        if size in found.values() or rows * (size * density) ** 2 > _WORK:
            continue
        sums = shared(weights[:, :size], 0)
        wider = np.log2(
            np.abs(weights).sum(axis=1).max() / np.abs(weights[:, :size]).sum(axis=1).max()
        )
        taken = int(np.ceil(wider)) * -(-rows // spec_of(target).ap.domains)
        room = replace(geometry_of(target), columns=spec_of(target).ap.columns - taken)
        codes = codes_of_sums([[sums]], _INPUT_BITS, room, Style(size))
        if codes is not None:
            found[codes[0].additions / size] = size
    return found[min(found)] if found else window


def pieces(weights: Ints, window: int, target: Target) -> Iterator[list[Ints]]:
    """The chunks of each array: its outputs, so many inputs at a time."""
    for rows in np.array_split(weights, -(-len(weights) // _OUTPUTS)):
        step = chunk_of(rows, window, target)
        yield [rows[:, begin : begin + step] for begin in range(0, rows.shape[1], step)]


@dataclass(slots=True)
class Room:
    """What generated code takes, over all pieces."""

    columns: int = 0
    additions: int = 0
    price: Price = field(default_factory=Price)

    def add(self, chunks: Sequence[Sums], target: Target) -> int:
        """Generate the code of one array; returns its additions, some made again if need be."""
        style = Style(chunk=max(sums.inputs for sums in chunks))
        codes = codes_of_sums([chunks], _INPUT_BITS, geometry_of(target), style)
        if codes is None:
            raise SystemExit(f"{style.chunk} inputs do not fit {target.name}")
        (code,) = codes
        self.columns = max(self.columns, code.regions.used)
        pricer, slots = Pricer(spec_of(target).ap), code.regions.slots()
        for number in range(code.chunks):
            pricer.touched(slots[: chunks[number].inputs])
            self.price += pricer.code(code.chunk(number), slots)
        self.additions += code.additions
        return code.additions


@dataclass(frozen=True, slots=True)
class Row:
    """One network at one sparsity."""

    network: str
    expected: Expected
    before: Counts
    greedy: Counts
    ours: Counts
    room: Room


def row_of(network: str, expected: Expected, rounds: int, seed: int, target: Target) -> Row:
    """Reduce every layer both ways."""
    row = Row(network, expected, Counts(), Counts(), Counts(), Room())
    random = np.random.default_rng(seed)
    for layer in NETWORKS[network]:
        weights, positions = ternary(random, layer, expected.sparsity), layer.side**2
        row.before.add(int(np.count_nonzero(weights)), positions, 0)
        start = time.process_time()
        row.greedy.add(greedy(weights, layer.window), positions, time.process_time() - start)
        start = time.process_time()
        for chunks in pieces(weights, layer.window, target):
            sums = [shared(chunk, rounds) for chunk in chunks]
            spent = time.process_time() - start
            row.ours.add(row.room.add(sums, target), positions, spent)
            start = time.process_time()
    return row


def table(rows: Sequence[Row], target: Target) -> Iterator[str]:
    """The lines to print."""
    ap = spec_of(target).ap
    for unit, counted in (("instructions [K]", "instructions"), ("row-adds [M]", "row_adds")):
        scale = 1e3 if counted == "instructions" else 1e6
        yield ""
        yield (
            f"{unit:<17}{'sparsity':>9}{'before':>10}{'expected':>10}{'greedy':>10}"
            f"{'expected':>10}{'ours':>10}{'of before':>11}{'of greedy':>11}"
        )
        for row in rows:
            before, base, ours = (
                getattr(each, counted) / scale for each in (row.before, row.greedy, row.ours)
            )
            wanted = getattr(row.expected, counted)
            yield (
                f"{row.network:<17}{row.expected.sparsity:>9}{before:>10.1f}{wanted[0]:>10}"
                f"{base:>10.1f}{wanted[1]:>10}{ours:>10.1f}{ours / before - 1:>+11.1%}"
                f"{ours / base - 1:>+11.1%}"
            )
    yield ""
    yield (
        f"{'on ' + target.name:<17}{'sparsity':>9}{'columns':>10}{'of':>6}{'passes/add':>12}"
        f"{'steps/add':>11}{'of time':>9}{'CPU s':>8}{'greedy':>8}"
    )
    for row in rows:
        price, adds = row.room.price, row.room.additions
        shifting = price.shifts * ap.shift_cycles / price.cycles(ap)
        yield (
            f"{row.network:<17}{row.expected.sparsity:>9}{row.room.columns:>10}{ap.columns:>6}"
            f"{price.passes / adds:>12.1f}{price.shifts / adds:>11.2f}{shifting:>9.1%}"
            f"{row.ours.seconds:>8.1f}{row.greedy.seconds:>8.1f}"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help="with commas between")
    parser.add_argument("--rounds", type=int, default=0, help="of share-terms (default: 0)")
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--target", default="rtm-ap")
    options = parser.parse_args()
    target = load_target(options.target)
    shared(ternary(np.random.default_rng(0), Conv(8, 2, 3, 1), 0.5), 1)  # compiles the kernels
    rows = [
        row_of(network, expected, options.rounds, options.seed, target)
        for network in options.networks.split(",")
        for expected in EXPECTED[network]
    ]
    print("\n".join(table(rows, target)).lstrip("\n"))


if __name__ == "__main__":
    main()
