"""The exact search under private ports: against the simulator, known optima, and brute force."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import cimc.targets
from cimc.errors import FitError
from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.lowering import ConvShape
from cimc.mapping.machine import NAMES, OPERANDS
from cimc.mapping.nest import Mapped, resolve
from cimc.mapping.objective import Objective
from cimc.mapping.sample import random_nest
from cimc.mapping.workload import Workload
from cimc.target import Target, load_target
from cimc.targets.sram_cim.exact import Problem, solve
from cimc.targets.sram_cim.exact.choices import distinct_factors
from cimc.targets.sram_cim.exact.outline import ground_of, outline_of
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.private_ports import fast
from cimc.targets.sram_cim.private_ports.schedule import private_schedule


def shape_of(text: str) -> ConvShape:
    """ "c32 k8" as a shape of stride 1 without padding."""
    given = {word[0]: int(word[1:]) for word in text.split()}
    n, g, k, c, p, q, r, s = (given.get(dim, 1) for dim in "ngkcpqrs")
    return ConvShape(n, g, k, c, p, q, r, s, h=p + r - 1, w=q + s - 1)


def spatial_of(text: str) -> tuple[Spatial, ...]:
    """ "cores k8, rows c16" as spatial loops."""
    found = []
    for part in filter(None, text.split(", ")):
        axis, *factors = part.split()
        found.append(Spatial(axis, tuple((word[0], int(word[1:])) for word in factors)))
    return tuple(found)


# --- outlines ---


def random_case(seed: int) -> tuple[Target, Workload, Nest]:
    """A random layer of up to a few thousand activations with a random mapping."""
    rng = random.Random(seed)
    target = load_target(rng.choice(["miredo-default", "miredo-transformer"]))
    stride, r, s = rng.choice([1, 2]), rng.choice([1, 3]), rng.choice([1, 3])
    p, q = rng.choice([1, 4, 7, 8, 14]), rng.choice([1, 3, 6, 7])
    g, k, c = rng.choice([1, 1, 2]), rng.choice([8, 16, 24, 64]), rng.choice([3, 16, 32, 128])
    height, width = (p - 1) * stride + r, (q - 1) * stride + s
    shape = ConvShape(1, g, k, c, p, q, r, s, height, width, (stride, stride))
    workload = Workload(shape)
    return target, workload, random_nest(workload, machine_of(target), rng, exact=True)


def test_outlines_bound_the_simulator_and_are_nearly_exact() -> None:
    ratios, exact_pj = [], 0
    for seed in range(200):
        target, workload, nest = random_case(seed)
        mapped = resolve(nest, workload, machine_of(target))
        assert isinstance(mapped, Mapped)
        try:
            schedule = private_schedule(nest, target, workload)
        except FitError:
            continue
        found = outline_of(mapped, ground_of(workload, target, mapped.spatial))
        if found is None:
            continue
        cycles, pj = found
        latency, energy = fast.latency(schedule), sum(schedule.energy_pj.values())
        assert cycles <= latency * (1 + 1e-12), seed
        assert pj <= energy * (1 + 1e-12), seed
        ratios.append(cycles / latency)
        exact_pj += pj == pytest.approx(energy, rel=1e-12)
    assert len(ratios) > 150
    assert sum(ratios) / len(ratios) > 0.999
    assert sum(ratio > 1 - 1e-12 for ratio in ratios) > 0.95 * len(ratios)
    assert exact_pj > 0.98 * len(ratios)


# --- known optima ---

OPTIMA = (
    ("default", "c32 k8", "cores k8, rows c16", 52),
    ("default", "c96 k4", "rows c32, columns k2", 96),
    ("default", "c6 k144", "rows c3, columns k16", 236),
    ("transformer", "c32 k32 p32 g2", "cores p8 g2, rows c32, columns k16", 182),
    ("default", "c64 k64 p7 q7", "cores k8, rows c32, columns k8", 1693),
    ("default", "c80 k480 p14 q14", "cores k6, rows c20, columns k16", 47610),
)


@pytest.mark.parametrize(("name", "shape", "spatial", "latency"), OPTIMA)
def test_optima_at_a_spatial_choice_are_found_and_proven(
    name: str, shape: str, spatial: str, latency: int
) -> None:
    target, workload = load_target(f"miredo-{name}"), Workload(shape_of(shape))
    least = Objective.parse("latency")
    fixed = Problem(workload, 1, least, "private", spatial_of(spatial))
    found = solve(fixed, target, time_limit=None)
    assert (found.cost, found.bound) == (latency, latency)
    assert found.finished
    free = solve(Problem(workload, 1, least, "private"), target, time_limit=None, gap=0.01)
    assert free.cost <= latency
    assert free.is_proven(0.01)


def test_without_time_the_best_mapping_by_rule_and_the_root_bound() -> None:
    target = load_target("miredo-default")
    problem = Problem(Workload(shape_of("c64 k64 p7 q7")), 1, Objective.parse("edp"), "private")
    found = solve(problem, target, time_limit=0)
    assert 0 < found.bound < found.cost
    assert not found.finished
    better = solve(problem, target, time_limit=None, gap=0.01, incumbent=found.nest)
    assert better.cost <= found.cost
    assert better.is_proven(0.01)


@pytest.mark.parametrize("text", ["latency", "energy", "edp", "0.5*latency+0.001*energy"])
def test_no_random_mapping_beats_an_optimum(text: str) -> None:
    target, objective = load_target("miredo-default"), Objective.parse(text)
    workload = Workload(ConvShape(1, 1, 8, 6, 4, 3, 3, 1, h=6, w=3))
    found = solve(Problem(workload, 1, objective, "private"), target, time_limit=None)
    assert found.bound == pytest.approx(found.cost, rel=1e-12)
    compared = 0
    for seed in range(300):
        nest = random_nest(workload, machine_of(target), random.Random(seed), exact=True)
        try:
            schedule = private_schedule(nest, target, workload)
        except FitError:
            continue
        cycles = fast.latency(schedule)
        pj = sum(schedule.energy_pj.values()) + cycles * schedule.leakage_pj
        assert objective.score(cycles, pj) >= found.cost * (1 - 1e-12)
        compared += 1
    assert compared > 250


# --- brute force ---


def test_brute_force_agrees_on_layers_of_one_loop() -> None:
    assert sum(agrees(seed, *small_case(seed)) for seed in range(20)) >= 18


@pytest.mark.slow
def test_brute_force_agrees_on_two_hundred_layers() -> None:
    assert sum(agrees(seed, *small_case(seed)) for seed in range(20, 230)) >= 200


def test_brute_force_agrees_on_layers_of_two_loops(tmp_path: Path) -> None:
    """On a machine of fewer levels: I in dram gb ireg, W in dram gb macro, O in dram gb oreg."""
    text = (Path(cimc.targets.__path__[0]) / "miredo-default.toml").read_text()
    for level in ("ob", "ib"):
        begin = text.index(f"[memory.{level}]")
        text = text[:begin] + text[text.index("[memory.", begin + 1) :]
        text = text.replace(f'"{level}"', '"gb"')
    path = tmp_path / "few-levels.toml"
    path.write_text(text)
    for seed, shape in enumerate(("c3 k2", "p2 k3", "p2 r2", "c4", "g2 q2")):
        rng = random.Random(seed)
        sizes = {
            "cores": rng.choice([1, 2]),
            "macro.adder_tree": "balanced",
            "macro.rows": 1,
            "macro.columns": 1,
            "memory.gb.size_bits": rng.choice([32, 64, 256]),
            "memory.gb.read_bits_per_cycle": rng.choice([4, 16]),
            "memory.dram.read_bits_per_cycle": rng.choice([2, 8]),
        }
        assert agrees(seed, load_target(str(path), sizes), Workload(shape_of(shape)))


def agrees(seed: int, target: Target, workload: Workload) -> bool:
    """Compare with brute force for three objectives; False where nothing is left for loops."""
    figures = list(every_mapping(target, workload))
    for text in ("latency", "energy", "edp"):
        objective = Objective.parse(text)
        found = solve(Problem(workload, 1, objective, "private"), target, time_limit=None)
        expected = min(objective.score(cycles, pj) for cycles, pj in figures)
        assert found.cost == pytest.approx(expected, rel=1e-12), (seed, text)
        assert found.bound == pytest.approx(expected, rel=1e-12), (seed, text)
    return len(figures) > 1


def small_case(seed: int) -> tuple[Target, Workload]:
    """A layer whose loops in time are one at most, on a machine of random sizes."""
    rng = random.Random(seed)
    sizes = {
        "cores": rng.choice([1, 1, 2]),
        "macro.adder_tree": "balanced",
        "macro.rows": rng.choice([2, 4]),
        "macro.columns": rng.choice([1, 2]),
        "memory.gb.size_bits": rng.choice([64, 256, 1024, 4096]),
        "memory.ib.size_bits": rng.choice([16, 64, 256]),
        "memory.ob.size_bits": rng.choice([32, 64, 256]),
        "memory.dram.read_bits_per_cycle": rng.choice([2, 8, 64]),
        "memory.gb.read_bits_per_cycle": rng.choice([4, 16, 128]),
        "memory.ib.read_bits_per_cycle": rng.choice([4, 32]),
        "memory.ob.read_bits_per_cycle": rng.choice([4, 32]),
        "memory.dram.read_pj_per_bit": rng.choice([0.1, 8.0]),
        "memory.gb.write_pj_per_bit": rng.choice([0.01, 2.0]),
    }
    text = f"{rng.choice('gkcpqs')}{rng.choice([2, 3, 5])}"
    return load_target("miredo-default", sizes), Workload(shape_of(text))


def every_mapping(target: Target, workload: Workload) -> Iterator[tuple[float, float]]:
    """Cycles and pJ of all legal nests."""
    machine = machine_of(target)
    chains = [[machine.levels[i].name for i in machine.chain(o)] for o in OPERANDS]
    may_double = {
        (level.name, NAMES[o]) for level in machine.levels for o in OPERANDS if level.double[o]
    }
    for spatial, left in every_spatial(target, workload):
        for loops in every_order(left):
            held = [itertools.combinations_with_replacement(chain, len(loops)) for chain in chains]
            for levels in itertools.product(*held):
                used = {(name, NAMES[o]) for o in OPERANDS for name in levels[o]}
                flags = sorted((used & may_double) - {("dram", name) for name in NAMES})
                temporal = tuple(
                    TemporalLoop(dim, bound, (levels[0][i], levels[1][i], levels[2][i]))
                    for i, (dim, bound) in enumerate(loops)
                )
                for count in range(len(flags) + 1):
                    for double in itertools.combinations(flags, count):
                        nest = Nest(workload.shape.dims, spatial, temporal, double)
                        try:
                            schedule = private_schedule(nest, target, workload)
                        except FitError:
                            continue
                        cycles = fast.latency(schedule)
                        pj = sum(schedule.energy_pj.values()) + cycles * schedule.leakage_pj
                        yield cycles, pj


def every_spatial(
    target: Target, workload: Workload
) -> Iterator[tuple[tuple[Spatial, ...], dict[str, int]]]:
    """All spatial loops with what they leave; factors that leave the same are tried once."""
    axes = machine_of(target).axes

    def extend(
        place: int, left: dict[str, int], found: tuple[Spatial, ...]
    ) -> Iterator[tuple[tuple[Spatial, ...], dict[str, int]]]:
        if place == len(axes):
            yield found, left
            return
        axis = axes[place]
        dims = [dim for dim in sorted(axis.dims) if left[dim] > 1]
        for factors in itertools.product(*(distinct_factors(left[dim], axis.size) for dim in dims)):
            total = 1
            for factor in factors:
                total *= factor
            if total > axis.size:
                continue
            own = tuple((d, f) for d, f in zip(dims, factors, strict=True) if f > 1)
            after = {**left, **{d: -(-left[d] // f) for d, f in own}}
            more = (Spatial(axis.name, own),) if own else ()
            yield from extend(place + 1, after, (*found, *more))

    yield from extend(0, workload.dims, ())


def every_order(left: dict[str, int]) -> Iterator[tuple[tuple[str, int], ...]]:
    """All orders of all factorizations."""
    todo = {dim: extent for dim, extent in left.items() if extent > 1}
    if not todo:
        yield ()
        return
    for dim, extent in todo.items():
        for bound in range(2, extent + 1):
            if extent % bound == 0:
                for rest in every_order({**todo, dim: extent // bound}):
                    yield ((dim, bound), *rest)
