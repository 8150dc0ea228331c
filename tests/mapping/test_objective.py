"""What searches minimize, as text and as numbers."""

from __future__ import annotations

import pytest

from cimc.errors import UsageError
from cimc.mapping.objective import Objective


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("latency", 10.0),
        ("energy", 4.0),
        ("edp", 40.0),
        ("0.5*latency+2*energy", 13.0),
        (" 0.5 * latency + 2.0 * energy ", 13.0),
        ("energy+energy", 8.0),
        ("period", 10.0),
        ("0.5*period+2*energy", 13.0),
    ],
)
def test_scores_and_round_trip(text: str, score: float) -> None:
    objective = Objective.parse(text)
    assert objective.score(10.0, 4.0) == score
    assert Objective.parse(str(objective)) == objective
    assert objective.is_periodic == ("period" in text)
    assert str(objective.of_layer) == str(objective).replace("period", "latency")


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("speed", "terms [WEIGHT*]latency, [WEIGHT*]period, [WEIGHT*]energy"),
        ("", "terms [WEIGHT*]latency, [WEIGHT*]period, [WEIGHT*]energy"),
        ("latency*2", "terms [WEIGHT*]latency, [WEIGHT*]period, [WEIGHT*]energy"),
        ("2*edp", "terms [WEIGHT*]latency, [WEIGHT*]period, [WEIGHT*]energy"),
        ("-1*latency", "weights that are numbers of at least 0"),
        ("nan*energy", "weights that are numbers of at least 0"),
        ("0*energy", "a weight above 0"),
        ("latency+period", "latency or period, not both"),
    ],
)
def test_nonsense_is_refused(text: str, need: str) -> None:
    with pytest.raises(UsageError) as caught:
        Objective.parse(text)
    (fault,) = caught.value.faults
    assert fault.need == need
    assert fault.have == (text or "nothing")
