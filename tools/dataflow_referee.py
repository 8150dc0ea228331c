"""Whether the exact search's referee says what a compiled network's program does, layer by layer.

    python tools/dataflow_referee.py resnet18.onnx mobilenet_v2.onnx --target miredo-default
    python tools/dataflow_referee.py resnet18.onnx --level 1 --execute

A layer alone (its instructions only, all inputs there from the start) is cut out of the network's
program and simulated; the referee makes the layer's program from workload and mapping. Cycles must
be equal, and pJ to 1e-9. The network is compiled layer by layer: no value stays on the chip between
layers. --execute compares all values of the program with the graph's, too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from cimc.compiling import Request, state_after
from cimc.ir.evaluate import evaluate
from cimc.ir.tiles import Tiles
from cimc.ir.types import Array, Type, int_range, is_integer, numpy_dtype
from cimc.kind import Kind, Options, load_kind
from cimc.passes.allocate import allocate
from cimc.pipeline.levels import Effort
from cimc.sim.energy import energy
from cimc.sim.execute import execute
from cimc.sim.simulate.plan import plan_streams
from cimc.target import load_target
from cimc.targets.sram_cim.exact.referee import Referee, alone, simulated_cycles
from cimc.targets.sram_cim.layers import Layers, mapped_nest
from cimc.targets.sram_cim.machine import machine_of

KIND: Kind = load_kind("sram-cim")


def drawn(type: Type, rng: np.random.Generator) -> Array:
    """Random values of a type."""
    if is_integer(type.dtype):
        low, high = int_range(type.dtype)
        return rng.integers(low, high, type.shape, endpoint=True).astype(numpy_dtype(type.dtype))
    return rng.standard_normal(type.shape).astype(numpy_dtype(type.dtype))


def main() -> int:
    """Print each layer that differs, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--target", default="miredo-default")
    parser.add_argument("--level", type=int, default=2)
    parser.add_argument("--execute", action="store_true")
    options = parser.parse_args()
    target = load_target(options.target)
    wrong = 0
    for model in options.models:
        tiles = state_after(Request(model, target, Effort(options.level)), "tile")
        assert isinstance(tiles, Tiles)
        tiles = KIND.map(tiles, target, Options(level=options.level))
        program = allocate(KIND.lower(tiles, target), target=target)
        layers, count, total = Layers(tiles), 0, 0
        for layer in tiles.layers:
            if layer.place != "macro":
                continue
            heavy = layers.heavy(layer)
            mapped = mapped_nest(layer, heavy, machine_of(target))
            part = alone(program, layer.name)
            plan = plan_streams(part, target)
            cycles = simulated_cycles(plan)
            pj = energy(part, target, cycles, plan=plan).total_pj
            found = Referee(heavy.workload, max(1, len(layer.ops) - 1), target).judge(mapped)
            count, total = count + 1, total + cycles
            if found.cycles != cycles or abs(found.energy_pj / pj - 1.0) > 1e-9:
                wrong += 1
                print(f"{model.stem} %{layer.name}: {cycles} cycles, {pj:.6g} pJ in the program; "
                      f"{found.cycles:.0f}, {found.energy_pj:.6g} by the referee")  # fmt: skip
        print(f"{model.stem}: {count} layers, {total} cycles one after the other")
        if options.execute:
            rng = np.random.default_rng(1)
            inputs = {value.name: drawn(value.type, rng) for value in tiles.graph.inputs}
            made = execute(program, target, inputs)
            expected = evaluate(tiles.graph, inputs)
            same = all((made[name] == array).all() for name, array in expected.items())
            print(f"{model.stem}: executed {'bit-exactly' if same else 'WRONGLY'}")
            wrong += not same
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
