"""`cimc report --sweep` over hardware variants: mapped anew, impossible ones as rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cimc.cli.values import parse_sweep
from cimc.errors import UsageError

Cimc = Callable[..., Any]  # the fixture of conftest
TARGET = "miredo-default"


@pytest.mark.parametrize(
    ("given", "variants"),
    [
        ("cores=1,2", [{"cores": 1}, {"cores": 2}]),
        ("a.b=1:2:3", [{"a.b": 1.0}, {"a.b": 1.5}, {"a.b": 2.0}]),
        ("a=2:4:3", [{"a": 2}, {"a": 3}, {"a": 4}]),
        ('a.double=[],["W"],["I","O"]', [{"a.double": d} for d in ([], ["W"], ["I", "O"])]),
        ("a+b=1,2", [{"a": 1, "b": 1}, {"a": 2, "b": 2}]),
        ("a+b=1+0.5,2+0.7", [{"a": 1, "b": 0.5}, {"a": 2, "b": 0.7}]),
        ('a="x,y",true', [{"a": "x,y"}, {"a": True}]),
    ],
)
def test_what_is_swept(given: str, variants: list[dict[str, object]]) -> None:
    assert parse_sweep(given) == variants


@pytest.mark.parametrize("given", ["a", "=1", "a=", "a=x", "a=1:2:1", "a+=1", "a+b=1+2+3", "a=1:"])
def test_what_cannot_be_swept(given: str) -> None:
    with pytest.raises(UsageError, match="KEY=1,2,4 or"):
        parse_sweep(given)


@pytest.fixture
def out(cimc: Cimc, model: Path) -> None:
    answer = cimc("compile", str(model), "-t", TARGET, "-o", "out", "--no-simulate")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    "key",
    [
        "cores=1,8",
        "memory.gb.size_bits=4096,2097152",
        "memory.dram.read_bits_per_cycle+memory.dram.write_bits_per_cycle=8,64",
        "memory.macro.size_bits=8,64",
        "macro.rows=24,32",
        "macro.columns=2,16",
    ],
)
def test_better_hardware_is_not_slower(cimc: Cimc, out: None, key: str) -> None:
    answer = cimc("report", "out", "--sweep", key, "--json")
    assert answer.code == 0, answer.err
    small, large = answer.json
    assert large["latency_ms"] <= small["latency_ms"]
    if "macro.size_bits" not in key:  # one weight for each cell is enough for this network
        assert small["energy_mj_per_inference"] != large["energy_mj_per_inference"]
    assert "of the target file unless the sweep names them, too" in answer.err


def test_a_second_weight_buffer(cimc: Cimc, out: None) -> None:
    answer = cimc("report", "out", "--sweep", 'memory.macro.double=[],["W"]', "--json")
    assert answer.code == 0, answer.err
    assert [row["memory.macro.double"] for row in answer.json] == ["[]", "[W]"]
    assert answer.json[1]["latency_ms"] <= answer.json[0]["latency_ms"]


def test_variants_that_are_impossible_are_rows(cimc: Cimc, out: None) -> None:
    args = ("report", "out", "--format", "csv", "--sweep")
    answer = cimc(*args, "memory.macro.size_bits=4,8,-8")
    assert answer.code == 0, answer.err
    head, first, second, third = answer.out.splitlines()
    assert head.endswith(",problem")
    assert "layer %a.sum: tiles do not fit in macro; need 8 bits (W 8); have 4 bits" in first
    assert second.startswith("8,0.0")
    assert "greater than 0" in third
    assert cimc(*args, "memory.macro.size_bits=4,2").code == 4
    assert cimc(*args, "memory.makro.size_bits=4,2").code == 2


def test_the_mapping_is_exact_where_the_program_was(cimc: Cimc, model: Path) -> None:
    args = ("-O3", "--time-limit", "0.5", "--jobs", "1", "--no-simulate")
    assert cimc("compile", str(model), "-t", TARGET, "-o", "out", *args).code == 0
    answer = cimc("report", "out", "--sweep", "cores=1,2", "--json")
    assert answer.code == 0, answer.err
    assert len(answer.json) == 2
