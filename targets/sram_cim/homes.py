"""Homes of values: which tensors lie whole in a level of the chip, when, and at which addresses.

    keep %relu1 in gb        from the layer that makes it to the last one that reads it
    keep %conv3.w in gb      throughout: setup loads it once, every inference finds it there
    keep %conv4.w in macro   in the cells that multiply with it, as %conv4's mapping has it there

A layer whose operand has its home in gb is mapped on a machine whose outermost level for that
operand is gb (`view`): its tiles move on from there, and never meet the outermost memory. What all
values of that time take is missing from the level's size, so a mapping that fits beside them is
found by the arithmetic that finds any other. `placed` gives addresses, values from the top of the
level downwards, tiles below them; without a gap that fits, there is a fault.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from cimc.errors import Fault
from cimc.ir.graph import Op, Value, operands
from cimc.ir.tiles import Layer
from cimc.ir.types import numpy_dtype
from cimc.mapping.machine import INPUT, NAMES, OUTPUT, WEIGHT, Level, Machine
from cimc.mapping.nest import Mapped
from cimc.targets.sram_cim.bands import Band, Part, part_bytes
from cimc.targets.sram_cim.layers import Layers

WEIGHTS = "weights"  # option of a fused layer's nest: they stay on the chip for all bands
SHOWN = 5  # values that a fault lists
ALIGNED = 8  # bytes, for the widest elements


@dataclass(frozen=True, slots=True)
class Tenant:
    """A value in a level, from layer `first` to layer `last`."""

    value: str
    level: int
    first: int
    last: int
    size: int  # bytes

    def meets(self, other: Tenant) -> bool:
        """Whether both are there at once."""
        return self.level == other.level and (self.first <= other.last and other.first <= self.last)


class Homes:
    """The kept values of tiles, seen from each layer."""

    def __init__(self, layers: Layers, machine: Machine) -> None:
        self.layers, self.machine = layers, machine
        self.tiles = layers.tiles
        names = {level.name: place for place, level in enumerate(machine.levels)}
        self.levels = {
            keep.value: names[keep.level] for keep in self.tiles.keeps if keep.level in names
        }
        self.band_level = max(
            (
                place
                for place, level in enumerate(machine.levels)
                if all(level.holds) and not level.along
            ),
            default=0,
        )
        self.cells = machine.chain(WEIGHT)[-1]
        self.unknown = [keep for keep in self.tiles.keeps if keep.level not in names]

    # --- where and when ---

    def level(self, value: Value) -> int:
        """The level that is a value's home."""
        return self.levels.get(value.name, 0)

    def memory(self, value: str) -> str:
        """The memory of a kept value's buffer, the one in which the level's tiles lie, too."""
        return f"{self.machine.levels[self.levels[value]].name}.x1"

    def is_constant(self, name: str) -> bool:
        """Whether a value is there from the start."""
        return self.layers.producers[name].mnemonic == "constant"

    @property
    def outer(self) -> str:
        """The outermost memory."""
        return self.machine.levels[0].name

    @cached_property
    def passing(self) -> frozenset[str]:
        """Kept values that one stage makes and another one reads: no stage has them in its part."""
        inside = {name for layer in self.tiles.layers for name in layer.ops}
        return frozenset(
            name
            for name in self.levels
            if not self.is_constant(name) and (name not in inside or self.layers.strangers(name))
        )

    @cached_property
    def tenants(self) -> tuple[Tenant, ...]:
        """All kept values."""
        lives = lifetimes(self.layers)
        last = len(self.tiles.layers) - 1
        found = []
        for name, level in self.levels.items():
            if level == self.cells or name in self.passing:
                continue
            found.append(Tenant(name, level, *lives.get(name, (0, last)), self.bytes(name)))
        for band in dict.fromkeys(self.layers.bands.values()):
            found += self.band_tenants(band)
        return tuple(found)

    def band_tenants(self, band: Band) -> Iterator[Tenant]:
        """Bands of tensors, and the weights of fused layers that stay for all bands."""
        places = [self.tiles.layers.index(layer) for layer in band.whole_layers]
        first, last = places[0], places[-1]
        read = {
            value.name: place
            for place, layer in zip(places, band.whole_layers, strict=True)
            for name in layer.ops
            for value in operands(band.op_of(name))
        }
        for part in band.inputs.values():
            yield Tenant(
                part.value.name, self.band_level, first, read[part.value.name], part_bytes(part)
            )
            if band.fused.ahead:
                yield Tenant(second(part), self.band_level, first, last, part_bytes(part))
        for place, layer in zip(places, band.whole_layers, strict=True):
            for name in self.layers.leaving(layer):
                part = band.parts[name]
                until = max(place, read.get(part.value.name, place))
                yield Tenant(part.value.name, self.band_level, place, until, part_bytes(part))
                if band.fused.ahead and place == last:
                    yield Tenant(second(part), self.band_level, first, last, part_bytes(part))
            if self.has_near_weights(layer):
                name = self.layers.heavy(layer).w.name
                near = near_weights(layer, name)
                yield Tenant(near, self.band_level, first, last, self.bytes(name))

    def has_near_weights(self, layer: Layer) -> bool:
        """Whether a fused layer's weights stay on the chip for all bands, and for these only."""
        if layer.nest is None or layer.name not in self.layers.bands:
            return False
        wanted = dict(layer.nest.options).get(WEIGHTS)
        return wanted is not None and not self.level(self.layers.heavy(layer).w)

    def bytes(self, name: str) -> int:
        """Bytes that a value takes."""
        kind = self.layers.producers[name].out.type
        return kind.elements * numpy_dtype(kind.dtype).itemsize

    def taken(self, place: int, level: int) -> int:
        """Bytes of a level that kept values take while layer `place` runs."""
        return sum(
            tenant.size
            for tenant in self.tenants
            if tenant.level == level and tenant.first <= place <= tenant.last
        )

    def view(self, place: int) -> Machine:
        """The machine as layer `place` finds it: homes further in, levels that are partly taken."""
        layer = self.tiles.layers[place]
        homes = self.operand_homes(layer)
        levels: list[Level] = []
        for number, level in enumerate(self.machine.levels):
            taken = 8 * self.taken(place, number) if number else 0
            if number == self.cells:
                taken = self.taken_cells(layer)
            holds = tuple(
                held and number >= home for held, home in zip(level.holds, homes, strict=True)
            )
            key = level.key if not taken else f"{level.key} less {taken} bits of kept values"
            levels.append(
                dataclasses.replace(
                    level,
                    key=key,
                    size_bits=level.size_bits - taken,
                    holds=(holds[INPUT], holds[WEIGHT], holds[OUTPUT]),
                )
            )
        return dataclasses.replace(self.machine, levels=tuple(levels))

    def in_cells(self, layer: Layer) -> bool:
        """Whether a layer's weights stay in the cells that multiply with them."""
        return layer.place == "macro" and self.level(self.layers.heavy(layer).w) == self.cells

    def taken_cells(self, layer: Layer) -> int:
        """Bits of each cell that the weights of other layers take, all the time."""
        others = (other for other in self.tiles.layers if other is not layer)
        return sum(self.cell_bits(other) for other in others if self.in_cells(other))

    def cell_bits(self, layer: Layer) -> int:
        """Bits of each cell that a mapped layer's weights take if they stay there."""
        if layer.nest is None:
            return 0
        workload, width = self.layers.heavy(layer).workload, self.machine.weight_bits
        extents = dict.fromkeys(workload.dims, 1)
        inside = [a.name for a in self.machine.axes if a.source[WEIGHT] >= self.cells]
        factors = [pair for s in layer.nest.spatial if s.axis in inside for pair in s.factors]
        for dim, bound in (*factors, *((loop.dim, loop.bound) for loop in layer.nest.loops)):
            extents[dim] = extents.get(dim, 1) * bound
        bits = -(-workload.bits[WEIGHT] // width) * width
        return int(workload.elements(WEIGHT, extents)) * bits

    def operand_homes(self, layer: Layer) -> tuple[int, int, int]:
        """The homes of I, W and O of a macro layer."""
        heavy = self.layers.heavy(layer)
        if layer.name in self.layers.bands:
            near = self.band_level if self.has_near_weights(layer) else self.level(heavy.w)
            return self.band_level, near, self.band_level
        results = [self.levels.get(name, 0) for name in self.layers.leaving(layer)]
        return self.level(heavy.x), self.level(heavy.w), min(results, default=0)

    def placed(self, tiles: Sequence[dict[int, int]]) -> dict[str, int] | None:
        """Byte addresses of all kept values; None if they leave no room for a layer's tiles."""
        return placed(self.tenants, self.machine, tiles)

    # --- what is wrong ---

    def faults(self) -> Iterator[Fault]:
        """Values that cannot be where a `keep` wants them."""
        yield from self.layers.obstacles
        inner = {
            name
            for band in self.layers.bands.values()
            for layer in band.whole_layers[:-1]
            for name in layer.ops
        }
        for name in sorted(inner & set(self.levels)):
            yield Fault(f"%{name} cannot be kept: it is made in bands", code="CIM4037")
        if self.layers.bands and not self.band_level:
            need = "a level that the chip has once, for I, W and O"
            yield Fault("nothing can be fused", need, code="CIM4038")
        for keep in self.unknown:
            have = ", ".join(level.name for level in self.machine.levels)
            yield Fault(f"`{keep}`: no level is called {keep.level}", have=have, code="CIM4030")
        for name, place in self.levels.items():
            level = self.machine.levels[place]
            reason = self.obstacle(name, place)
            if reason:
                yield Fault(f"%{name} cannot be kept in {level.name}", reason, code="CIM4031")
        for layer in self.tiles.layers:
            if layer.place != "macro":
                continue
            names = self.layers.leaving(layer)
            if len({self.levels.get(name, 0) for name in names}) > 1:
                shown = ", ".join(f"%{name}" for name in names)
                yield Fault(
                    f"layer %{layer.name}: not all of its results are kept",
                    need=f"the same home for {shown}",
                    code="CIM4032",
                )

    def overfull(self) -> Iterator[Fault]:
        """Levels that cannot hold the values that are there at once; not cells, mappings say so."""
        for number, level in enumerate(self.machine.levels):
            times = range(len(self.tiles.layers)) if number else ()
            worst = max(times, key=lambda place: self.taken(place, number), default=0)
            need = self.taken(worst, number) if number else 0
            if need <= level.size_bits // 8:
                continue
            there = [t for t in self.tenants if t.level == number and t.first <= worst <= t.last]
            largest = sorted(there, key=lambda tenant: -tenant.size)[:SHOWN]
            shown = ", ".join(f"%{tenant.value} {tenant.size}" for tenant in largest)
            yield Fault(
                f"kept values do not fit in {level.name}",
                need=f"{need} bytes for layer %{self.tiles.layers[worst].name}; most: {shown}",
                have=f"{level.size_bits // 8} bytes ({self.machine.name}: {level.key})",
                help="keep fewer values",
                code="CIM4034",
            )

    def obstacle(self, name: str, place: int) -> str:
        """What a value would have to be to have its home in a level; "" if it may."""
        level, op = self.machine.levels[place], self.layers.producers[name]
        if place == self.cells:
            return self.obstacle_in_cells(op)
        if place and (level.along or not any(level.holds)):
            return "a level that the chip has once"
        if op.mnemonic == "constant" and self.layers.strangers(name):
            return "weights that no other stage reads"
        if op.mnemonic == "input" or name in self.layers.results:
            return "a value that is neither input nor output of the network"
        if op.out.type.dtype == "i32" and op.mnemonic != "constant":
            return "a value narrower than 32 bits"
        roles = {role for role, _ in uses(self.layers, op)}
        if op.mnemonic == "constant" and WEIGHT not in roles:
            return "a computed value, or the weights of a macro layer"
        for role in sorted(roles):
            if not level.holds[role]:
                return f"a level that holds {NAMES[role]}"
        return ""

    def obstacle_in_cells(self, op: Op) -> str:
        """What a value would have to be to stay in the cells of macros."""
        found = [] if op.mnemonic != "constant" else list(uses(self.layers, op))
        if not found or {role for role, _ in found} != {WEIGHT}:
            return "the weights of a macro layer"
        if len(found) > 1 or self.layers.strangers(op.out.name):
            return "weights that one layer reads"
        return ""


def lifetimes(layers: Layers) -> dict[str, tuple[int, int]]:
    """First and last layer that touches each computed value; fused layers do so all at once."""
    found: dict[str, tuple[int, int]] = {}
    order = {layer.name: place for place, layer in enumerate(layers.tiles.layers)}
    for layer in layers.tiles.layers:
        band = layers.bands.get(layer.name)
        together = (layer.name,) if band is None else band.fused.layers
        begin, end = order[together[0]], order[together[-1]]
        for name in layer.ops:
            op = layers.producers[name]
            for value in (*operands(op), op.out):
                if layers.producers[value.name].mnemonic not in ("input", "constant"):
                    first, last = found.get(value.name, (begin, end))
                    found[value.name] = (min(first, begin), max(last, end))
    return found


def uses(layers: Layers, op: Op) -> Iterator[tuple[int, Layer]]:
    """The macro layers that have the result of `op` as I, W or O, each with its part."""
    name = op.out.name
    for layer in layers.tiles.layers:
        if layer.place != "macro":
            continue
        heavy = layers.heavy(layer)
        if heavy.x.name == name:
            yield INPUT, layer
        if heavy.w.name == name:
            yield WEIGHT, layer
        if name in layer.ops:
            yield OUTPUT, layer


def second(part: Part) -> str:
    """The second buffer of a band that comes in ahead, or goes out later."""
    return f"{part.value.name}.next"


def near_weights(layer: Layer, name: str) -> str:
    """The buffer of a fused layer's weights."""
    return f"{name}.near.{layer.name}"


def tile_bytes(mapped: Mapped) -> dict[int, int]:
    """Bytes that a layer's tiles take in each level, as the machine stores them."""
    return {level: -(-sum(parts.values()) // 8) for level, parts in mapped.occupied().items()}


def placed(
    tenants: Sequence[Tenant], machine: Machine, tiles: Sequence[dict[int, int]]
) -> dict[str, int] | None:
    """Byte addresses of values; None if they leave no room for a layer's tiles.

    `tiles`: bytes that each layer's own tiles take, by level. Values go from the top of their level
    downwards, those that stay longest first, then large ones; tiles from 0 upwards.
    """
    addresses: dict[str, int] = {}
    done: list[Tenant] = []
    for tenant in sorted(tenants, key=lambda t: (t.first - t.last, -t.size, t.first)):
        floor = max(layer.get(tenant.level, 0) for layer in tiles[tenant.first : tenant.last + 1])
        top = machine.levels[tenant.level].size_bits // 8 // ALIGNED * ALIGNED
        size = -(-tenant.size // ALIGNED) * ALIGNED
        spans = [
            (addresses[other.value] + other.size, addresses[other.value])
            for other in done
            if other.meets(tenant)
        ]
        for end, low in sorted(spans, reverse=True):
            if end <= top - size:
                break
            top = min(top, low)
        if top - size < floor:
            return None
        addresses[tenant.value] = top - size
        done.append(tenant)
    return addresses
