"""`cimc run --watch` and `--noise`: counts, faults that come from their seed, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cimc.trials import spread

Cimc = Callable[..., Any]  # the fixture of conftest


@pytest.fixture
def out(cimc: Cimc, model: Path, tmp_path: Path) -> Path:
    """A program whose columns are so few that tracks shift."""
    answer = cimc(
        "compile", str(model), "-t", "rtm-ap", "-o", "out", "--no-simulate",
        "--set", "ap.columns=64", "--set", "ap.domains=16",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return tmp_path / "out"


def trials(cimc: Cimc, images: Path, *words: str) -> list[dict[str, Any]]:
    answer = cimc("run", "out", "--input", str(images), "--count", "2", *words)
    assert answer.code == 0, answer.err
    found: list[dict[str, Any]] = json.loads(Path("out/trials.json").read_text())["trials"]
    return found


def test_watching_counts_and_changes_nothing(cimc: Cimc, out: Path, images: Path) -> None:
    (trial,) = trials(cimc, images, "--watch")
    assert trial["differing"] == 0
    findings = trial["findings"]
    assert findings["searched bits"] > findings["written bits"] > findings["changed bits"] > 0
    assert findings["shift steps"] > 0
    assert findings["shift faults"] == 0
    assert findings["lifetime in inferences"] == pytest.approx(
        1e16 / findings["changes of the hottest cell"]
    )


def test_faults_come_from_their_seed(cimc: Cimc, out: Path, images: Path) -> None:
    noise = ("--noise", "shift-fault-rate=1e-4", "--trials", "3")
    found = trials(cimc, images, *noise, "--seed", "5")
    again = trials(cimc, images, *noise, "--seed", "6")
    assert [trial["seed"] for trial in found] == [5, 6, 7]
    assert found[1:] == again[:2]
    for trial in found:
        steps, faults = (trial["findings"][name] for name in ("shift steps", "shift faults"))
        assert faults == pytest.approx(1e-4 * steps, rel=0.3)
    assert any(trial["differing"] > 0 for trial in found)


def test_what_is_printed(cimc: Cimc, out: Path) -> None:
    answer = cimc(
        "run", "out", "--random", "2", "--trials", "2",
        "--noise", "shift-fault-rate=1e-4", "--noise", "realign-steps=2",
    )  # fmt: skip
    assert answer.out.startswith(
        "2 trials of 2 samples, seeds 0 .. 1: shift-fault-rate 0.0001, realign-steps 2, "
    )
    assert "realigned tracks" in answer.out
    assert "per inference" in answer.out


def test_refusals(cimc: Cimc, out: Path) -> None:
    answer = cimc("run", "out", "--random", "1", "--noise", "shift=1")
    assert answer.code == 2
    assert answer.err == (
        "error CIM2056: no noise is called 'shift'\n"
        "  need:    shift-fault-rate, realign-steps, realign-reach\n"
    )
    for given in ("shift-fault-rate=2", "shift-fault-rate=much", "realign-steps=0.5"):
        answer = cimc("run", "out", "--random", "1", "--noise", given)
        assert answer.code == 2
        assert given.partition("=")[0] in answer.err
    assert cimc("run", "out", "--watch", "--mode", "cycle").code == 2


def test_machines_without_noise_say_so(cimc: Cimc, model: Path) -> None:
    cimc("compile", str(model), "-t", "edge-digital", "-o", "digital", "--no-simulate")
    answer = cimc("run", "digital", "--random", "1", "--watch")
    assert answer.code == 2
    assert "edge-digital cannot be disturbed" in answer.err


def test_spread_of_some_values() -> None:
    found = spread([1.0, 2.0, 6.0])
    assert (found.mean, found.least, found.most) == (3.0, 1.0, 6.0)
    assert found.deviation == pytest.approx(2.6457513)
