"""ONNX files into the graph IR."""

from __future__ import annotations

from cimc.frontend.importer import ImportFault, import_onnx
from cimc.frontend.lowering import Support, support_table
from cimc.frontend.walk import Imported, OnnxNode

__all__ = ["ImportFault", "Imported", "OnnxNode", "Support", "import_onnx", "support_table"]
