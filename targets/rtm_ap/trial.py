"""One Monte Carlo trial: arrays whose tracks slip now and then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cimc.errors import Fault, UsageError, raise_if
from cimc.targets.rtm_ap.probe import PROBE, Probe, Shifting
from cimc.targets.rtm_ap_spec import RtmApSpec


class Trial:
    """A probe for one trial, and what it found."""

    def __init__(self, spec: RtmApSpec, settings: Mapping[str, float], seed: int) -> None:
        raise_if(_faults(settings), UsageError)
        self.ap = ap = spec.ap
        shifting = Shifting(
            ap.ports,
            ap.shift_policy == "eager",
            int(settings["realign-steps"]),
            int(settings["realign-reach"]),
        )
        rate, arrays = settings["shift-fault-rate"], spec.cores * ap.arrays
        self.probe = Probe(shifting, rate, seed, carries=ap.carries, arrays=arrays)
        self.states: Mapping[str, object] = {PROBE: self.probe}

    def findings(self, runs: int) -> Mapping[str, float]:
        """Counts of all arrays, and the hottest cell, per run."""
        from cimc.targets.rtm_ap.wear import measured_wear

        self.probe.close_all()
        total = self.probe.total()
        changes = measured_wear(self.probe, self.ap, runs).hottest()[2]
        found = {
            "searched bits": total.searched / runs,
            "written bits": total.written / runs,
            "changed bits": total.changed / runs,
            "shift steps": total.moves / runs,
            "checks": total.checks / runs,
            "shift faults": total.faults / runs,
            "realigned tracks": total.mended / runs,
            "changes of the hottest cell": changes,
        }
        if changes:
            found["lifetime in inferences"] = self.ap.endurance / changes
        return found


def _faults(settings: Mapping[str, float]) -> Iterator[Fault]:
    rate = settings["shift-fault-rate"]
    if not 0 <= rate <= 1:
        yield Fault("noise shift-fault-rate", "a probability, 0 .. 1", str(rate), code="CIM2054")
    for name, least in (("realign-steps", 0), ("realign-reach", 1)):
        value = settings[name]
        if value < least or value != int(value):
            yield Fault(f"noise {name}", f"a whole number, at least {least}", f"{value:g}",
                        code="CIM2054")  # fmt: skip
