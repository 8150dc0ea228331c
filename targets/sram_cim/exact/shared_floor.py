"""What every mapping with given spatial loops takes on shared ports, in microseconds.

cycles >= N*a + (N - 1)*g + w*(1 - g/h)   N activations of a cycles; between two of them inputs
                                          or sums change, g cycles at least; all weights need w
                                          cycles into cells that cannot compute meanwhile, h or
                                          more each time
cycles >= b / width                       bits once from and to the outermost memory
"""

from __future__ import annotations

import math
from functools import cache

from cimc.lowering import ConvShape
from cimc.mapping.machine import INPUT, OUTPUT, WEIGHT, Machine
from cimc.mapping.workload import Workload
from cimc.targets.sram_cim.energy import activation_pj, leakage_pj
from cimc.targets.sram_cim.exact.choices import remaining, used
from cimc.targets.sram_cim.exact.problem import Figures
from cimc.targets.sram_cim.placing import Factors
from cimc.targets.sram_cim_spec import SramCimSpec


def floor_of(
    factors: Factors, workload: Workload, epilogue: int, machine: Machine, spec: SramCimSpec
) -> Figures:
    """Cycles and pJ that no mapping with these spatial loops goes below."""
    bits = workload.bits
    activations = math.prod(remaining(workload, factors).values())
    cores = used(factors[0])
    chain = float(activations * machine.activation_cycles(bits[INPUT], bits[WEIGHT]))
    gap = float(min(_input_gap(factors, workload, machine, spec), _sums_gap(machine)))
    chain += (activations - 1) * gap
    cells = machine.chain(WEIGHT)[-1]
    if not machine.levels[cells].double[WEIGHT]:
        widest = max(level.read_bits for level in machine.levels if level.holds[WEIGHT])
        each = weights_of(workload.shape) * bits[WEIGHT] / widest
        least = _unique(factors, "gkcrs") * bits[WEIGHT] / widest
        chain += each * max(0.0, 1.0 - gap / max(least, 1.0))
    outer = machine.levels[0]
    once = outermost_bits(workload, epilogue)
    shared = spec.memory[outer.name].ports == "shared"
    busy = once[0] / outer.read_bits
    busy = busy + once[1] / outer.write_bits if shared else max(busy, once[1] / outer.write_bits)
    cycles = max(chain, busy)
    pj = activations * cores * activation_pj(spec, bits[INPUT], bits[WEIGHT])
    pj += once[0] * outer.read_pj + once[1] * outer.write_pj
    return Figures(cycles, pj + cycles * leakage_pj(spec))


def _input_gap(factors: Factors, workload: Workload, machine: Machine, spec: SramCimSpec) -> float:
    """Cycles until one element of each row in use has come into the registers, from anywhere."""
    chain = machine.chain(INPUT)
    register = chain[-1]
    if machine.levels[register].double[INPUT]:
        return 0.0
    least = math.inf
    for source in chain[:-1]:
        level = machine.levels[source]
        extents = dict.fromkeys("gnkcpqrs", 1)
        for axis, choice in zip(machine.axes, factors, strict=True):
            if axis.source[INPUT] >= source:
                for dim, factor in choice:
                    extents[dim] *= factor
        read = workload.elements(INPUT, extents) * workload.bits[INPUT]
        latency = max(
            spec.memory[level.name].latency_cycles,
            spec.memory[machine.levels[register].name].latency_cycles,
        )
        least = min(least, -(-read // level.read_bits) + latency)
    return least


def _sums_gap(machine: Machine) -> float:
    """Cycles that the sums' registers are read at least."""
    register = machine.levels[machine.chain(OUTPUT)[-1]]
    if register.double[OUTPUT]:
        return 0.0
    return 1.0


def _unique(factors: Factors, dims: str) -> int:
    """Weights that one activation works with, those that cores share counted once."""
    return math.prod(factor for choice in factors for dim, factor in choice if dim in dims)


def weights_of(shape: ConvShape) -> int:
    """Elements of W."""
    return shape.g * shape.k * shape.c * shape.r * shape.s


@cache
def outermost_bits(workload: Workload, epilogue: int) -> tuple[int, int]:
    """Bits that are read from, and written to, the outermost memory at least once."""
    shape, bits = workload.shape, workload.bits
    inputs = shape.n * shape.g * shape.c
    inputs *= _touched(shape.p, shape.strides[0], shape.r, shape.dilations[0])
    inputs *= _touched(shape.q, shape.strides[1], shape.s, shape.dilations[1])
    results = shape.n * shape.g * shape.k * shape.p * shape.q
    read = inputs * bits[INPUT] + weights_of(shape) * bits[WEIGHT]
    read += results * bits[OUTPUT] * max(0, epilogue - 1)
    return read, results * bits[OUTPUT]


def _touched(windows: int, stride: int, kernel: int, dilation: int) -> int:
    """Places along an axis that lie in some window, as a tile of all of them is stored."""
    return min((windows - 1) * stride + (kernel - 1) * dilation + 1, windows * kernel)
