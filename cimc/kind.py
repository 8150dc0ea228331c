"""What a machine kind tells the rest of the tool. Built-in kinds and plug-ins use this interface
and nothing else.

A kind is a module named by the entry point group `cimc.kinds` (value `package.module:KIND`), with
`package.module_spec` beside it holding `SPEC`, the schema of its target files (kept apart so that
listing targets imports nothing heavy).

The compiler asks, in this order: which ops can the array do (`place`), how does each heavy op lie
on the machine (`map`), which instructions is that (`lower`). The simulator asks what each
instruction holds and counts (`cost`), the reports what an event costs (`energies`) and how large
the machine is (`area`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

from cimc.errors import Fault, InternalError
from cimc.ir.graph import Graph, Op, operands
from cimc.ir.program import (
    Buffer,
    Copy,
    Fill,
    Instr,
    Mvm,
    Patch,
    Program,
    Signal,
    VectorOp,
    Wait,
    views,
)
from cimc.ir.tiles import Layer, Tiles
from cimc.ir.types import bits_of
from cimc.target import Target, kind_entries


@dataclass(frozen=True, slots=True)
class Cost:
    """What one execution of an instruction takes.

    `holds`: (unit, cycles) pairs, all taken at the start; a unit is free again after its cycles,
    and what the instruction reads may be overwritten after the longest of them. `cycles`: until the
    result is ready. `events`: how often each priced event happens, named "component.event". The
    cost is the same at every iteration: it is asked for once.
    """

    holds: tuple[tuple[str, int], ...]
    cycles: int
    events: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Price:
    """Energy of one event and the dotted key of the target file that says so (several keys: all
    that enter).
    """

    pj: float
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked of the mapping."""

    level: int = 2  # -O0 .. -O3
    host_fallback: bool = False
    time_limit_s: float = 60.0  # for all layers; -O3 alone
    objective: str = "latency"  # "latency", "energy", "edp" or a sum: "0.3*latency+0.7*energy"
    layer_time_limit_s: float | None = None  # for one layer at a time
    gap: float = 0.0  # share of the cost that need not be proven
    jobs: int | None = None  # searches at the same time; None: one on each core


