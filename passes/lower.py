"""Turn mapped layers into a program: buffers, and streams of instructions with loops.

before   layer %a macro [%a, %b] { dims ... spatial rows(c=3, r=3, s=3) columns(k=16) for p 8 ... }
after    stream "a" { loop p 8 { patch ...  mvm ...  rescale ... } }
"""

from __future__ import annotations

from cimc.ir.program import Program
from cimc.ir.tiles import Tiles
from cimc.kind import load_kind
from cimc.pipeline.passes import compiler_pass
from cimc.target import Target


@compiler_pass("lower")
def lower(tiles: Tiles, *, target: Target) -> Program:
    """Let the machine's kind write the instructions; addresses stay open."""
    return load_kind(target.kind).lower(tiles, target)
