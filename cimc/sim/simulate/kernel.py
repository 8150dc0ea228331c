"""The fast engine's kernel: the rules of `cimc.sim.simulate.plain` on a packed memory image.

Every moment that the rules know (a unit is free, a buffer is ready ...) is one cell. A step starts
at the latest of its needs and raises its effects; all of the machine is in these two tables.
`cimc.sim.simulate.image` numbers the columns, `cimc.sim.simulate.pack` fills them. Everywhere, `m`
is the image, and `stream`, `step`, `loop` ... are addresses of rows in it.
"""

from __future__ import annotations

from cimc.sim.simulate import image as col
from cimc.sim.simulate.image import Integers
from cimc.sim.simulate.jit import entry, inner
from cimc.sim.simulate.kernel_forward import comes_round, enter, leave
from cimc.sim.simulate.kernel_line import (
    begin,
    finish_sample,
    made,
    pop,
    precedes,
    publish,
    push,
    take,
    wanted_progress,
)

FAR = 1 << 62
# Why `run` came back.
BUDGET, PAUSED, DONE, STALLED, TOO_LATE = range(5)


@inner
def _applies(m: Integers, place: int) -> bool:
    """Whether the conditions at a place hold."""
    for cond in range(m[place + col.PLACE_CONDS], m[place + col.PLACE_CONDS_END], col.COND):
        loop, kind = m[cond + col.COND_LOOP], m[cond + col.COND_KIND]
        trip = m[loop + col.LOOP_TRIP]
        if kind == col.FIRST or kind == col.NOT_FIRST:
            if (trip == 0) != (kind == col.FIRST):
                return False
        elif (trip == m[loop + col.LOOP_TRIPS] - 1) != (kind == col.LAST):
            return False
    return True


@inner
def _start(m: Integers, step: int) -> tuple[int, int]:
    """When a step can start, and the need that decides it, 0 for none."""
    start = 0
    cause = 0
    for need in range(m[step + col.STEP_NEEDS], m[step + col.STEP_NEEDS_END], col.NEED):
        moment = m[need + col.NEED_MOMENT]
        flag = m[need + col.NEED_FLAG]
        if flag != 0 and m[flag] != 0:
            moment += m[need + col.NEED_SLOTS] - 1
        if m[moment] > start:
            start = m[moment]
            cause = need
    return start, cause


@inner
def _execute(m: Integers, stream: int, step: int, start: int, cause: int) -> None:
    for turn in range(m[step + col.STEP_TURNS], m[step + col.STEP_TURNS_END], col.TURN):
        flag, first = m[turn + col.TURN_FLAG], m[turn + col.TURN_MOMENT]
        if first == 0:
            m[flag] = 1
        elif m[flag] != 0:
            m[flag] = 0
            last = first + m[turn + col.TURN_SLOTS] - 1
            oldest = m[last]
            for moment in range(last, first, -1):
                m[moment] = m[moment - 1]
            m[first] = oldest
    for effect in range(m[step + col.STEP_EFFECTS], m[step + col.STEP_EFFECTS_END], col.EFFECT):
        moment = m[effect + col.EFFECT_MOMENT]
        m[moment] = max(m[moment], start + m[effect + col.EFFECT_CYCLES])
    end = start + m[step + col.STEP_CYCLES]
    if m[step + col.STEP_EXECUTED] == 0:
        m[step + col.STEP_FIRST_START] = start
    m[step + col.STEP_EXECUTED] += 1
    m[step + col.STEP_LAST_END] = end
    m[stream + col.STREAM_LATEST] = max(m[stream + col.STREAM_LATEST], end)
    if start > m[stream + col.STREAM_FRONT]:
        m[cause + col.NEED_STALL] += start - m[stream + col.STREAM_FRONT]
        m[stream + col.STREAM_FRONT] = start
    m[stream + col.STREAM_ORDER] = max(m[stream + col.STREAM_ORDER], start)
    loop = m[step + col.STEP_LOOP]
    if loop != 0:
        m[loop + col.LOOP_LOWEST] = min(m[loop + col.LOOP_LOWEST], start)
        m[loop + col.LOOP_HIGHEST] = max(m[loop + col.LOOP_HIGHEST], start)
    m[col.LOWEST] = min(m[col.LOWEST], start)
    m[col.SIMULATED] += 1
    trace = m[col.TRACE]
    if trace != m[col.TRACE_END]:
        m[trace + col.TRACE_STEP] = step
        m[trace + col.TRACE_START] = start
        m[col.TRACE] = trace + col.TRACE_ROW


