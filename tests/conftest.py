"""What all tests share: golden texts and the folder of real models."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites golden files; their diff is read in review."""
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files")


@dataclass(frozen=True)
class Golden:
    """A text that must not change unnoticed, in `golden/<test file>.<test>.txt` beside the test."""

    path: Path
    is_updating: bool

    def check(self, state: object) -> None:
        """Compare `str(state)` with the golden file, or rewrite that."""
        text = str(state)
        if self.is_updating:
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text(text, encoding="utf-8")
        assert self.path.is_file(), f"{self.path} is missing; run pytest --update-golden"
        assert text == self.path.read_text(encoding="utf-8")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The golden text of this test."""
    file = request.path
    name = request.node.name.replace("[", ".").replace("]", "").replace("/", "-")
    path = file.parent / "golden" / f"{file.stem}.{name}.txt"
    return Golden(path, bool(request.config.getoption("--update-golden")))


@pytest.fixture(scope="session", autouse=True)
def own_mappings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Solved mappings of tests go to a folder of this run, not to the person's."""
    os.environ["CIMC_MAPPINGS"] = str(tmp_path_factory.mktemp("mappings"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real models and images; tests that need it skip where it is absent."""
    folder = os.environ.get("CIMC_DATA")
    if not folder:
        pytest.skip("CIMC_DATA does not name the folder of real models")
    return Path(folder)


def pytest_configure() -> None:
    """Children can be interrupted, even where a shell started all of this in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
