"""ONNX's official node tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "onnx_backend_tests.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_supported_operators_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """No wrong result, and not fewer tests than when this was written."""
    spec = importlib.util.spec_from_file_location("onnx_backend_tests", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = tool
    spec.loader.exec_module(tool)
    assert tool.main([]) == 0, capsys.readouterr().out
    passed = int(capsys.readouterr().out.split()[0])
    assert passed >= 1150
