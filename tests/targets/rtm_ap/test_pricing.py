"""What column operations cost: passes, shifts and wear, by closed forms and by a plain twin."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from cimc.target import load_target
from cimc.targets.rtm_ap import isa
from cimc.targets.rtm_ap.arrays import PackedArrays
from cimc.targets.rtm_ap.isa import ACROSS, Controller, Slot, Word, slot_table
from cimc.targets.rtm_ap.pass_tables import NAMES, TABLES, work
from cimc.targets.rtm_ap.pricing import Price, Pricer
from cimc.targets.rtm_ap.probe import Probe, Shifting
from cimc.targets.rtm_ap.span import Span
from cimc.targets.rtm_ap_spec import Ap, RtmApSpec
from tests.targets.rtm_ap.machine import side_by_side


def array(**changes: object) -> Ap:
    spec = load_target("rtm-ap", {f"ap.{key}": value for key, value in changes.items()}).spec
    assert isinstance(spec, RtmApSpec)
    return spec.ap


def probe_for(ap: Ap, arrays: int = 1) -> Probe:
    """A probe for arrays like these."""
    shifting = Shifting(ap.ports, ap.shift_policy == "eager", ap.realign_steps, ap.realign_reach)
    return Probe(shifting, carries=ap.carries, arrays=arrays)


def price(words: list[Word], slots: list[Slot], ap: Ap, times: int = 1) -> Price:
    pricer, found = Pricer(ap), Price()
    for _ in range(times):
        found = pricer.code(isa.encoded(words), slot_table(slots))
    return found


@pytest.mark.parametrize(("bits", "width"), [(4, 13), (1, 2), (8, 20)])
def test_unsigned_accumulation(bits: int, width: int) -> None:
    words = [Word(isa.ONTO, 1), Word(isa.ADD, 0, width)]
    found = price(words, side_by_side(bits, width), array())
    # 2 + 4(a - 1) + 2(m - a), less one: the highest bit of a sum that fits
    assert found.passes == 2 + 4 * (bits - 1) + 2 * (width - bits) - 1


def test_sum_beside_is_within_the_published_bound() -> None:
    words = [Word(isa.INTO, 2, 5), Word(isa.HOLD, 0), Word(isa.SUM, 1, 5)]
    found = price(words, side_by_side(4, 4, 5), array())
    assert found.passes == 3 + 5 * 3 + 1 <= 3 + 5 * (5 - 1)
    assert found.writes == 1 + array().carries  # the result is cleared in one write


def plain_price(
    words: list[Word], slots: list[Slot], ap: Ap, head: dict[int, int], since: dict[int, int]
) -> tuple[Price, dict[tuple[int, int], float]]:
    """The twin: follow the controller and move every column to its nearest port."""
    controller = Controller(slot_table(slots), ap.columns, ap.carries)
    wear: dict[tuple[int, int], float] = defaultdict(float)
    passes = writes = searched = shifts = moves = checks = 0
    written = changed = 0.0

    def moved(column: int, domain: int) -> int:
        ports = [port * ap.domains // ap.ports for port in range(ap.ports)]
        steps, target = min((abs(domain - port - head[column]), domain - port) for port in ports)
        if ap.shift_policy == "eager":
            return 2 * steps
        head[column] = target
        return steps

    for word in words:
        touched: set[int] = set()
        ahead = 0
        for step in controller.steps(word.code):
            if step.table == isa.FORGET:
                continue
            within = 0
            for column, domain in (step.a, step.b, step.c, step.r):
                if column < 0:
                    continue
                steps = moved(column, domain)
                moves += steps
                if ap.realign_steps:
                    found_checks, since[column] = divmod(since[column] + steps, ap.realign_steps)
                    checks += found_checks
                if column in touched:
                    within = max(within, steps)
                else:
                    touched.add(column)
                    ahead = max(ahead, steps)
            shifts += within
            if step.table in (isa.WRITE_0, isa.WRITE_1):
                writes += step.cycle
                written, changed = written + 1, changed + 0.5
                wear[step.r] += 0.5
                continue
            found = work(TABLES[NAMES[step.table]])
            passes, searched = passes + found.passes, searched + found.searched
            written, changed = written + found.written, changed + found.changed
            for cell, part in zip(
                (step.a, step.b, step.c, step.r), found.changed_by_role, strict=True
            ):
                if cell[0] >= 0:
                    wear[cell] += part
        shifts += ahead
    writes, written = writes + ap.carries, written + ap.carries
    counted = (passes, writes, searched, written, changed, shifts, moves, checks, len(words))
    return Price(*counted), wear


@pytest.mark.parametrize("period", [0, 7])
@pytest.mark.parametrize("policy", ["lazy", "eager"])
@pytest.mark.parametrize("ports", [1, 2, 4])
def test_prices_equal_the_twin(ports: int, policy: str, period: int) -> None:
    random = np.random.default_rng(ports)
    ap = array(ports=ports, shift_policy=policy, carries=3, realign_steps=period)

    def draw(low: int, high: int) -> int:
        return int(random.integers(low, high))

    slots = [Slot(10 * place, draw(10, 50), draw(0, 3), draw(1, 9)) for place in range(20)]
    pricer = Pricer(ap)
    head, since = (dict.fromkeys(range(ap.columns), 0) for _ in range(2))
    wear: dict[tuple[int, int], float] = defaultdict(float)
    for _ in range(20):
        words = [Word(isa.ONTO, draw(0, 20)), Word(isa.HOLD, draw(0, 20))]
        words += [
            Word(draw(0, 15), draw(0, 20), draw(4, 9), draw(0, 3), draw(0, 4)) for _ in range(5)
        ]
        found = pricer.code(isa.encoded(words), slot_table(slots))
        wanted, worn = plain_price(words, slots, ap, head, since)
        for cell, part in worn.items():
            wear[cell] += part
        rounded = replace(
            wanted, written=round(wanted.written, 3), changed=round(wanted.changed, 3)
        )
        assert found == rounded
    for (column, domain), part in wear.items():
        assert pricer.wear[column * ap.domains + domain] == pytest.approx(part)


def test_operands_across_columns_do_not_shift() -> None:
    words = [Word(isa.ONTO, 1), Word(isa.SADD, 0, 12)]
    assert price(words, [Slot(0, 0, ACROSS, 4), Slot(4, 0, ACROSS, 12)], array()).moves == 0


def test_measured_cells_agree_with_the_expected_ones() -> None:
    random = np.random.default_rng(5)
    slots = side_by_side(8, 8)
    words = [Word(isa.ONTO, 1), Word(isa.SADD, 0, 8)]
    span = Span(0, 64, 256, 32, 1)
    ap = array(carries=1)
    probe = probe_for(ap, 64)
    arrays = PackedArrays(span, probe)
    arrays.store(slot_table(slots), random.integers(0, 256, (2, span.lines)))
    probe.close_all()
    loaded = probe.total()
    assert loaded.written == 16 * span.lines
    arrays = PackedArrays(span, probe)
    arrays.store(slot_table(slots), random.integers(0, 256, (2, span.lines)))
    arrays.run(isa.encoded(words), slot_table(slots), 1)
    probe.close_all()
    counts, rows, expected = probe.total(), span.lines, price(words, slots, ap)
    assert counts.searched == rows * expected.searched
    # cleared carries change nothing at first; at last they hold 1 in half of the rows
    changed = counts.changed - 2 * loaded.changed
    assert changed / rows == pytest.approx(expected.changed, rel=0.02)
