"""Mappings written by hand: a dump edited and continued, and every reason why one is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cimc = Callable[..., Any]  # the fixture of conftest
TARGET = "miredo-default"
DIMS = "dims g=1 n=1 k=6 c=3 p=8 q=8 r=3 s=3"
BODY = """
  spatial cores(k=2) rows(c=3, r=3, s=3) columns(k=3)
  for p 8 I=dram W=dram O=dram
  for q 8 I=gb W=macro O=ob
  double gb/I ob/O
"""


@pytest.fixture
def tiles(cimc: Cimc, model: Path, tmp_path: Path) -> Path:
    args = ("--to", "map", "-o", "tiles.cir", "--without", "keep-resident")
    answer = cimc("compile", str(model), "-t", TARGET, *args)
    assert answer.code == 0, answer.err
    return tmp_path / "tiles.cir"


def write(tiles: Path, body: str, dims: str = DIMS) -> None:
    """Replace the mapping of the convolution."""
    text = tiles.read_text()
    pattern = r"(layer %a\.sum macro \[[^\]]*\] \{\n).*?(\n\})"
    text, count = re.subn(pattern, rf"\1  {dims}\n  {body.strip()}\2", text, flags=re.DOTALL)
    assert count == 1
    tiles.write_text(text)


def test_a_mapping_by_hand_compiles_and_computes_the_same(
    cimc: Cimc, tiles: Path, model: Path, images: Path
) -> None:
    write(tiles, BODY)
    assert cimc("opt", "tiles.cir", "-p", "lower,allocate", "-o", "program.cir").code == 0
    answer = cimc("compile", str(model), "-t", TARGET, "--from", "tiles.cir", "-o", "out")
    assert answer.code == 0, answer.err
    assert "for q 8 I=gb W=macro O=ob" in (tiles.parent / "out" / "tiles.cir").read_text()
    answer = cimc("run", "out", "--input", str(images), "--reference", str(model))
    assert answer.code == 0, answer.err
    again = cimc("opt", "tiles.cir", "-p", "map,lower,allocate")  # `map` chooses anew
    assert again.code == 0
    assert "for q 8 I=gb W=macro O=ob" not in again.out


SPATIAL = "spatial cores(k=2) rows(c=3, r=3, s=3) columns(k=3)"
OUTER = "for p 8 I=dram W=dram O=dram\n for q 8 I=dram W=dram O=dram"


@pytest.mark.parametrize(
    ("body", "code", "shown"),
    [
        (  # a level overflows: the arithmetic, and what would help
            "spatial rows(c=3) columns(k=6)\n for q 8 I=dram W=dram O=dram\n"
            " for r 3 I=gb W=macro O=ob\n for s 3 I=gb W=macro O=ob\n for p 8 I=gb W=macro O=ob",
            4,
            "error CIM4010: layer %a.sum: tiles do not fit in macro\n"
            "  node:    first, d_w1\n"
            "  need:    72 bits (W 72)\n"
            "  have:    64 bits (miredo-default: memory.macro.size_bits)\n"
            "  help:    keep W of `for r 3` in gb",
        ),
        (  # too many positions of an axis
            f"{SPATIAL.replace('k=3', 'k=20')}\n {OUTER}",
            4,
            "error CIM4002: layer %a.sum: columns(k=20) is too wide\n"
            "  node:    first, d_w1\n"
            "  need:    20 positions\n"
            "  have:    16 (macro.columns)",
        ),
        (  # the product of the loops is too small
            f"{SPATIAL}\n for p 4 I=dram W=dram O=dram\n for q 8 I=dram W=dram O=dram",
            2,
            "error CIM4009: layer %a.sum: loops over p do not cover it\n"
            "  node:    first, d_w1\n"
            "  need:    8 iterations\n"
            "  have:    4\n"
            "  help:    add a loop `for p 2`",
        ),
        (  # levels from the outside in
            f"{SPATIAL}\n for p 8 I=gb W=dram O=dram\n for q 8 I=dram W=dram O=dram",
            2,
            "error CIM4008: layer %a.sum: `for q 8` keeps I in dram, outside the gb of the loop "
            "around it\n"
            "  node:    first, d_w1\n"
            "  need:    levels from the outermost memory inwards\n"
            "  have:    dram gb ob ib oreg ireg macro",
        ),
        (  # an axis that cannot run the loop
            f"spatial cores(k=2) rows(c=3, r=3, s=3) columns(k=3, p=2)\n {OUTER}",
            2,
            "error CIM4003: layer %a.sum: columns(k=3, p=2) cannot run p\n"
            "  node:    first, d_w1\n"
            "  have:    columns runs k",
        ),
        (  # names
            f"{SPATIAL}\n for p 8 I=l2 W=dram O=dram\n for q 8 I=dram W=dram O=dram",
            2,
            "error CIM4004: layer %a.sum: `for p 8 I=l2 W=dram O=dram`: no level is called l2\n"
            "  node:    first, d_w1\n"
            "  have:    dram, gb, ob, ib, oreg, ireg, macro",
        ),
        (
            f"spatial lanes(k=2) rows(c=3, r=3, s=3) columns(k=6)\n {OUTER}",
            2,
            "error CIM4001: layer %a.sum: no axis is called lanes\n"
            "  node:    first, d_w1\n"
            "  have:    cores, rows, columns",
        ),
        (  # an operand where it is never held
            f"{SPATIAL}\n for p 8 I=dram W=dram O=dram\n for q 8 I=dram W=ib O=dram",
            2,
            "error CIM4005: layer %a.sum: `for q 8 I=dram W=ib O=dram`: ib does not hold W\n"
            "  node:    first, d_w1\n"
            "  have:    W in dram, gb, macro",
        ),
        (  # two buffers where there is one
            f"{SPATIAL}\n {OUTER}\n double macro/W",
            2,
            "error CIM4007: layer %a.sum: W cannot have two buffers in macro\n"
            "  node:    first, d_w1\n"
            "  have:    two buffers in dram, gb",
        ),
        (
            f"{SPATIAL}\n for x 8 I=dram W=dram O=dram\n {OUTER}",
            2,
            "error CIM4006: layer %a.sum: `for x 8 I=dram W=dram O=dram`: no such loop\n"
            "  node:    first, d_w1\n"
            "  need:    g n k c p q r s",
        ),
        ("", 2, "error CIM4012: layer %a.sum: it has no mapping\n  node:    first, d_w1"),
    ],
)
def test_a_mapping_that_is_refused_says_why(
    cimc: Cimc, tiles: Path, body: str, code: int, shown: str
) -> None:
    write(tiles, body)
    answer = cimc("opt", "tiles.cir", "-p", "lower,allocate")
    assert answer.code == code, answer.err
    assert shown in answer.err


def test_the_ops_own_bounds_are_not_to_be_edited(cimc: Cimc, tiles: Path) -> None:
    write(tiles, BODY, DIMS.replace("p=8", "p=4"))
    answer = cimc("opt", "tiles.cir", "-p", "lower")
    assert answer.code == 2
    assert "error CIM4011: layer %a.sum: `dims` is not the op's" in answer.err
    assert "g=1 n=1 k=6 c=3 p=4 q=8" in answer.err


def test_all_reasons_of_all_layers_come_at_once(cimc: Cimc, tiles: Path) -> None:
    write(
        tiles,
        "spatial rows(c=3) columns(k=20, p=2)\n for r 3 I=gb W=macro O=ob\n"
        " for s 3 I=gb W=macro O=ob\n for p 4 I=gb W=macro O=ob\n double gb/W macro/W",
    )
    text = tiles.read_text()
    tiles.write_text(text.replace("rows(c=6)", "rows(c=5)"))
    answer = cimc("opt", "tiles.cir", "-p", "lower", "--json")
    assert answer.code == 2
    found = [(fault["code"], fault["node"]) for fault in json.loads(answer.out)["faults"]]
    first = [code for code, node in found if node == "first, d_w1"]
    assert sorted(set(first)) == ["CIM4002", "CIM4003", "CIM4007", "CIM4009", "CIM4010"]
    assert [code for code, node in found if node.startswith("last")] == ["CIM4009"]


def test_text_that_is_no_mapping_says_where(cimc: Cimc, tiles: Path) -> None:
    write(tiles, BODY.replace("O=ob", "P=ob"))
    answer = cimc("opt", "tiles.cir", "-p", "lower")
    assert answer.code == 2
    assert re.search(r"tiles\.cir:\d+:\d+", answer.err)


def test_the_mapping_in_the_readme_is_legal(cimc: Cimc, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    written = re.search(
        r"^layer .*?^\}$", (root / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert written is not None
    head = written.group().splitlines()[0]
    args = ("compile", str(root / "models" / "shapes_int8.onnx"), "-t", TARGET)
    assert cimc(*args, "--to", "map", "-o", "tiles.cir").code == 0
    path = tmp_path / "tiles.cir"
    text, count = re.subn(
        rf"^{re.escape(head)}$.*?^\}}$",
        written.group(),
        path.read_text(),
        flags=re.DOTALL | re.MULTILINE,
    )
    assert count == 1
    path.write_text(text)
    answer = cimc(*args, "--from", "tiles.cir", "-o", "out")
    assert answer.code == 0, answer.err
    assert "double gb/I ob/O" in (tmp_path / "out" / "tiles.cir").read_text()
