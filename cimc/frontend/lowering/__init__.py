"""One small function per ONNX operator, in a registry keyed by domain and operator.

A new operator is one function decorated with `lowers` in the module of its family.
"""

from __future__ import annotations

from cimc.frontend.lowering import (  # noqa: F401  # they register
    attention,
    constants,
    elementwise,
    heavy,
    moving,
    pooling,
    qonnx,
    quantized,
)
from cimc.frontend.lowering.registry import Lowering, Support, lowering_of, support_table

__all__ = ["Lowering", "Support", "lowering_of", "support_table"]
