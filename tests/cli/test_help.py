"""Help is light, complete, and its examples run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from cimc.cli import VERBS, cli
from cimc.conformance import target as suite
from cimc.conformance.samples import sample_graphs
from cimc.ir.graph import Graph

Cimc = Callable[..., Any]  # the fixture of conftest
COMMON = ["--json", "-v", "-q", "--debug", "--color", "-Werror", "-h"]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every verb, and the verbs below verbs, in the order of the help."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                found = command.get_command(context, below)
                assert found is not None
                yield f"{name} {below}", found


COMMANDS = dict(commands())


def examples(command: click.Command) -> list[str]:
    """The lines below `Example:`."""
    lines = (command.help or "").partition("Example:")[2].splitlines()
    return [line.strip() for line in lines if line.strip().startswith("cimc ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_verb_has_help(cimc: Cimc, name: str) -> None:
    answer = cimc(*name.split(), "--help")
    assert answer.code == 0
    assert examples(COMMANDS[name])
    words = answer.out.replace(",", " ").split()
    assert [option for option in COMMON if option not in words] == []


SLOW = ("targets test", "doctor")


def test_the_examples_run(cimc: Cimc, model: Path, images: Path) -> None:
    """All of them one after the other, in a folder that holds model.onnx and x.npy."""
    for name, command in COMMANDS.items():
        for line in examples(command):
            if name not in SLOW:
                answer = cimc(*shlex.split(line)[1:])
                assert answer.code == 0, f"{name}: {line}\n{answer.err}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_slow_examples_run(cimc: Cimc, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite on the samples it must take; `tests/conformance` runs all of it."""

    def few(fixed: bool) -> Iterator[Graph]:
        return (graph for graph in sample_graphs(fixed) if graph.name in suite.NEEDED)

    if name == "targets test":
        monkeypatch.setattr(suite, "sample_graphs", few)
    for line in examples(COMMANDS[name]):
        answer = cimc(*shlex.split(line)[1:])
        assert answer.code == 0, answer.err


def test_the_main_help_lists_the_verbs(cimc: Cimc) -> None:
    answer = cimc("--help")
    assert [
        line.split()[0] for line in answer.out.partition("Commands:")[2].splitlines() if line
    ] == list(VERBS)
    assert "130 interrupted" in answer.out


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], ["numpy", "pydantic", "onnx", "numba", "rich"]),
        (["compile", "--help"], ["numpy", "pydantic", "onnx", "numba", "rich"]),
        (["targets"], ["numpy", "pydantic", "onnx", "numba", "rich"]),
        (["targets", "show", "edge-digital"], ["numpy", "onnx", "numba", "rich"]),
        (["check", "--help"], ["numpy"]),
    ],
)
def test_nothing_heavy_is_imported(arguments: list[str], heavy: list[str]) -> None:
    code = (
        "import sys; from cimc.cli import main; main(sys.argv[1:]);"
        f"sys.stderr.write(','.join(m for m in {heavy!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_the_package_is_light() -> None:
    code = "import sys, cimc; assert 'numpy' not in sys.modules; cimc.compile; sys.modules['numpy']"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cimc"],
        env={"_CIMC_COMPLETE": f"{shell}_source", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cimc" in done.stdout
