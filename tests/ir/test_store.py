"""Programs come back from disk as they were; damaged ones are refused with both numbers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from cimc.errors import UsageError
from cimc.ir.graph import digest_of
from cimc.ir.program import FORMAT_VERSION, Program, parse_program
from cimc.ir.store import PROGRAM_FILE, WEIGHTS_FILE, load_program, save_program
from cimc.ir.store_tables import Reader, Writer
from tests.sim.random_programs import programs

WEIGHTS = np.arange(-3, 4, dtype=np.int8)
SOURCE = f"""
program "p" on "isaac"
in %x : u8[1,3,8,8]<0.5,128>
out %z : f32[1,10]
buffer %x : u8[192] in "dram" @ 0
buffer %y : i8[10] in "core0.out" x2 @ 64
buffer %w : i8[7] in "dram" @ 4096 = "{digest_of(WEIGHTS)}"
setup {{
  copy %w[0; 7:1], %w[0; 7:1]
}}
stream "one" {{
  loop p 8 {{
    wait {{buffer="x", count=<3 + 1*p>, limit=8}}
    patch %y[0; 9:1], %x[0; 192:1] {{first=<0>, row=<-1 + 1*p>, column=<-1>, shape=(3, 8, 8), kernel=(3, 3), dilation=(1, 1), fill=128}}
    copy %y[0 + 1*p; 1:1], %x[0; 1:1] {{write_bounds=[(0 + 1*p; 1; 7)]}} when last(p) for %y
  }}
  vector "vector" [%y : i8[1,10]<0.5,0>] %z : f32[1,10] = softmax %y {{axis=1}} @("sm",) for %z
}}
"""  # noqa: E501  # an instruction is one line


def program() -> Program:
    return parse_program(SOURCE, {digest_of(WEIGHTS): WEIGHTS})


def test_a_program_comes_back_equal_with_its_tensors(tmp_path: Path) -> None:
    save_program(program(), tmp_path)
    loaded = load_program(tmp_path)
    assert loaded == program()
    assert (loaded.tensors[digest_of(WEIGHTS)] == WEIGHTS).all()


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    save_program(program(), tmp_path)
    first = (tmp_path / PROGRAM_FILE).read_bytes(), (tmp_path / WEIGHTS_FILE).read_bytes()
    save_program(load_program(tmp_path), tmp_path)
    assert first == ((tmp_path / PROGRAM_FILE).read_bytes(), (tmp_path / WEIGHTS_FILE).read_bytes())


def test_another_format_version_names_both(tmp_path: Path) -> None:
    save_program(program(), tmp_path)
    path = tmp_path / PROGRAM_FILE
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", FORMAT_VERSION + 7)
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_program(tmp_path)
    fault = caught.value.faults[0]
    assert (fault.need, fault.have) == (
        f"format version {FORMAT_VERSION}",
        f"format version {FORMAT_VERSION + 7}",
    )


@pytest.mark.parametrize("name", [PROGRAM_FILE, WEIGHTS_FILE])
def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path: Path, name: str) -> None:
    save_program(program(), tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        damaged = [whole[:place], bytes([*whole[:place], whole[place] ^ 0x41, *whole[place + 1 :]])]
        for content in damaged:
            path.write_bytes(content)
            with pytest.raises(UsageError):
                load_program(tmp_path)
    path.write_bytes(whole)
    assert load_program(tmp_path) == program()


def test_a_folder_without_a_program_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cimc compile"):
        load_program(tmp_path)


@given(programs)
@settings(max_examples=30, deadline=None)
def test_tables_give_instructions_back_as_they_were(program: Program) -> None:
    writer = Writer()
    bodies = [writer.body(stream.body) for stream in program.streams]
    read = json.loads(json.dumps({"bodies": bodies, **writer.tables()}))
    reader = Reader(read)
    for body, stream in zip(read["bodies"], program.streams, strict=True):
        assert repr(reader.body(body)) == repr(stream.body)  # 1, 1.0 and True are not the same


def test_an_instruction_of_a_kind_that_is_not_installed_is_refused() -> None:
    with pytest.raises(UsageError, match="an instruction warp that no machine kind defines"):
        Reader({"objects": [], "kinds": ["warp"], "order": [], "columns": [[[], []]]})
