"""Energy is counts times prices: exact, affine in every constant, and never silently zero."""

from __future__ import annotations

import random

import pytest

from cimc.errors import StallError, UsageError
from cimc.ir.program import Loop, Program
from cimc.sim.energy import energy
from cimc.sim.simulate import simulate
from cimc.sim.simulate.plan import plan_streams
from tests.sim.toy_machine import Toy, program, random_program, toy_target, work

READS = (("array.reads", 3),)
BITS = (("link.bits", 16),)
BOTH = Toy((("array.reads", "vector.op_pj"), ("link.bits", "link.pj_per_bit")))


def made() -> Program:
    """Ten array reads of three events each, one transfer per first iteration, on two cores."""
    body = (
        work("core0.array", 5, events=READS, layer="conv"),
        work("core1.link", 2, events=BITS, layer="conv", when=(("i", "first"),)),
        work("link", 1, events=BITS, layer="pool", when=(("i", "last"),)),
    )
    return program({}, (Loop("i", 10, body),))


def test_dynamic_energy_is_counts_times_prices() -> None:
    spent = energy(made(), toy_target(), 100, kind=BOTH)
    assert spent.dynamic_pj == 30 * 2.0 + 32 * 0.5
    assert spent.by_event() == {"array.reads": (30, 60.0), "link.bits": (32, 16.0)}
    assert spent.by_layer() == {"conv": {"array": 60.0, "link": 8.0}, "pool": {"link": 8.0}}
    assert spent.by(lambda item: item.core) == {
        "core0": {"array": 60.0},
        "core1": {"link": 8.0},
        "": {"link": 8.0},
    }


def test_static_energy_is_leakage_of_all_instances_times_cycles() -> None:
    spent = energy(made(), toy_target(), 100, kind=BOTH)
    assert spent.static_pj == 2 * 0.25 * 100  # two cores' memories
    assert spent.by_component() == {"array": 60.0, "leakage": 50.0, "link": 16.0}
    assert spent.total_pj == 126.0


def test_setup_is_counted_apart() -> None:
    given = made()
    once = Program("p", "toy", (), (), (), (work("u", 1, events=READS),), given.streams)
    spent = energy(once, toy_target(), 0, kind=BOTH)
    assert (spent.setup_pj, spent.dynamic_pj) == (6.0, 76.0)


def test_energy_is_affine_in_a_constant_with_its_count_as_coefficient() -> None:
    totals = [energy(made(), toy_target(op_pj=pj), 100, kind=BOTH).total_pj for pj in (0, 1, 2, 7)]
    assert [total - totals[0] for total in totals] == [0, 30, 60, 210]


def test_a_missing_price_is_an_error_not_zero() -> None:
    with pytest.raises(UsageError) as caught:
        energy(made(), toy_target(), 100, kind=Toy())
    assert str(caught.value) == (
        "error CIM6010: event link.bits has no price\n"
        "  need:    an entry 'link.bits' in what `energies` of the kind toy returns\n"
        "  have:    a missing cost is an error, not zero\n"
        "  help:    add the constant to toy.toml, such as [link] bits_pj"
    )


def test_assumed_constants_are_named_where_they_entered() -> None:
    assert energy(made(), toy_target(), 100, kind=BOTH).assumed == ("vector.op_pj",)
    only_link = program({}, (work("link", 1, events=BITS),))
    assert energy(only_link, toy_target(), 100, kind=BOTH).assumed == ()


@pytest.mark.parametrize("seed", range(8))
def test_closed_form_counts_are_what_the_simulator_executes(seed: int) -> None:
    given = random_program(random.Random(seed), longest=300)
    plan = plan_streams(given, toy_target(), Toy())
    try:
        outcome = simulate(given, toy_target(), kind=Toy(), samples=1, fast_forward=False).outcome
    except StallError as problem:  # a random program may wait forever
        pytest.skip(str(problem))
    assert outcome.executed == plan.executions