# --- the order of things ---


@inner
def _behind(m: Integers, place: int) -> int:
    """The place behind a loop whose body starts at `place`."""
    depth = 1
    while depth > 0:
        if m[place + col.PLACE_OP] == col.IS_LOOP:
            depth += 1
        elif m[place + col.PLACE_OP] == col.IS_NEXT:
            depth -= 1
        place += col.PLACE
    return place


@inner
def _advance(m: Integers, stream: int) -> int:
    """Pass loops, signals and waits: the next step, or 0 where the stream must wait."""
    place = m[stream + col.STREAM_PLACE]
    while True:
        op, arg = m[place + col.PLACE_OP], m[place + col.PLACE_ARG]
        is_there, lines_up = True, False
        after = place + col.PLACE
        if op == col.IS_STEP:
            if _applies(m, place):
                m[stream + col.STREAM_PLACE] = place
                return int(arg)
        elif op == col.IS_NEXT:
            m[arg + col.LOOP_TRIP] += 1
            is_over = m[arg + col.LOOP_TRIP] >= m[arg + col.LOOP_TRIPS]
            if m[arg + col.LOOP_MODE] != col.OFF and not is_over:
                comes_round(m, stream, arg)
            if m[arg + col.LOOP_TRIP] < m[arg + col.LOOP_TRIPS]:
                after = m[arg + col.LOOP_BODY]
            else:
                leave(m, arg)
        elif op == col.IS_LOOP:
            if m[arg + col.LOOP_TRIPS] > 0:
                enter(m, arg)
            else:
                after = _behind(m, after)
        elif op == col.IS_PUBLISH:
            if _applies(m, place):
                publish(m, stream, arg)
        elif op == col.IS_AWAIT:
            if m[arg + col.AWAIT_LIST] != 0 and _applies(m, place):
                is_there, lines_up = take(m, stream, arg, wanted_progress(m, stream, arg))
            if not is_there:
                m[stream + col.STREAM_STATUS] = col.WAITS_PROGRESS
                m[stream + col.STREAM_LIST] = m[arg + col.AWAIT_LIST]
                after = place
        elif op == col.IS_BEGIN:
            is_there, lines_up = begin(m, stream)
            if not is_there:
                m[stream + col.STREAM_STATUS] = col.WAITS_READERS
                after = place
        else:
            finish_sample(m, stream)
            after = m[stream + col.STREAM_ENTRY]
            is_there = m[stream + col.STREAM_STATUS] != col.FINISHED
            lines_up = stream == m[col.STREAMS] and m[stream + col.STREAM_SAMPLE] == m[col.PAUSE_AT]
        place = after
        if lines_up and is_there:
            push(m, m[stream + col.STREAM_ORDER], stream)
        if lines_up or not is_there:
            m[stream + col.STREAM_PLACE] = place
            return 0


@entry
def run(m: Integers, budget: int) -> int:
    """Go on for at most `budget` steps; says why it came back."""
    stream = m[col.CURRENT]
    step = 0
    while budget > 0:
        if stream == 0:
            if m[m[col.STREAMS] + col.STREAM_SAMPLE] == m[col.PAUSE_AT]:
                m[col.PAUSE_AT] = -1
                m[col.CURRENT] = 0
                return PAUSED
            if m[col.HEAP] == 0:
                m[col.CURRENT] = 0
                for other in range(m[col.STREAMS], m[col.STREAMS_END], col.STREAM):
                    if m[other + col.STREAM_STATUS] != col.FINISHED:
                        return STALLED
                return DONE
            stream = pop(m)
        if step == 0:
            step = _advance(m, stream)
            budget -= 1
            if step == 0:
                stream = 0
                continue
        start, cause = _start(m, step)
        order = max(m[stream + col.STREAM_ORDER], start)
        if m[col.HEAP] > 0 and precedes(m, m[col.LINE], order, stream):
            push(m, order, stream)
            stream = 0
            step = 0
            continue
        if max(start, m[stream + col.STREAM_FRONT]) > m[col.MAX_CYCLES]:
            m[col.CURRENT] = stream
            return TOO_LATE
        _execute(m, stream, step, start, cause)
        m[stream + col.STREAM_PLACE] += col.PLACE
        step = 0
    m[col.CURRENT] = stream
    return BUDGET


@entry
def progress(m: Integers, stream: int, wait: int) -> tuple[int, int]:
    """Progress that a stream's wait asks for, and progress made."""
    return wanted_progress(m, stream, wait), made(m, m[wait + col.AWAIT_LIST])
