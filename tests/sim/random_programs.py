"""Small random programs: every common instruction, views of every kind, some of them wrong."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from cimc.ir.program import (
    Accumulate,
    Affine,
    Bound,
    Buffer,
    Combine,
    Copy,
    Fill,
    Instr,
    Item,
    Lookup,
    Loop,
    Mvm,
    Patch,
    Program,
    Rescale,
    Signal,
    Stream,
    View,
    Wait,
)
from cimc.ir.types import Array, Type, int_range, is_integer, numpy_dtype

ELEMENTS = 96
LOOPS = (("p", 3), ("q", 2))
DTYPES = ("i8", "u8", "i16", "u16", "i32", "f32", "i4")
INITIAL = ("i8", "u8", "i16", "i32", "f32", "i4")  # buffers with content from the start
SHIFTS = "shifts"

affines = st.builds(
    lambda const, p, q: Affine(const, tuple((v, f) for v, f in (("p", p), ("q", q)) if f)),
    st.integers(0, 6),
    st.sampled_from([0, 0, 1, 2, 5]),
    st.sampled_from([0, 0, 1, -1, 7]),
)


def content(dtype: str, seed: int) -> Array:
    """Random elements of a type; floats are multipliers as a requantization has them."""
    rng = np.random.default_rng(seed)
    if not is_integer(dtype):
        return (rng.random(ELEMENTS) * 2e-3).astype(numpy_dtype(dtype))
    low, high = int_range(dtype)
    low, high = max(low, -100_000), min(high, 100_000)
    return rng.integers(low, high + 1, ELEMENTS).astype(numpy_dtype(dtype))


def buffers() -> tuple[Buffer, ...]:
    """One buffer with content and one without for each type, the latter partly one upon another."""
    found: list[Buffer] = []
    address = 0
    for dtype in DTYPES:
        size = numpy_dtype(dtype).itemsize
        if dtype in INITIAL:
            found.append(Buffer(f"{dtype}.set", "m", dtype, ELEMENTS, 1, address, f"{dtype}.set"))
            address += ELEMENTS * size
        found.append(Buffer(f"{dtype}.new", "m", dtype, ELEMENTS, 1, address))
        address += ELEMENTS * size - (32 if dtype == "u16" else 0)
    found.append(Buffer(SHIFTS, "m", "i32", ELEMENTS, 1, address, SHIFTS))
    return tuple(found)


@st.composite
def dims(draw: st.DrawFn, axes: int | None = None) -> tuple[tuple[int, int], ...]:
    """Axes of a view: contiguous, broadcast, strided or running backwards."""
    count = draw(st.integers(1, 3)) if axes is None else axes
    extents = [draw(st.integers(1, 4)) for _ in range(count)]
    return tuple(zip(extents, strides(draw, extents), strict=True))


def strides(draw: st.DrawFn, extents: list[int], apart: bool = False) -> list[int]:
    """One stride for each axis; `apart`: mostly such that no element is met twice."""
    found: list[int] = []
    run = 1
    for extent in reversed(extents):
        choices = [run, run, run, -run, 2 * run]
        found.insert(0, draw(st.sampled_from(choices * 4 + [0] if apart else [*choices, 0, 1])))
        run = abs(found[0]) * extent or run
    return found


@st.composite
def views(draw: st.DrawFn, dtypes: tuple[str, ...], extents: tuple[int, ...], new: bool) -> View:
    """A view with these extents, mostly inside a buffer of one of these types."""
    dtype = draw(st.sampled_from(dtypes))
    kinds = ["new"] if new else ["set"] * 15 + ["new"]
    kind = draw(st.sampled_from(kinds)) if dtype in INITIAL else "new"
    steps = strides(draw, list(extents), apart=new)
    lowest = sum(min((e - 1) * s, 0) for e, s in zip(extents, steps, strict=True))
    offset = draw(affines) + (12 - lowest)
    return View(f"{dtype}.{kind}", offset, tuple(zip(extents, steps, strict=True)))


@st.composite
def bounds(draw: st.DrawFn, axes: int) -> tuple[Bound, ...]:
    """Up to two bounds."""
    one = st.builds(
        Bound,
        st.builds(lambda a, c: a + c, affines, st.integers(-6, 2)),
        st.tuples(*[st.integers(-2, 2)] * axes),
        st.integers(1, 9),
    )
    return tuple(draw(st.lists(one, max_size=2)))


@st.composite
def instrs(draw: st.DrawFn) -> Instr:
    """One instruction, with conditions on loops."""
    extents = tuple(extent for extent, _ in draw(dims()))
    axes = len(extents)
    when = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["p", "q"]),
                st.sampled_from(["first", "last", "not-first", "not-last"]),
            ),
            max_size=1,
        )
    )

    def old(*dtypes: str) -> View:
        return draw(views(dtypes, extents, new=False))

    def new(*dtypes: str) -> View:
        return draw(views(dtypes, extents, new=True))

    match draw(st.integers(0, 7)):
        case 0:
            dtype = draw(st.sampled_from(DTYPES))
            made: Instr = Copy(
                new(*[dtype] * 7, "i32"),
                old(dtype),
                draw(st.integers(-8, 7)) if dtype[0] == "i" else 3,
                draw(bounds(axes)),
                draw(bounds(axes)),
            )
        case 1:
            made = Fill(new(*DTYPES), draw(st.integers(-3, 7)))
        case 2:
            made = draw(patches())
        case 3:
            dtypes = ("i8", "u8", "i16", "i32", "i4")
            made = Mvm(new("i32"), old(*dtypes), old(*dtypes), draw(st.booleans()))
        case 4:
            made = Accumulate(new("i32"), old("i32"), old("i32"))
        case 5:
            made = draw(rescales(extents))
        case 6:
            dtype = draw(st.sampled_from(["i8", "i32", "f32", "i16"]))
            table = View(f"{dtype}.set", draw(affines), ((draw(st.integers(15, 20)), 2),))
            lowest = draw(st.integers(-10, -8))
            made = Lookup(
                new(dtype), old("i4", "i4", "i4", "i8"), table, lowest, draw(bounds(axes))
            )
        case _:
            zeros = st.integers(-5, 5)
            scales = st.sampled_from([0.5, 0.037, 1.25])
            made = Combine(
                new("i8", "i8", "i8", "u8", "i16"),
                old("i8", "i8", "i8", "u8", "i16"),
                old("i8", "i8", "i8", "u8", "i16"),
                draw(st.sampled_from(["add", "sub", "mul", "max", "min", "div"])),
                draw(scales),
                draw(zeros),
                draw(scales),
                draw(zeros),
                draw(scales),
                draw(zeros),
                draw(st.integers(0, 9)),
                draw(st.integers(30, 127)),
                draw(bounds(axes)),
            )
    object.__setattr__(made, "when", tuple(when))
    return made


@st.composite
def rescales(draw: st.DrawFn, extents: tuple[int, ...]) -> Rescale:
    """Float32 or fixed-point rounding, with or without gain and bias."""
    is_fixed = draw(st.booleans())
    shift = View(SHIFTS, draw(affines), tuple((extent, 0) for extent in extents))
    return Rescale(
        draw(views(("i8", "u8", "i16", "i32"), extents, new=True)),
        draw(views(("i32",), extents, new=False)),
        draw(views(("i32",), extents, new=False)) if draw(st.booleans()) else None,
        draw(views(("i32" if is_fixed else "f32",), extents, new=False)),
        shift if is_fixed else None,
        draw(st.integers(-3, 3)),
        draw(st.integers(-10, 0)),
        draw(st.integers(10, 100)),
        draw(bounds(len(extents))),
        draw(views(("i32",), extents, new=False)) if draw(st.booleans()) else None,
    )


@st.composite
def patches(draw: st.DrawFn) -> Patch:
    """A run of a window over a feature map of 3 channels, 4 rows, 5 columns."""
    dtype = draw(st.sampled_from(["i8", "i8", "u8", "i32"]))
    return Patch(
        draw(views((dtype,), (draw(st.integers(1, 9)),), new=True)),
        View(f"{dtype}.set", Affine(draw(st.integers(0, 3))), ((60, 1),)),
        draw(affines),
        draw(affines) + draw(st.integers(-5, 0)),
        draw(affines) + draw(st.integers(-5, 0)),
        (3, 4, 5),
        draw(st.sampled_from([(3, 3), (1, 1), (2, 3)])),
        draw(st.sampled_from([(1, 1), (2, 1)])),
        draw(st.integers(0, 7)),
    )


def program(streams: list[list[Instr]]) -> Program:
    """Streams of instructions inside the two loops, with the buffers above."""
    tensors = {b.init: content(b.dtype, n) for n, b in enumerate(buffers()) if b.init is not None}
    tensors[SHIFTS] = np.random.default_rng(1).integers(0, 20, ELEMENTS).astype(np.int32)
    bodies = []
    for number, items in enumerate(streams):
        body: tuple[Item, ...] = tuple(items)
        for var, count in reversed(LOOPS):
            body = (Loop(var, count, body),)
        bodies.append(Stream(f"s{number}", body))
    outputs = (("i8.set", Type("i8", (ELEMENTS,))),)
    return Program("random", "none", (), outputs, buffers(), (), tuple(bodies), tensors)


counted = st.sampled_from(["u8.new", "i32.new", "i8.set"])  # buffers whose progress counts
signals = st.builds(Signal, counted, st.integers(1, 2))
waits = st.builds(Wait, counted, affines, st.integers(0, 12))
bodies = st.lists(st.one_of(instrs(), instrs(), instrs(), signals, waits), min_size=1, max_size=5)
programs = st.lists(bodies, min_size=1, max_size=3).map(program)
