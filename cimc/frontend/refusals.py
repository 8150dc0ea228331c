"""What is said about operators that are not supported."""

from __future__ import annotations

import difflib

import onnx
from onnx import NodeProto

from cimc.errors import Fault
from cimc.frontend import codes
from cimc.frontend.lowering.registry import supported_operators

_CONTROL_FLOW = {
    "GRU": "recurrent layers are not supported",
    "If": "branches are not supported",
    "Loop": "loops are not supported",
    "LSTM": "recurrent layers are not supported",
    "RNN": "recurrent layers are not supported",
    "Scan": "loops are not supported",
    "SequenceMap": "loops are not supported",
}
_QONNX = {
    "FloatQuant": "train with Quant: integers instead of numbers with an exponent",
    "MultiThreshold": "give the model as it was before FINN's streamlining, with Quant nodes",
}
_CUT = "cut the model before this node and run the rest on the host"
_HELP = {
    "DynamicQuantizeLinear": "quantize statically (QDQ), or give the float model",
    "NonMaxSuppression": _CUT,
    "RoiAlign": _CUT,
    "TopK": _CUT,
}


def refusal(node: NodeProto, domain: str, opset: int, name: str, inputs: tuple[str, ...]) -> Fault:
    """The fault of a node whose operator has no lowering."""
    described = f"{name} ({node.op_type}, opset {opset}, inputs {', '.join(inputs)})"
    operator = f"{domain}::{node.op_type}" if domain else node.op_type
    if domain:
        known = sorted({other for other, _ in supported_operators() if other})
        return Fault(
            f"operator {operator} is not supported",
            need=f"ONNX's own operators, or those of {', '.join(known)} in the support table",
            help=_QONNX.get(
                node.op_type,
                "export without this operator; cimc ops lists those that are supported",
            ),
            code=codes.DOMAIN,
            node=described,
        )
    if node.op_type in _CONTROL_FLOW:
        return Fault(
            f"operator {operator} is not supported: {_CONTROL_FLOW[node.op_type]}",
            help="export with constant conditions and unrolled loops, or cut the model here",
            code=codes.CONTROL_FLOW,
            node=described,
        )
    if not onnx.defs.has(node.op_type, opset):
        supported = [op_type for other, op_type in supported_operators() if not other]
        near = difflib.get_close_matches(node.op_type, supported, 1)
        guess = "" if onnx.defs.has(node.op_type) or not near else f"did it mean {near[0]}? "
        return Fault(
            f"operator {operator} does not exist in opset {opset}",
            help=f"{guess}check the model's opset_import",
            code=codes.OPERATOR,
            node=described,
        )
    return Fault(
        f"operator {operator} is not supported",
        help=_HELP.get(node.op_type, "cimc ops lists the operators that are supported"),
        code=codes.OPERATOR,
        node=described,
    )
