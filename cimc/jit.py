"""Compiling kernels with Numba, with a cache on disk that cannot be stale.

Numba keys its cache by the file that holds a function; a changed helper in another file would leave
old machine code in use. So a module names all files that its kernels come from, and the cache
folder carries a hash of their content.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import numba
from numba.core import config, types
from numba.core.dispatcher import Dispatcher
from numba.core.types import Type

from cimc.user_cache import user_cache

Function = TypeVar("Function", bound=Callable[..., object])


def compiler(*files: str, inner: bool = False) -> Callable[[Function], Function]:
    """A decorator that compiles kernels whose code lies in `files`, without the interpreter lock.

    Floats follow IEEE 754 to the bit (no reordering, no fused operations); division by zero gives
    inf or nan as in NumPy. `inner` kernels can be called by kernels only: they compile faster.
    """
    folder, settings = _cache_folder(*files), vars(config)

    def compiled(function: Function) -> Function:
        before = settings["CACHE_DIR"]
        settings["CACHE_DIR"] = folder
        try:
            kernel = numba.njit(  # type: ignore[call-overload]  # two options are not declared
                cache=bool(folder),
                nogil=True,
                error_model="numpy",
                no_cpython_wrapper=inner,
                no_cfunc_wrapper=True,
            )(function)
        finally:
            settings["CACHE_DIR"] = before
        if isinstance(kernel, Dispatcher):  # a function where NUMBA_DISABLE_JIT is set
            _take_any_constant(kernel)
        return cast(Function, kernel)

    return compiled


def _take_any_constant(kernel: Dispatcher) -> None:
    """Kernels call this one with constants, too: each of them would be compiled by itself."""
    unliteral: Callable[[Type], Type] = types.unliteral
    of_types: Callable[[tuple[Type, ...], dict[str, Type]], object] = kernel.get_call_template

    def without_constants(given: Sequence[Type], by_name: Mapping[str, Type]) -> object:
        plain = {name: unliteral(kind) for name, kind in by_name.items()}
        return of_types(tuple(unliteral(kind) for kind in given), plain)

    setattr(kernel, "get_call_template", without_constants)  # noqa: B010  # mypy: it is a method


@functools.cache
def _cache_folder(*files: str) -> str:
    """Where compiled kernels of these files are kept; "" where nothing can be written."""
    state = hashlib.blake2b(digest_size=8)
    for file in files:
        state.update(Path(file).read_bytes())
    base = os.environ.get("NUMBA_CACHE_DIR") or user_cache()
    folder = Path(base, f"kernels-{state.hexdigest()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder)
