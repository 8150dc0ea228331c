"""Private ports against vectors that MIREDO's own simulator confirmed."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from cimc.errors import FitError
from cimc.ir.tiles import Nest, Spatial, TemporalLoop
from cimc.lowering import ConvShape
from cimc.mapping.nest import Mapped, resolve
from cimc.mapping.sample import random_nest
from cimc.mapping.workload import Workload
from cimc.target import Target, load_target
from cimc.targets.sram_cim.machine import machine_of
from cimc.targets.sram_cim.private_ports import fast, simulate_private
from cimc.targets.sram_cim.private_ports import simulator as private_ports
from cimc.targets.sram_cim.private_ports.closed_form import closed_form
from cimc.targets.sram_cim.private_ports.fast import closed_forms_of
from cimc.targets.sram_cim.private_ports.schedule import Schedule, private_schedule

LEVELS = {
    "1": "dram",
    "2": "gb",
    "3": "ob",
    "4": "ib",
    "5": "oreg",
    "6": "ireg",
    "7": "macro",
}


@dataclass(frozen=True)
class Vector:
    """A mapped layer with its published latency (cycles) and energy (nJ)."""

    name: str
    target: str
    shape: str  # "c32 k8"
    spatial: str  # "cores k8 rows c16"
    loops: str  # "c2:115": dim, bound, digits of the levels of I, W, O
    double: str
    latency: int
    energy_nj: float


VECTORS = (
    Vector("se_conv2", "default", "c32 k8", "cores k8 rows c16", "c2:115", "", 52, 21.066066),
    Vector(
        "se_conv13",
        "default",
        "c6 k144",
        "rows c3 columns k16",
        "k3:111 k3:112 c2:125",
        "gb/O gb/W",
        236,
        88.586694,
    ),
    Vector(
        "attn_tile",
        "transformer",
        "c32 k32 p32 g2",
        "cores p8 g2 rows c32 columns k16",
        "p2:171 k2:173 p2:475",
        "ob/O ib/I",
        182,
        621.216287,
    ),
    Vector(
        "c1x1_64",
        "default",
        "c64 k64 p7 q7",
        "cores k8 rows c32 columns k8",
        "q7:171 p7:173 c2:273",
        "gb/I ob/O",
        1693,
        954.028253,
    ),
    Vector(
        "L3",
        "default",
        "c256 k512 p7 q7",
        "cores k8 rows c32 columns k16",
        "k2:111 k2:113 c2:113 c2:123 q7:123 p7:273 c2:275",
        "dram/W gb/I gb/W ob/O",
        31315,
        16799.207555,
    ),
    Vector(
        "L5",
        "default",
        "c80 k480 p14 q14",
        "cores k6 rows c20 columns k16",
        "k5:111 q2:111 q7:111 p7:113 p2:473 c2:475 c2:475",
        "dram/O ob/O ib/I",
        50730,
        22109.965358,
    ),
)


def shape_of(text: str) -> ConvShape:
    """ "c32 k8" as a shape of stride 1 without padding."""
    given = {word[0]: int(word[1:]) for word in text.split()}
    n, g, k, c, p, q, r, s = (given.get(dim, 1) for dim in "gnkcpqrs".replace("gn", "ng"))
    return ConvShape(n, g, k, c, p, q, r, s, h=p + r - 1, w=q + s - 1)


def nest_of(vector: Vector) -> Nest:
    """The vector's mapping."""
    spatial: dict[str, list[tuple[str, int]]] = {}
    axis = ""
    for word in vector.spatial.split():
        if word in ("cores", "rows", "columns"):
            axis = word
        else:
            spatial.setdefault(axis, []).append((word[0], int(word[1:])))
    loops = []
    for word in vector.loops.split():
        bound, levels = word[1:].split(":")
        i, w, o = (LEVELS[digit] for digit in levels)
        loops.append(TemporalLoop(word[0], int(bound), (i, w, o)))
    double = []
    for word in vector.double.split():
        level, operand = word.split("/")
        double.append((level, operand))
    axes = tuple(Spatial(name, tuple(factors)) for name, factors in spatial.items())
    return Nest(shape_of(vector.shape).dims, axes, tuple(loops), tuple(double))


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_published_vectors(vector: Vector, engine: Literal["fast", "plain"]) -> None:
    target = load_target(f"miredo-{vector.target}")
    run = simulate_private(nest_of(vector), target, shape_of(vector.shape), engine)
    assert run.latency == vector.latency
    assert run.energy_nj == pytest.approx(vector.energy_nj, rel=1e-6)


