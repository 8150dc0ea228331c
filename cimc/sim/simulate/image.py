"""The memory image of the fast engine: one array of integers that holds tables of rows.

A row is named by its address in the image, and rows name each other so: with `step` the address of
a step, `image[step + STEP_CYCLES]` is one of its columns, and `image[step + STEP_NEEDS]` the
address of its first need. Address 0 is the header, and as a name means "none". The kernel thus
works on a single array; Numba compiles that several times faster, and to faster code, than
functions that hand dozens of arrays to each other.

Each tuple of constants below numbers the columns of one table; its last name is the row's size.
`X` and `X_END` bound a run of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

# What a place of the code does.
IS_STEP, IS_LOOP, IS_NEXT, IS_PUBLISH, IS_AWAIT, IS_BEGIN, IS_END = range(7)
# Conditions on a loop.
FIRST, LAST, NOT_FIRST, NOT_LAST = range(4)
# What a stream is doing; one in line stands in the heap, or is the current one.
IN_LINE, WAITS_PROGRESS, WAITS_READERS, FINISHED = range(4)
# Fast-forward of a loop: not tried, no snapshot yet, looking for the snapshot's state.
OFF, READY, LOOKING = range(3)
MIN_TRIPS = 6  # shorter loops are not worth a snapshot

(
    HEAP,  # streams in line
    CURRENT,  # stream
    PAUSE_AT,  # sample
    SAMPLES,
    MAX_CYCLES,
    FORWARD,
    SIMULATED,
    LOWEST,  # start or publication since the last snapshot of the whole state
    STREAMS,
    STREAMS_END,
    LINE,
    TRACE,  # next free row
    TRACE_END,
    SAMPLE_ENDS,
    MOVED,  # from a moment to the cell that says by how much it has moved
    HEADER,
) = range(16)

PLACE_OP, PLACE_ARG, PLACE_CONDS, PLACE_CONDS_END, PLACE = range(5)
COND_LOOP, COND_KIND, COND = range(3)
(
    STEP_CYCLES,
    STEP_LOOP,  # the innermost around it
    STEP_NEEDS,
    STEP_NEEDS_END,
    STEP_EFFECTS,
    STEP_EFFECTS_END,
    STEP_TURNS,
    STEP_TURNS_END,
    STEP_EXECUTED,  # from here on changing
    STEP_FIRST_START,
    STEP_LAST_END,
    STEP,
) = range(12)
# A step starts at the latest of its needs; with `flag` set, the moment `slots` - 1 further on.
NEED_MOMENT, NEED_FLAG, NEED_SLOTS, NEED_STALL, NEED = range(5)
EFFECT_MOMENT, EFFECT_CYCLES, EFFECT = range(3)
# Double buffers: a read sets the flag, a write that finds it set turns to the next slot.
TURN_FLAG, TURN_MOMENT, TURN_SLOTS, TURN = range(4)
(
    LOOP_TRIPS,
    LOOP_BODY,  # place
    LOOP_PARENT,
    LOOP_FORWARDS,  # 1 where fast-forward may be tried
    LOOP_HAS_LAST,  # 1 where the last iteration differs from those before
    LOOP_STEPS,
    LOOP_STEPS_END,
    LOOP_MOMENTS,  # rows of MEMBER from here on
    LOOP_WAITED,
    LOOP_FLAGS,
    LOOP_UNITS,
    LOOP_WAITS,
    LOOP_LISTS,
    LOOP_LISTS_END,
    LOOP_SNAP,
    LOOP_TRIP,  # from here on changing
    LOOP_MODE,
    LOOP_LIMIT,
    LOOP_LOWEST,  # start or publication since the snapshot
    LOOP_HIGHEST,
    LOOP_SNAP_TRIP,
    LOOP_SNAP_FRONT,
    LOOP_SNAP_ORDER,
    LOOP,
) = range(24)
MEMBER = 1
PUBLISH_LIST, PUBLISH_COUNT, PUBLISH_READY, PUBLISH_LOOP, PUBLISH = range(5)
(
    AWAIT_LIST,
    AWAIT_TAKER,
    AWAIT_CONST,
    AWAIT_LIMIT,
    AWAIT_MOMENT,
    AWAIT_TERMS,
    AWAIT_TERMS_END,
    AWAIT,
) = range(8)
TERM_LOOP, TERM_FACTOR, TERM = range(3)
# Progress on one buffer; its latest events are kept in a ring.
LIST_TOTAL, LIST_EVENTS, LIST_RING, LIST_MOMENT, LIST_COUNT, LIST = range(6)
EVENT_TOTAL, EVENT_TIME, EVENT_ORDER, EVENT_STREAM, EVENT = range(5)
TAKER_STREAM, TAKER_LIST, TAKER_COUNT, TAKER_TOTAL, TAKER = range(5)
(
    STREAM_ENTRY,
    STREAM_USES,
    STREAM_USES_END,
    STREAM_GATES,
    STREAM_GATES_END,
    STREAM_RECORDS,
    STREAM_RECORDS_END,
    STREAM_PLACE,  # from here on changing
    STREAM_STATUS,
    STREAM_LIST,  # that it waits for
    STREAM_SAMPLE,
    STREAM_ORDER,
    STREAM_FRONT,
    STREAM_LATEST,  # end
    STREAM,
) = range(15)
USE = 1  # a unit
UNIT_USERS, UNIT = range(2)  # unfinished streams that use it
# A buffer that a stream makes for others, its readers, and when those let go, by sample.
GATE_MOMENT, GATE_SLOTS, GATE_READERS, GATE_READERS_END, GATE = range(5)
READER_STREAM, READER_RECORD, READER = range(3)
RECORD_MOMENT, RECORD_SAMPLES, RECORD = range(3)
LET_GO_TIME, LET_GO_ORDER, LET_GO = range(3)
LINE_ORDER, LINE_STREAM, LINE_ROW = range(3)
TRACE_STEP, TRACE_START, TRACE_ROW = range(3)

# Columns that name rows of another table: column -> table.
REFERENCES: Mapping[str, Mapping[int, str]] = {
    "place": {PLACE_CONDS: "cond", PLACE_CONDS_END: "cond"},
    "cond": {COND_LOOP: "loop"},
    "step": {
        STEP_LOOP: "loop",
        STEP_NEEDS: "need",
        STEP_NEEDS_END: "need",
        STEP_EFFECTS: "effect",
        STEP_EFFECTS_END: "effect",
        STEP_TURNS: "turn",
        STEP_TURNS_END: "turn",
    },
    "need": {NEED_MOMENT: "moment", NEED_FLAG: "flag"},
    "effect": {EFFECT_MOMENT: "moment"},
    "turn": {TURN_FLAG: "flag", TURN_MOMENT: "moment"},
    "loop": {
        LOOP_BODY: "place",
        LOOP_PARENT: "loop",
        LOOP_STEPS: "step",
        LOOP_STEPS_END: "step",
        LOOP_MOMENTS: "member",
        LOOP_WAITED: "member",
        LOOP_FLAGS: "member",
        LOOP_UNITS: "member",
        LOOP_WAITS: "member",
        LOOP_LISTS: "member",
        LOOP_LISTS_END: "member",
        LOOP_SNAP: "snap",
    },
    "publish": {PUBLISH_LIST: "list", PUBLISH_READY: "moment", PUBLISH_LOOP: "loop"},
    "await": {
        AWAIT_LIST: "list",
        AWAIT_TAKER: "taker",
        AWAIT_MOMENT: "moment",
        AWAIT_TERMS: "term",
        AWAIT_TERMS_END: "term",
    },
    "term": {TERM_LOOP: "loop"},
    "list": {LIST_EVENTS: "event", LIST_MOMENT: "moment"},
    "taker": {TAKER_STREAM: "stream", TAKER_LIST: "list"},
    "stream": {
        STREAM_ENTRY: "place",
        STREAM_USES: "use",
        STREAM_USES_END: "use",
        STREAM_GATES: "gate",
        STREAM_GATES_END: "gate",
        STREAM_RECORDS: "record",
        STREAM_RECORDS_END: "record",
    },
    "use": {0: "unit"},
    "gate": {GATE_MOMENT: "moment", GATE_READERS: "reader", GATE_READERS_END: "reader"},
    "reader": {READER_STREAM: "stream", READER_RECORD: "record"},
    "record": {RECORD_MOMENT: "moment", RECORD_SAMPLES: "let_go"},
}
SIZES: Mapping[str, int] = {
    "place": PLACE,
    "cond": COND,
    "step": STEP,
    "need": NEED,
    "effect": EFFECT,
    "turn": TURN,
    "loop": LOOP,
    "member": MEMBER,
    "publish": PUBLISH,
    "await": AWAIT,
    "term": TERM,
    "list": LIST,
    "event": EVENT,
    "taker": TAKER,
    "stream": STREAM,
    "use": USE,
    "unit": UNIT,
    "gate": GATE,
    "reader": READER,
    "record": RECORD,
    "let_go": LET_GO,
    "line": LINE_ROW,
    "trace": TRACE_ROW,
    "end": 1,
    "moment": 1,
    "moved": 1,
    "flag": 1,
    "snap": 1,
}


@dataclass(frozen=True)
class Image:
    """The array, and where its tables lie."""

    cells: Integers
    bases: Mapping[str, int]
    rows: Mapping[str, int]

    def table(self, name: str) -> Integers:
        """A view of a table: [row, column]."""
        base, size = self.bases[name], SIZES[name]
        return self.cells[base : base + self.rows[name] * size].reshape(-1, size)

    def column(self, name: str, column: int) -> Integers:
        """A view of one column."""
        return self.table(name)[:, column]

    def row(self, name: str, addresses: Integers) -> Integers:
        """The numbers of the rows at some addresses."""
        return (addresses - self.bases[name]) // SIZES[name]

    def address(self, name: str, rows: Integers) -> Integers:
        """Addresses of rows by number; -1 gives 0, none."""
        return np.where(rows < 0, 0, self.bases[name] + rows * SIZES[name])


def assemble(rows: Mapping[str, Sequence[Sequence[int]]], empty: Mapping[str, int]) -> Image:
    """One image of the given rows, which name each other by number, and of zeros.

    `rows` may leave out the last columns of a table, which start as zeros; `empty` says how many
    rows of nothing but zeros a table has.
    """
    counts = {name: empty[name] if name in empty else len(rows[name]) for name in SIZES}
    ends = np.cumsum([HEADER, *(counts[name] * size for name, size in SIZES.items())]).tolist()
    image = Image(np.zeros(ends[-1], np.int64), dict(zip(SIZES, ends, strict=False)), counts)
    for name, given in rows.items():
        if not given:
            continue
        table = image.table(name)
        values = np.array(given, np.int64)
        table[:, : values.shape[1]] = values
        for column, referenced in REFERENCES.get(name, {}).items():
            table[:, column] = image.address(referenced, table[:, column])
    return image
