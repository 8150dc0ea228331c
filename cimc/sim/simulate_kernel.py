"""The fast engine's kernel: the rules of `cimc.sim.simulate_plain` on a packed memory image.

Every moment that the rules know (a unit is free, a buffer is ready ...) is one cell. A step starts
at the latest of its needs and raises its effects; all of the machine is in these two tables.
`cimc.sim.simulate_image` numbers the columns, `cimc.sim.simulate_pack` fills them. Everywhere, `m`
is the image, and `stream`, `step`, `loop` ... are addresses of rows in it.
"""

from __future__ import annotations

from cimc.sim import simulate_image as at
from cimc.sim.simulate_image import Integers
from cimc.sim.simulate_jit import entry, inner
from cimc.sim.simulate_kernel_forward import comes_round, enter, leave
from cimc.sim.simulate_kernel_line import (
    begin,
    finish_sample,
    pop,
    precedes,
    publish,
    push,
    take,
    wanted_progress,
)

# Why `run` came back.
BUDGET, PAUSED, DONE, STALLED, TOO_LATE = range(5)


@inner
def _applies(m: Integers, place: int) -> bool:
    """Whether the conditions at a place hold."""
    for cond in range(m[place + at.PLACE_CONDS], m[place + at.PLACE_CONDS_END], at.COND):
        loop, kind = m[cond + at.COND_LOOP], m[cond + at.COND_KIND]
        trip = m[loop + at.LOOP_TRIP]
        if kind == at.FIRST or kind == at.NOT_FIRST:
            if (trip == 0) != (kind == at.FIRST):
                return False
        elif (trip == m[loop + at.LOOP_TRIPS] - 1) != (kind == at.LAST):
            return False
    return True


@inner
def _start(m: Integers, step: int) -> tuple[int, int]:
    """When a step can start, and the need that decides it, 0 for none."""
    start = 0
    cause = 0
    for need in range(m[step + at.STEP_NEEDS], m[step + at.STEP_NEEDS_END], at.NEED):
        moment = m[need + at.NEED_MOMENT]
        flag = m[need + at.NEED_FLAG]
        if flag != 0 and m[flag] != 0:
            moment += m[need + at.NEED_SLOTS] - 1
        if m[moment] > start:
            start = m[moment]
            cause = need
    return start, cause


@inner
def _execute(m: Integers, stream: int, step: int, start: int, cause: int) -> None:
    for turn in range(m[step + at.STEP_TURNS], m[step + at.STEP_TURNS_END], at.TURN):
        flag, first = m[turn + at.TURN_FLAG], m[turn + at.TURN_MOMENT]
        if first == 0:
            m[flag] = 1
        elif m[flag] != 0:
            m[flag] = 0
            last = first + m[turn + at.TURN_SLOTS] - 1
            oldest = m[last]
            for moment in range(last, first, -1):
                m[moment] = m[moment - 1]
            m[first] = oldest
    for effect in range(m[step + at.STEP_EFFECTS], m[step + at.STEP_EFFECTS_END], at.EFFECT):
        moment = m[effect + at.EFFECT_MOMENT]
        m[moment] = max(m[moment], start + m[effect + at.EFFECT_CYCLES])
    end = start + m[step + at.STEP_CYCLES]
    if m[step + at.STEP_EXECUTED] == 0:
        m[step + at.STEP_FIRST_START] = start
    m[step + at.STEP_EXECUTED] += 1
    m[step + at.STEP_LAST_END] = end
    m[stream + at.STREAM_LATEST] = max(m[stream + at.STREAM_LATEST], end)
    if start > m[stream + at.STREAM_FRONT]:
        m[cause + at.NEED_STALL] += start - m[stream + at.STREAM_FRONT]
        m[stream + at.STREAM_FRONT] = start
    m[stream + at.STREAM_ORDER] = max(m[stream + at.STREAM_ORDER], start)
    loop = m[step + at.STEP_LOOP]
    if loop != 0:
        m[loop + at.LOOP_LOWEST] = min(m[loop + at.LOOP_LOWEST], start)
        m[loop + at.LOOP_HIGHEST] = max(m[loop + at.LOOP_HIGHEST], start)
    m[at.LOWEST] = min(m[at.LOWEST], start)
    m[at.SIMULATED] += 1
    trace = m[at.TRACE]
    if trace != m[at.TRACE_END]:
        m[trace + at.TRACE_STEP] = step
        m[trace + at.TRACE_START] = start
        m[at.TRACE] = trace + at.TRACE_ROW


