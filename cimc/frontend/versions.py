"""The same model under other version numbers, so that onnxruntime can load it.

The newest onnx package writes IR versions and opsets that the newest onnxruntime refuses. Most
operators did not change in them: a model means the same under the lowest opset that has all its
operators in the same version.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto

from cimc.frontend.functions import all_nodes
from cimc.frontend.reader import STANDARD_DOMAINS

# what every onnxruntime since 1.20 loads; IR version 10 has the 4-bit types
LOADABLE_OPSET, LOADABLE_IR = 21, 10


def lowest_opset(model: ModelProto) -> int:
    """The lowest opset under which every standard operator is of the version it has now."""
    opset = next((entry.version for entry in model.opset_import
                  if entry.domain in STANDARD_DOMAINS), 1)  # fmt: skip
    versions = {
        onnx.defs.get_schema(node.op_type, opset, "").since_version
        for node in all_nodes(model.graph)
        if node.domain in STANDARD_DOMAINS and onnx.defs.has(node.op_type)
    }
    return max(versions, default=opset)


def relabel(model: ModelProto, newest: int = LOADABLE_OPSET, newest_ir: int = LOADABLE_IR) -> None:
    """Lower the model's IR version and opset, in place, where that changes nothing.

    The opset becomes `newest`, or the lowest that means the same where even that is newer.
    """
    model.ir_version = min(model.ir_version, newest_ir)
    for entry in model.opset_import:
        if entry.domain in STANDARD_DOMAINS and entry.version > newest:
            entry.version = max(newest, lowest_opset(model))
