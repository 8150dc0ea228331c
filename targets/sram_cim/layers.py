"""Heavy ops as this kind sees them: operands, workload, and the resolved nest of a mapped layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cimc.errors import Fault, FitError, InternalError, UsageError, raise_if
from cimc.ir.graph import Graph, Op, Value, constant_array, operands
from cimc.ir.ops import Conv, Matmul
from cimc.ir.tiles import Fused, Layer, Nest, Tiles
from cimc.ir.types import Array, bits_of
from cimc.lowering import ConvShape, conv_shape, heavy_fault
from cimc.mapping.machine import Machine
from cimc.mapping.nest import Mapped, nest_faults, resolve
from cimc.mapping.workload import Workload
from cimc.targets.sram_cim.bands import Band

WIDEST = 16  # bits of an input or weight


@dataclass(frozen=True)
class Heavy:
    """A conv or matmul with what its layer needs to know of it."""

    op: Conv | Matmul
    shape: ConvShape
    weights: Array | None  # None: computed while the program runs
    bits: tuple[int, int, int]  # of I, W, and of all results that leave the layer, per element

    @property
    def x(self) -> Value:
        """The operand I."""
        return self.op.x if isinstance(self.op, Conv) else self.op.a

    @property
    def w(self) -> Value:
        """The operand W."""
        return self.op.w if isinstance(self.op, Conv) else self.op.b

    @property
    def zero(self) -> int:
        """Zero point of I: what lies beyond its edges."""
        return self.x.type.quant.zero if self.x.type.quant is not None else 0

    @property
    def workload(self) -> Workload:
        """What is mapped."""
        return Workload(self.shape, self.bits)


def runs_in_macros(op: Op, graph: Graph) -> bool:
    """Whether an op is a product of integers that the macros can do."""
    if not isinstance(op, Conv | Matmul) or heavy_fault(op) is not None:
        return False
    x, w = (op.x, op.w) if isinstance(op, Conv) else (op.a, op.b)
    if any(not value.type.is_integer or bits_of(value.type.dtype) > WIDEST for value in (x, w)):
        return False
    if op.bias is not None and graph.tensor(op.bias) is None:
        return False
    return graph.tensor(w) is not None or isinstance(op, Matmul)


class Layers:
    """The macro layers of tiles; looks graph questions up once."""

    def __init__(self, tiles: Tiles) -> None:
        self.tiles = tiles
        self.producers = tiles.graph.producers()
        self.readers: dict[str, set[str]] = {}
        for op in tiles.graph.ops:
            for value in operands(op):
                self.readers.setdefault(value.name, set()).add(op.out.name)
        self.results = {value.name for value in tiles.graph.outputs}
        self.heavies: dict[str, Heavy] = {}
        self.bands: dict[str, Band] = {}  # of fused layers, by the layer's name
        self.obstacles: list[Fault] = []  # why some of them cannot be fused
        for fused in tiles.fused:
            self._fuse(fused)

    def _fuse(self, fused: Fused) -> None:
        layers = [layer for layer in self.tiles.layers if layer.name in fused.layers]
        band = Band(fused, layers, self.producers)
        reason = self.open_end(band) or band.build()
        if reason:
            self.obstacles.append(Fault(f"`{fused}`: {reason}", code="CIM4036"))
        else:
            self.bands.update({layer.name: band for layer in layers})

    def open_end(self, band: Band) -> str:
        """Who else reads what only the layers of a band may read, or ""."""
        for layer in band.whole_layers[:-1]:
            for name in self.leaving(layer):
                if name in self.results or self.readers[name] - band.made:
                    return f"others read %{name}"
        return ""

    def strangers(self, name: str) -> set[str]:
        """Who reads a value and is in none of these layers: other stages have them."""
        inside = {op for layer in self.tiles.layers for op in layer.ops}
        return self.readers.get(name, set()) - inside

    def title(self, layer: Layer) -> str:
        """A macro layer in messages: its name, and the nodes of its heavy op."""
        return f"layer %{layer.name} ({', '.join(self.producers[layer.ops[0]].nodes)})"

    def heavy(self, layer: Layer) -> Heavy:
        """The heavy op of a macro layer."""
        if layer.name not in self.heavies:
            self.heavies[layer.name] = self._heavy(layer)
        return self.heavies[layer.name]

    def leaving(self, layer: Layer) -> tuple[str, ...]:
        """The results of a layer that others, or the caller, read."""
        inside = set(layer.ops)
        return tuple(
            name
            for name in layer.ops
            if name in self.results or self.readers.get(name, set()) - inside
        )

    def _heavy(self, layer: Layer) -> Heavy:
        op = self.producers[layer.ops[0]]
        if layer.name in self.bands:
            op = self.bands[layer.name].heavy_op(layer)
        if not isinstance(op, Conv | Matmul):
            raise InternalError(f"layer %{layer.name} begins with {op.mnemonic}")
        x, w = (op.x, op.w) if isinstance(op, Conv) else (op.a, op.b)
        made = self.producers[w.name]
        weights = None
        if made.mnemonic == "constant":
            weights = constant_array(made, self.tiles.graph.tensors)
        leaving = [self.producers[name].out.type for name in self.leaving(layer)]
        bits = (
            bits_of(x.type.dtype),
            bits_of(w.type.dtype),
            sum(bits_of(kind.dtype) for kind in leaving) or 8,
        )
        return Heavy(op, conv_shape(op), weights, bits)


def mapped_nest(layer: Layer, heavy: Heavy, machine: Machine) -> Mapped:
    """The layer's nest, resolved; raises as `check_nests` does."""
    raise_nests(layer_faults(layer, heavy, machine))
    assert layer.nest is not None
    mapped = resolve(layer.nest, heavy.workload, machine)
    assert isinstance(mapped, Mapped)
    return mapped


def check_nests(layers: Layers, machines: Mapping[str, Machine]) -> None:
    """Raise all reasons why nests of macro layers are not legal, those of all layers at once.

    `machines`: the machine as each layer finds it
    raises  FitError where tiles are too large and nothing else is wrong, otherwise UsageError
    """
    raise_nests(
        fault
        for layer in layers.tiles.layers
        if layer.place == "macro"
        for fault in layer_faults(layer, layers.heavy(layer), machines[layer.name])
    )


def raise_nests(faults: Iterable[Fault]) -> None:
    """Raise what is wrong with nests, if anything is."""
    found = tuple(faults)
    sizes = {"CIM4002", "CIM4010"}
    raise_if(found, FitError if {fault.code for fault in found} <= sizes else UsageError)


def layer_faults(layer: Layer, heavy: Heavy, machine: Machine) -> list[Fault]:
    """Everything that is wrong with a layer's nest."""
    if layer.nest is None or (layer.nest == Nest(layer.nest.dims) and heavy.shape.macs > 1):
        fault = Fault("it has no mapping", help="run the pass map first", code="CIM4012")
        return [in_layer(fault, layer, heavy.op)]
    found = nest_faults(layer.nest, heavy.workload, machine)
    return [in_layer(fault, layer, heavy.op) for fault in found]


def in_layer(fault: Fault, layer: Layer, op: Op) -> Fault:
    """The fault with the layer and the ONNX nodes that it concerns."""
    return Fault(
        f"layer %{layer.name}: {fault.where}",
        fault.need,
        fault.have,
        fault.help,
        fault.code,
        ", ".join(op.nodes),
        fault.context,
    )
