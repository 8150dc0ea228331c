"""Opening a model file: bytes, versions, stored tensors, and a skeleton without weights.

The skeleton is what checks and shape inference work on: nodes, inputs and outputs, with local
functions inlined. Its size does not grow with the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from cimc.errors import Fault, UnsupportedError, UsageError, raise_if
from cimc.frontend import codes
from cimc.frontend.functions import inlined
from cimc.frontend.tensors import ExternalFiles, tensor_faults

OLDEST_OPSET = 7
LARGEST_FILE = 2**31 - 1  # bytes; protobuf reads no more
STANDARD_DOMAINS = ("", "ai.onnx")
QONNX_DOMAINS = ("onnx.brevitas", "finn.custom_op.general", "qonnx.custom_op.general")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that was opened and whose tables are sound."""

    path: Path
    digest: str  # sha256 of the file, 64 hex digits
    graph: GraphProto  # the skeleton's graph: no initializers
    initializers: Mapping[str, TensorProto]
    files: ExternalFiles
    opsets: Mapping[str, int]  # domain -> version; "" is ONNX itself
    ir_version: int

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return self.opsets[""]


def open_model(source: Path | bytes, weights: bool = True) -> ModelFile:
    """Read and check a file, or the content of one, which then has no external data.

    With `weights` off, files of external data may be missing.
    """
    path = Path("model.onnx") if isinstance(source, bytes) else source
    content = source if isinstance(source, bytes) else _content(source)
    model = _parsed(content, path)
    files = ExternalFiles(path.parent)
    raise_if(_version_faults(model), UnsupportedError)
    faults = [
        fault
        for tensor in model.graph.initializer
        for fault in tensor_faults(tensor, files, weights)
    ]
    faults += [
        Fault(
            f"initializer {sparse.values.name!r} is sparse",
            help="store it as a dense tensor",
            code=codes.NOT_A_TENSOR,
        )
        for sparse in model.graph.sparse_initializer
    ]
    faults += _repeated(tensor.name for tensor in model.graph.initializer)
    raise_if(
        dict.fromkeys(faults), UnsupportedError
    )  # a missing file is one fault, not one a tensor
    return ModelFile(
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        graph=_skeleton(model),
        initializers={tensor.name: tensor for tensor in model.graph.initializer},
        files=files,
        opsets=_opsets(model),
        ir_version=model.ir_version,
    )


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            have = "a folder or a device"
        elif path.exists() and path.stat().st_size > LARGEST_FILE:
            raise UnsupportedError(
                Fault(
                    f"{path} is not a readable ONNX model",
                    need="less than 2 GB in one file",
                    have=f"{path.stat().st_size} bytes",
                    help="save the model with its weights as external data",
                    code=codes.NOT_ONNX,
                )
            )
        else:
            return path.read_bytes()
    except (OSError, ValueError) as problem:  # ValueError: a path that no system accepts
        have = getattr(problem, "strerror", None) or str(problem)
    raise UsageError(
        Fault(f"cannot read the model {path}", "an ONNX file", have, code=codes.UNREADABLE)
    )


def _parsed(content: bytes, path: Path) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(content)
        if not all(isinstance(text, str) for text in _texts(model)):
            raise ValueError("a name in it is no UTF-8 text")
    except (DecodeError, ValueError, RecursionError) as problem:
        raise UnsupportedError(
            Fault(
                f"{path} is not a readable ONNX model",
                have=f"{len(content)} bytes: {problem}",
                help="export the model again",
                code=codes.NOT_ONNX,
            )
        ) from None
    if not model.graph.output or model.ir_version <= 0:
        raise UnsupportedError(
            Fault(
                f"{path} is not an ONNX model",
                need="an IR version and a graph with at least one output",
                have=f"{len(content)} bytes, IR version {model.ir_version}, "
                f"{len(model.graph.node)} nodes, {len(model.graph.output)} outputs",
                help="give a file that ends in .onnx and was written completely",
                code=codes.NOT_ONNX,
            )
        )
    return model


def _texts(model: ModelProto) -> Iterator[object]:
    """Every name that anything may read later; protobuf decodes them when they are first read."""
    yield from (entry.domain for entry in model.opset_import)
    yield from _graph_texts(model.graph)
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
        yield from _node_texts(function.node)


def _graph_texts(graph: GraphProto) -> Iterator[object]:
    yield graph.name
    for entry in (*graph.input, *graph.output):
        yield entry.name
        yield from (dim.dim_param for dim in entry.type.tensor_type.shape.dim)
    for tensor in graph.initializer:
        yield tensor.name
        for pair in tensor.external_data:
            yield from (pair.key, pair.value)
    yield from _node_texts(graph.node)


def _node_texts(nodes: Iterable[NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_texts(graph)


def _opsets(model: ModelProto) -> dict[str, int]:
    return {
        "" if entry.domain in STANDARD_DOMAINS else entry.domain: entry.version
        for entry in model.opset_import
    }


def _version_faults(model: ModelProto) -> Iterator[Fault]:
    newest = onnx.defs.onnx_opset_version()
    if model.ir_version > onnx.IR_VERSION:
        yield Fault(
            "the model's IR version is newer than the installed onnx package",
            need=f"IR version <= {onnx.IR_VERSION} (onnx {onnx.__version__})",
            have=f"IR version {model.ir_version}",
            help="pip install --upgrade onnx",
            code=codes.TOO_NEW,
        )
    for entry in model.opset_import:
        if not 0 < entry.version < 2**31:
            yield Fault(
                f"the opset of domain {entry.domain or 'ai.onnx'!r} is impossible",
                have=str(entry.version),
                code=codes.INVALID,
            )
    opset = _opsets(model).get("", 1)
    if opset > newest:
        yield Fault(
            "the model's opset is newer than the installed onnx package",
            need=f"opset <= {newest} (onnx {onnx.__version__})",
            have=f"opset {opset}",
            help="pip install --upgrade onnx, or export with an older opset",
            code=codes.TOO_NEW,
        )
    elif opset < OLDEST_OPSET:
        yield Fault(
            "the model's opset is too old",
            need=f"opset {OLDEST_OPSET} .. {newest}",
            have=f"opset {opset}",
            help="onnx.version_converter.convert_version(model, 13)",
            code=codes.TOO_OLD,
        )


def _repeated(names: Iterable[str]) -> list[Fault]:
    seen: set[str] = set()
    found: list[Fault] = []
    for name in names:
        if name in seen:
            found.append(Fault(f"initializer {name!r} is stored twice", code=codes.DUPLICATE))
        seen.add(name)
    return found


def _skeleton(model: ModelProto) -> GraphProto:
    """The model's graph without weights and with local functions inlined."""
    graph = GraphProto(name=model.graph.name)
    graph.node.extend(model.graph.node)
    graph.output.extend(model.graph.output)
    stored = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(entry for entry in model.graph.input if entry.name not in stored)
    return inlined(model, graph, stored) if model.functions else graph
