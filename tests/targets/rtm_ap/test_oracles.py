"""Oracles of racetrack associative processing that anyone can derive again.

T1-T5 pass tables, their work and their time; T10 shifts; T11 energy; T18 functions of two values;
T19 shift faults. Those of the arithmetic (T6-T9, T12) stand in `test_oracles_arithmetic`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cimc.sim.energy import energy
from cimc.target import load_target
from cimc.targets.rtm_ap import KIND, functions, isa
from cimc.targets.rtm_ap.arrays import PackedArrays
from cimc.targets.rtm_ap.isa import ACROSS, ALONG, Slot, Word, slot_table
from cimc.targets.rtm_ap.minimal import fewest_passes
from cimc.targets.rtm_ap.pass_tables import TABLES, PassTable, work
from cimc.targets.rtm_ap.plain_arrays import PlainArrays
from cimc.targets.rtm_ap.pricing import Price, Pricer
from cimc.targets.rtm_ap.probe import Luck, Probe, Shifting, draw
from cimc.targets.rtm_ap.span import Span
from cimc.targets.rtm_ap_spec import Ap
from tests.targets.rtm_ap.machine import SPAN, Ints, assert_same, probes, run, side_by_side, signed
from tests.targets.rtm_ap.test_pricing import array, probe_for
from tests.targets.rtm_ap.test_rtm_ap import conv_graph, lowered, tiled

REVERSE = PassTable(
    "reverse-sub",
    "ABC",
    (),
    lambda a, b, c, r: (a, a ^ b ^ c, int(a - b - c < 0), r),
    lambda *_: True,
)
FIRST = {"add": "add-first", "sub": "sub-first", "sum": "sum-first", "diff": "diff-first"}


def price(words: list[Word], slots: list[Slot], ap: Ap, times: int = 1) -> Price:
    pricer, found = Pricer(ap), Price()
    for _ in range(times):
        found = pricer.code(isa.encoded(words), slot_table(slots))
    return found


# --- T1: fewest passes ---


@pytest.mark.parametrize(
    ("table", "passes"),
    [
        *((TABLES[name], 4) for name in ("add", "sub")),
        *((TABLES[name], 3) for name in ("add-dead", "sub-dead")),
        (REVERSE, 6),
        *((TABLES[name], 2) for name in ("add-first", "sub-first", "ripple", "negate", "less")),
        (TABLES["negate-in-place"], 3),
        *((TABLES[name], 1) for name in ("copy", "clear-keyed", "less-than-0", "less-than-1")),
        *((TABLES[name], 5) for name in ("sum", "diff")),
    ],
    ids=lambda value: value.name if isinstance(value, PassTable) else str(value),
)
def test_t01_fewest_passes(table: PassTable, passes: int) -> None:
    assert fewest_passes(table, passes) == passes


# --- T2: tables against integer arithmetic ---


def bit_serial(table: PassTable, first: PassTable, a: int, b: int, width: int) -> int:
    """The result of a table on two's complement numbers, bit after bit, with sign extension."""
    total = carry = 0
    for bit in range(width):
        state = (a >> bit & 1, b >> bit & 1, carry, 0)
        _, in_place, carry, beside = (first if bit == 0 else table).run(state)
        total |= (beside if "R" in table.roles else in_place) << bit
    return total - (total >> (width - 1) << width)


@pytest.mark.parametrize("name", FIRST)
def test_t02_tables_equal_integer_arithmetic(name: str) -> None:
    random = np.random.default_rng(2)
    for _ in range(2000):
        a, b = int(random.integers(-128, 128)), int(random.integers(-1024, 1024))
        wanted = {"add": b + a, "sub": b - a, "sum": a + b, "diff": a - b}[name]
        assert bit_serial(TABLES[name], TABLES[FIRST[name]], a, b, 13) == wanted
        assert bit_serial(TABLES[name], TABLES[name], a, b, 13) == wanted


