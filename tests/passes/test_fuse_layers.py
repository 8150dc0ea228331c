"""fuse-layers."""

from __future__ import annotations

from cimc.ir.graph import Graph
from cimc.passes.fuse_layers import fuse_layers
from tests.conftest import Golden
from tests.passes.texts import graph_of, largest_gap

CONV = "strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)"


def block(outputs: str) -> Graph:
    """Two convolutions that meet in an addition, a look-up and a pool."""
    return graph_of(f"""
        %x : u8[1,2,4,4]<0.1,10> = input
        %w : i8[2,2,1,1] = constant {{value=(9, 8, -9, 9)}}
        %m : f32[1] = constant {{value=(0.01,)}}
        %t : u8[4] = constant {{value=(1, 2, 3, 4)}}
        %a : i32[1,2,4,4] = conv %x, %w, _ {{{CONV}}}
        %aq : u8[1,2,4,4]<0.2,0> = requant %a, %m, _ {{low=0, high=255}}
        %b : i32[1,2,4,4] = conv %x, %w, _ {{{CONV}}}
        %bq : u8[1,2,4,4]<0.3,0> = requant %b, %m, _ {{low=0, high=255}}
        %s : u2[1,2,4,4]<0.3,0> = binary %aq, %bq {{fn="add"}}
        %l : u8[1,2,4,4]<0.3,0> = lut %s, %t
        %p : u8[1,2,2,2]<0.3,0> = pool %l {{fn="max", kernel=(2, 2), strides=(2, 2),
          pads=(0, 0, 0, 0), dilations=(1, 1)}}
        return {outputs}""")


def test_a_chain_rides_on_the_later_of_two(golden: Golden) -> None:
    before = block("%p")
    after = fuse_layers(before)
    assert largest_gap(before, after) == 0
    assert fuse_layers(after) == after
    golden.check(after)


def test_what_others_read_ends_a_layer() -> None:
    after = fuse_layers(block("%p, %bq"))
    layers = {op.out.name: op.layer for op in after.ops if op.layer}
    assert layers == {"aq": "a", "bq": "b", "s": "a", "l": "a"}
