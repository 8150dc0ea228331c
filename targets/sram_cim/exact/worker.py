"""One search at a time, in a process or a thread of its own, with messages to whoever started it.

A worker process reads pickled tasks from its stdin and writes pickled messages to its stdout; it
ends with its stdin, so that none outlives its parent. Where a process is killed its messages end,
which the parent sees as `Lost`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Protocol

from cimc.errors import CimcError
from cimc.ir.tiles import Nest
from cimc.target import Target
from cimc.targets.sram_cim.exact.problem import Problem, Progress, Solution

SOLVER = "cimc.targets.sram_cim.exact.solve:solve"
EVERY = 0.1  # seconds between messages of progress, at least
PATIENCE = 10.0  # seconds for a search to end that nobody waits for any more


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is asked to do."""

    number: int
    problem: Problem
    target: Target
    time_limit: float | None
    gap: float
    incumbent: Nest | None
    solver: str = SOLVER  # module:function with the arguments of `solve`


@dataclass(frozen=True, slots=True)
class Begun:
    """A search begins: a new process takes a moment until it does."""

    number: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """A search goes on."""

    number: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Solved:
    """A search is over."""

    number: int
    solution: Solution


@dataclass(frozen=True, slots=True)
class Failed:
    """A search raised something: `faults` of the user's, or an error of our own."""

    number: int
    error: CimcError | None
    message: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker is gone; `status` as `subprocess` has it: -9 for one that was killed."""

    status: int


Message = Begun | Advanced | Solved | Failed | Lost
Inbox = queue.SimpleQueue[tuple["Worker", Message]]


class Worker(Protocol):
    """Does one task after the other and puts messages into an inbox."""

    def start(self, task: Task) -> None:
        """Begin a task; only when the one before is over."""

    def stop(self) -> None:
        """End the task soon, with what was found."""

    def close(self) -> None:
        """End the worker, at once if it does not listen."""


def perform(task: Task, stop: Callable[[], bool], send: Callable[[Message], None]) -> None:
    """Do a task; the first message is `Begun`, the last one `Solved` or `Failed`."""
    sent = 0.0
    send(Begun(task.number))

    def advanced(progress: Progress) -> None:
        nonlocal sent
        if time.monotonic() - sent >= EVERY:
            send(Advanced(task.number, progress))
            sent = time.monotonic()

    try:
        module, _, name = task.solver.partition(":")
        solution: Solution = getattr(importlib.import_module(module), name)(
            task.problem,
            task.target,
            time_limit=task.time_limit,
            gap=task.gap,
            incumbent=task.incumbent,
            on_progress=advanced,
            stop=stop,
        )
    except CimcError as error:
        send(Failed(task.number, error, str(error)))
    except Exception as error:
        send(Failed(task.number, None, f"{type(error).__name__}: {error}"))
    else:
        send(Solved(task.number, solution))


# --- in this process ---


class ThreadWorker:
    """A thread of this process: nothing to start, but only one of them runs Python at a time."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, task: Task) -> None:
        """Begin a task."""
        self._stop.clear()
        self._thread = threading.Thread(
            target=perform, args=(task, self._stop.is_set, self._send), daemon=True
        )
        self._thread.start()

    def _send(self, message: Message) -> None:
        self.inbox.put((self, message))

    def stop(self) -> None:
        """End the task soon."""
        self._stop.set()

    def close(self) -> None:
        """End the task; a thread cannot be forced to."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)


# --- in a process of its own ---


@dataclass
class ProcessWorker:
    """A process that does tasks, and a thread that listens to it."""

    inbox: Inbox
    _process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which asks for what was found
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def _listen(self) -> None:
        messages = self._process.stdout
        assert messages is not None
        with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                self.inbox.put((self, pickle.load(messages)))
        self.inbox.put((self, Lost(self._process.wait())))

    def _say(self, words: Task | str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it is gone: `Lost` says so
            pickle.dump(words, self._process.stdin)
            self._process.stdin.flush()

    def start(self, task: Task) -> None:
        """Begin a task."""
        self._say(task)

    def stop(self) -> None:
        """End the task soon."""
        self._say("stop")

    def close(self) -> None:
        """End the process, at once."""
        self._process.kill()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


def main() -> None:
    """The process: do the tasks that come in until nobody is there any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed must not come between the messages
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, tasks, stop), daemon=True).start()

    def send(message: Message) -> None:
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(message, answers)
            answers.flush()

    while (task := tasks.get()) is not None:
        perform(task, stop.is_set, send)


def _listen(words: IO[bytes], tasks: queue.SimpleQueue[Task | None], stop: threading.Event) -> None:
    while True:
        try:
            word = pickle.load(words)
        except (EOFError, pickle.UnpicklingError):
            stop.set()
            tasks.put(None)
            time.sleep(PATIENCE)
            os._exit(1)
        if isinstance(word, Task):
            stop.clear()
            tasks.put(word)
        else:
            stop.set()
