"""How the kernels of the simulator are compiled: together, as their cache must see them all."""

from __future__ import annotations

from pathlib import Path

from cimc.jit import compiler

_FOLDER = Path(__file__).parent
_NAMES = ("image", "kernel", "kernel_forward", "kernel_line")
_FILES = tuple(str(_FOLDER / f"{name}.py") for name in _NAMES)

inner = compiler(*_FILES, inner=True)  # of kernels that only kernels call
entry = compiler(*_FILES)
