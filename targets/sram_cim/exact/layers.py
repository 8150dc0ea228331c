"""The exact search for all macro layers of a network, with news for whoever watches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from cimc.ir.tiles import Nest
from cimc.kind import Options
from cimc.mapping.objective import Objective
from cimc.mapping.workload import Workload
from cimc.pipeline.tell import Searched, Searching, tell
from cimc.target import Target
from cimc.targets.sram_cim.exact.driver import Interrupted, Result, Standing, solve_all
from cimc.targets.sram_cim.exact.problem import Problem
from cimc.targets.sram_cim.exact.store import default_store

WORTH = 5.0  # seconds of search that are worth starting processes

Key = tuple[Workload, int]


def solve_layers(
    starts: Mapping[Key, Nest],
    names: Mapping[Key, Sequence[str]],
    titles: Mapping[Key, str],
    target: Target,
    options: Options,
) -> Mapping[Key, Nest]:
    """The best mapping found for each kind of layer, no worse than `starts` by the simulator.

    `names` of the layers that are equal, `titles` for messages.
    """
    objective = Objective.parse(options.objective)
    problems = [Problem(workload, epilogue, objective) for workload, epilogue in starts]
    store = default_store()
    news = _News([names[key] for key in starts], str(objective), str(store.folder if store else ""))
    try:
        results: Sequence[Result | None] = solve_all(
            problems,
            target,
            incumbents=list(starts.values()),
            names=[titles[key] for key in starts],
            jobs=options.jobs or (1 if options.time_limit_s < WORTH else None),
            time_limit=options.time_limit_s,
            layer_time_limit=options.layer_time_limit_s,
            gap=options.gap,
            store=store,
            on_progress=news.watch,
        )
    except Interrupted as interrupted:
        news.end(interrupted.results)
        raise
    news.end(results)
    return {
        key: start if result is None else result.solution.nest
        for (key, start), result in zip(starts.items(), results, strict=True)
    }


class _News:
    """Puts what the driver sees into words for observers."""

    def __init__(self, layers: Sequence[Sequence[str]], objective: str, kept: str) -> None:
        self.layers, self.objective, self.kept = layers, objective, kept
        self.began = time.monotonic()

    def watch(self, standings: Sequence[Standing]) -> None:
        """Searches go on."""
        done = [
            self._searched(place, one.result, one.seconds)
            for place, one in enumerate(standings)
            if one.result is not None
        ]
        running = [
            Searched(
                tuple(self.layers[place]),
                self.objective,
                0.0,
                0.0,
                one.cost,
                one.bound,
                one.seconds,
                "running",
            )
            for place, one in enumerate(standings)
            if one.is_running
        ]
        tell(self._searching(done, running, is_over=False))

    def end(self, results: Sequence[Result | None]) -> None:
        """All searches are over."""
        done = [
            self._searched(place, result, result.solution.seconds)
            for place, result in enumerate(results)
            if result is not None
        ]
        tell(self._searching(done, [], is_over=True))

    def _searching(
        self, done: list[Searched], running: list[Searched], *, is_over: bool
    ) -> Searching:
        seconds = time.monotonic() - self.began
        total = len(self.layers)
        return Searching(total, tuple(done), tuple(running), seconds, is_over, self.kept)

    def _searched(self, place: int, result: Result, seconds: float) -> Searched:
        solution = result.solution
        return Searched(
            tuple(self.layers[place]),
            self.objective,
            solution.latency,
            solution.energy_pj,
            solution.cost,
            solution.bound,
            seconds,
            result.outcome,
            result.is_stored,
        )
