"""The passes of one bit: right on every state, as few as possible, with the work that follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cimc.targets.rtm_ap.minimal import fewest_passes
from cimc.targets.rtm_ap.pass_tables import TABLES, PassTable, work


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_right_on_every_state(name: str) -> None:
    assert list(TABLES[name].check()) == []


@pytest.mark.parametrize("name", TABLES)
def test_no_pass_can_be_left_out(name: str) -> None:
    table = TABLES[name]
    for place in range(len(table.passes)):
        rest = table.passes[:place] + table.passes[place + 1 :]
        assert list(replace(table, passes=rest).check())


def test_the_order_of_passes_matters() -> None:
    first, second, third, fourth = TABLES["add"].passes
    swapped = replace(TABLES["add"], passes=(first, second, fourth, third))
    assert [str(fault.where) for fault in swapped.check()] == ["pass table add: A B C R = 1 0 0 0"]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_as_short_as_can_be(name: str) -> None:
    table = TABLES[name]
    assert fewest_passes(table, len(table.passes) - 1) is None


@pytest.mark.parametrize(("name", "passes"), [("add", 4), ("add-dead", 3), ("copy", 1)])
def test_the_search_finds_a_table_of_known_length(name: str, passes: int) -> None:
    unknown = replace(TABLES[name], passes=())
    assert fewest_passes(TABLES[name], 5) == fewest_passes(unknown, 5) == passes
    assert fewest_passes(TABLES[name], passes - 1) is None


def test_passes_that_are_wrong_are_no_solution() -> None:
    add = TABLES["add"]
    assert fewest_passes(replace(add, passes=add.passes[:3]), 3) is None
    assert fewest_passes(replace(add, passes=add.passes[:3]), 4) == 4


def test_reverse_subtraction_takes_six_passes() -> None:
    reverse = PassTable(
        "reverse",
        "ABC",
        (),
        lambda a, b, c, r: (a, a ^ b ^ c, int(a - b - c < 0), r),
        lambda *_: True,
    )
    assert fewest_passes(reverse, 6) == 6


@pytest.mark.parametrize(
    ("name", "searched", "changed"),
    [("add", 12, 0.75), ("sub", 12, 0.75), ("sum", 15, 0.75), ("add-dead", 8, 1.5)],
)
def test_work_per_row_and_bit(name: str, searched: int, changed: float) -> None:
    found = work(TABLES[name])
    assert (found.searched, found.changed) == (searched, changed)


def test_the_carry_changes_in_a_quarter_of_all_additions() -> None:
    assert work(TABLES["add"]).changed_by_role[2] == 0.25
