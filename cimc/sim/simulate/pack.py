"""Lays the rows of a plan out as the image that the kernel works on, before its first step."""

from __future__ import annotations

import numpy as np

from cimc.sim.simulate import image as col
from cimc.sim.simulate.image import Image, assemble
from cimc.sim.simulate.rows import Row, Rows

# What the argument of a place names.
_ARGUMENTS = {
    col.IS_STEP: "step",
    col.IS_LOOP: "loop",
    col.IS_NEXT: "loop",
    col.IS_PUBLISH: "publish",
    col.IS_AWAIT: "await",
    col.IS_BEGIN: "stream",
    col.IS_END: "stream",
}


# What the runs of a loop's members name, in order.
_MEMBERS = ("moment", "moment", "flag", "unit", "place", "list")


def new_image(rows: Rows, samples: int, trace: int) -> Image:
    """The image for so many samples, with room for a trace of so many steps."""
    tables: dict[str, list[Row]] = {
        "place": rows.places,
        "cond": rows.conds,
        "step": rows.steps,
        "need": rows.needs,
        "effect": rows.effects,
        "turn": rows.turns,
        "loop": rows.loops,
        "member": rows.members,
        "publish": rows.publishes,
        "await": rows.awaits,
        "term": rows.terms,
        "list": rows.list_rows,
        "taker": list(rows.takers),
        "stream": rows.streams,
        "use": rows.uses,
        "gate": rows.gates,
        "reader": rows.readers,
        "record": [(*record, number * samples) for number, record in enumerate(rows.records)],
    }
    empty = {
        "event": rows.events,
        "unit": len(rows.plan.units),
        "let_go": len(rows.records) * samples,
        "line": len(rows.streams),
        "trace": trace,
        "end": samples,
        "moment": rows.moments,
        "moved": rows.moments,
        "flag": len(rows.flags),
        "snap": rows.snap,
    }
    image = assemble(tables, empty)
    _name_arguments(image)
    _start(image, samples)
    return image


def _name_arguments(image: Image) -> None:
    """Turn numbers into addresses where the table depends on the row."""
    arguments = image.table("place")
    for op, table in _ARGUMENTS.items():
        chosen = arguments[:, col.PLACE_OP] == op
        numbers = arguments[chosen, col.PLACE_ARG]
        arguments[chosen, col.PLACE_ARG] = image.address(table, numbers)
    members = image.column("member", 0)
    for loop in image.table("loop"):
        ends = loop[col.LOOP_MOMENTS : col.LOOP_LISTS_END + 1] - image.bases["member"]
        for table, low, high in zip(_MEMBERS, ends, ends[1:], strict=False):
            members[low:high] = image.address(table, members[low:high])


def _start(image: Image, samples: int) -> None:
    """Nothing has happened, and all streams are in line."""
    cells, bases = image.cells, image.bases
    cells[col.PAUSE_AT] = -1
    cells[col.SAMPLES] = samples
    cells[col.STREAMS] = bases["stream"]
    cells[col.STREAMS_END] = bases["stream"] + image.rows["stream"] * col.STREAM
    cells[col.LINE] = bases["line"]
    cells[col.TRACE] = bases["trace"]
    cells[col.TRACE_END] = bases["trace"] + image.rows["trace"] * col.TRACE_ROW
    cells[col.SAMPLE_ENDS] = bases["end"]
    cells[col.MOVED] = bases["moved"] - bases["moment"]
    cells[col.HEAP] = image.rows["stream"]
    streams = np.arange(image.rows["stream"])
    uses = image.row("unit", image.column("use", 0))
    image.column("unit", col.UNIT_USERS)[:] = np.bincount(uses, minlength=image.rows["unit"])
    image.column("line", col.LINE_STREAM)[:] = image.address("stream", streams)
    image.column("stream", col.STREAM_PLACE)[:] = image.column("stream", col.STREAM_ENTRY)
