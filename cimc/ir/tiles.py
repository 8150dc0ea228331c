"""The tiled IR: which part of the machine does each op, and each heavy op as one nest of named
loops.

    tiles on "miredo-default"
    graph "resnet8"
    ...
    return %y
    keep %conv1_q in gb
    layer %conv1 macro [%conv1, %conv1_q] {
      dims g=1 n=1 k=64 c=3 p=112 q=112 r=7 s=7
      spatial cores(k=8) rows(c=3, r=7) columns(k=8)
      for p 112 I=dram W=dram O=dram
      for q 112 I=gb W=macro O=ob
      double gb/I ob/O
      options duplicate=2
    }
    layer %pool1 vector [%pool1]

Every op of the graph but inputs and constants is in exactly one layer; a layer's first op is its
heavy op, the others ride on it as its epilogue. A nest's `dims` are the op's loop bounds (conv: g n
k c p q r s, where c and k count within one group; after flattening of the window `e` stands for
c*r*s; matmul: g m n k as a conv with p=m, k=n, c=k). `spatial` says which loops run in space,
innermost; `loops` are the temporal loops, outermost first, each with the memory level where it
keeps each operand (its tile below that loop is what moves on to the next level); `double` lists
level/operand pairs that are double-buffered. Products of bounds may exceed a dim: the tail is cut
off.

`keep` lines name values whose home is a memory level of the chip instead of the outermost memory:
computed ones from the layer that makes them to the last that reads them, constants throughout.
`fuse [%a, %b] rows 8` runs layers together, each time for as much as 8 rows of the last one's
result need; the nests of these layers are those of such a band. With `ahead`, the next band comes
in, and the last one goes out, while one is computed. `stage [%a, %b] cores 4` lines cut all layers
into the stages of a pipeline, in order: each has its own cores, and works on another sample.

`sums` lines hold the additions of layers whose weights become the program (`cimc.ir.sums`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cimc.errors import Fault, InternalError, raise_if
from cimc.ir import text
from cimc.ir.graph import Graph, graph_text, scan_graph
from cimc.ir.sums import Piece, piece_faults, pieces_text, scan_pieces
from cimc.ir.types import Array

OPERANDS = ("I", "W", "O")


@dataclass(frozen=True, slots=True)
class TemporalLoop:
    """One loop in time over `dim`; `levels` says at which memory level it keeps I, W and O."""

    dim: str
    bound: int
    levels: tuple[str, str, str]

    def __str__(self) -> str:
        held = " ".join(f"{o}={level}" for o, level in zip(OPERANDS, self.levels, strict=True))
        return f"for {self.dim} {self.bound} {held}"


@dataclass(frozen=True, slots=True)
class Spatial:
    """Loops that run in space along one axis of the machine (cores, rows, columns, arrays ...)."""

    axis: str
    factors: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.axis}({', '.join(f'{dim}={factor}' for dim, factor in self.factors)})"


@dataclass(frozen=True, slots=True)
class Nest:
    """The loop nest of one heavy op, with its mapping once one was chosen."""

    dims: tuple[tuple[str, int], ...]
    spatial: tuple[Spatial, ...] = ()
    loops: tuple[TemporalLoop, ...] = ()
    double: tuple[tuple[str, str], ...] = ()  # (level, operand)
    options: tuple[
        tuple[str, int | str], ...
    ] = ()  # what a machine kind adds (duplicate, arrays, core ...)

    def extent(self, dim: str) -> int:
        """Loop bound of `dim`; 1 if the nest does not have it."""
        return dict(self.dims).get(dim, 1)

    def option(self, name: str, default: int) -> int:
        """A number that the machine kind noted."""
        value = dict(self.options).get(name, default)
        if isinstance(value, str):
            raise InternalError(f"option {name} of a nest is {value!r}, not a number")
        return value


@dataclass(frozen=True, slots=True)
class Layer:
    """Some ops of the graph and where they run: "macro", "vector" or "host"."""

    name: str  # of the first op's result
    place: str
    ops: tuple[str, ...]  # names of the ops' results, in the graph's order
    nest: Nest | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """A value whose home is `level` instead of the outermost memory."""

    value: str
    level: str

    def __str__(self) -> str:
        return f"keep {text.name(self.value)} in {self.level}"


@dataclass(frozen=True, slots=True)
class Fused:
    """Neighbouring layers that run together, band by band of `rows` of the last one's result."""

    layers: tuple[str, ...]
    rows: int
    ahead: bool = False  # two buffers for what comes in and goes out

    def __str__(self) -> str:
        names = ", ".join(text.name(name) for name in self.layers)
        return f"fuse [{names}] rows {self.rows}{' ahead' if self.ahead else ''}"


