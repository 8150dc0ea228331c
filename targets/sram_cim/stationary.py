"""Mappings by rule: one that always fits, and weight-stationary ones.

The weight-stationary rule is that of MIREDO's comparisons: the largest divisor of k on the columns,
of c, r, s on the rows, of k, g, p, q on the cores; loops from outside g k c r s p q, each dim's
large factors outside; from the innermost loop outwards, weights, inputs, results in turn stay as
far in as they fit; with or without second buffers, whichever is better.
"""

from __future__ import annotations

from collections.abc import Iterator

from cimc.mapping.machine import INPUT, OUTPUT, WEIGHT, Machine
from cimc.mapping.nest import Mapped, capacity_faults
from cimc.mapping.workload import Workload
from cimc.targets.sram_cim.placing import Factors, Loops, placed, with_cuts

ORDERS = {"columns": "k", "rows": "crs", "cores": "kgpqn"}  # who gets positions of an axis first


def simple(workload: Workload, machine: Machine) -> Mapped:
    """Outputs one after the other, everything but the running sum in the outermost memory."""
    spatial = divisors_in_space(workload, machine)
    loops = tuple(
        (dim, bound) for dim, bound in remaining(workload, spatial, "gnkpqcrs") if bound > 1
    )
    count, reduced = len(loops), sum(dim in "crs" for dim, _ in loops)
    cuts = [[0] + [count] * (len(machine.chain(o)) - 1) for o in (INPUT, WEIGHT, OUTPUT)]
    cuts[OUTPUT] = [0] + [count - reduced] * (len(machine.chain(OUTPUT)) - 1)
    return with_cuts(workload, machine, spatial, loops, frozenset(), cuts)


def weight_stationary(workload: Workload, machine: Machine) -> Iterator[Mapped]:
    """The rule's mappings, without and with second buffers, as far as they fit."""
    spatial = divisors_in_space(workload, machine)
    loops: list[tuple[str, int]] = []
    for dim, bound in remaining(workload, spatial, "gkcrsnpq"):
        loops += [(dim, prime) for prime in reversed(primes(bound))]
    every = frozenset(
        (place, operand)
        for place, level in enumerate(machine.levels)
        for operand in (INPUT, WEIGHT, OUTPUT)
        if place and level.double[operand]
    )
    for double in (frozenset[tuple[int, int]](), every):
        mapped = placed(workload, machine, spatial, tuple(loops), double)
        if not any(capacity_faults(mapped)):
            yield mapped


def divisors_in_space(workload: Workload, machine: Machine) -> Factors:
    """On each axis the largest divisors that fit, by the rule's order of dims."""
    left = workload.dims
    chosen: dict[str, tuple[tuple[str, int], ...]] = {}
    for name, order in ORDERS.items():
        axis = next(axis for axis in machine.axes if axis.name == name)
        room, factors = axis.size, []
        for dim in order:
            if dim not in axis.dims:
                continue
            factor = max(f for f in range(1, min(room, left[dim]) + 1) if left[dim] % f == 0)
            if factor > 1:
                factors.append((dim, factor))
                left[dim] //= factor
                room //= factor
        chosen[name] = tuple(factors)
    return tuple(chosen[axis.name] for axis in machine.axes)


def remaining(workload: Workload, spatial: Factors, order: str) -> Loops:
    """What the loops in time have to cover."""
    left = workload.dims
    for factors in spatial:
        for dim, factor in factors:
            left[dim] = -(-left[dim] // factor)
    return tuple((dim, left[dim]) for dim in order)


def primes(number: int) -> list[int]:
    """Prime factors, ascending."""
    found, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return found
