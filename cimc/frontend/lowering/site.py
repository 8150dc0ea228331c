"""What a lowering function sees of one ONNX node, and where it puts the ops it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeVar

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, helper

from cimc.errors import Fault, UnsupportedError
from cimc.frontend import codes
from cimc.frontend.tensors import LIMITS, is_too_large
from cimc.ir import ops
from cimc.ir.graph import Op, Value, digest_of
from cimc.ir.types import Array, Type, dtype_of, numpy_dtype

OpT = TypeVar("OpT", bound=Op)


# attributes that matter for training, for float8, or for outputs that are refused
_WITHOUT_EFFECT = {
    "momentum", "precision", "ratio", "saturate", "seed", "stash_type", "storage_order",
}  # fmt: skip


class Refused(UnsupportedError):
    """A node that cannot be imported; the importer collects these."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What the name of an ONNX value stands for."""

    value: Value
    array: Array | None = None  # its elements, where known at import
    constant: bool = False  # True also where the elements are not loaded
    op: Op | None = None  # the op that makes it, if one does
    stored: Bound | None = None  # the integer constant that `op` dequantizes, if it is one


@dataclass(slots=True)
class Site:
    """One ONNX node while it is lowered."""

    node: NodeProto
    name: str
    domain: str
    opset: int
    ir_version: int
    inputs: tuple[Bound | None, ...]
    read: frozenset[str]  # names that a node or the graph's result reads
    taken: set[str]  # names of values that are in use
    ops: list[Op] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)  # of the constants in `ops`, by name
    results: dict[str, Bound] = field(default_factory=dict)  # outputs that need no op of their own
    known: set[str] = field(default_factory=set)  # names of attributes that were asked for

    # What the node is.

    @property
    def op_type(self) -> str:
        """Operator."""
        return str(self.node.op_type)

    @property
    def schema(self) -> onnx.defs.OpSchema | None:
        """ONNX's definition of the operator at this opset; None for foreign domains."""
        try:
            return onnx.defs.get_schema(self.op_type, self.opset, self.domain)
        except onnx.defs.SchemaError:
            return None

    @property
    def version(self) -> int:
        """Version of the operator: the opset that last changed it."""
        schema = self.schema
        return schema.since_version if schema else 1

    def describe(self) -> str:
        """The node as an error shows it: name, operator, opset, operands."""
        operands = ", ".join(str(bound.value.type) if bound else "_" for bound in self.inputs)
        return f"{self.name} ({self.op_type}, opset {self.opset}, inputs {operands})"

    def refuse(
        self, where: str, need: str = "", have: str = "", help_: str = "", code: str = codes.FORM
    ) -> NoReturn:
        """Give up on this node; the importer reports it with all other problems."""
        raise Refused(Fault(where, need, have, help_, code, self.describe()))

    # Operands.

    def has(self, index: int) -> bool:
        """True if the operand is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def bound(self, index: int) -> Bound:
        """The operand, which must be there."""
        bound = self.inputs[index] if index < len(self.inputs) else None
        if bound is None:
            self.refuse(f"{self.op_type} lacks operand {index}", code=codes.INVALID)
        return bound

    def kind(self, index: int = 0) -> Type:
        """The operand's type."""
        return self.bound(index).value.type

    def value(self, index: int = 0) -> Value:
        """The operand as a value of the graph."""
        return self.use(self.bound(index))

    def optional(self, index: int) -> Value | None:
        """The operand as a value, or None."""
        return self.value(index) if self.has(index) else None

    def use(self, bound: Bound) -> Value:
        """A bound name as a value of the graph: constants get an op."""
        if bound.constant and bound.value.name not in self.arrays:
            self._add_constant(bound.value, bound.array)
        return bound.value

    def array(self, index: int) -> Array:
        """The operand's elements, which must be known at import."""
        bound = self.bound(index)
        if bound.array is None:
            self.refuse(
                f"{self.op_type} needs operand {index} to be known at compile time",
                need=f"{bound.value} as a constant",
                have="its weights are not loaded" if bound.constant else "a computed value",
                help_="export with constant folding, or fix the input's shape with --shape",
                code=codes.NOT_CONSTANT,
            )
        return bound.array

    def integers(self, index: int) -> tuple[int, ...]:
        """The operand's elements as integers, flat."""
        return tuple(int(item) for item in self.array(index).reshape(-1))

    def scalar(self, index: int) -> float:
        """The operand's only element."""
        array = self.array(index)
        if array.size != 1:
            self.refuse(
                f"{self.op_type} needs one number as operand {index}", have=str(self.kind(index))
            )
        return float(array.reshape(()).astype(np.float64))

    # Attributes.

    def attribute(self, name: str, kind: int) -> AttributeProto | None:
        """The attribute of that name and kind, or None."""
        self.known.add(name)
        found: AttributeProto | None = next(
            (attribute for attribute in self.node.attribute if attribute.name == name), None
        )
        if found is not None and found.type != kind:
            self.refuse(f"attribute {name} of {self.op_type} has another type", code=codes.INVALID)
        return found

    def attr_int(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        found = self.attribute(name, AttributeProto.INT)
        return default if found is None else int(found.i)

    def attr_float(self, name: str, default: float) -> float:
        """A float attribute."""
        found = self.attribute(name, AttributeProto.FLOAT)
        return default if found is None else float(found.f)

    def attr_string(self, name: str, default: str) -> str:
        """A string attribute."""
        found = self.attribute(name, AttributeProto.STRING)
        return default if found is None else found.s.decode(errors="replace")

    def attr_ints(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, or None."""
        found = self.attribute(name, AttributeProto.INTS)
        return None if found is None else tuple(found.ints)

    def attr_floats(self, name: str) -> tuple[float, ...] | None:
        """A list of floats, or None."""
        found = self.attribute(name, AttributeProto.FLOATS)
        return None if found is None else tuple(found.floats)

    def axis(self, axis: int, rank: int) -> int:
        """`axis` counted from the front; refused where it lies outside."""
        if not -rank <= axis < rank:
            self.refuse(
                f"axis {axis} of {self.op_type} does not exist",
                have=f"{rank} axes",
                code=codes.SHAPES,
            )
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Axes counted from the front, sorted; refused where one is outside or named twice."""
        found = tuple(sorted(self.axis(axis, rank) for axis in axes))
        if len(set(found)) != len(found):
            self.refuse(f"{self.op_type} names an axis twice", have=str(tuple(axes)))
        return found

    def refuse_unknown_attributes(self) -> None:
        """Refuse a node with an attribute that nothing asked for: it may change the result."""
        defaults = self.schema.attributes if self.schema is not None else {}
        for attribute in self.node.attribute:
            name = attribute.name
            if name in self.known or name in _WITHOUT_EFFECT:
                continue
            if name not in defaults or defaults[name].default_value != attribute:
                self.refuse(
                    f"attribute {name} of {self.op_type} is not supported",
                    have=str(helper.get_attribute_value(attribute))[:60],
                )

    # Results.

    def wants(self, index: int) -> bool:
        """True if somebody reads that output."""
        return index < len(self.node.output) and self.node.output[index] in self.read

    def refuse_missing_outputs(self) -> None:
        """Refuse a node of which an output is read that the lowering did not make."""
        made = {op.out.name for op in self.ops} | set(self.results)
        for index, name in enumerate(self.node.output):
            if self.wants(index) and name not in made:
                formal = self.schema.outputs[index:] if self.schema is not None else []
                shown = formal[0].name if formal else f"number {index}"
                self.refuse(f"the output {shown} of {self.op_type} is not supported")

    def out(self, kind: Type, index: int = 0) -> Value:
        """The value of output `index`, of that type."""
        if index >= len(self.node.output) or not self.node.output[index]:
            self.refuse(f"{self.op_type} leaves an output unnamed", code=codes.INVALID)
        return Value(self.node.output[index], self.checked(kind))

    def broadcast(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """The common shape of operands that broadcast."""
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            self.refuse(
                f"the operands of {self.op_type} do not broadcast",
                have=" and ".join(str(shape) for shape in shapes),
                code=codes.SHAPES,
            )

    def fresh(self, suffix: str, kind: Type) -> Value:
        """A value between the ops of this node."""
        made = next((name for name in self.node.output if name), self.name)
        name, count = f"{made}.{suffix}", 1
        while name in self.taken:
            count += 1
            name = f"{made}.{suffix}{count}"
        self.taken.add(name)
        return Value(name, kind)

    def emit(self, op: OpT, nodes: tuple[str, ...] = ()) -> Value:
        """Add an op; the ONNX node's name goes with it, or `nodes` where it stands for others."""
        self.ops.append(replace(op, nodes=nodes or (self.name,)))
        return op.out

    def constant(self, array: Array, suffix: str, dtype: str | None = None) -> Value:
        """A new constant."""
        value = self.fresh(suffix, Type(dtype or dtype_of(array), array.shape))
        self._add_constant(value, array)
        return value

    def absent(self, suffix: str, kind: Type) -> Value:
        """A new constant whose elements are not loaded."""
        value = self.fresh(suffix, kind)
        self._add_constant(value, None)
        return value

    def number(self, number: float, dtype: str, suffix: str) -> Value:
        """A new scalar constant."""
        return self.constant(np.array(number, numpy_dtype(dtype)), suffix, dtype)

    def fold(self, array: Array, index: int = 0, dtype: str | None = None) -> None:
        """The output is this array."""
        array = np.asarray(array)
        value = Value(self.node.output[index], Type(dtype or dtype_of(array), array.shape))
        self.results[value.name] = Bound(value, array, constant=True)

    def forward(self, bound: Bound, index: int = 0) -> None:
        """The output is another name of `bound`."""
        self.results[self.node.output[index]] = bound

    def _add_constant(self, value: Value, array: Array | None) -> None:
        if array is None:  # known to be constant, but not loaded
            digest = "absent:" + value.name
        else:
            digest = digest_of(array)
            self.arrays[value.name] = array
        self.ops.append(ops.Constant(value, digest))

    def checked(self, kind: Type) -> Type:
        """`kind`, refused where it is impossible or too large."""
        if any(extent < 0 for extent in kind.shape):
            self.refuse(f"{self.op_type} makes a negative size", have=str(kind), code=codes.SHAPES)
        if is_too_large(kind.shape):
            self.refuse(
                f"{self.op_type} makes a tensor that is too large",
                LIMITS,
                str(kind),
                code=codes.TOO_LARGE,
            )
        return kind
