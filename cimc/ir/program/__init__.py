"""The program: buffers with a place in a memory, and streams of instructions with structured loops.

    program "resnet8" on "isaac"
    in %x : u8[1,3,32,32]<0.0078125,128>
    out %y : i8[1,10]<0.25,0>
    buffer %conv1.acc : i32[64] in "core0.out" @ 0
    buffer %conv1.w : i8[1728] in "dram" @ 4096 = "9f86d081884c7d65"
    setup {
      copy %array0[0; 27:64, 64:1], %conv1.w[0; 27:1, 64:27]
    }
    stream "conv1" {
      loop p 32 {
        wait {buffer="x", count=<3 + 1*p>, limit=32}
        loop q 32 {
          patch %x0[0; 27:1], %x[0; 3072:1] {first=<0>, row=<-1 + 1*p>, ...}
          mvm %conv1.acc[0; 27:0, 64:1], %x0[0; 27:1, 64:0], %array0[0; 27:64, 64:1] {fresh=true}
          rescale ...
        }
        signal {buffer="y"}
      }
    }

Memory. A memory holds cells, one per byte address, and no gaps. Writing an element marks its bytes
with the element's width; reading one that was never written, or was written with another width, is
an error, and so is a value that its type cannot hold. A `Buffer` is a run of elements at a byte
`address` of one memory, a multiple of the element's size; buffers whose addresses overlap share
cells. Elements narrower than a byte take a byte each. `slots` = 2 is a double buffer: two copies
one after the other, which serve alternate fills in time (timing only: values always use the first).
A `View` picks elements of a buffer: `offset` plus, for each (extent, stride) pair, index * stride,
visited with the last axis innermost. Offsets are affine in the variables of enclosing loops.

Order. Streams run side by side. Each has its own loops and its own order; they meet only at `wait`
and `signal`, which count progress on a buffer (rows of a feature map, or whole tensors). Progress
starts at zero with every input of the program, but on the program's inputs and on buffers with
`init` it is complete from the start. Whatever the interleaving, a correct program computes the
same; execution picks the last of all streams that can go on, so that a missing wait shows as a read
of what was never written. `setup` runs once, before the first input: it programs arrays.

Time. An instruction starts when every unit it holds is free, every buffer it reads is ready, and
every buffer it writes has been read by all who came before (with two slots: by all but the latest
fill); instructions of one stream that share a unit keep their order, others need not. A buffer that
streams share is theirs by `wait`, and its next sample begins when its readers are through with it.
`cimc.kind` prices instructions; `cimc.sim.simulate` has the rules in full.
"""

from cimc.ir.program.checks import program_faults
from cimc.ir.program.converters import ConverterMvm, Phase
from cimc.ir.program.instructions import (
    Accumulate,
    Combine,
    Copy,
    Fill,
    Lookup,
    Mvm,
    Patch,
    Rescale,
    Signal,
    VectorOp,
    Wait,
    inside,
    whole,
    wrapped,
)
from cimc.ir.program.structure import (
    BAND,
    CONDITIONS,
    FORMAT_VERSION,
    Affine,
    Bound,
    Buffer,
    Instr,
    Item,
    Loop,
    Machine,
    Program,
    Stream,
    View,
    executions,
    holds,
    instr_named,
    register_instr,
    registered_instrs,
    var,
    view_fields,
    views,
    walk,
)
from cimc.ir.program.text_form import instr_text, items_text, parse_program, program_text

__all__ = [
    "BAND",
    "CONDITIONS",
    "FORMAT_VERSION",
    "Accumulate",
    "Affine",
    "Bound",
    "Buffer",
    "Combine",
    "ConverterMvm",
    "Copy",
    "Fill",
    "Instr",
    "Item",
    "Lookup",
    "Loop",
    "Machine",
    "Mvm",
    "Patch",
    "Phase",
    "Program",
    "Rescale",
    "Signal",
    "Stream",
    "VectorOp",
    "View",
    "Wait",
    "executions",
    "holds",
    "inside",
    "instr_named",
    "instr_text",
    "items_text",
    "parse_program",
    "program_faults",
    "program_text",
    "register_instr",
    "registered_instrs",
    "var",
    "view_fields",
    "views",
    "walk",
    "whole",
    "wrapped",
]
