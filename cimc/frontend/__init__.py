"""ONNX files into the graph IR."""

from __future__ import annotations

from cimc.frontend.importer import Imported, ImportFault, OnnxNode, import_onnx
from cimc.frontend.lowering import Support, support_table

__all__ = ["ImportFault", "Imported", "OnnxNode", "Support", "import_onnx", "support_table"]