@dataclass(frozen=True, slots=True)
class Staged:
    """Layers that follow each other on `cores` of their own, while others do another sample."""

    layers: tuple[str, ...]
    cores: int

    def __str__(self) -> str:
        names = ", ".join(text.name(name) for name in self.layers)
        return f"stage [{names}] cores {self.cores}"


@dataclass(frozen=True)
class Tiles:
    """A graph whose ops are all placed on one target."""

    target: str
    graph: Graph
    layers: tuple[Layer, ...]
    keeps: tuple[Keep, ...] = ()
    fused: tuple[Fused, ...] = ()
    sums: tuple[Piece, ...] = ()  # of layers whose weights become additions
    staged: tuple[Staged, ...] = ()  # all layers, or none: they are not pipelined

    @property
    def tensors(self) -> Mapping[str, Array]:
        """All arrays that the text names by digest."""
        return {**self.graph.tensors, **dict(piece.stored() for piece in self.sums)}

    def verify(self) -> None:
        """Raise InternalError unless every op is in exactly one layer."""
        self.graph.verify()
        raise_if(_faults(self), InternalError)

    def __str__(self) -> str:
        return tiles_text(self)


def _faults(tiles: Tiles) -> Iterator[Fault]:
    placed = [name for layer in tiles.layers for name in layer.ops]
    wanted = [op.out.name for op in tiles.graph.ops if op.mnemonic not in ("input", "constant")]
    for name in sorted(set(placed) ^ set(wanted)):
        where = "in no layer" if name in wanted else "no op of the graph"
        yield Fault(f"%{name} is {where}", code="CIM9010")
    for name in sorted({name for name in placed if placed.count(name) > 1}):
        yield Fault(f"%{name} is in two layers", code="CIM9011")
    yield from _fused_faults(tiles)
    yield from _staged_faults(tiles)
    known = {op.out.name for op in tiles.graph.ops if op.mnemonic != "input"}
    kept = [keep.value for keep in tiles.keeps]
    for name in sorted(set(kept) - known):
        yield Fault(f"%{name} cannot be kept: no op makes it", code="CIM9015")
    for name in sorted({name for name in kept if kept.count(name) > 1}):
        yield Fault(f"%{name} is kept twice", code="CIM9016")
    yield from piece_faults(tiles.sums)


def _fused_faults(tiles: Tiles) -> Iterator[Fault]:
    order = [layer.name for layer in tiles.layers]
    named = [name for fused in tiles.fused for name in fused.layers]
    for name in sorted({name for name in named if named.count(name) > 1}):
        yield Fault(f"layer %{name} is fused twice", code="CIM9017")
    for fused in tiles.fused:
        places = [order.index(name) for name in fused.layers if name in order]
        if len(fused.layers) < 2 or fused.rows < 1 or len(places) < len(fused.layers):
            need = "two or more layers that are there, and rows"
            yield Fault(f"`{fused}` is no group", need, code="CIM9018")
        elif places != list(range(places[0], places[0] + len(places))):
            yield Fault(f"`{fused}`: the layers do not follow each other", code="CIM9019")


def _staged_faults(tiles: Tiles) -> Iterator[Fault]:
    named = [name for staged in tiles.staged for name in staged.layers]
    if named and named != [layer.name for layer in tiles.layers]:
        yield Fault("stages do not have all layers in order", code="CIM9024")
    for staged in tiles.staged:
        if not staged.layers or staged.cores < 1:
            yield Fault(f"`{staged}` is no stage", "layers, and one core or more", code="CIM9025")
        for fused in tiles.fused:
            inside = set(fused.layers) & set(staged.layers)
            if inside and inside != set(fused.layers):
                yield Fault(f"`{fused}`: the layers are in two stages", code="CIM9026")


# --- text ----------------------------------------------------------------------------------------


def tiles_text(tiles: Tiles) -> str:
    """The whole tiled IR as text; `parse_tiles` reads it back."""
    lines = [f"tiles on {text.literal(tiles.target)}", graph_text(tiles.graph).rstrip("\n")]
    lines += [str(keep) for keep in tiles.keeps]
    lines += [str(fused) for fused in tiles.fused]
    lines += [str(staged) for staged in tiles.staged]
    for layer in tiles.layers:
        names = ", ".join(text.name(name) for name in layer.ops)
        head = f"layer {text.name(layer.name)} {layer.place} [{names}]"
        if layer.nest is None:
            lines.append(head)
        else:
            lines += [f"{head} {{", *(f"  {line}" for line in nest_text(layer.nest)), "}"]
    lines += pieces_text(tiles.sums)
    return "\n".join(lines) + "\n"


