"""What a whole network takes by the closed form: the sum over its layers, wherever values lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from cimc.ir.graph import Op, Value, operands
from cimc.ir.program import Buffer, VectorOp
from cimc.ir.tiles import Layer, Tiles
from cimc.kind import Options
from cimc.mapping.machine import Machine
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.target import Target
from cimc.targets.sram_cim.bands import Band, Part
from cimc.targets.sram_cim.cost import instruction_cost, prices, width
from cimc.targets.sram_cim.energy import leakage_pj
from cimc.targets.sram_cim.homes import Homes
from cimc.targets.sram_cim.layers import Layers
from cimc.targets.sram_cim.machine import machine_of, spec_of
from cimc.targets.sram_cim.placing import nest_of
from cimc.targets.sram_cim.search import best_mapping
from cimc.targets.sram_cim.stages import Stage
from cimc.targets.sram_cim.timing import Figures, evaluate

Mappings = dict[tuple[Workload, int, Machine], Mapped]  # of workload, epilogue, machine


class NetworkCost:
    """Figures of layers on one machine, and mappings found on the way."""

    def __init__(
        self,
        target: Target,
        options: Options,
        stage: Stage | None = None,
        known: Mappings | None = None,
    ) -> None:
        """On the whole machine, or on that of a stage; what is `known` need not be searched."""
        self.target, self.options = target, options
        self.machine, self.spec = machine_of(target), spec_of(target)
        self.unit = "vector"
        if stage is not None:
            self.machine = stage.machine
            self.unit = stage.memory(f"vector.x{stage.cores}")
        self.objective = Objective.parse(options.objective)
        self.prices = {event: price.pj for event, price in prices(target).items()}
        self.known: Mappings = {} if known is None else known

    # --- mappings ---

    def mapping(self, workload: Workload, epilogue: int, view: Machine) -> Mapped:
        """The mapping of a workload that a search finds on the machine as a layer finds it."""
        key = workload, epilogue, view
        if key not in self.known:
            self.known[key] = best_mapping(workload, epilogue, view, self.target, self.options)
        return self.known[key]

    def mapped(self, tiles: Tiles) -> Tiles | None:
        """All layers mapped on the machine as they find it; None if one does not fit."""
        homes, layers = Homes(Layers(tiles), self.machine), list(tiles.layers)
        for place, layer in enumerate(tiles.layers):
            if layer.nest is not None:
                workload = homes.layers.heavy(layer).workload
                found = self.mapping(workload, epilogue_of(layer), homes.view(place))
                if any(capacity_faults(found)):
                    return None
                layers[place] = dataclasses.replace(layer, nest=nest_of(found))
        return dataclasses.replace(tiles, layers=tuple(layers))

    def cycles_of(self, mapped: Mapped, layer: Layer) -> float:
        """Cycles of a mapped layer."""
        return evaluate(mapped, self.spec, epilogue_of(layer)).cycles

    def figures_of(self, mapped: Mapped, layer: Layer) -> float:
        """What a search for one layer's mapping minimizes."""
        figures = evaluate(mapped, self.spec, epilogue_of(layer))
        return self.objective.score(figures.cycles, figures.energy_pj)

    # --- sums ---

    def score(self, tiles: Tiles) -> tuple[float, float]:
        """The objective over all layers, and what decides ties."""
        total = self.total(self.by_layer(tiles))
        return self.objective.score(total.cycles, total.energy_pj), total.cycles * total.energy_pj

    def total(self, figures: tuple[Figures, ...]) -> Figures:
        """One layer after the other."""
        return Figures(sum(f.cycles for f in figures), sum(f.energy_pj for f in figures))

    def by_layer(self, tiles: Tiles) -> tuple[Figures, ...]:
        """Figures of each layer; those of a group stand at its first layer."""
        layers = Layers(tiles)
        homes = Homes(layers, self.machine)
        found = []
        for place, layer in enumerate(tiles.layers):
            band = layers.bands.get(layer.name)
            if band is None:
                found.append(self.total(tuple(self.parts(layers, homes, place, layer))))
            elif layer is band.whole_layers[0]:
                found.append(self.group(layers, homes, place, band))
            else:
                found.append(Figures(0.0, 0.0))
        return tuple(found)

    def group(self, layers: Layers, homes: Homes, first: int, band: Band) -> Figures:
        """Figures of fused layers, the first of which is at place `first`."""
        work = [
            part
            for place, layer in enumerate(band.whole_layers, first)
            for part in self.parts(layers, homes, place, layer)
        ]
        moves = [
            _times(self.moved(part, homes, inward), band.count)
            for layer in band.whole_layers
            for part, inward in band_moves(layers, band, layer)
        ]
        total = self.total((*work, *moves))
        if not band.fused.ahead:
            return total
        computing, moving = sum(f.cycles for f in work), sum(f.cycles for f in moves)
        hidden = min(computing, moving) * (band.count - 1) / band.count
        return Figures(total.cycles - hidden, total.energy_pj - hidden * leakage_pj(self.spec))

    def parts(self, layers: Layers, homes: Homes, place: int, layer: Layer) -> Iterator[Figures]:
        """Figures of the parts of a layer, all bands; without what comes in and goes out."""
        band = layers.bands.get(layer.name)
        count = 1 if band is None else band.count
        if layer.nest is None:
            for name in layer.ops:
                op = layers.producers[name] if band is None else band.op_of(name)
                yield _times(self.vector(op, homes, band), count)
        else:
            mapped = resolve(layer.nest, layers.heavy(layer).workload, homes.view(place))
            assert isinstance(mapped, Mapped), mapped
            yield _times(evaluate(mapped, self.spec, epilogue_of(layer)), count)
        if band is not None:
            if homes.has_near_weights(layer):
                value = layers.heavy(layer).w
                yield self.passage(value.type.bits, 0, homes.band_level)
            return
        if layer.nest is not None:
            for value in others(layers, layer):
                level = self.spec.memory[self.machine.levels[homes.level(value)].name]
                yield Figures(0.0, value.type.bits * level.read_pj_per_bit)

    def vector(self, op: Op, homes: Homes, band: Band | None) -> Figures:
        """Figures of an op of the vector units."""
        near = {part.value.name for part in all_parts(band)} if band is not None else set()

        def memory(value: Value) -> str:
            if value.name in near:
                return f"{self.machine.levels[homes.band_level].name}.x1"
            return homes.memory(value.name) if homes.level(value) else homes.outer

        buffers: Mapping[str, Buffer] = {
            value.name: Buffer(value.name, memory(value), value.type.dtype, value.type.elements)
            for value in (*operands(op), op.out)
        }
        cost = instruction_cost(VectorOp(op, self.unit), buffers, self.target)
        energy = sum(self.prices[event] * count for event, count in cost.events)
        return Figures(cost.cycles, energy + cost.cycles * leakage_pj(self.spec))

    def moved(self, part: Part, homes: Homes, inward: bool) -> Figures:
        """One band of a tensor on its way from, or to, the tensor's home."""
        home, near = homes.level(part.whole), homes.band_level
        return self.passage(part.value.type.bits, *((home, near) if inward else (near, home)))

    def passage(self, bits: int, source: int, sink: int) -> Figures:
        """Bits from one level that the chip has once to another."""
        outer, inner = (self.spec.memory[self.machine.levels[y].name] for y in (source, sink))
        read, write = -(-bits // width(outer, "read")), -(-bits // width(inner, "write"))
        cycles = read + write if source == sink and outer.ports == "shared" else max(read, write)
        cycles += max(outer.latency_cycles, inner.latency_cycles)
        pj = bits * (outer.read_pj_per_bit + inner.write_pj_per_bit)
        return Figures(cycles, pj + cycles * leakage_pj(self.spec))


def epilogue_of(layer: Layer) -> int:
    """Vector operations on each result of a layer."""
    return max(1, len(layer.ops) - 1)


def others(layers: Layers, layer: Layer) -> list[Value]:
    """Tensors that a layer's epilogue reads."""
    read = (v for name in layer.ops[1:] for v in operands(layers.producers[name]))
    return [
        value
        for value in dict.fromkeys(read)
        if value.name not in layer.ops and layers.producers[value.name].mnemonic != "constant"
    ]


def all_parts(band: Band) -> Iterator[Part]:
    """Everything that a group has bands of."""
    yield from band.parts.values()
    yield from band.inputs.values()


def band_moves(layers: Layers, band: Band, layer: Layer) -> Iterator[tuple[Part, bool]]:
    """What comes in before a group's first layer, and goes out after its last one."""
    if layer.name == band.fused.layers[0]:
        yield from ((part, True) for part in band.inputs.values())
    if layer.name == band.fused.layers[-1]:
        yield from ((band.parts[name], False) for name in layers.leaving(layer))


def _times(figures: Figures, count: int) -> Figures:
    return Figures(figures.cycles * count, figures.energy_pj * count)
