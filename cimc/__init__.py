"""Compile ONNX models to compute-in-memory machines, run them bit by bit, say what they cost.

    import cimc

    program = cimc.compile("model.onnx", target="isaac")
    outputs = program.run(x)

`cimc.api` documents the functions; they are imported on first use, so that `import cimc` is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cimc.api import Program, check, compile, evaluate, list_targets, load

__version__ = "0.1.0"
__all__ = ["Program", "__version__", "check", "compile", "evaluate", "list_targets", "load"]


def __getattr__(name: str) -> object:
    """The functions of `cimc.api`, imported when one is asked for."""
    if name in __all__:
        from cimc import api

        return getattr(api, name)
    raise AttributeError(f"module 'cimc' has no attribute {name!r}")
