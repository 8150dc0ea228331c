"""How feature maps share the banks."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.ir.program import Affine, Buffer, Copy, Program, Stream, View
from cimc.passes.allocate import needed_bytes
from cimc.target import load_target
from cimc.targets.crossbar.residence import fitted


def chain(seed: int, length: int = 12) -> Program:
    """Streams that each read an early and the last result and write one of a random size."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 40, length + 1) * 8
    buffers = tuple(Buffer(f"b{i}", "edram", "i8", int(size)) for i, size in enumerate(sizes))
    streams = []
    for number in range(length):
        early = int(random.integers(max(0, number - 3), number + 1))
        dst = View(f"b{number + 1}", Affine(), ((1, 1),))
        body = tuple(Copy(dst, View(f"b{i}", Affine(), ((1, 1),))) for i in (early, number))
        streams.append(Stream(f"s{number}", body))
    return Program("chain", "isaac", (), (), buffers, (), tuple(streams), {})


@pytest.mark.filterwarnings("ignore::cimc.errors.CimcWarning")
def test_gaps_between_buffers_let_more_streams_take_turns() -> None:
    for seed in range(30):
        program = chain(seed)
        whole = needed_bytes(program, "edram")
        for size in range(whole // 3, whole, whole // 8):
            target = load_target("isaac", {"memory.edram.size_bits": 8 * size})
            made = fitted(program, target, [1] * len(program.streams))
            takes_turns = 1 < len(made.streams) < len(program.streams)
            assert not takes_turns or needed_bytes(made, "edram") <= size
