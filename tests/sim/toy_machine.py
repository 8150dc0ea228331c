"""A machine whose instructions say themselves what they hold, and random programs for it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hypothesis import strategies as st

from cimc.errors import Fault
from cimc.ir.graph import Graph, Op
from cimc.ir.program import (
    Affine,
    Buffer,
    Instr,
    Item,
    Loop,
    Program,
    Signal,
    Stream,
    View,
    Wait,
    executions,
    parse_program,
    register_instr,
    var,
    walk,
)
from cimc.ir.tiles import Layer, Tiles
from cimc.kind import Cost, Options, Price
from cimc.target import Target, TargetSpec


@register_instr
@dataclass(frozen=True, slots=True)
class Work(Instr):
    """Something that takes time: `holds` are its units, `cycles` the time until its result."""

    dst: View | None
    a: View | None = None
    b: View | None = None
    acc: View | None = None
    holds: tuple[tuple[str, int], ...] = ()
    cycles: int = 1
    fresh: bool = False
    events: tuple[tuple[str, int], ...] = ()
    mnemonic: ClassVar[str] = "work"
    writes: ClassVar[tuple[str, ...]] = ("dst",)
    updates: ClassVar[tuple[str, ...]] = ("acc",)


@dataclass
class Toy:
    """The kind of the toy machine."""

    prices: tuple[tuple[str, str], ...] = (("array.reads", "vector.op_pj"),)  # event -> key
    name: str = "toy"
    summary: str = "a toy"

    def place(self, op: Op, graph: Graph, target: Target) -> str | Fault:
        return "vector"

    def map(self, tiles: Tiles, target: Target, options: Options) -> Tiles:
        return tiles

    def lower(self, tiles: Tiles, target: Target) -> Program:
        raise NotImplementedError

    def cost(self, instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
        assert isinstance(instr, Work)
        return Cost(instr.holds, instr.cycles, instr.events)

    def energies(self, target: Target) -> Mapping[str, Price]:
        prices = {"link.bits": target.spec.link.pj_per_bit, "array.reads": target.spec.vector.op_pj}
        return {event: Price(prices[event], (key,)) for event, key in self.prices}

    def area(self, target: Target) -> Mapping[str, float]:
        return {"memory.m": 2.0, "array": 1.5}

    def estimate(self, layer: Layer, tiles: Tiles, target: Target) -> Cost:
        return Cost((), 1, ())


def toy_target(**vector: float) -> Target:
    """A target of two cores; `vector` replaces values of that table."""
    content = {
        "kind": "toy",
        "summary": "a toy",
        "source": "none",
        "cores": 2,
        "clock": {"period_ns": 2.0, "source": "assumed"},
        "memory": {
            "m": {
                "size_bits": 1024,
                "per": "core",
                "read_bits_per_cycle": 8,
                "write_bits_per_cycle": 8,
                "read_pj_per_bit": 1.0,
                "write_pj_per_bit": 1.0,
                "leakage_pj_per_cycle": 0.25,
                "source": "none",
            }
        },
        "vector": {
            "per": "chip",
            "lanes": 1,
            "float_lanes": 1,
            "op_pj": 2.0,
            "float_op_pj": 1.0,
            "source": "none",
            "assumed": ["op_pj"],
            **vector,
        },
        "link": {"bits_per_cycle": 8, "pj_per_bit": 0.5, "source": "none"},
    }
    return Target("toy", "toy.toml", TargetSpec.model_validate(content))


def whole(name: str) -> View:
    """A view of one element."""
    return View(name, Affine(), ((1, 1),))


def program(buffers: Mapping[str, int], *streams: tuple[Item, ...]) -> Program:
    """A program of streams s0, s1 ...; `buffers` gives names and slots."""
    made = tuple(Buffer(name, "m", "i8", 4, slots) for name, slots in buffers.items())
    named = tuple(Stream(f"s{number}", body) for number, body in enumerate(streams))
    return Program("toy", "toy", (), (), made, (), named)


def work(
    unit: str,
    held: int,
    *,
    to: str | None = None,
    of: Sequence[str] = (),
    acc: str | None = None,
    cycles: int | None = None,
    fresh: bool = False,
    when: tuple[tuple[str, str], ...] = (),
    layer: str = "",
    events: tuple[tuple[str, int], ...] = (),
) -> Work:
    """A `Work` that holds one unit; its result is ready when the unit is free, by default."""
    views = [whole(name) for name in of] + [None, None]
    return Work(
        whole(to) if to else None,
        views[0],
        views[1],
        whole(acc) if acc else None,
        ((unit, held),),
        held if cycles is None else cycles,
        fresh,
        events,
        when=when,
        layer=layer,
    )


# --- random programs ---


@dataclass
class _Writer:
    """Writes one random stream."""

    rng: random.Random
    name: str
    units: list[str]
    private: list[str]
    taken: list[tuple[str, int]]  # buffers of earlier streams, with their progress in all
    made: str | None  # the buffer that this stream hands on
    longest: int  # executions of one instruction
    loops: int = 0

    def body(self, around: list[str], times: int) -> list[Item]:
        items: list[Item] = []
        for _ in range(self.rng.randint(1, 3 if around else 4)):
            draw = self.rng.random()
            if draw < 0.45 and len(around) < 3:
                count = self.rng.choice([0, 1, 2, 3, 5, 7, 8, 12, 20, 60])
                count = count if times * count <= self.longest else 2
                self.loops += 1
                name = f"{self.name}i{self.loops}"
                inner = tuple(self.body([*around, name], times * max(count, 1)))
                items.append(Loop(name, count, inner))
            elif draw < 0.55 and self.made:
                when = self.when(around, ("first", "last"))
                items.append(Signal(self.made, self.rng.randint(1, 3), when=when))
            elif draw < 0.65 and self.taken:
                items.append(self.wait(around))
            else:
                items.append(self.work(around))
        return items

    def when(self, around: list[str], words: Sequence[str]) -> tuple[tuple[str, str], ...]:
        chosen = [name for name in around if self.rng.random() < 0.12]
        return tuple((name, self.rng.choice(words)) for name in chosen)

    def wait(self, around: list[str]) -> Wait:
        buffer, total = self.rng.choice(self.taken)
        count = Affine(self.rng.randint(-2, 3))
        for name in around:
            if self.rng.random() < 0.5:
                count = count + var(name) * self.rng.randint(-1, 2)
        when = self.when(around, ("first", "last", "not-first"))
        return Wait(buffer, count, total, when=when)

    def work(self, around: list[str]) -> Work:
        rng = self.rng
        sources = [name for name in self.private if rng.random() < 0.3]
        sources += [name for name, _ in self.taken if rng.random() < 0.3]
        rng.shuffle(sources)
        views = [whole(name) for name in sources] + [None, None]
        targets = [*self.private, None, *([self.made] if self.made else [])]
        dst, acc = rng.choice(targets), rng.choice([*self.private, None, None, None])
        holds = tuple((unit, rng.randint(1, 9)) for unit in self.units if rng.random() < 0.5)
        cycles = max((held for _, held in holds), default=0) + rng.choice([0, 0, 0, 1, 7])
        return Work(
            whole(dst) if dst else None,
            views[0],
            views[1],
            whole(acc) if acc else None,
            holds,
            cycles,
            rng.random() < 0.3,
            when=self.when(around, ("first", "last", "not-first", "not-last")),
            layer=f"layer {self.name}",
        )


def random_program(rng: random.Random, longest: int = 3000) -> Program:
    """One to three streams with nested loops, double buffers, shared units, signals and waits."""
    streams, buffers = [], []
    handed_on: list[tuple[str, int]] = []
    count = rng.choice([1, 1, 2, 3])
    shared = [f"u{number}" for number in range(rng.randint(1, 4))]
    are_apart, has_bus = rng.random() < 0.4, rng.random() < 0.3
    for number in range(count):
        units = shared
        if are_apart:
            units = [f"u{number}.{unit}" for unit in range(rng.randint(1, 3))]
        units = [*units, "bus"] if has_bus and rng.random() < 0.6 else units
        private = [f"p{number}.{place}" for place in range(rng.randint(1, 4))]
        has_addresses = rng.random() < 0.3
        for name in private:
            address = rng.choice([0, 4, 8, 100]) if has_addresses else None
            buffers.append(Buffer(name, "m", "i8", 4, rng.choice([1, 1, 2, 2, 3]), address))
        made = f"f{number}" if number < count - 1 or rng.random() < 0.5 else None
        writer = _Writer(rng, f"s{number}", units, private, handed_on.copy(), made, longest)
        body = [Wait(name, Affine(total), total) for name, total in handed_on if rng.random() < 0.3]
        items: list[Item] = [*body, *writer.body([], 1)]
        if made:
            items.append(Signal(made))
            buffers.append(Buffer(made, "m", "i8", 4, rng.choice([1, 2])))
        items += [Wait(name, Affine(total), total) for name, total in handed_on]
        streams.append(Stream(f"s{number}", tuple(items)))
        if made:
            signals = [(instr, loops) for instr, loops in walk(items) if isinstance(instr, Signal)]
            handed_on.append((made, sum(s.count * executions(s, loops) for s, loops in signals)))
    made_program = Program("random", "toy", (), (), tuple(buffers), (), tuple(streams))
    assert parse_program(str(made_program)) == made_program
    return made_program


random_programs = st.randoms(use_true_random=False).map(random_program)
