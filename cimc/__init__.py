"""Compile ONNX models to compute-in-memory machines, run them bit by bit, say what they cost."""

__version__ = "0.1.0"
