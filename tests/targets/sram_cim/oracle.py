"""Every mapping of a tiny layer, listed plainly: an oracle for the exact search.

    python -m tests.targets.sram_cim.oracle --count 250    # shared ports; --timing private

Loops are all orders of the prime factors of what spatial loops leave; an operand's levels are all
ways to keep the loops, from outside in, at levels of its chain, passing through any others (as
loops of bound 1); second buffers are all that the machine allows. Nothing is left out for being
no better, but one thing: on shared ports mappings with equal flows make equal programs.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterator

from cimc.ir.tiles import Nest, TemporalLoop
from cimc.lowering import ConvShape
from cimc.mapping.flows import flows
from cimc.mapping.machine import NAMES, OPERANDS, Machine
from cimc.mapping.nest import Mapped, capacity_faults, resolve
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.target import Target, load_target
from cimc.targets.sram_cim.exact import Problem, solve
from cimc.targets.sram_cim.exact.choices import all_choices, remaining, spatial_of
from cimc.targets.sram_cim.exact.problem import Figures, Timing
from cimc.targets.sram_cim.exact.solve import model_of
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.stationary import primes

OBJECTIVES = ("latency", "energy", "edp")


def orders(left: dict[str, int]) -> Iterator[tuple[tuple[str, int], ...]]:
    """All orders of the prime factors, each once."""
    loops = [(dim, prime) for dim, bound in left.items() for prime in primes(bound)]
    yield from sorted(set(itertools.permutations(loops)))


def paths(count: int, length: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to keep `count` loops at positions of a chain: positions named before each loop,
    the last of which keeps it, and those named after all loops."""
    for kept in itertools.combinations_with_replacement(range(length), count):
        steps: list[list[tuple[int, ...]]] = []
        before = 0
        for place in (*kept, length - 1):
            between = range(before + 1, place) if place > before else range(0)
            steps.append([
                passed for size in range(len(between) + 1)
                for passed in itertools.combinations(between, size)
            ])  # fmt: skip
            before = place
        for passed in itertools.product(*steps):
            yield (*((*p, k) for p, k in zip(passed, kept, strict=False)), passed[-1])


def nests(workload: Workload, machine: Machine) -> Iterator[Nest]:
    """All nests, some of which may not fit."""
    names = [level.name for level in machine.levels]
    chains = [[names[level] for level in machine.chain(o)] for o in OPERANDS]
    doubles = [
        (level.name, NAMES[o])
        for level in machine.levels[1:]
        for o in OPERANDS
        if level.double[o] and level.holds[o]
    ]
    for factors in all_choices(workload, machine):
        spatial = spatial_of(factors, machine)
        for order in orders(remaining(workload, factors)):
            every = [list(paths(len(order), len(chain))) for chain in chains]
            for chosen in itertools.product(*every):
                loops = tuple(_loops(order, chosen, chains))
                for size in range(len(doubles) + 1):
                    for double in itertools.combinations(doubles, size):
                        yield Nest(
                            tuple(workload.dims.items()), spatial, loops, tuple(sorted(double))
                        )


def different(found: Iterator[Nest], workload: Workload, machine: Machine) -> Iterator[Nest]:
    """Of the nests that fit, those whose transfers differ."""
    seen: set[object] = set()
    for nest in found:
        mapped = resolve(nest, workload, machine)
        if not isinstance(mapped, Mapped) or any(capacity_faults(mapped)):
            continue
        moves = tuple(
            (
                flow.operand,
                flow.outer.level,
                flow.inner.level,
                flow.double,
                _real(mapped, flow.loop),
            )
            for flow in flows(mapped)
        )
        real = tuple(item for item in mapped.loops if item[1] > 1)
        if (mapped.spatial, real, moves) not in seen:
            seen.add((mapped.spatial, real, moves))
            yield nest


def _real(mapped: Mapped, loop: int) -> int:
    """Loops of bound above 1 up to this one."""
    return sum(bound > 1 for _, bound in mapped.loops[: loop + 1])


