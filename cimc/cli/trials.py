"""`cimc run --watch` and `--noise`: what a machine does while it runs, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cimc.cli.console import Console, Json

if TYPE_CHECKING:
    from cimc.compiled import Compiled
    from cimc.dataset import Dataset
    from cimc.trials import Trial

TRIALS_FILE = "trials.json"


def parse_noise(given: Sequence[str]) -> dict[str, float]:
    """`shift-fault-rate=1e-8` as name and number.

    raises  UsageError for anything else
    """
    from cimc.errors import Fault, UsageError

    found: dict[str, float] = {}
    for item in given:
        name, _, value = item.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UsageError(
                Fault(
                    f"--noise {item}",
                    need="NAME=NUMBER, such as shift-fault-rate=1e-8",
                    code="CIM2057",
                )
            ) from None
    return found


def run_noisy(
    console: Console,
    compiled: Compiled,
    data: Dataset,
    noise: dict[str, float],
    seed: int,
    trials: int,
    engine: str,
    folder: Path,
) -> None:
    """Run all trials, write them to trials.json in the folder, print their spread."""
    from cimc.cli.progress import followed
    from cimc.pipeline.state import write_whole
    from cimc.trials import disturbed_kind, run_trials

    settings = {**disturbed_kind(compiled.target, noise).settings(compiled.target), **noise}
    running = run_trials(
        compiled.program, compiled.target, data, settings, seed=seed, trials=trials, engine=engine
    )
    found = list(followed(console, running, trials, "trials"))
    report = _report(found, settings, len(data))
    write_whole(folder / TRIALS_FILE, json.dumps(report, indent=2) + "\n")
    console.result(report, lambda: _text(found, settings, data))


def _report(trials: Sequence[Trial], settings: dict[str, float], samples: int) -> dict[str, Json]:
    rows: list[Json] = []
    for trial in trials:
        row: dict[str, Json] = {
            "seed": trial.seed,
            "accuracy": trial.accuracy,
            "agreement": trial.agreement,
            "differing": trial.differing,
            "findings": dict(trial.findings),
        }
        rows.append(row)
    return {
        "noise": dict(settings),
        "samples": samples,
        "accuracy_without": trials[0].accuracy_without if trials else None,
        "trials": rows,
    }


def _text(trials: Sequence[Trial], settings: dict[str, float], data: Dataset) -> str:
    """The settings, accuracy and agreement with their spread, then counts per inference."""
    from cimc.trials import spread

    shown = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    first, last = trials[0].seed, trials[-1].seed
    seeds = f"seed {first}" if first == last else f"seeds {first} .. {last}"
    lines = [f"{len(trials)} trials of {len(data)} samples, {seeds}: {shown}"]
    if trials[0].accuracy_without is not None:
        lines.append(f"  {'accuracy without noise':<30}{trials[0].accuracy_without:.2%}")
    for label, values in (
        ("accuracy", [trial.accuracy for trial in trials]),
        ("samples that choose the same", [trial.agreement for trial in trials]),
        ("output elements that differ", [trial.differing for trial in trials]),
    ):
        known = [value for value in values if value is not None]
        if known:
            over = spread(known)
            line = f"  {label:<30}{over.mean:.2%}"
            if len(known) > 1:
                line += f" +- {over.deviation:.2%} ({over.least:.2%} .. {over.most:.2%})"
            lines.append(line)
    lines.append("per inference")
    for name in trials[0].findings:
        over = spread([trial.findings.get(name, 0.0) for trial in trials])
        line = f"  {name:<30}{over.mean:,.6g}"
        if len(trials) > 1 and over.deviation:
            line += f" +- {over.deviation:.3g}"
        lines.append(line)
    return "\n".join(lines)
