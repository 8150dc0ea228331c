"""What people get wrong ends with a message, the right exit code, and nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

Cimc = Callable[..., Any]  # the fixture of conftest
TARGET = "edge-digital"


def is_clean(answer: Any, code: int) -> bool:
    """The exit code, a message, no traceback."""
    said = any(line.startswith(("error", "Usage")) for line in answer.err.splitlines())
    return answer.code == code and said and "Traceback" not in answer.err


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x08\x12", "cut", "folder", "missing"])
def test_models_that_are_none(
    cimc: Cimc, model: Path, tmp_path: Path, content: bytes | str
) -> None:
    path = tmp_path / "broken.onnx"
    if content == "folder":
        path.mkdir()
    elif content == "cut":
        path.write_bytes(model.read_bytes()[:700])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    for verb in (["check"], ["compile", "-o", "out"]):
        answer = cimc(*verb, str(path), "-t", TARGET)
        assert answer.code in (2, 3), answer.err
        assert is_clean(answer, answer.code)
        assert "broken.onnx" in answer.err
    assert not (tmp_path / "out").exists()


def save_one(path: Path, kind: str, shape: list[int | str]) -> None:
    """A model of one node."""
    graph = helper.make_graph(
        [helper.make_node(kind, ["x"], ["y"], "the-node")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def test_an_unsupported_operator_is_named(cimc: Cimc, tmp_path: Path) -> None:
    save_one(tmp_path / "m.onnx", "Bernoulli", [2, 3])
    answer = cimc("check", "m.onnx", "-t", TARGET)
    assert is_clean(answer, 3)
    assert "Bernoulli" in answer.err
    assert "the-node" in answer.err
    assert "0 of 1 nodes are supported" in answer.err


def test_a_dynamic_shape_names_the_option(cimc: Cimc, tmp_path: Path) -> None:
    save_one(tmp_path / "m.onnx", "Relu", [1, 3, "height", "width"])
    answer = cimc("check", "m.onnx", "-t", TARGET)
    assert answer.code in (2, 3)
    assert "--shape x=" in answer.err
    assert cimc("check", "m.onnx", "-t", TARGET, "--shape", "x=1x3x8x8").code == 0
    for wrong in ("x", "x=1xa", "=1x3", "x=1x3x8"):
        assert is_clean(cimc("check", "m.onnx", "-t", TARGET, "--shape", wrong), 2), wrong


def test_a_machine_that_is_too_small(cimc: Cimc, model: Path, tmp_path: Path) -> None:
    small = ("--set", "memory.dram.size_bits=2048")
    answer = cimc("compile", str(model), "-t", TARGET, "-o", "out", *small)
    assert is_clean(answer, 4), answer.err
    assert "memory.dram.size_bits" in answer.err
    assert not (tmp_path / "out").exists()


def test_names_that_do_not_exist(cimc: Cimc, model: Path) -> None:
    assert is_clean(cimc("compile", str(model), "-t", "edge-digitol", "-o", "out"), 2)
    assert is_clean(cimc("compile", str(model), "-t", "no/such.toml", "-o", "out"), 2)
    assert is_clean(cimc("compile", str(model), "-t", TARGET), 2)
    assert is_clean(cimc("compile", str(model), "-o", "out"), 2)
    assert is_clean(cimc("run", "nowhere", "--random", "1"), 2)
    assert is_clean(cimc("opt", "nowhere.cir"), 2)
    assert is_clean(cimc("frobnicate"), 2)


def test_a_folder_in_use(cimc: Cimc, model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").write_text("important")
    answer = cimc("compile", str(model), "-t", TARGET, "-o", "thesis")
    assert is_clean(answer, 2)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["text.tex"]
    assert is_clean(cimc("compile", str(model), "-t", TARGET, "-o", str(model)), 2)


def test_programs_that_changed(cimc: Cimc, model: Path, tmp_path: Path) -> None:
    assert cimc("compile", str(model), "-t", TARGET, "-o", "out").code == 0
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_text())

    def tried(change: Callable[[], object], message: str) -> None:
        kept = {path: path.read_bytes() for path in out.iterdir()}
        change()
        answer = cimc("run", "out", "--random", "1")
        assert is_clean(answer, 2), answer.err
        assert message in answer.err
        for path, content in kept.items():
            path.write_bytes(content)

    path = out / "manifest.json"
    tried(lambda: path.write_text(json.dumps({**manifest, "format": 999})), "program format 999")
    tried(lambda: path.write_text("{"), "holds no compiled program")
    tried(lambda: path.write_text("[]"), "holds no compiled program")
    tried(lambda: path.write_text(json.dumps({"format": manifest["format"]})), "is damaged")
    tried((out / "target.toml").unlink, "is not the file that was compiled")
    for name in ("program.bin", "weights.safetensors", "graph.cir", "target.toml"):
        whole = (out / name).read_bytes()
        cut = whole[: len(whole) // 2]
        tried(lambda name=name, cut=cut: (out / name).write_bytes(cut), name)  # type: ignore[misc]
    assert cimc("run", "out", "--random", "1").code == 0


def test_samples_that_do_not_fit(cimc: Cimc, model: Path, tmp_path: Path) -> None:
    assert cimc("compile", str(model), "-t", TARGET, "-o", "out").code == 0
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3, 9, 9), np.float32))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("wrong.npy", "text.npy", "missing.npy", "."):
        assert is_clean(cimc("run", "out", "--input", name), 2), name
    np.save(tmp_path / "right.npy", np.zeros((1, 3, 8, 8), np.float32))
    (tmp_path / "m.onnx").write_text("no model")
    answer = cimc("run", "out", "--input", "right.npy", "--reference", "m.onnx")
    assert is_clean(answer, 2)
    assert "onnxruntime cannot run it" in answer.err


@pytest.mark.parametrize(
    "pipeline", ["tile,,", "tilde", "tile{host=true}", "tile{host_fallback=3}", "map", "tile tile"]
)
def test_pipelines_that_are_none(cimc: Cimc, model: Path, pipeline: str) -> None:
    assert cimc("compile", str(model), "-t", TARGET, "--to", "graph", "-o", "g.cir").code == 0
    answer = cimc("opt", "g.cir", "-t", TARGET, "-p", pipeline)
    assert is_clean(answer, 2), answer.err


def test_states_that_cannot_be_read(cimc: Cimc, tmp_path: Path) -> None:
    path = tmp_path / "s.cir"
    for content in ("", "grph", 'graph "a"\n%x : f33[1] = input\nreturn %x\n', "\x00\xff"):
        path.write_text(content)
        assert is_clean(cimc("opt", "s.cir"), 2), content
    path.write_text(
        'graph "a"\n%x : f32[1] = input\n%y : f32[2] = unary %x {fn="relu"}\nreturn %y\n'
    )
    answer = cimc("opt", "s.cir")
    assert answer.code in (1, 2)
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_compilation_leaves_nothing(
    model: Path, tmp_path: Path, number: int, code: int
) -> None:
    """A signal while passes run: its exit code, no folder, no temporary files."""
    before = sorted(path.name for path in tmp_path.iterdir())
    script = (
        "import sys, time, cimc.pipeline.run as run\n"
        "whole = run._run\n"
        "def slowed(*given):\n"
        "    print('running', flush=True)\n"
        "    time.sleep(30)\n"
        "    return whole(*given)\n"
        "run._run = slowed\n"
        "from cimc.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["compile", str(model), "-t", TARGET, "-o", "out", "--dump-ir"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        start = time.monotonic()
        _, said = process.communicate(timeout=20)
        assert time.monotonic() - start < 10
    assert process.returncode == code
    assert said.strip().endswith("interrupted") == (number == signal.SIGINT)
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.skipif(os.name != "posix", reason="pipes as on POSIX systems")
def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m cimc targets show {TARGET} | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout.startswith("# edge-digital")
    assert done.stderr == ""
