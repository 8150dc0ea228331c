"""How each instruction with a kernel is encoded: the payload as the kernel reads it.

A function raises Unencodable where the kernel does not cover a case: other element types, values
that may leave a type's range, views that meet an element twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, singledispatch

import numpy as np

from cimc.ir.evaluate.numbers import fused_multiply_add
from cimc.ir.program import (
    Accumulate,
    Affine,
    Bound,
    Combine,
    ConverterMvm,
    Copy,
    Fill,
    Instr,
    Lookup,
    Mvm,
    Patch,
    Rescale,
    Signal,
    View,
    Wait,
)
from cimc.ir.types import int_range, is_integer
from cimc.sim.execute import codes
from cimc.sim.execute.axes import (
    Unencodable,
    common,
    copy_rows,
    is_once,
    own,
    product_rows,
    table,
)
from cimc.sim.execute.encode import KINDS, Encoder

_FREE = codes.FREE
_MOST_ARRAYS = 1 << 16  # places of the weights of one converter instruction
_COMBINE = {
    "add": codes.ADD,
    "sub": codes.SUB,
    "mul": codes.MUL,
    "max": codes.MAX,
    "min": codes.MIN,
}


def encode_instr(to: Encoder, instr: Instr) -> None:
    """Encode an instruction, or the form that its kind gives it."""
    # a subclass may mean something else than its base
    form = instr if type(instr) in _form.registry else instr.form()
    if form is None or type(form) not in _form.registry:
        raise Unencodable
    _form(form, to, instr)


@singledispatch
def _form(form: object, to: Encoder, instr: Instr) -> None:
    raise Unencodable


@_form.register
def _(form: Signal, to: Encoder, instr: Instr) -> None:
    to.header(codes.SIGNAL, instr)
    to.body([], [to.numbers[form.buffer], form.count])


@_form.register
def _(form: Wait, to: Encoder, instr: Instr) -> None:
    to.header(codes.WAIT, instr)
    count = to.affine(form.count)
    to.body([count], [to.numbers[form.buffer], form.limit])


@_form.register
def _(form: Copy, to: Encoder, instr: Instr) -> None:
    dtype, width = to.dtype(form.dst), to.place(form.dst).width
    bounds = [*form.read_bounds, *form.write_bounds]
    rows = copy_rows(form.dst.dims, form.src.dims, tuple(bound.steps for bound in bounds))
    if dtype != to.dtype(form.src) or rows[-1][1][0] == 0 < rows[-1][0] - 1:
        raise Unencodable
    to.header(codes.COPY, instr, form.dst)
    positions = [
        to.position(form.dst, free=bool(form.write_bounds)),
        to.position(form.src, free=bool(bounds)),
        *to.coordinates(bounds),
    ]
    to.body(
        positions,
        [
            width,
            *table(rows),
            _bits(form.fill if form.read_bounds else 0, dtype),
            len(form.read_bounds),
            len(form.write_bounds),
            *(bound.limit for bound in bounds),
            *to.limits_of(form.dst),
            *to.limits_of(form.src),
            *to.element_ends(form.dst, form.src),
        ],
    )


@_form.register
def _(form: Fill, to: Encoder, instr: Instr) -> None:
    value = _bits(form.value, to.dtype(form.dst))
    rows = common((form.dst.dims,), ())
    to.header(codes.FILL, instr, form.dst)
    width = to.place(form.dst).width
    to.body([to.position(form.dst)], [width, *table(rows), value])


@_form.register
def _(form: Patch, to: Encoder, instr: Instr) -> None:
    dtype, width = to.dtype(form.dst), to.place(form.dst).width
    (count, to_stride), (elements, stride) = form.dst.dims[0], form.src.dims[0]
    fits = elements >= form.shape[0] * form.shape[1] * form.shape[2]
    if width > 1 or dtype != to.dtype(form.src) or not fits or count <= 0:
        raise Unencodable
    to.header(codes.PATCH, instr, form.dst)
    positions = [
        to.position(form.dst),
        to.position(form.src),
        to.affine(form.first, low=0),
        to.affine(form.row),
        to.affine(form.column),
    ]
    shape = [count, to_stride, stride, *form.shape, *form.kernel, *form.dilation]
    apart = to.element_ends(form.dst, form.src)
    to.body(positions, [*shape, _bits(form.fill, dtype), *apart])


@_form.register
def _(form: Mvm, to: Encoder, instr: Instr) -> None:
    payload = _mvm_payload(form, to)
    to.header(codes.MVM, instr, form.acc)
    to.body([to.position(view) for view in (form.acc, form.x, form.w)], payload)


def _mvm_payload(form: Mvm, to: Encoder) -> list[int]:
    views = (form.acc, form.x, form.w)
    _need(to, form.acc, "i32")
    if not is_once(tuple(dim for dim in form.acc.dims if dim[1])):
        raise Unencodable
    kinds = [to.kind(form.x), to.kind(form.w)]
    rows = product_rows(form.acc.dims, form.x.dims, form.w.dims)
    reach = [end for view in views for end in to.byte_ends(view)[1:3]]
    checked = [*own(form.x.dims), *own(form.w.dims), *own(form.acc.dims)]
    return [*table(rows), *kinds, form.fresh, *reach, *checked]


@_form.register
def _(form: Accumulate, to: Encoder, instr: Instr) -> None:
    views = (form.dst, form.a, form.b)
    for view in views:
        _need(to, view, "i32")
    rows = common(tuple(view.dims for view in views), ())
    to.header(codes.ACCUMULATE, instr, form.dst)
    apart = [to.element_ends(form.dst, view) for view in (form.a, form.b)]
    to.body([to.position(view) for view in views], [*table(rows), *apart[0], *apart[1]])


@_form.register
def _(form: Rescale, to: Encoder, instr: Instr) -> None:
    views = (form.dst, form.acc, form.multiplier, form.bias, form.shift, form.gain)
    for view in (form.acc, form.bias, form.shift, form.gain):
        _need(to, view, "i32")
    _need(to, form.multiplier, "f32" if form.shift is None else "i32")
    _range(to, form.dst, form.low, form.high)
    settings = [to.kind(form.dst), form.zero, form.low, form.high]
    settings += [form.bias is not None, form.shift is not None, form.gain is not None]
    _elementwise(to, instr, codes.RESCALE, views, form.write_bounds, settings)


@_form.register
def _(form: Lookup, to: Encoder, instr: Instr) -> None:
    dtype = to.dtype(form.dst)
    if dtype != to.dtype(form.table):
        raise Unencodable
    ((entries, stride),) = form.table.dims
    kind = codes.I32 if dtype == "f32" else to.kind(form.dst)
    settings = [kind, to.kind(form.src), form.lowest, entries, stride]
    views = (form.dst, form.src, form.table)
    _elementwise(to, instr, codes.LOOKUP, views, form.write_bounds, settings, still=2)
    to.code += own(form.table.dims)


@_form.register
def _(form: Combine, to: Encoder, instr: Instr) -> None:
    views = (form.dst, form.a, form.b)
    dtypes = {to.dtype(view) for view in views}
    _range(to, form.dst, form.low, form.high)
    if form.fn not in _COMBINE:
        raise Unencodable
    fn = _COMBINE[form.fn]
    a, b, out = np.float32(form.a_scale), np.float32(form.b_scale), np.float32(form.scale)
    reals = [a, b, out]
    if len(dtypes) == 1 and dtypes <= {"i8", "u8"} and form.fn in ("add", "mul"):
        za, zb, zero = (np.float32(zero) for zero in (form.a_zero, form.b_zero, form.zero))
        if form.fn == "add":  # see cimc.ir.evaluate.elementwise.quantized_add
            fn, ra, rb = codes.FUSED_ADD, a / out, b / out
            reals = [ra, rb, np.float32(zero - fused_multiply_add(np.asarray(za), ra, rb * zb))]
        else:
            fn, reals = codes.FUSED_MUL, [a * b / out, b, out]
    kinds = [to.kind(view) for view in views]
    zeros = [form.a_zero, form.b_zero, form.zero]
    settings = [*kinds, fn, *zeros, form.low, form.high, len(to.reals)]
    _elementwise(to, instr, codes.COMBINE, views, form.write_bounds, settings)
    to.reals += [float(real) for real in reals]


def _elementwise(
    to: Encoder,
    instr: Instr,
    opcode: int,
    views: Sequence[View | None],
    bounds: Sequence[Bound],
    settings: list[int],
    still: int | None = None,
) -> None:
    """Axes, bounds, settings, and what keeps the result apart; view number `still` has no axes."""
    dst = views[0]
    if dst is None:
        raise Unencodable
    moving = (
        None if view is None or number == still else view.dims for number, view in enumerate(views)
    )
    rows = common(tuple(moving), tuple(bound.steps for bound in bounds))
    to.header(opcode, instr, dst)
    positions = [to.position(dst, free=bool(bounds))]
    apart = to.byte_ends(dst)
    for view in views[1:]:
        positions.append(to.affine(Affine()) if view is None else to.position(view))
        apart += [1, 0, 0, codes.APART] if view is None else to.byte_ends(view, dst)
    limits = [bound.limit for bound in bounds]
    to.body(
        [*positions, *to.coordinates(bounds)],
        [*table(rows), len(bounds), *limits, *to.limits_of(dst), *settings, *apart],
    )


@_form.register
def _(form: ConverterMvm, to: Encoder, instr: Instr) -> None:
    (rows, across), (_, sa) = form.acc.dims
    (_, sx), (_, along) = form.x.dims
    columns = form.w.dims[1][0]
    x_kind, w = to.kind(form.x), to.place(form.w)
    if across or along or len(form.w.dims) != 2:
        raise Unencodable
    payload = _mvm_payload(Mvm(form.acc, form.x, form.w, form.fresh), to)
    slot, total = _places(to, form.w.offset)
    to.header(codes.CONVERT, instr, form.acc)
    steps = [number for step in form.steps for number in step]
    head = [rows, columns, sa, sx, x_kind, form.active_rows, form.low, form.high, form.fresh]
    tail = [len(form.steps), *steps, *own(form.x.dims), *own(form.acc.dims)]
    positions = [to.position(view) for view in (form.acc, form.x, form.w)]
    to.body([*positions, slot], [w.memory, 0, *head, *tail, *payload])
    to.code[-len(payload) - len(tail) - len(head) - 1] = len(to.code) - len(payload)
    to.converters[len(to.instrs) - 1] = form
    to.rows += total


def _places(to: Encoder, offset: Affine) -> tuple[list[int], int]:
    """The row of the packed table as a position, and how many there are."""
    terms, total = [], 1
    for var, _ in offset.terms:
        terms.append((var, total))
        total *= to.count(var)
    if total > _MOST_ARRAYS:
        raise Unencodable
    return to.affine(Affine(0, tuple(terms)), to.rows), total


@cache
def sends_all(steps: tuple[tuple[int, int, int], ...], dtype: str) -> bool:
    """Whether the steps stand for every value of an element type."""
    low, high = int_range(dtype)
    if high - low >= 1 << 16:
        return False
    x = np.arange(low, high + 1)
    sent = np.zeros_like(x)
    for factor, bottom, width in steps:
        sent += factor * ((x >> bottom) & ((1 << width) - 1))
    return bool((sent == x).all())


def _need(to: Encoder, view: View | None, dtype: str) -> None:
    if view is not None and to.dtype(view) != dtype:
        raise Unencodable


def _range(to: Encoder, view: View, low: int, high: int) -> None:
    """Values low .. high must fit; kernels do not look."""
    dtype = to.dtype(view)
    if dtype not in KINDS or not int_range(dtype)[0] <= low <= high <= int_range(dtype)[1]:
        raise Unencodable


def _bits(value: int, dtype: str) -> int:
    """A constant as the bits of an element."""
    if is_integer(dtype):
        low, high = int_range(dtype)
        if not low <= value <= high:
            raise Unencodable
        return value if value < 1 << 63 else value - (1 << 64)
    if dtype == "f16":
        return int(np.float16(value).view(np.int16))
    return int(
        np.float32(value).view(np.int32) if dtype == "f32" else np.float64(value).view(np.int64)
    )
