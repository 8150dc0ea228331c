"""The walk through a model's nodes in order: each is lowered, computed, or refused.

A node whose operands are all known is computed at import and vanishes; a DequantizeLinear stays, so
that the integers behind it are not lost. A node that reads what a refused one makes is skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto

from cimc.errors import CimcError, Fault, UnsupportedError
from cimc.frontend import codes
from cimc.frontend.lowering import lowering_of
from cimc.frontend.lowering.constants import MAX_GENERATED
from cimc.frontend.lowering.registry import KNOWN_OPSET, Lowering
from cimc.frontend.lowering.site import Bound, Site
from cimc.frontend.reader import STANDARD_DOMAINS, ModelFile
from cimc.frontend.refusals import refusal
from cimc.frontend.simplify import simplified
from cimc.frontend.structure import read_names
from cimc.frontend.tensors import ELEMENT_TYPES, element_name, is_external, read_tensor
from cimc.ir import ops
from cimc.ir.check import type_faults
from cimc.ir.evaluate import evaluate_op
from cimc.ir.graph import Graph, Op, Value, digest_of, operands
from cimc.ir.types import Array, Quant, Type

MAX_GENERATED_BYTES = 2**31  # of all tensors that are made at import, together
_KEPT = {"BipolarQuant", "DequantizeLinear", "IntQuant", "Quant"}  # never computed at import
# ops that keep or choose elements, and operators that say how integers stand for numbers
_MOVES = (ops.Reshape, ops.Transpose, ops.Concat, ops.Slice, ops.Pad, ops.Gather, ops.Broadcast,
          ops.Tile, ops.Resize, ops.Where, ops.ArgReduce)  # fmt: skip
_QUANTIZED_OPERATORS = (
    "ConvInteger",
    "DequantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
)
_STORED_BYTES = 2**16  # tensors up to this size are loaded even where weights are not


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One node of the model as it was written."""

    name: str  # its own, or invented and stable
    op_type: str
    domain: str
    opset: int  # of its domain
    inputs: tuple[str, ...]  # types, "_" where an optional operand is absent
    outputs: tuple[str, ...]  # types, "?" where nothing needed to know


@dataclass(frozen=True, slots=True)
class Imported:
    """A model in the graph IR, and where each of its nodes went."""

    graph: Graph
    nodes: tuple[OnnxNode, ...]
    folded: Mapping[str, str]  # nodes without an op, and why: "constant", "no operation", "unused"
    opset: int
    digest: str  # sha256 over the file and the external tensors that were read
    notes: tuple[str, ...]  # what was assumed, for the user to see