def test_t02_swapped_passes_fail() -> None:
    one, two, three, four = TABLES["add"].passes
    swapped = replace(TABLES["add"], passes=(one, two, four, three))
    wrong = sum(bit_serial(swapped, swapped, a, b, 6) != a + b
                for a in range(-8, 8) for b in range(-8, 8))  # fmt: skip
    assert wrong > 100
    assert list(swapped.check())


# --- T3: time ---


@pytest.mark.parametrize("width", [5, 8, 13])
def test_t03_in_place_addition_takes_8m_minus_4_cycles(width: int) -> None:
    ap = array(search_cycles=1, write_cycles=1)
    found = price([Word(isa.ONTO, 1), Word(isa.SADD, 0, width)], side_by_side(4, width), ap)
    assert found.passes == 2 + 4 * (width - 1)
    assert 2 * found.passes == 8 * width - 4
    assert found.cycles(ap) == 8 * width - 4 + 1 + ap.carries  # and constants to the carries


# --- T4, T5: work and wear of one bit ---


@pytest.mark.parametrize(
    ("name", "searched", "changed"),
    [("add", 12, 0.75), ("sub", 12, 0.75), ("sum", 15, 0.75), ("add-dead", 8, 1.5),
     ("sub-dead", 8, 1.5)],
)  # fmt: skip
def test_t04_cells_searched_and_changed_per_row_and_bit(
    name: str, searched: int, changed: float
) -> None:
    found = work(TABLES[name])
    assert (found.searched, found.changed) == (searched, changed)


@pytest.mark.parametrize(("opcode", "searched"), [(isa.SADD, 12), (isa.SSUM, 15)])
def test_t04_executed_additions_change_three_quarters_of_a_cell(opcode: int, searched: int) -> None:
    """On the arrays: independent uniform bits; the carry of bit i is uniform up to 2**-i."""
    bits, (probe, changes, fixed) = 24, executed(opcode, 24)
    assert fixed == (bits - 1) * searched + 6  # the lowest bit has no carry yet
    assert changes / bits == pytest.approx(0.75, abs=0.02)
    assert probe.total().searched == fixed * 64 * 256


@pytest.mark.parametrize("opcode", [isa.SADD, isa.SSUM])
def test_t05_the_carry_flips_once_in_four_bits(opcode: int) -> None:
    probe, _, _ = executed(opcode, 24)
    rows = np.concatenate([probe.carry_wear(number)[0] for number in probe.counts])
    # the last carry is 1 in half of the rows and cleared at the end: half a flip more
    assert (rows.mean() - 0.5) / 24 == pytest.approx(0.25, abs=0.01)
    for name in ("add", "sub", "sum", "diff"):
        assert work(TABLES[name]).changed_by_role[2] == 0.25


def executed(opcode: int, bits: int) -> tuple[Probe, float, int]:
    """The probe of one addition of uniform numbers, changes per row in it, cells searched."""
    span, random = Span(0, 64, 256, 3 * bits + 1, 1), np.random.default_rng(4)
    slots = slot_table(side_by_side(bits, bits, bits))
    values = random.integers(0, 1 << bits, (3, span.lines))
    values[2] = 0
    probe = probe_for(array(carries=1), 64)
    arrays = PackedArrays(span, probe)
    arrays.store(slots, values)
    words = [Word(isa.ONTO, 1), Word(opcode, 0, bits)]
    if opcode == isa.SSUM:
        words = [Word(isa.INTO, 2, bits), Word(isa.HOLD, 0), Word(opcode, 1, bits)]
    before = sum(int(number).bit_count() for number in values.reshape(-1).tolist())
    arrays.run(isa.encoded(words), slots, 1)
    probe.close_all()
    total = probe.total()
    # what loading changed is known; the carry that is cleared at last is no part of a bit
    changed = (total.changed - before) / span.lines - 0.5
    return probe, changed, total.searched // span.lines


# --- T10: shifts ---