def _loops(
    order: tuple[tuple[str, int], ...],
    chosen: tuple[tuple[tuple[int, ...], ...], ...],
    chains: list[list[str]],
) -> Iterator[TemporalLoop]:
    at = [0, 0, 0]
    for place in range(len(order) + 1):
        for o in OPERANDS:
            named = chosen[o][place]
            for position in named if place == len(order) else named[:-1]:
                at[o] = position
                i, w, r = (chains[k][at[k]] for k in OPERANDS)
                yield TemporalLoop("n", 1, (i, w, r))
        if place < len(order):
            for o in OPERANDS:
                at[o] = chosen[o][place][-1]
            i, w, r = (chains[k][at[k]] for k in OPERANDS)
            yield TemporalLoop(*order[place], (i, w, r))


def instance(rng: random.Random) -> tuple[Workload, int, Target]:
    """A tiny layer and a machine with few levels."""
    changes: dict[str, object] = {
        "cores": rng.choice([1, 1, 2]),
        "macro.rows": rng.choice([1, 2]),
        "macro.columns": rng.choice([1, 2]),
        "memory.macro.size_bits": rng.choice([8, 16]),
        "memory.gb.size_bits": rng.choice([64, 256, 1 << 16]),
        "memory.gb.holds": rng.choice([["W"], ["W", "O"], ["I"]]),
        "memory.gb.double": [],
        "memory.dram.read_bits_per_cycle": rng.choice([1, 4, 64]),
        "memory.dram.latency_cycles": rng.choice([1, 5]),
        "memory.ob.size_bits": rng.choice([32, 1 << 12]),
        "memory.ib.size_bits": rng.choice([16, 1 << 12]),
        "macro.adder_tree": "balanced",
    }
    if rng.random() < 0.5:
        changes["memory.gb.double"] = rng.choice([changes["memory.gb.holds"], []])
    changes["memory.ib.double"] = rng.choice([["I"], []])
    changes["memory.ob.double"] = rng.choice([["O"], []])
    changes["memory.dram.double"] = []
    target = load_target("miredo-default", changes)
    g, k, c, p = (1, 1, 1, 1)
    for _ in range(rng.choice([1, 1, 2])):
        match rng.randrange(4):
            case 0:
                k *= rng.choice([2, 3])
            case 1:
                c *= rng.choice([2, 3])
            case 2:
                p *= rng.choice([2, 3])
            case _:
                g *= 2
    kernel = rng.choice([1, 1, 2])
    if g * k * c * p * kernel > 12:
        kernel = 1
    shape = ConvShape(1, g, k, c, p, 1, kernel, 1, p + kernel - 1, 1)
    return Workload(shape), rng.choice([1, 2]), target


def check(seed: int, timing: Timing, most: int) -> int:
    """Compare search and oracle on one instance; mappings listed, 0 if there are too many."""
    workload, epilogue, target = instance(random.Random(f"oracle {seed}"))
    model = model_of(Problem(workload, epilogue, Objective.parse("latency"), timing), target)
    found = nests(workload, machine_of(target))
    if timing == "shared":
        found = different(found, workload, machine_of(target))
    listed = list(itertools.islice(found, most + 1))
    if len(listed) > most:
        return 0
    figures: list[Figures] = [
        figure for nest in listed if (figure := model.evaluate(nest)) is not None
    ]
    for name in OBJECTIVES:
        objective = Objective.parse(name)
        best = min(objective.score(f.cycles, f.energy_pj) for f in figures)
        problem = Problem(workload, epilogue, objective, timing)
        solution = solve(problem, target, time_limit=None)
        where = f"instance {seed}, {timing} ports, {name}: {workload.shape}"
        assert solution.finished, where
        assert abs(solution.cost - best) <= 1e-9 * best, f"{where}: {solution.cost} for {best}"
        assert solution.bound >= best * (1 - 1e-9), f"{where}: bound {solution.bound} of {best}"
    return len(listed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=250, help="layers on random hardware")
    parser.add_argument("--timing", choices=["shared", "private"], default="shared")
    parser.add_argument("--most", type=int, default=400, help="mappings of a layer")
    options = parser.parse_args()
    began, checked, mappings, seed = time.monotonic(), 0, 0, 0
    while checked < options.count:
        found = check(seed, options.timing, options.most)
        checked += found > 0
        mappings += found
        seed += 1
    seconds = time.monotonic() - began
    print(f"{checked} layers, {mappings} mappings, 3 objectives: all equal ({seconds:.0f} s)")


if __name__ == "__main__":
    main()
