"""Programs with one thing wrong, each with words for what it is."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from cimc.ir.graph import digest_of
from cimc.ir.program import (
    Combine,
    Instr,
    Item,
    Loop,
    Program,
    Rescale,
    Signal,
    Stream,
    Wait,
    instr_text,
    views,
)
from cimc.targets.rtm_ap import ApLoad, ApRun, isa

Mutant = tuple[str, Program]
Place = tuple[int, int]  # 0 for setup or the stream's number + 1; which of its instructions
Changes = Mapping[Place, Sequence[Instr]]


def dropped(program: Program) -> Iterator[Mutant]:
    """Without one of its instructions, but for waits and for signals that nobody hears."""
    heard = {instr.buffer for instr, _ in _instrs(program) if isinstance(instr, Wait)}
    for instr, place in _instrs(program):
        unheard = isinstance(instr, Signal) and instr.buffer not in heard
        if not unheard and not isinstance(instr, Wait):
            yield f"no {instr_text(instr)}", _changed(program, {place: ()})


def impatient(program: Program) -> Iterator[Mutant]:
    """Without the waits of one stream for others."""
    for number, stream in enumerate(program.streams):
        made = {i.buffer for i in _flat(stream.body) if isinstance(i, Signal)}
        others = (i for i in _flat(stream.body) if isinstance(i, Wait) and i.buffer not in made)
        if not any(others):
            continue
        body = _without(stream.body, Wait)
        streams = list(program.streams)
        streams[number] = Stream(stream.name, body)
        yield f"{stream.name} does not wait", _replaced(program, streams=tuple(streams))


def swapped(program: Program) -> Iterator[Mutant]:
    """Two instructions of different layers that read each other's arrays."""
    at = {buffer.name: (buffer.memory, buffer.address) for buffer in program.buffers}
    users = [(instr, place) for instr, place in _instrs(program) if "w" in views(instr)]
    for (one, first), (two, second) in itertools.combinations(users, 2):
        w, other = views(one)["w"], views(two)["w"]
        if one.layer != two.layer and at[w.buffer] != at[other.buffer] and w.dims == other.dims:
            mutant = _changed(program, {first: (_reading(one, other.buffer),)})
            yield (
                f"{w.buffer} and {other.buffer} swapped",
                _changed(mutant, {second: (_reading(two, w.buffer),)}),
            )


def clamped(program: Program) -> Iterator[Mutant]:
    """A layer whose results keep three bits less, or lie one higher."""
    found: dict[str, list[tuple[Instr, Place]]] = {}
    for instr, place in _instrs(program):
        if isinstance(instr, Rescale | Combine):
            found.setdefault(f"{instr.mnemonic} of {instr.layer}", []).append((instr, place))
    for what, instrs in found.items():
        fewer, higher = {}, {}
        for instr, place in instrs:
            assert isinstance(instr, Rescale | Combine)
            low, high = instr.low // 8, instr.high // 8
            fewer[place] = (dataclasses.replace(instr, low=low, high=high),)
            higher[place] = (dataclasses.replace(instr, zero=instr.zero + 1),)
        yield f"{what}: fewer bits", _changed(program, fewer)
        yield f"{what}: another zero point", _changed(program, higher)


def misplaced(program: Program) -> Iterator[Mutant]:
    """One buffer at the address of another one that an instruction reads together with it."""
    buffers = program.buffer_map()
    pairs: set[frozenset[str]] = set()
    for instr, _ in _instrs(program):
        names = {v.buffer for name, v in views(instr).items() if name not in instr.writes}
        pairs |= {frozenset(pair) for pair in itertools.combinations(sorted(names), 2)}
    for pair in sorted(pairs, key=sorted):
        one, two = (buffers[name] for name in sorted(pair))
        if one.memory == two.memory and not (one.address or 0) % 8:
            moved = dataclasses.replace(two, address=one.address)
            where = f"{two.name} at the address of {one.name}"
            yield (
                where,
                _replaced(
                    program, buffers=tuple(moved if b is two else b for b in program.buffers)
                ),
            )


def forgotten(program: Program) -> Iterator[Mutant]:
    """Constants that nobody loads."""
    for buffer in program.buffers:
        if buffer.init is not None:
            bare = dataclasses.replace(buffer, init=None)
            yield (
                f"no content for {buffer.name}",
                _replaced(
                    program, buffers=tuple(bare if b is buffer else b for b in program.buffers)
                ),
            )


def narrowed(program: Program) -> Iterator[Mutant]:
    """Column operations of racetrack arrays with one bit less, or inputs loaded with one less."""
    buffers = program.buffer_map()
    codes: dict[str, None] = {}
    for instr, place in _instrs(program):
        if isinstance(instr, ApLoad) and instr.bits > 1:
            what = f"{instr_text(instr)} with {instr.bits - 1} bits"
            yield (
                what,
                _changed(program, {place: (dataclasses.replace(instr, bits=instr.bits - 1),)}),
            )
        if isinstance(instr, ApRun):
            codes[instr.code.buffer] = None
    for name in codes:
        init = buffers[name].init
        words = program.tensors[str(init)].astype(np.uint32)
        wide = (words >> isa.WIDTH_AT & 0x3F > 1) & (words & 0x1F != isa.INTO)
        if not wide.any():
            continue
        words[wide] -= np.uint32(1 << isa.WIDTH_AT)
        digest = digest_of(words)
        held = tuple(
            dataclasses.replace(buffer, init=digest) if buffer.name == name else buffer
            for buffer in program.buffers
        )
        tensors = {**program.tensors, digest: words}
        yield f"{name}: widths of one bit less", _replaced(program, buffers=held, tensors=tensors)


MUTATIONS: tuple[Callable[[Program], Iterator[Mutant]], ...] = (
    dropped, impatient, swapped, clamped, misplaced, forgotten, narrowed,
)  # fmt: skip


def _instrs(program: Program) -> Iterator[tuple[Instr, Place]]:
    bodies = [program.setup, *(stream.body for stream in program.streams)]
    for number, body in enumerate(bodies):
        for position, instr in enumerate(_flat(body)):
            yield instr, (number, position)


def _flat(items: Sequence[Item]) -> Iterator[Instr]:
    for item in items:
        if isinstance(item, Loop):
            yield from _flat(item.body)
        else:
            yield item


def _changed(program: Program, changes: Changes) -> Program:
    """The program with other instructions in these places."""

    def body(number: int, items: Sequence[Item]) -> tuple[Item, ...]:
        return tuple(_edit(items, number, itertools.count(), changes))

    streams = (
        Stream(stream.name, body(number + 1, stream.body))
        for number, stream in enumerate(program.streams)
    )
    return _replaced(program, setup=body(0, program.setup), streams=tuple(streams))


def _edit(
    items: Sequence[Item], number: int, counter: Iterator[int], changes: Changes
) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Loop):
            yield Loop(item.var, item.count, tuple(_edit(item.body, number, counter, changes)))
        else:
            yield from changes.get((number, next(counter)), (item,))


def _without(items: Sequence[Item], kind: type[Instr]) -> tuple[Item, ...]:
    return tuple(
        Loop(item.var, item.count, _without(item.body, kind)) if isinstance(item, Loop) else item
        for item in items
        if not isinstance(item, kind)
    )


def _reading(instr: Instr, buffer: str) -> Instr:
    return dataclasses.replace(instr, w=dataclasses.replace(views(instr)["w"], buffer=buffer))  # type: ignore[call-arg]


def _replaced(program: Program, **fields: object) -> Program:
    return dataclasses.replace(program, **fields)  # type: ignore[arg-type]