def test_tile_larger_than_its_level() -> None:
    vector = Vector("x", "default", "c32 k8 p64", "rows c16", "k8:111 c2:115 p64:175", "", 0, 0)
    with pytest.raises(FitError) as caught:
        simulate_private(nest_of(vector), load_target("miredo-default"), shape_of(vector.shape))
    assert str(caught.value) == (
        "error CIM4010: tiles do not fit in oreg\n"
        "  need:    1024 bits (O 1024)\n"
        "  have:    16 bits (miredo-default: memory.oreg.size_bits)"
    )


def drawn(seed: int) -> tuple[Target, Workload, Nest]:
    """A random layer with a random mapping."""
    rng = random.Random(seed)
    target = load_target(rng.choice(["miredo-default", "miredo-transformer"]))
    stride = rng.choice([1, 2])
    p, q = rng.choice([1, 4, 7, 8, 14]), rng.choice([1, 3, 6, 7])
    r, s = rng.choice([1, 3]), rng.choice([1, 3])
    shape = ConvShape(
        n=1,
        g=rng.choice([1, 1, 2]),
        k=rng.choice([8, 16, 24, 64]),
        c=rng.choice([3, 16, 32, 48, 128]),
        p=p,
        q=q,
        r=r,
        s=s,
        h=(p - 1) * stride + r,
        w=(q - 1) * stride + s,
        strides=(stride, stride),
    )
    workload = Workload(shape)
    return target, workload, random_nest(workload, machine_of(target), rng, exact=True)


def schedules(count: int) -> Iterator[tuple[int, Schedule]]:
    """Schedules of random mappings that fit, of not too many steps."""
    for seed in range(count):
        target, workload, nest = drawn(seed)
        try:
            schedule = private_schedule(nest, target, workload)
        except FitError:
            continue
        if math.prod(schedule.bounds) <= 5000:
            yield seed, schedule


def test_engines_agree() -> None:
    """Python, compiled steps, and max-plus powers."""
    seen = 0
    for seed, schedule in schedules(150):
        run = private_ports._Run(schedule)
        latency = run.latency()
        stepped, waited = fast.stepped(schedule)
        assert stepped == pytest.approx(latency, rel=1e-12), seed
        assert waited == pytest.approx(run.waited), seed
        assert fast.latency(schedule) == pytest.approx(latency, rel=1e-12), seed
        seen += 1
    assert seen > 100


def test_latency_of_a_long_layer_needs_no_steps() -> None:
    """VGG's largest layer has four million activations; powers do not notice."""
    loops = "k8:111 c4:113 r3:113 s3:123 q224:123 p224:273 c2:275"
    vector = Vector("vgg", "default", "c256 k1024 p224 q224 r3 s3", "", loops, "gb/I ob/O", 0, 0)
    vector = dataclasses.replace(vector, spatial="cores k8 rows c32 columns k16")
    schedule = private_schedule(
        nest_of(vector),
        load_target("miredo-default", {"memory.ob.size_bits": 2**40, "memory.gb.size_bits": 2**40}),
        Workload(shape_of(vector.shape)),
    )
    activations = 8 * 4 * 3 * 3 * 224 * 224 * 2
    assert fast.latency(schedule) >= activations * 8
    assert fast.latency(schedule) == fast.stepped(schedule)[0]


# --- the closed form ---


def test_closed_form_against_the_simulator() -> None:
    errors = []
    for seed in range(400):
        target, workload, nest = drawn(seed)
        try:
            schedule = private_schedule(nest, target, workload)
        except FitError:
            continue
        errors.append(closed_form(schedule).latency / fast.latency(schedule) - 1)
    sizes = np.abs(errors)
    assert len(sizes) > 300
    assert sizes.mean() < 0.01
    assert np.median(sizes) < 1e-9
    assert sizes.max() < 0.15


def test_closed_form_of_the_first_vector() -> None:
    """In two steps: fetch weights for 8 cores in 17 cycles, activate in 8; O comes and goes."""
    vector = VECTORS[0]
    target = load_target("miredo-default")
    schedule = private_schedule(nest_of(vector), target, Workload(shape_of(vector.shape)))
    assert closed_form(schedule).latency == 1 + 17 + 8 + 17 + 8 + 1


def test_batch_equals_the_closed_form() -> None:
    checked = 0
    for seed in range(300):
        target, workload, nest = drawn(seed)
        mapped = resolve(nest, workload, machine_of(target))
        assert isinstance(mapped, Mapped)
        try:
            schedule = private_schedule(nest, target, workload)
        except FitError:
            continue
        expected = closed_form(schedule)
        figures = closed_forms_of([mapped, mapped], target)
        assert figures[0] == pytest.approx([expected.latency] * 2, rel=1e-12), seed
        assert figures[1] == pytest.approx([expected.energy_pj] * 2, rel=1e-12), seed
        checked += 1
    assert checked > 200