class Kind(Protocol):
    """A machine kind."""

    name: str
    summary: str

    def place(self, op: Op, graph: Graph, target: Target) -> str | Fault:
        """Where an op can run: "macro", "vector", or the fault that says why nowhere."""

    def map(self, tiles: Tiles, target: Target, options: Options) -> Tiles:
        """Choose a mapping for each macro layer; raises FitError with need, have and help where
        none fits.
        """

    def lower(self, tiles: Tiles, target: Target) -> Program:
        """Instructions and buffers (their addresses still open) for mapped tiles."""

    def cost(self, instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
        """Units, cycles and events of one execution of `instr`; `common_cost` knows the shared
        instructions. Units of a core begin with its name: "core3.array0".
        """

    def energies(self, target: Target) -> Mapping[str, Price]:
        """Price of every event that `cost` may count."""

    def area(self, target: Target) -> Mapping[str, float]:
        """mm2 by component, for the whole chip."""

    def estimate(self, layer: Layer, tiles: Tiles, target: Target) -> Cost:
        """Closed-form cycles (holds is empty) and events of one layer, without a program."""


@runtime_checkable
class NetworkKind(Protocol):
    """What a machine kind may also do: optimize across the layers of mapped tiles."""

    def keep_resident(
        self, tiles: Tiles, target: Target, options: Options, *, weights: bool
    ) -> Tiles:
        """Values, and `weights`, that stay on the chip; layers mapped beside them."""

    def fuse_rows(self, tiles: Tiles, target: Target, options: Options) -> Tiles:
        """Neighbouring layers that run together, some rows at a time."""

    def pipeline_cores(
        self, tiles: Tiles, target: Target, options: Options, *, stages: int
    ) -> Tiles:
        """Layers on cores of their own, each stage with another sample; 0 `stages`: any number."""


# --- what only some kinds have -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Worn:
    """A cell of the machine, and how often one inference changes it."""

    layer: str  # the layer that does so; "" for all layers together
    cell: str  # "array 3, column 255, domain 0"
    holds: str  # what is kept there
    changes: float


@dataclass(frozen=True, slots=True)
class Wear:
    """How a program wears its machine out; the first of `worn` fails first."""

    worn: tuple[Worn, ...]
    endurance: float  # changes that a cell survives
    model: str  # how the changes are known

    @property
    def inferences(self) -> float:
        """Until the first cell fails."""
        return self.endurance / self.worn[0].changes if self.worn[0].changes else math.inf


@runtime_checkable
class Wearing(Protocol):
    """A kind whose cells survive only so many changes."""

    def wear(self, program: Program, target: Target) -> Wear:
        """Its most used cells."""


class Disturbance(Protocol):
    """What is watched and what goes wrong in a machine during one trial."""

    states: Mapping[str, object]  # for `cimc.sim.execute.Executor`

    def findings(self, runs: int) -> Mapping[str, float]:
        """What was observed, per run, by name."""


@runtime_checkable
class Disturbed(Protocol):
    """A kind whose machine can be watched, and can compute other values than its program says."""

    def settings(self, target: Target) -> Mapping[str, float]:
        """What can be set, with the values of the target file: `cimc run --noise NAME=VALUE`."""

    def disturb(self, target: Target, settings: Mapping[str, float], seed: int) -> Disturbance:
        """A trial; equal seeds disturb equally.

        raises  UsageError for settings that it does not have, or values that it does not take
        """


@cache
def load_kind(name: str) -> Kind:
    """The machine kind called `name`."""
    entries = kind_entries()
    if name not in entries:
        raise InternalError(f"no machine kind is called {name}")
    kind: Kind = entries[name].load()
    return kind


# --- costs that all kinds share ------------------------------------------------------------------

FLOAT_FNS = frozenset({"softmax", "layer_norm", "lrn", "batch_norm"})  # ops that compute in float32


def level_of(memory: str) -> str:
    """The hierarchy level of a memory: "core3.ib" -> "ib"."""
    return memory.rsplit(".", 1)[-1]


def core_of(memory: str) -> str:
    """The core of a memory: "core3.ib" -> "core3"; "" for a memory that all cores share."""
    return memory.rsplit(".", 1)[0] if "." in memory else ""


def common_cost(instr: Instr, buffers: Mapping[str, Buffer], target: Target) -> Cost:
    """Cost of the instructions of `cimc.ir.program`: memory ports, link, vector unit.

        port    sum over the instruction's views of ceil(bits / port width), for each memory it
        touches link    ceil(bits / link width) where data cross between a shared memory and a core
        vector  ceil(elements / lanes)

    Views in memories that are no level of the target (arrays, register files inside a macro) cost
    nothing here: their kind adds it.
    """
    if isinstance(instr, Wait | Signal):
        return Cost((), 0, ())
    holds: dict[str, int] = {}
    events: dict[str, int] = {}
    latency = 0
    cores: dict[str, None] = {}
    for buffer, bits, reads, written in _accesses(instr, buffers):
        level = level_of(buffer.memory)
        cores[core_of(buffer.memory)] = None
        memory = target.spec.memory.get(level)
        if memory is None:
            continue
        latency = max(latency, memory.latency_cycles)
        for happens, kind in ((reads, "read"), (written, "write")):
            if not happens:
                continue
            width = memory.read_bits_per_cycle if kind == "read" else memory.write_bits_per_cycle
            unit = f"{buffer.memory}.{'port' if memory.ports == 'shared' else kind}"
            holds[unit] = holds.get(unit, 0) + -(-bits // width)
            events[f"{level}.{kind}_bits"] = events.get(f"{level}.{kind}_bits", 0) + bits
    if isinstance(instr, Copy | Patch) and len(cores) > 1:
        bits = _moved_bits(instr, buffers)
        holds["link"] = -(-bits // target.spec.link.bits_per_cycle)
        events["link.bits"] = bits
        latency += target.spec.link.hop_cycles
    if not isinstance(instr, Copy | Patch | Fill | Mvm):
        _add_vector(instr, buffers, target, next(iter(filter(None, cores)), ""), holds, events)
    return Cost(
        tuple(holds.items()), latency + max(holds.values(), default=0), tuple(events.items())
    )


def _accesses(
    instr: Instr, buffers: Mapping[str, Buffer]
) -> Iterator[tuple[Buffer, int, bool, bool]]:
    if isinstance(instr, VectorOp):
        for value in dict.fromkeys(operands(instr.op)):
            yield buffers[value.name], value.type.bits, True, False
        yield buffers[instr.op.out.name], instr.op.out.type.bits, False, True
        return
    for name, view in views(instr).items():
        buffer = buffers[view.buffer]
        written = name in instr.writes or name in instr.updates
        bits = view.elements * bits_of(buffer.dtype)
        if name == "src" and isinstance(instr, Patch):
            bits = instr.dst.elements * bits_of(buffer.dtype)
        yield buffer, bits, name not in instr.writes, written


def _moved_bits(instr: Copy | Patch, buffers: Mapping[str, Buffer]) -> int:
    return instr.dst.elements * bits_of(buffers[instr.dst.buffer].dtype)


def _add_vector(
    instr: Instr,
    buffers: Mapping[str, Buffer],
    target: Target,
    core: str,
    holds: dict[str, int],
    events: dict[str, int],
) -> None:
    vector = target.spec.vector
    if isinstance(instr, VectorOp):
        elements, is_float = vector_work(instr.op)
        name = instr.unit
    else:
        elements = max(view.elements for view in views(instr).values())
        is_float, name = False, "vector"
    if name == "vector" and vector.per == "core":
        name = f"{core or 'core0'}.vector"
    holds[name] = max(1, -(-elements // (vector.float_lanes if is_float else vector.lanes)))
    events["vector.float_ops" if is_float else "vector.ops"] = elements


def vector_work(op: Op) -> tuple[int, bool]:
    """Elements that the vector unit works on for a whole op, and whether it does so in float32."""
    sizes = [value.type.elements for value in operands(op)] + [op.out.type.elements]
    elements = max(sizes)
    if op.mnemonic == "pool":
        elements = op.out.type.elements * math.prod(getattr(op, "kernel", (1,)))
    is_float = op.mnemonic in FLOAT_FNS or not op.out.type.is_integer
    return elements, is_float


def common_prices(target: Target) -> dict[str, Price]:
    """Prices of the events that `common_cost` counts."""
    found: dict[str, Price] = {}
    for level, memory in target.spec.memory.items():
        key = f"memory.{level}"
        found[f"{level}.read_bits"] = Price(memory.read_pj_per_bit, (f"{key}.read_pj_per_bit",))
        found[f"{level}.write_bits"] = Price(memory.write_pj_per_bit, (f"{key}.write_pj_per_bit",))
    found["link.bits"] = Price(target.spec.link.pj_per_bit, ("link.pj_per_bit",))
    found["vector.ops"] = Price(target.spec.vector.op_pj, ("vector.op_pj",))
    found["vector.float_ops"] = Price(target.spec.vector.float_op_pj, ("vector.float_op_pj",))
    return found


def common_area(target: Target) -> dict[str, float]:
    """mm2 of memories, vector units and link, whole chip."""
    cores = target.spec.cores
    found = {
        f"memory.{level}": memory.area_mm2 * (cores if memory.per == "core" else 1)
        for level, memory in target.spec.memory.items()
    }
    vector = target.spec.vector
    found["vector"] = vector.area_mm2 * (cores if vector.per == "core" else 1)
    found["link"] = target.spec.link.area_mm2
    return found