@pytest.mark.parametrize(("policy", "factor"), [("lazy", 1), ("eager", 2)])
@pytest.mark.parametrize("ports", [1, 2, 4])
def test_t10_a_track_moves_to_its_nearest_port(policy: str, factor: int, ports: int) -> None:
    ap = array(ports=ports, shift_policy=policy)
    places = [port * ap.domains // ports for port in range(ports)]
    for domain in range(ap.domains):
        found = Pricer(ap).touched(slot_table([Slot(0, domain, ACROSS, 1)]))
        nearest = min(abs(domain - place) for place in places)
        assert found.moves == found.shifts == factor * nearest


def test_t10_lazy_tracks_stay_and_eager_ones_return() -> None:
    slots = slot_table([Slot(0, 9, ACROSS, 1)])
    lazy, eager = Pricer(array(shift_policy="lazy")), Pricer(array(shift_policy="eager"))
    assert [lazy.touched(slots).moves for _ in range(3)] == [9, 0, 0]
    assert [eager.touched(slots).moves for _ in range(3)] == [18, 18, 18]
    assert (lazy.home().moves, eager.home().moves) == (9, 0)


@pytest.mark.parametrize("width", [4, 10, 13])
def test_t10_operands_along_tracks_take_2_m_minus_1_steps_per_addition(width: int) -> None:
    slots = [Slot(0, 0, ALONG, width), Slot(1, 0, ALONG, width)]
    words = [Word(isa.ONTO, 1), Word(isa.SADD, 0, width)]
    found = price(words, slots, array(), times=3)
    assert found.shifts == 2 * (width - 1)  # both tracks side by side, forth and back
    assert found.moves == 2 * 2 * (width - 1)
    probe = probe_for(array())
    arrays = PackedArrays(replace(SPAN, columns=256, domains=64), probe)
    arrays.store(slot_table(slots), np.zeros((2, SPAN.lines), np.int64))
    for _ in range(3):
        arrays.run(isa.encoded(words), slot_table(slots), 4)
    probe.close_all()
    # the loads left both tracks at their ends, so each addition goes back and forth
    loads = 2 * (width - 1)
    assert probe.total().moves == SPAN.lines * (loads + 3 * 2 * 2 * (width - 1))


# --- T11: energy ---


def test_t11_energy_is_affine_with_counted_events_as_coefficients() -> None:
    graph, base = conv_graph(), load_target("rtm-ap", {"ap.realign_steps": 3})
    program = lowered(tiled(graph, base), base)
    events = {
        "search_pj": "ap.searched_bits",
        "write_pj": "ap.written_bits",
        "shift_pj": "ap.shift_steps",
        "read_pj": "ap.read_bits",
        "realign_pj": "ap.checks",
    }
    counted = energy(program, base, 0, kind=KIND).by_event()
    for key, event in events.items():
        changed = [
            load_target("rtm-ap", {"ap.realign_steps": 3, f"ap.{key}": value})
            for value in (0.0, 1.0, 2.5)
        ]
        zero, one, more = (energy(program, t, 0, kind=KIND).dynamic_pj for t in changed)
        count = counted.get(event, (0, 0.0))[0]
        assert one - zero == pytest.approx(count)
        assert more - zero == pytest.approx(2.5 * count)


# --- T18: functions ---


def every_pair(bits: int) -> tuple[Ints, Ints]:
    numbers = np.arange(1 << bits)
    return np.repeat(numbers, 1 << bits), np.tile(numbers, 1 << bits)


def test_t18_maximum_of_all_pairs() -> None:
    a, b = every_pair(4)
    words = functions.maximum(0, 1, 4)
    assert (run(words, side_by_side(4, 4), {0: a, 1: b}, 0) == np.maximum(a, b)).all()
    assert price(words, side_by_side(4, 4), array()).passes == 4 * 4


def test_t18_comparison_of_all_pairs() -> None:
    a, b = every_pair(4)
    words = functions.less(0, 1, 2, 4)
    assert (run(words, side_by_side(4, 4, 1), {0: a, 1: b}, 2) == (a < b)).all()
    assert price(words, side_by_side(4, 4, 1), array()).passes == 2 * 4 + 1  # and the outcome


@pytest.mark.parametrize("constant", range(16))
def test_t18_comparison_of_all_numbers_with_a_constant(constant: int) -> None:
    a = np.arange(16)
    words = functions.less_than(0, constant, 1, 4)
    found = run(words, side_by_side(4, 1), {0: a}, 1)[:16]
    assert (found == (a < constant)).all()
    assert price(words, side_by_side(4, 1), array()).passes == 4 + 1


@pytest.mark.parametrize("bits", [1, 4])
def test_t18_relu_of_all_numbers(bits: int) -> None:
    a, words = np.arange(1 << bits), functions.relu(0, bits)
    found = run(words, side_by_side(bits), {0: a}, 0)[: 1 << bits]
    assert (found == np.maximum(signed(a, bits), 0)).all()
    assert price(words, side_by_side(bits), array()).passes == bits


@pytest.mark.parametrize("low", range(0, 16, 3))
@pytest.mark.parametrize("high", range(0, 16, 3))
def test_t18_clip_of_all_numbers(low: int, high: int) -> None:
    a = np.arange(16)
    words = [*functions.at_least(0, low, 4), *functions.at_most(0, high, 4)]
    found = run(words, side_by_side(4), {0: a}, 0)[:16]
    assert (found == np.minimum(np.maximum(a, low), high)).all()
    assert price(words, side_by_side(4), array()).passes == 2 * 2 * 4


def test_t18_negation_of_all_numbers() -> None:
    a = np.arange(16)
    found = run(functions.negated(0, 1, 4), side_by_side(4, 4), {0: a}, 1)[:16]
    assert (found == -a % 16).all()
    assert (run(functions.negate(0, 4), side_by_side(4), {0: a}, 0)[:16] == -a % 16).all()
    assert price(functions.negated(0, 1, 4), side_by_side(4, 4), array()).passes == 2 * 4
    assert price(functions.negate(0, 4), side_by_side(4), array()).passes == 3 * 4


def test_t18_pooling() -> None:
    a, b = every_pair(4)
    values = {0: a, 1: b, 2: a[::-1], 3: np.roll(b, 5)}
    stacked = np.stack(list(values.values()))
    found = run(functions.largest([0, 1, 2, 3], 4, 4), side_by_side(4, 4, 4, 4, 4), values, 4)
    assert (found == stacked.max(axis=0)).all()
    found = run(functions.total([0, 1, 2, 3], 4, 4), side_by_side(4, 4, 4, 4, 6), values, 4)
    assert (found == stacked.sum(axis=0)).all()  # the average is its upper bits


# --- T19: shift faults ---

ALONG_SLOTS = [Slot(0, 0, ALONG, 8), Slot(1, 0, ALONG, 10), Slot(2, 3, ALONG, 8)]
SHIFTING_WORDS = [Word(isa.ONTO, 1), Word(isa.SADD, 0, 10), Word(isa.SSUB, 2, 10)]


def faults(rate: float, seed: int, turns: int = 4) -> tuple[Probe, Ints]:
    """A probe after some additions whose operands lie along tracks, and their result."""
    probe = Probe(Shifting(1, False, 0, 1), rate, seed)
    arrays = PackedArrays(SPAN, probe)
    slots = slot_table(ALONG_SLOTS)
    values = np.random.default_rng(0).integers(0, 16, (3, SPAN.lines))
    arrays.store(slots, values)
    for _ in range(turns):
        arrays.run(isa.encoded(SHIFTING_WORDS), slots, 1)
    found = arrays.fetch(slots)[1]
    probe.close_all()
    return probe, found


def test_t19_faults_are_binomial_in_steps_and_rate() -> None:
    rate, counts = 2e-3, []
    for seed in range(60):
        probe, _ = faults(rate, seed)
        counts.append(probe.total().faults)
    steps = probe.total().moves
    assert steps > 10_000
    mean, variance = steps * rate, steps * rate * (1 - rate)
    assert abs(np.mean(counts) - mean) < 4 * np.sqrt(variance / len(counts))
    assert 0.6 < np.var(counts, ddof=1) / variance < 1.6  # chi square of 59: 0.001 .. 0.999


def test_t19_good_steps_before_a_fault_are_geometric() -> None:
    rate, luck = 0.05, Luck(np.array([9], np.uint64), np.zeros(1, np.int64), 1 / np.log1p(-0.05))
    found = []
    for _ in range(4000):
        draw(luck, rate)
        found.append(int(luck.until[0]))
    waits = np.array(found)
    for n in (0, 1, 5, 20, 60):  # P(wait >= n) = (1 - rate)**n
        share = (1 - rate) ** n
        assert abs((waits >= n).mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000) + 1e-12


def test_t19_without_faults_results_are_exact() -> None:
    none, exact = faults(0.0, 1)
    assert none.total().faults == 0
    arrays = PackedArrays(SPAN)
    slots = slot_table(ALONG_SLOTS)
    arrays.store(slots, np.random.default_rng(0).integers(0, 16, (3, SPAN.lines)))
    for _ in range(4):
        arrays.run(isa.encoded(SHIFTING_WORDS), slots, 1)
    assert (arrays.fetch(slots)[1] == exact).all()
    few, _ = faults(1e-8, 1)
    assert few.total().faults == 0


def test_t19_at_rate_1_every_step_goes_wrong() -> None:
    probe, _ = faults(1.0, 1, turns=1)
    assert probe.total().faults == probe.total().moves > 0


def test_t19_faults_come_from_their_seed_and_change_results() -> None:
    exact = faults(0.0, 0)[1]
    (one, first), (same, again), (other, third) = (faults(1e-3, seed) for seed in (5, 5, 6))
    assert (first == again).all()
    assert one.total() == same.total()
    assert one.total().faults > 0
    assert (first != exact).any()
    assert (first != third).any() or one.total() != other.total()


@pytest.mark.parametrize("rate", [1e-3, 0.02])
@pytest.mark.parametrize(("ports", "eager", "period"), [(1, False, 0), (2, False, 5), (1, True, 9)])
def test_t19_both_engines_slip_alike(rate: float, ports: int, eager: bool, period: int) -> None:
    noted = probes(ports, eager, rate, 3, period)
    found, slots = [], slot_table(ALONG_SLOTS)
    values = np.random.default_rng(1).integers(0, 256, (3, SPAN.lines))
    for arrays in (PlainArrays(SPAN, noted[0]), PackedArrays(SPAN, noted[1])):
        arrays.store(slots, values)
        for _ in range(2):
            arrays.run(isa.encoded(SHIFTING_WORDS), slots, 3)
            arrays.home()
        found.append(arrays.fetch(slots))
    assert (found[0] == found[1]).all()
    assert_same(*noted)
    assert noted[0].total().faults > 0


def test_t19_a_code_mends_what_it_reaches() -> None:
    exact = faults(0.0, 0, turns=1)[1]
    rate = 2e-4

    def wrong(period: int) -> tuple[int, int]:
        differing = mended = 0
        for seed in range(12):
            probe = Probe(Shifting(1, False, period, 1), rate, seed)
            arrays = PackedArrays(SPAN, probe)
            slots = slot_table(ALONG_SLOTS)
            arrays.store(slots, np.random.default_rng(0).integers(0, 16, (3, SPAN.lines)))
            arrays.run(isa.encoded(SHIFTING_WORDS), slots, 1)
            differing += int((arrays.fetch(slots)[1] != exact).sum())
            probe.close_all()
            mended += probe.total().mended
        return differing, mended

    (never, none), (always, some) = wrong(0), wrong(1)
    assert none == 0
    assert some > 0
    assert always == 0 < never  # a check after every step finds each slip before it matters