def nest_text(nest: Nest) -> Iterator[str]:
    """The lines of one nest."""
    yield "dims " + " ".join(f"{dim}={bound}" for dim, bound in nest.dims)
    if nest.spatial:
        yield "spatial " + " ".join(str(axis) for axis in nest.spatial)
    yield from (str(loop) for loop in nest.loops)
    if nest.double:
        yield "double " + " ".join(f"{level}/{operand}" for level, operand in nest.double)
    if nest.options:
        yield "options " + " ".join(f"{key}={text.literal(value)}" for key, value in nest.options)


def parse_tiles(
    source: str, tensors: Mapping[str, Array] | None = None, path: str = "<text>"
) -> Tiles:
    """Read a tiled IR's text form; `tensors` brings the arrays that are named by digest only."""
    scanner = text.Scanner(source, path)
    scanner.take("tiles")
    scanner.take("on")
    target = scanner.string()
    graph = scan_graph(scanner, dict(tensors or {}))
    keeps, fused, staged, layers = [], [], [], []
    while scanner.accept("keep"):
        name = scanner.name()
        scanner.take("in")
        keeps.append(Keep(name, scanner.take()))
    while scanner.accept("fuse"):
        names = tuple(_scan_names(scanner))
        scanner.take("rows")
        fused.append(Fused(names, scanner.integer(), scanner.accept("ahead")))
    while scanner.accept("stage"):
        names = tuple(_scan_names(scanner))
        scanner.take("cores")
        staged.append(Staged(names, scanner.integer()))
    while scanner.accept("layer"):
        layers.append(_scan_layer(scanner))
    sums = tuple(scan_pieces(scanner, tensors or {}))
    if not scanner.done:
        raise scanner.error("a layer, sums or the end of text")
    return Tiles(target, graph, tuple(layers), tuple(keeps), tuple(fused), sums, tuple(staged))


def _scan_layer(scanner: text.Scanner) -> Layer:
    name = scanner.name()
    place = scanner.take()
    ops = tuple(_scan_names(scanner))
    nest = None
    if scanner.accept("{"):
        nest = scan_nest(scanner)
        scanner.take("}")
    return Layer(name, place, ops, nest)


def _scan_names(scanner: text.Scanner) -> Iterator[str]:
    scanner.take("[")
    while not scanner.accept("]"):
        yield scanner.name()
        if not scanner.peek("]"):
            scanner.take(",")


def scan_nest(scanner: text.Scanner) -> Nest:
    """Read a nest up to, not with, its closing brace."""
    scanner.take("dims")
    dims = tuple(_scan_pairs(scanner))
    spatial: list[Spatial] = []
    if scanner.accept("spatial"):
        while not scanner.peek("for", "double", "options", "}"):
            axis = scanner.take()
            scanner.take("(")
            factors = tuple(_scan_pairs(scanner))
            scanner.take(")")
            spatial.append(Spatial(axis, factors))
    loops: list[TemporalLoop] = []
    while scanner.accept("for"):
        loops.append(_scan_loop(scanner))
    double: list[tuple[str, str]] = []
    if scanner.accept("double"):
        while not scanner.peek("options", "}"):
            level = scanner.take()
            scanner.take("/")
            double.append((level, scanner.take(*OPERANDS)))
    options: list[tuple[str, int | str]] = []
    if scanner.accept("options"):
        while not scanner.peek("}"):
            key = scanner.take()
            scanner.take("=")
            value = scanner.literal()
            if not isinstance(value, int | str):
                raise scanner.error("a number or a string", str(value))
            options.append((key, value))
    return Nest(dims, tuple(spatial), tuple(loops), tuple(double), tuple(options))


def _scan_pairs(scanner: text.Scanner) -> Iterator[tuple[str, int]]:
    while scanner.peek_kind("word") and not scanner.peek("spatial", "for", "double", "options"):
        dim = scanner.take()
        scanner.take("=")
        yield dim, scanner.integer()
        scanner.accept(",")


def _scan_loop(scanner: text.Scanner) -> TemporalLoop:
    dim, bound = scanner.take(), scanner.integer()
    levels = []
    for operand in OPERANDS:
        scanner.take(operand)
        scanner.take("=")
        levels.append(scanner.take())
    return TemporalLoop(dim, bound, (levels[0], levels[1], levels[2]))
