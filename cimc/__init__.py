"""cimc: compile ONNX models to compute-in-memory machines, run them bit by bit, and say what they cost."""

__version__ = "0.1.0"
