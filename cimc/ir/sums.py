"""Sums of signed inputs that share parts of each other: what additions a heavy op is made of.

    sums %conv1 outputs 0:4 channels 0:1 inputs 9 {
      t9 = x0 + x1
      t10 = t9 - x5
      y0 += x2 - t10
      y1 += t10
      y3 += - t9 + (x7 << 2)
    }

x are the inputs of some channels (channel by channel, each with its window), t shared parts, made
in this order, y the sums of the op's output channels, to which terms are added. One line of k terms
is k - 1 additions for a t, k for a y. Sums without terms (y2) have no line. Many terms are kept
apart, by digest:

    sums %conv2 outputs 0:64 channels 0:8 inputs 72 {shared=421, additions=4396, digest="9f86..."}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.errors import Fault
from cimc.ir import text
from cimc.ir.graph import digest_of
from cimc.ir.types import Array

Ints = NDArray[np.int64]
MOST_SHOWN = 4000  # terms of all sums of a network that its text shows one by one


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of terms, sum i being terms[start[i]:start[i + 1]].

    A term is value << 8 | shift << 1 | negative. Values below `inputs` are inputs; the first
    `shared` sums are values, too, numbered on, each after those it is made of. The others, the
    rows, are results.
    """

    inputs: int
    shared: int
    start: Ints  # [shared + rows + 1]
    terms: Ints

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sums):
            return NotImplemented
        same = (self.inputs, self.shared) == (other.inputs, other.shared)
        return same and all(
            np.array_equal(one, two)
            for one, two in ((self.start, other.start), (self.terms, other.terms))
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    @property
    def rows(self) -> int:
        """Number of results."""
        return len(self.start) - 1 - self.shared

    @property
    def additions(self) -> int:
        """One per term, the first ones of shared sums aside; results are added to."""
        return len(self.terms) - self.shared

    @property
    def slice_additions(self) -> int:
        """Additions that only form the sums: one less for each that is not empty."""
        return int(np.maximum(np.diff(self.start) - 1, 0).sum())

    def sum(self, number: int) -> list[int]:
        """The terms of a sum; results come after what is shared."""
        found: list[int] = self.terms[self.start[number] : self.start[number + 1]].tolist()
        return found

    def row(self, number: int) -> list[int]:
        """The terms of a result."""
        return self.sum(self.shared + number)

    def matrix(self) -> Ints:
        """The weights that the sums stand for: [rows, inputs]."""
        values = np.zeros((self.inputs + len(self.start) - 1, self.inputs), np.int64)
        values[: self.inputs] = np.eye(self.inputs, dtype=np.int64)
        for number in range(len(self.start) - 1):
            for term in self.sum(number):
                value = values[term >> 8] << (term >> 1 & 0x7F)
                values[self.inputs + number] += -value if term & 1 else value
        return values[self.inputs + self.shared :]

    def packed(self) -> Array:
        """Everything in one array, as it is stored."""
        return np.concatenate([[self.inputs, self.shared, len(self.start)], self.start, self.terms])


def unpacked(array: Array) -> Sums:
    """What `packed` made an array of."""
    inputs, shared, count = (int(x) for x in array[:3])
    numbers = np.asarray(array, np.int64)
    return Sums(inputs, shared, numbers[3 : 3 + count], numbers[3 + count :])


@dataclass(frozen=True, slots=True)
class Piece:
    """The sums of some output channels over some input channels of a layer."""

    layer: str
    outputs: tuple[int, int]  # [begin, end)
    channels: tuple[int, int]  # [begin, end), of the input's channels
    sums: Sums

    def stored(self) -> tuple[str, Array]:
        """Digest and content of the array that holds the sums."""
        array = self.sums.packed()
        return digest_of(array), array


# --- text ----------------------------------------------------------------------------------------


def pieces_text(pieces: Sequence[Piece]) -> Iterator[str]:
    """The lines of all pieces; of many terms, only their number."""
    shown = sum(len(piece.sums.terms) for piece in pieces) <= MOST_SHOWN
    for piece in pieces:
        sums = piece.sums
        head = f"sums {text.name(piece.layer)} outputs {_span(piece.outputs)} "
        head += f"channels {_span(piece.channels)} inputs {sums.inputs}"
        if shown:
            yield f"{head} {{"
            yield from (f"  {line}" for line in sums_text(sums, piece.outputs[0]))
            yield "}"
        else:
            digest = piece.stored()[0]
            yield (
                f"{head} {{shared={sums.shared}, additions={sums.additions}, "
                f"digest={text.literal(digest)}}}"
            )


def sums_text(sums: Sums, first: int = 0) -> Iterator[str]:
    """One line for each sum that has terms; results are numbered from `first` on."""
    for number in range(len(sums.start) - 1):
        terms = sums.sum(number)
        shared = number < sums.shared
        name = f"t{sums.inputs + number}" if shared else f"y{first + number - sums.shared}"
        if terms or shared:
            yield f"{name} {'=' if shared else '+='} {_terms_text(terms, sums.inputs)}"


def _terms_text(terms: Sequence[int], inputs: int) -> str:
    found = []
    for place, term in enumerate(terms):
        value, shift, negative = term >> 8, term >> 1 & 0x7F, term & 1
        operand = f"{'x' if value < inputs else 't'}{value}"
        operand = f"({operand} << {shift})" if shift else operand
        sign = "- " if negative else "+ " if place else ""
        found.append(f"{sign}{operand}")
    return " ".join(found)


def _span(span: tuple[int, int]) -> str:
    return f"{span[0]}:{span[1]}"


def scan_pieces(scanner: text.Scanner, tensors: Mapping[str, Array]) -> Iterator[Piece]:
    """Read pieces as long as some follow."""
    while scanner.accept("sums"):
        layer = scanner.name()
        scanner.take("outputs")
        outputs = _scan_span(scanner)
        scanner.take("channels")
        channels = _scan_span(scanner)
        scanner.take("inputs")
        inputs = scanner.integer()
        scanner.take("{")
        if scanner.accept("shared"):
            sums = _scan_stored(scanner, tensors)
        else:
            sums = _scan_sums(scanner, inputs, outputs)
        scanner.take("}")
        yield Piece(layer, outputs, channels, sums)


def _scan_span(scanner: text.Scanner) -> tuple[int, int]:
    begin = scanner.integer()
    scanner.take(":")
    return begin, scanner.integer()


def _scan_stored(scanner: text.Scanner, tensors: Mapping[str, Array]) -> Sums:
    for word in ("=", None, ",", "additions", "=", None, ",", "digest", "="):
        if word is None:
            scanner.integer()
        else:
            scanner.take(word)
    digest = scanner.string()
    if digest not in tensors:
        raise scanner.error("the tensors that were saved with this text", digest)
    return unpacked(tensors[digest])


def _scan_sums(scanner: text.Scanner, inputs: int, outputs: tuple[int, int]) -> Sums:
    """Lines of terms up to, not with, the closing brace."""
    shared: list[list[int]] = []
    rows: dict[int, list[int]] = {}
    while not scanner.peek("}"):
        name = scanner.take()
        kind, number = _scanned_name(scanner, name)
        if kind == "t":
            scanner.take("=")
            if number != inputs + len(shared) or rows:
                raise scanner.error(f"t{inputs + len(shared)}, or a y", name)
            shared.append(_scan_terms(scanner, inputs, inputs + len(shared)))
            continue
        scanner.take("+")
        scanner.take("=")
        if kind != "y" or not outputs[0] <= number < outputs[1] or number in rows:
            raise scanner.error(f"one of y{outputs[0]} .. y{outputs[1] - 1}, each once", name)
        rows[number] = _scan_terms(scanner, inputs, inputs + len(shared))
    results = [rows.get(number, []) for number in range(*outputs)]
    return sums_of(inputs, shared, results)


def sums_of(inputs: int, shared: Sequence[Sequence[int]], rows: Sequence[Sequence[int]]) -> Sums:
    """Sums from lists of terms."""
    each = [*shared, *rows]
    start = np.concatenate([[0], np.cumsum([len(terms) for terms in each], dtype=np.int64)])
    terms = np.array([term for held in each for term in held], np.int64)
    return Sums(inputs, len(shared), start, terms)


def _scan_terms(scanner: text.Scanner, inputs: int, values: int) -> list[int]:
    terms = []
    negative = int(scanner.accept("-"))
    while True:
        within = scanner.accept("(")
        name = scanner.take()
        kind, value = _scanned_name(scanner, name)
        if not (0 <= value < inputs if kind == "x" else inputs <= value < values):
            raise scanner.error(f"x0 .. x{inputs - 1}, or a t that was made before", name)
        shift = 0
        if within:
            scanner.take("<")
            scanner.take("<")
            shift = scanner.integer()
            scanner.take(")")
        terms.append(value << 8 | shift << 1 | negative)
        if scanner.accept("-"):
            negative = 1
        elif scanner.accept("+"):
            negative = 0
        else:
            return terms


def _scanned_name(scanner: text.Scanner, name: str) -> tuple[str, int]:
    if name[:1] not in ("x", "t", "y") or not name[1:].isdigit():
        raise scanner.error("x, t or y with a number", name)
    return name[0], int(name[1:])


def piece_faults(pieces: Sequence[Piece]) -> Iterator[Fault]:
    """Sums that use a value before it is made."""
    for piece in pieces:
        sums = piece.sums
        made = np.arange(len(sums.start) - 1) + sums.inputs
        made[sums.shared :] = sums.inputs + sums.shared
        limit = np.repeat(made, np.diff(sums.start))
        if ((sums.terms >> 8) >= limit).any():
            where = f"sums of %{piece.layer}, outputs {_span(piece.outputs)}"
            yield Fault(f"{where}: a part is used before it is made", code="CIM9017")