@dataclass(slots=True)
class Walk:
    """What is known while going through the nodes."""

    file: ModelFile
    names: list[str]
    weights: bool
    bound: dict[str, Bound] = field(default_factory=dict)  # by ONNX value name
    unknown: set[str] = field(default_factory=set)  # values of nodes that failed
    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Array] = field(default_factory=dict)  # by digest
    constants: set[str] = field(default_factory=set)  # values whose constant op is in `ops`
    faults: dict[str, Fault] = field(default_factory=dict)  # by node name
    external: list[str] = field(default_factory=list)  # digests of tensors from other files
    generated: int = 0  # bytes of constants made so far
    nodes: dict[int, OnnxNode] = field(default_factory=dict)
    outputs: list[Value] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    read: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.taken = set(self.file.initializers) | {e.name for e in self.file.graph.input}
        self.taken |= {name for node in self.file.graph.node for name in node.output}
        read = {name for node in self.file.graph.node for name in read_names(node)}
        self.read = frozenset(read | {entry.name for entry in self.file.graph.output})

    def add_input(self, value: Value) -> None:
        """An input; where all its readers dequantize it alike, its type says how."""
        value = Value(value.name, Type(value.type.dtype, value.shape, self._input_quant(value)))
        op = ops.Input(value)
        self.ops.append(op)
        self.bound[value.name] = Bound(value, op=op)

    def _input_quant(self, value: Value) -> Quant | None:
        if not value.type.is_integer or value.name in {e.name for e in self.file.graph.output}:
            return None
        readers = [node for node in self.file.graph.node if value.name in node.input]
        if not readers or any(
            reader.op_type != "DequantizeLinear" or reader.input[0] != value.name
            for reader in readers
        ):
            return None
        found: set[Quant] = set()
        for reader in readers:
            numbers = [self._lookup(name) for name in reader.input[1:] if name]
            arrays = [bound.array for bound in numbers if bound is not None]
            if len(arrays) != len(numbers) or any(a is None or a.size != 1 for a in arrays):
                return None
            scale, zero = [*(float(a.reshape(())) for a in arrays if a is not None), 0.0][:2]
            found.add(Quant(scale, int(zero)))
        return found.pop() if len(found) == 1 else None

    def _lookup(self, name: str) -> Bound | None:
        """What a value name stands for; initializers are read when first asked for."""
        if name not in self.bound and name in self.file.initializers:
            tensor = self.file.initializers[name]
            if tensor.data_type not in ELEMENT_TYPES:
                return None
            kind = Type(ELEMENT_TYPES[tensor.data_type], tuple(tensor.dims))
            array = None
            if self.weights or (not is_external(tensor) and kind.bits <= 8 * _STORED_BYTES):
                array = read_tensor(tensor, self.file.files)
                array.flags.writeable = False
            self.bound[name] = Bound(Value(name, kind), array, constant=True)
        return self.bound.get(name)

    def visit(self, index: int) -> None:
        """Lower one node, or note why that fails."""
        node, name = self.file.graph.node[index], self.names[index]
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        opset = self.file.opsets.get(domain, 1)
        lowering = lowering_of(domain, node.op_type)
        site: Site | None = None
        try:
            if lowering is None or (not domain and not onnx.defs.has(node.op_type, opset)):
                raise UnsupportedError(refusal(node, domain, opset, name, self._shown(node)))
            if not any(value in self.unknown for value in node.input):
                site = Site(
                    node,
                    name,
                    domain,
                    opset,
                    self.file.ir_version,
                    tuple(self._operand(node, value, name) for value in node.input),
                    self.read,
                    self.taken,
                )
                self._lower(site, lowering)
        except CimcError as problem:
            self.faults[name] = problem.faults[0]
            site = None
        if site is None:
            self.unknown.update(node.output)
        self.nodes[index] = OnnxNode(
            name, node.op_type, domain, opset, self._shown(node), self._shown(node, outputs=True)
        )

    def _operand(self, node: NodeProto, value: str, name: str) -> Bound | None:
        if not value:
            return None
        bound = self._lookup(value)
        if bound is None:  # names were checked: a stored tensor of a type that the IR lacks
            kind = element_name(self.file.initializers[value].data_type)
            raise UnsupportedError(
                Fault(
                    f"{node.op_type} reads {value!r}, whose element type is not supported",
                    need="float16, float32, float64, bool, or an integer",
                    have=kind,
                    code=codes.ELEMENT_TYPE,
                    node=name,
                )
            )
        return bound

    def _shown(self, node: NodeProto, outputs: bool = False) -> tuple[str, ...]:
        """Types of a node's operands or results, as far as they are known."""
        found: list[str] = []
        for name in node.output if outputs else node.input:
            bound = self._lookup(name) if name else None
            found.append(str(bound.value.type) if bound else ("?" if name else "_"))
        return tuple(found)

    def _lower(self, site: Site, lowering: Lowering) -> None:
        if site.version > KNOWN_OPSET:
            site.refuse(
                f"{site.op_type} of this opset is newer than cimc",
                need=f"opset <= {KNOWN_OPSET}",
                help_="export with an older opset",
                code=codes.TOO_NEW,
            )
        constant = all(bound is None or bound.array is not None for bound in site.inputs)
        if lowering.constants_only and not constant:
            site.refuse(
                f"{site.op_type} is only supported on values known at compile time",
                help_="export with constant folding, or fix the input's shape with --shape",
                code=codes.OPERATOR,
            )
        lowering.function(site)
        site.refuse_unknown_attributes()
        site.refuse_missing_outputs()
        for op in site.ops:
            self._refuse_raw(site, op)
            for fault in type_faults(op):
                site.refuse(
                    f"the operands of {site.op_type} do not fit each other",
                    fault.need,
                    fault.have,
                    code=codes.SHAPES,
                )
        if constant and site.ops and site.op_type not in _KEPT and self._small(site):
            self._compute(site)
        self._refuse_empty(site)
        for op in site.ops:
            self._add(op, site)
        made = {op.out.name: op for op in self.ops[-len(site.ops) :]} if site.ops else {}
        for name in site.node.output:
            if name in site.results:
                self.bound[name] = site.results[name]
            elif name in made:
                self.bound[name] = Bound(made[name].out, op=made[name])

    def _refuse_raw(self, site: Site, op: Op) -> None:
        """Arithmetic on quantized integers: the graph would compute on what they stand for."""
        moves = isinstance(op, _MOVES) or (isinstance(op, ops.Pool) and op.fn == "max")
        if not moves and site.domain == "" and site.op_type not in _QUANTIZED_OPERATORS:
            for value in operands(op):
                if value.type.quant is not None:
                    site.refuse(
                        f"{site.op_type} computes with the integers of a quantized tensor",
                        have=str(value.type),
                        help_="dequantize first (QDQ)",
                    )

    def _refuse_empty(self, site: Site) -> None:
        """Tensors without elements exist at import only."""
        for op in site.ops:
            for value in (op.out, *operands(op)):
                if value.type.elements == 0 and op.mnemonic != "constant":
                    site.refuse(
                        f"{site.op_type} works on a tensor without elements",
                        have=str(value.type),
                        help_="check the shapes that the model is exported or imported with",
                        code=codes.SHAPES,
                    )

    def _small(self, site: Site) -> bool:
        """True where results are small, or no larger than their operands."""
        read = max((b.value.type.elements for b in site.inputs if b is not None), default=0)
        limit = max(MAX_GENERATED, read)
        return all(op.out.type.elements <= limit for op in site.ops)

    def _compute(self, site: Site) -> None:
        """Replace the ops of a node by their results."""
        held = dict(site.arrays)
        for op in site.ops:
            if op.mnemonic != "constant":
                try:
                    held[op.out.name] = evaluate_op(op, held)
                except (ArithmeticError, IndexError, ValueError) as problem:
                    site.refuse(
                        f"the operands of {site.op_type} do not fit each other",
                        have=str(problem),
                        code=codes.SHAPES,
                    )
        kinds = {op.out.name: op.out for op in site.ops}
        site.ops.clear()
        for name in site.node.output:
            if name in kinds and name not in site.results:
                array = held[name]
                site.results[name] = Bound(kinds[name], array, constant=True)
                self.generated += array.nbytes
        if self.generated > MAX_GENERATED_BYTES:
            site.refuse(
                "the model computes too many constants",
                need=f"at most {MAX_GENERATED_BYTES} bytes",
                code=codes.TOO_LARGE,
            )

    def _add(self, op: Op, site: Site | None) -> None:
        if op.mnemonic == "constant":
            if op.out.name in self.constants:
                return
            self.constants.add(op.out.name)
            array = site.arrays.get(op.out.name) if site else None
            if array is not None:
                digest = str(getattr(op, "digest", ""))
                self.tensors[digest] = array
                tensor = self.file.initializers.get(op.out.name)
                if tensor is not None and is_external(tensor):
                    self.external.append(digest)
        self.ops.append(op)

    def finish(self) -> None:
        """Bind the graph's outputs: each gets an op of its name."""
        for entry in self.file.graph.output:
            name = entry.name
            if name in self.unknown:
                continue
            bound = self._lookup(name)
            if bound is None:
                kind = element_name(self.file.initializers[name].data_type)
                self.faults[f"output {name}"] = Fault(
                    f"the element type of output {name} is not supported",
                    have=kind,
                    code=codes.ELEMENT_TYPE,
                )
                continue
            value = Value(name, bound.value.type)
            if bound.constant:
                digest = "absent:" + name if bound.array is None else digest_of(bound.array)
                if name not in self.constants:
                    self.constants.add(name)
                    self.ops.append(ops.Constant(value, digest))
                    if bound.array is not None:
                        self.tensors[digest] = bound.array
            elif bound.value.name != name:
                maker = self._maker(name)
                self.ops.append(ops.Reshape(value, bound.value, nodes=maker))
            self.outputs.append(value)

    def _maker(self, name: str) -> tuple[str, ...]:
        """The node that makes an output as another name of some value."""
        return tuple(
            self.names[index]
            for index, node in enumerate(self.file.graph.node)
            if name in node.output
        )

    def imported(self, notes: tuple[str, ...]) -> Imported:
        """The finished graph without what no output needs."""
        graph = Graph(
            self.file.graph.name or self.file.path.stem,
            tuple(_needed(self.ops, self.outputs)),
            tuple(self.outputs),
            self.tensors,
        )
        graph = simplified(graph)
        used = {constant.digest for constant in graph.ops if isinstance(constant, ops.Constant)}
        tensors = {digest: array for digest, array in self.tensors.items() if digest in used}
        graph = Graph(graph.name, graph.ops, graph.outputs, tensors)
        nodes = tuple(self.nodes[index] for index in range(len(self.names)))
        digest = self.file.digest
        if self.external:
            digest = hashlib.sha256(" ".join([digest, *self.external]).encode()).hexdigest()
        folded = dict(self._folded(graph))
        return Imported(graph, nodes, folded, self.file.opset, digest, notes)

    def _folded(self, graph: Graph) -> Iterator[tuple[str, str]]:
        alive = {name for op in graph.ops for name in op.nodes}
        made = {name for op in self.ops for name in op.nodes}
        for index, name in enumerate(self.names):
            if name in alive:
                continue
            outputs = [
                self.bound[out] for out in self.file.graph.node[index].output if out in self.bound
            ]
            if name in made:
                yield name, "unused"
            elif all(bound.constant for bound in outputs):
                yield name, "constant"
            else:
                yield name, "no operation"


def _needed(ops_: list[Op], outputs: list[Value]) -> Iterator[Op]:
    """Ops that an output depends on, and all inputs, in order."""
    makers = {op.out.name: op for op in ops_}
    needed: set[str] = set()
    waiting = [value.name for value in outputs]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(value.name for value in operands(makers[name]))
    return (op for op in ops_ if op.out.name in needed or op.mnemonic == "input")
