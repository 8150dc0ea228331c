"""Products through converters: the kernel equals the kind's plain arithmetic, clipped or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.errors import VerifyError
from cimc.ir.program import (
    Affine,
    Buffer,
    Copy,
    Fill,
    Instr,
    Loop,
    Machine,
    Mvm,
    Program,
    Stream,
    View,
    var,
)
from cimc.ir.types import Array, Type
from cimc.sim.execute import Executor, execute
from cimc.sim.execute.convert import pack
from cimc.targets.crossbar.analog_mvm import AnalogMvm

COLUMNS, TILES = 5, 3


def arrays(instr: Instr, x: Array, w: Array, reload: bool = False) -> Program:
    """Tiles of inputs times one array each; `reload` writes the weights while running."""
    rows = x.shape[1]
    cells = rows * COLUMNS
    buffers = (
        Buffer("x", "m", "u8" if x.dtype == np.uint8 else "i8", x.size, address=0),
        Buffer("acc", "m", "i32", COLUMNS * TILES, address=4096),
        Buffer("w", "store", "i8", w.size, address=0, init="w"),
        Buffer("array", "array", "i8", w.size, address=0),
    )
    tile = var("t") * cells
    load = Copy(View("array", tile, ((cells, 1),)), View("w", tile, ((cells, 1),)))
    loading = (Loop("t", TILES, (load,)),)
    return Program(
        "arrays",
        "none",
        (("x", Type("i8" if x.dtype == np.int8 else "u8", x.shape)),),
        (("acc", Type("i32", (TILES, COLUMNS))),),
        buffers,
        () if reload else loading,
        (Stream("s", (Loop("t", TILES, (*((load,) if reload else ()), instr)),)),),
        {"w": w},
    )


def analog(rows: int, **settings: int | str | bool) -> AnalogMvm:
    """One array's product, with these settings."""
    tile = var("t")
    plain = AnalogMvm(
        View("acc", tile * COLUMNS, ((rows, 0), (COLUMNS, 1))),
        View("x", tile * rows, ((rows, 1), (COLUMNS, 0))),
        View("array", tile * (rows * COLUMNS), ((rows, COLUMNS), (COLUMNS, 1))),
        input_bits=8,
        signed=False,
        dac_bits=1,
        weight_bits=8,
        cell_bits=1,
        adc_bits=8,
        active_rows=128,
        encoding="offset",
        fresh=True,
    )
    return dataclasses.replace(plain, **settings)  # type: ignore[arg-type]  # by name


@st.composite
def cases(draw: st.DrawFn) -> tuple[Program, Array]:
    """Arrays of any shape and setting, with their inputs."""
    rows = draw(st.sampled_from([1, 7, 64, 65, 140]))
    signed = draw(st.booleans())
    bits = draw(st.sampled_from([4, 8]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    x = rng.integers(low, high, (TILES, rows)).astype(np.int8 if signed else np.uint8)
    w = rng.integers(-100, 100, (TILES, rows, COLUMNS)).astype(np.int8)
    instr = analog(
        rows,
        input_bits=bits,
        signed=signed,
        dac_bits=draw(st.sampled_from([1, 2])),
        cell_bits=draw(st.sampled_from([1, 2, 4])),
        adc_bits=draw(st.sampled_from([3, 5, 8, 12])),
        active_rows=draw(st.sampled_from([16, 128])),
        encoding=draw(st.sampled_from(["offset", "flip", "differential"])),
    )
    return arrays(instr, x, w, reload=draw(st.booleans())), x


@given(cases())
@settings(max_examples=60, deadline=None)
def test_engines_are_equal(case: tuple[Program, Array]) -> None:
    program, x = case
    plain = execute(program, None, {"x": x}, "plain")["acc"]
    assert (execute(program, None, {"x": x})["acc"] == plain).all()


def test_a_converter_that_loses_nothing_gives_the_integer_product() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (TILES, 128)).astype(np.uint8)
    w = rng.integers(-128, 128, (TILES, 128, COLUMNS)).astype(np.int8)
    program = arrays(analog(128), x, w)
    expected = np.einsum("tr,trc->tc", x.astype(np.int64), w.astype(np.int64))
    assert (execute(program, None, {"x": x})["acc"] == expected).all()
    clipped = arrays(analog(128, adc_bits=5), x, w)
    assert (execute(clipped, None, {"x": x})["acc"] != expected).any()


@pytest.mark.parametrize(("adc_bits", "exact"), [(8, True), (7, False), (4, False)])
def test_exactness_is_proven_from_the_cells(adc_bits: int, exact: bool) -> None:
    w = np.full((128, COLUMNS), -128, np.int64)  # digits are all zero ...
    w[:, 0] = 127  # ... or all one
    form = analog(128, adc_bits=adc_bits).form()
    assert pack(form, w, exact_input=True).exact is exact
    assert not pack(form, w, exact_input=False).exact


def test_weights_that_changed_are_packed_anew() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (TILES, 64)).astype(np.uint8)
    w = rng.integers(-128, 128, (TILES, 64, COLUMNS)).astype(np.int8)
    program = arrays(analog(64, adc_bits=4), x, w, reload=True)
    once = Executor(program, None)
    first = once.run({"x": x})["acc"]
    assert (once.run({"x": x})["acc"] == first).all()
    assert (first == execute(program, None, {"x": x}, "plain")["acc"]).all()


def test_unwritten_weights_are_found() -> None:
    x, w = np.ones((TILES, 64), np.uint8), np.ones((TILES, 64, COLUMNS), np.int8)
    program = dataclasses.replace(arrays(analog(64, adc_bits=4), x, w), setup=())
    with pytest.raises(VerifyError, match="reads element 0 of buffer array"):
        execute(program, None, {"x": x})


def test_a_subclass_does_not_pass_for_its_base() -> None:
    class Doubled(Mvm):
        """Means something else than the product."""

        def execute(self, machine: Machine, loops: Mapping[str, int]) -> None:
            """Twice the product."""
            for _ in range(2):
                Mvm.execute(self, machine, loops)

    x, w = np.ones((TILES, 64), np.uint8), np.ones((TILES, 64, COLUMNS), np.int8)
    form = analog(64)
    program = arrays(Doubled(form.acc, form.x, form.w), x, w)
    zero = Fill(View("acc", Affine(), ((TILES * COLUMNS, 1),)))
    stream = dataclasses.replace(program.streams[0], body=(zero, *program.streams[0].body))
    program = dataclasses.replace(program, streams=(stream,))
    assert (execute(program, None, {"x": x})["acc"] == 128).all()
