"""What a person sees of an exact search: a bar on a terminal, what is proven, what is kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cimc.cli.console import Console, table
from cimc.errors import Fault
from cimc.pipeline.passes import State
from cimc.pipeline.run import Observer, Place
from cimc.pipeline.tell import Searched, Searching, gap_of, network

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY = 10.0  # seconds between lines where nobody watches a terminal


class Searches(Observer):
    """Shows how far a search is, and what it proved in the end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.spoke = time.monotonic()
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def told(self, place: Place, news: Searching) -> None:
        """Redraw the bar, or say a line now and then."""
        if news.is_over:
            self._end(news)
        elif self.console.is_live:
            self._draw(news)
        elif time.monotonic() - self.spoke >= EVERY:
            self.spoke = time.monotonic()
            self.console.note(f"      {state(news)}")

    def failed(self, place: Place, before: State, problem: Exception) -> Fault | None:
        """Give the terminal back."""
        self._stop()
        return None

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _draw(self, news: Searching) -> None:
        if self.bar is None:
            from rich.console import Console as Terminal
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                TextColumn("      mapping"),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=Terminal(stderr=True),
                transient=True,
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=news.total)
        assert self.task is not None
        self.bar.update(self.task, completed=len(news.done), description=state(news))

    def _end(self, news: Searching) -> None:
        self._stop()
        was_interrupted = len(news.done) < news.total or any(
            item.outcome == "interrupted" for item in news.done
        )
        if was_interrupted:
            self.console.note(results(news.done))
            self.console.note(f"      {proven(news.done)}")
            if news.kept:
                self.console.note(
                    f"      {len(news.done)} of {news.total} kept in {news.kept}; "
                    "the same command goes on from there"
                )
            return
        self.console.detail(results(news.done))
        self.console.note(f"      {proven(news.done)}, {news.seconds:.1f} s")


def state(news: Searching) -> str:
    """`7 of 12 layers, now %conv3: 12345, gap 3.2 %`."""
    found = f"{len(news.done)} of {news.total} different layers"
    if news.running:
        item = max(news.running, key=lambda running: running.seconds)
        found += f", now %{item.layers[0]}"
        if item.bound > 0:
            found += f": {item.cost:.6g}, gap {gap_of(item.cost, item.bound):.2%}"
    return found


def proven(done: tuple[Searched, ...]) -> str:
    """One line: how much of what was found is proven to be the best."""
    if not done:
        return "no mapping was searched to an end"
    layers = sum(len(item.layers) for item in done)
    best = sum(len(item.layers) for item in done if item.gap == 0)
    worst = max(done, key=lambda item: item.gap)
    found = f"{done[0].objective}: {best} of {layers} layers proven best"
    if worst.gap > 0:
        whole = gap_of(*network(done))
        found += f", gap {whole:.2%} in all, {worst.gap:.2%} at most (%{worst.layers[0]})"
    late = sum(item.outcome == "time limit" for item in done)
    stored = sum(item.is_stored for item in done)
    if late:
        found += f"; the time limit ended {late} of {len(done)} searches"
    return found + (f"; {stored} of {len(done)} were stored" if stored else "")


def results(done: tuple[Searched, ...]) -> str:
    """One row for each layer that was searched."""
    rows = [
        [
            f"      %{item.layers[0]}" + (f" and {more} more" if more else ""),
            f"{item.cost:.6g}",
            f"{item.bound:.6g}",
            f"{item.gap:.2%}",
            f"{item.seconds:.1f}",
            item.outcome + (", stored" if item.is_stored else ""),
        ]
        for item in done
        for more in [len(item.layers) - 1]
    ]
    return table(["      layer", "cost", "bound", "gap", "s", ""], rows, right=(1, 2, 3, 4))
