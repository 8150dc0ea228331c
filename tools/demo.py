"""Compile a model that ships with the project for three machines, run it, compare it bit for bit.

    python tools/demo.py [--images 100]

Each step is a command line that can be typed; it is printed before it runs.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGETS = ("isaac", "miredo-default", "rtm-ap")


def run(*words: str) -> None:
    """Run one cimc command and stop the demo where it fails."""
    print(f"\n$ cimc {shlex.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "cimc", *words], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """The demo."""
    parser = argparse.ArgumentParser(description="compile, run and check a shipped model")
    parser.add_argument("--images", type=int, default=100)
    args = parser.parse_args()
    model, data = "models/shapes_int8.onnx", "models/shapes_test.npz"
    run("targets")
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            out = str(Path(folder) / target)
            run("compile", model, "-t", target, "-o", out)
            run("run", out, "--input", data, "--count", str(args.images), "--reference", model)
        run("report", *(str(Path(folder) / target) for target in TARGETS))


if __name__ == "__main__":
    main()
