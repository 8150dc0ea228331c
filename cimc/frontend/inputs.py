"""Types of a model's inputs: declared dimensions, dimensions that the user gives, and the batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import ValueInfoProto

from cimc.errors import Fault, UnsupportedError, UsageError, raise_if
from cimc.frontend import codes
from cimc.frontend.tensors import ELEMENT_TYPES, LIMITS, element_name, is_too_large
from cimc.ir.graph import Value
from cimc.ir.types import Type

Dim = int | str  # a size, or the name of a size that the model leaves open ("" if it has none)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs with static types, and what was assumed to make them static."""

    values: tuple[Value, ...]
    notes: tuple[str, ...]


def static_inputs(
    declared: Sequence[ValueInfoProto], shapes: Mapping[str, tuple[int, ...]]
) -> Inputs:
    """Types of all inputs, open dimensions taken from `shapes`.

    A name that has a size in one input has it everywhere. If the only dimensions still open are
    leading ones (the batch), they become 1, with a note. A leading 1 may get another size, too.
    """
    raise_if(_type_faults(declared), UnsupportedError)
    dims = {entry.name: _dims(entry) for entry in declared}
    raise_if(_option_faults(dims, shapes), UsageError)
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        open_dims = dims[name] or [""] * len(shape)
        sizes.update(
            (dim, size)
            for dim, size in zip(open_dims, shape, strict=True)
            if isinstance(dim, str) and dim
        )
        dims[name] = list(shape)
    for name, known in dims.items():
        if known is not None:
            dims[name] = [sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in known]
    notes = tuple(_set_batch(dims))
    raise_if(_open_faults(dims), UnsupportedError)
    values: list[Value] = []
    faults: list[Fault] = []
    for entry in declared:
        shape = tuple(int(dim) for dim in dims[entry.name] or ())
        if is_too_large(shape):
            faults.append(
                Fault(
                    f"input {entry.name} is too large",
                    LIMITS,
                    str(shape),
                    code=codes.TOO_LARGE,
                )
            )
        values.append(
            Value(entry.name, Type(ELEMENT_TYPES[entry.type.tensor_type.elem_type], shape))
        )
    raise_if(faults, UnsupportedError)
    return Inputs(tuple(values), notes)


def _dims(entry: ValueInfoProto) -> list[Dim] | None:
    """Declared dimensions; None where the model does not even tell the rank."""
    if not entry.type.tensor_type.HasField("shape"):
        return None
    return [
        int(dim.dim_value) if dim.HasField("dim_value") else str(dim.dim_param)
        for dim in entry.type.tensor_type.shape.dim
    ]


def _type_faults(declared: Sequence[ValueInfoProto]) -> Iterator[Fault]:
    for entry in declared:
        kind = entry.type.WhichOneof("value")
        if kind != "tensor_type":
            yield Fault(
                f"input {entry.name} is not a tensor",
                need="tensors",
                have=(kind or "no type").removesuffix("_type"),
                code=codes.NOT_A_TENSOR,
            )
        elif entry.type.tensor_type.elem_type not in ELEMENT_TYPES:
            yield Fault(
                f"input {entry.name} has an unsupported element type",
                need="float16, float32, float64, bool, or an integer",
                have=element_name(entry.type.tensor_type.elem_type),
                code=codes.ELEMENT_TYPE,
            )
        else:
            for axis, dim in enumerate(entry.type.tensor_type.shape.dim):
                if dim.HasField("dim_value") and dim.dim_value < 0:
                    yield Fault(
                        f"dimension {axis} of input {entry.name} is negative",
                        have=str(dim.dim_value),
                        code=codes.INVALID,
                    )


def _option_faults(
    dims: Mapping[str, list[Dim] | None], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Fault]:
    for name, shape in shapes.items():
        given = _text(shape)
        if name not in dims:
            yield Fault(
                f"--shape {name}={given}: the model has no input {name}",
                have="inputs " + ", ".join(f"{key}={_text(known)}" for key, known in dims.items()),
                code=codes.SHAPE_OPTION,
            )
            continue
        known = dims[name]
        fits = known is None or (
            len(known) == len(shape)
            and all(
                isinstance(dim, str) or dim == size or (dim == 1 and axis == 0)
                for axis, (dim, size) in enumerate(zip(known, shape, strict=True))
            )
        )
        if not fits or any(size < 0 for size in shape):
            yield Fault(
                f"--shape {name}={given} does not fit the model",
                need=f"{name}={_text(known)} with sizes for the names",
                have=given,
                code=codes.SHAPE_OPTION,
            )


def _text(dims: Sequence[Dim] | None) -> str:
    if dims is None:
        return "any rank"
    return "x".join(str(dim) if dim != "" else "?" for dim in dims) or "scalar"


def _set_batch(dims: dict[str, list[Dim] | None]) -> Iterator[str]:
    """Set open leading dimensions to 1 where no other one is open."""
    if any(known is None for known in dims.values()):
        return
    found = {name: known for name, known in dims.items() if known is not None}
    leading = {known[0] for known in found.values() if known and isinstance(known[0], str)}
    for known in found.values():
        if any(isinstance(dim, str) and (dim == "" or dim not in leading) for dim in known[1:]):
            return
    for name, known in found.items():
        if any(isinstance(dim, str) for dim in known):
            static: list[Dim] = [1 if isinstance(dim, str) else dim for dim in known]
            yield (
                f"input {name}: batch {known[0] or 'dimension'} set to 1 "
                f"(--shape {name}={_text(static)} to say otherwise)"
            )
            dims[name] = static


def _open_faults(dims: Mapping[str, list[Dim] | None]) -> Iterator[Fault]:
    for name, known in dims.items():
        if known is None:
            yield Fault(
                f"input {name} has an unknown shape",
                need="static shapes",
                help=f"--shape {name}=1x3x224x224 (with the model's own sizes)",
                code=codes.DYNAMIC,
            )
            continue
        example = _text([dim if isinstance(dim, int) else (1 if axis == 0 else 224)
                         for axis, dim in enumerate(known)])  # fmt: skip
        for axis, dim in enumerate(known):
            if isinstance(dim, str):
                yield Fault(
                    f"dimension {axis} ({dim or 'unnamed'}) of input {name} is dynamic",
                    need="static shapes",
                    have=f"{name}={_text(known)}",
                    help=f"--shape {name}={example} (with the sizes that you need)",
                    code=codes.DYNAMIC,
                )