# --- the order of things ---


@inner
def _behind(m: Integers, place: int) -> int:
    """The place behind a loop whose body starts at `place`."""
    depth = 1
    while depth > 0:
        if m[place + at.PLACE_OP] == at.IS_LOOP:
            depth += 1
        elif m[place + at.PLACE_OP] == at.IS_NEXT:
            depth -= 1
        place += at.PLACE
    return place


@inner
def _advance(m: Integers, stream: int) -> int:
    """Pass loops, signals and waits: the next step, or 0 where the stream must wait."""
    place = m[stream + at.STREAM_PLACE]
    while True:
        op, arg = m[place + at.PLACE_OP], m[place + at.PLACE_ARG]
        is_there, lines_up = True, False
        after = place + at.PLACE
        if op == at.IS_STEP:
            if _applies(m, place):
                m[stream + at.STREAM_PLACE] = place
                return int(arg)
        elif op == at.IS_NEXT:
            m[arg + at.LOOP_TRIP] += 1
            if m[arg + at.LOOP_TRIP] < m[arg + at.LOOP_TRIPS] and m[arg + at.LOOP_MODE] != at.OFF:
                comes_round(m, stream, arg)
            if m[arg + at.LOOP_TRIP] < m[arg + at.LOOP_TRIPS]:
                after = m[arg + at.LOOP_BODY]
            else:
                leave(m, arg)
        elif op == at.IS_LOOP:
            if m[arg + at.LOOP_TRIPS] > 0:
                enter(m, arg)
            else:
                after = _behind(m, after)
        elif op == at.IS_PUBLISH:
            if _applies(m, place):
                publish(m, stream, arg)
        elif op == at.IS_AWAIT:
            if m[arg + at.AWAIT_LIST] != 0 and _applies(m, place):
                is_there, lines_up = take(m, stream, arg, wanted_progress(m, stream, arg))
            if not is_there:
                m[stream + at.STREAM_STATUS] = at.WAITS_PROGRESS
                m[stream + at.STREAM_LIST] = m[arg + at.AWAIT_LIST]
                after = place
        elif op == at.IS_BEGIN:
            is_there, lines_up = begin(m, stream)
            if not is_there:
                m[stream + at.STREAM_STATUS] = at.WAITS_READERS
                after = place
        else:
            finish_sample(m, stream)
            after = m[stream + at.STREAM_ENTRY]
            is_there = m[stream + at.STREAM_STATUS] != at.FINISHED
            lines_up = stream == m[at.STREAMS] and m[stream + at.STREAM_SAMPLE] == m[at.PAUSE_AT]
        place = after
        if lines_up and is_there:
            push(m, m[stream + at.STREAM_ORDER], stream)
        if lines_up or not is_there:
            m[stream + at.STREAM_PLACE] = place
            return 0


@entry
def run(m: Integers, budget: int) -> int:
    """Go on for at most `budget` steps; says why it came back."""
    stream = m[at.CURRENT]
    step = 0
    while budget > 0:
        if stream == 0:
            if m[m[at.STREAMS] + at.STREAM_SAMPLE] == m[at.PAUSE_AT]:
                m[at.PAUSE_AT] = -1
                m[at.CURRENT] = 0
                return PAUSED
            if m[at.HEAP] == 0:
                m[at.CURRENT] = 0
                for other in range(m[at.STREAMS], m[at.STREAMS_END], at.STREAM):
                    if m[other + at.STREAM_STATUS] != at.FINISHED:
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
        order = max(m[stream + at.STREAM_ORDER], start)
        if m[at.HEAP] > 0 and precedes(m, m[at.LINE], order, stream):
            push(m, order, stream)
            stream = 0
            step = 0
            continue
        if max(start, m[stream + at.STREAM_FRONT]) > m[at.MAX_CYCLES]:
            m[at.CURRENT] = stream
            return TOO_LATE
        _execute(m, stream, step, start, cause)
        m[stream + at.STREAM_PLACE] += at.PLACE
        step = 0
    m[at.CURRENT] = stream
    return BUDGET
