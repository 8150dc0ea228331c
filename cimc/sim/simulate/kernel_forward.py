"""Kernels of fast-forward: loops whose state comes round are added up.

When a loop comes round and every moment it touches has moved by the same `shift` since an earlier
iteration (or has not moved and lies before all starts in between, so that it decides nothing), the
iterations in between will repeat for ever, `shift` later each time: every start is a maximum of
moments, and maxima move with their arguments. What remains of the loop is then added up instead of
executed. Brent's cycle search finds the period, so a loop whose state repeats every second
iteration is no special case. Parts of a loop that share neither units nor buffers may move at
different speeds. Only loops are tried whose units no other unfinished stream uses, and
whose progress no other stream makes, too; what they wait for must have happened.
"""

from __future__ import annotations

from cimc.sim.simulate import image as col
from cimc.sim.simulate.image import Integers
from cimc.sim.simulate.jit import inner
from cimc.sim.simulate.kernel_line import append, event_at, made, take, wake

FAR = 1 << 62


@inner
def _is_alone(m: Integers, loop: int) -> bool:
    """Whether no other unfinished stream uses a unit of the loop."""
    for member in range(m[loop + col.LOOP_UNITS], m[loop + col.LOOP_WAITS]):
        if m[m[member] + col.UNIT_USERS] > 1:
            return False
    return True


@inner
def enter(m: Integers, loop: int) -> None:
    m[loop + col.LOOP_TRIP] = 0
    m[loop + col.LOOP_LOWEST] = FAR
    m[loop + col.LOOP_HIGHEST] = -1
    m[loop + col.LOOP_MODE] = col.OFF
    if m[col.FORWARD] != 0 and m[loop + col.LOOP_FORWARDS] != 0:
        m[loop + col.LOOP_MODE] = col.READY


@inner
def leave(m: Integers, loop: int) -> None:
    """Tell the loop around about the starts in this one."""
    above = m[loop + col.LOOP_PARENT]
    if above != 0:
        m[above + col.LOOP_LOWEST] = min(m[above + col.LOOP_LOWEST], m[loop + col.LOOP_LOWEST])
        m[above + col.LOOP_HIGHEST] = max(m[above + col.LOOP_HIGHEST], m[loop + col.LOOP_HIGHEST])
    m[loop + col.LOOP_LOWEST] = FAR
    m[loop + col.LOOP_HIGHEST] = -1


@inner
def _needs(m: Integers, loop: int) -> tuple[int, int]:
    """The rows of all needs in a loop."""
    first, end = m[loop + col.LOOP_STEPS], m[loop + col.LOOP_STEPS_END]
    if first == end:
        return 0, 0
    return m[first + col.STEP_NEEDS], m[end - col.STEP + col.STEP_NEEDS_END]


@inner
def _snapshot(m: Integers, stream: int, loop: int) -> None:
    """Keep moments, flags, counts of events, executions and stalls, in this order."""
    leave(m, loop)
    at = m[loop + col.LOOP_SNAP]
    for member in range(m[loop + col.LOOP_MOMENTS], m[loop + col.LOOP_UNITS]):
        m[at] = m[m[member]]
        at += 1
    for member in range(m[loop + col.LOOP_LISTS], m[loop + col.LOOP_LISTS_END]):
        m[at] = m[m[member] + col.LIST_COUNT]
        at += 1
    for step in range(m[loop + col.LOOP_STEPS], m[loop + col.LOOP_STEPS_END], col.STEP):
        m[at] = m[step + col.STEP_EXECUTED]
        at += 1
    first, end = _needs(m, loop)
    for need in range(first, end, col.NEED):
        m[at] = m[need + col.NEED_STALL]
        at += 1
    m[loop + col.LOOP_SNAP_TRIP] = m[loop + col.LOOP_TRIP]
    m[loop + col.LOOP_SNAP_FRONT] = m[stream + col.STREAM_FRONT]
    m[loop + col.LOOP_SNAP_ORDER] = m[stream + col.STREAM_ORDER]


@inner
def _shift(m: Integers, stream: int, loop: int) -> int:
    """By how much the loop's state has moved since the snapshot; -1 if it is another one.

    Moments stand in groups, parted by 0, that do not depend on each other: each group may move by
    an amount of its own, but only those that move most may push the front. That amount is returned.
    """
    lowest = m[loop + col.LOOP_LOWEST]
    shift = 0
    own = 0  # of the group
    is_mixed = False
    still = -1  # latest moment that has not moved
    at = m[loop + col.LOOP_SNAP]
    for member in range(m[loop + col.LOOP_MOMENTS], m[loop + col.LOOP_WAITED]):
        now = m[m[member]]
        moved = now - m[at]
        at += 1
        if m[member] != 0:
            m[m[member] + m[col.MOVED]] = moved
        if m[member] == 0:
            own = 0
        elif moved == 0:
            still = max(still, now)
        elif own == 0:
            own = moved
            is_mixed = is_mixed or (shift != 0 and moved != shift)
            shift = max(shift, moved)
        elif moved != own:
            return -1
    for member in range(m[loop + col.LOOP_WAITED], m[loop + col.LOOP_FLAGS]):
        now = m[m[member]]
        if now != m[at] and now >= lowest:
            return -1
        still = max(still, now)
        at += 1
    for member in range(m[loop + col.LOOP_FLAGS], m[loop + col.LOOP_UNITS]):
        if m[m[member]] != m[at]:
            return -1
        at += 1
    front = m[stream + col.STREAM_FRONT] - m[loop + col.LOOP_SNAP_FRONT]
    order = m[stream + col.STREAM_ORDER] - m[loop + col.LOOP_SNAP_ORDER]
    if (front != 0 and front != shift) or (order != 0 and order != shift):
        return -1
    if shift > 0 and still >= lowest:
        return -1
    if is_mixed and not _only_the_fastest_push(m, loop, shift):
        return -1
    return int(shift)


@inner
def _moved(m: Integers, step: int) -> int:
    """By how much the first unit of a step has moved since the snapshot."""
    return int(m[m[m[step + col.STEP_EFFECTS] + col.EFFECT_MOMENT] + m[col.MOVED]])


@inner
def _only_the_fastest_push(m: Integers, loop: int, shift: int) -> bool:
    """Whether all steps that moved the front since the snapshot have moved by `shift`."""
    at = m[loop + col.LOOP_SNAP] + m[loop + col.LOOP_UNITS] - m[loop + col.LOOP_MOMENTS]
    at += m[loop + col.LOOP_LISTS_END] - m[loop + col.LOOP_LISTS]
    at += (m[loop + col.LOOP_STEPS_END] - m[loop + col.LOOP_STEPS]) // col.STEP
    for step in range(m[loop + col.LOOP_STEPS], m[loop + col.LOOP_STEPS_END], col.STEP):
        for need in range(m[step + col.STEP_NEEDS], m[step + col.STEP_NEEDS_END], col.NEED):
            if m[need + col.NEED_STALL] != m[at] and _moved(m, step) != shift:
                return False
            at += 1
    return True


@inner
def _most_wanted(m: Integers, stream: int, place: int, loop: int, last: int) -> int:
    """Most progress that a wait asks for up to iteration `last` of `loop`, 0 if none."""
    wait = m[place + col.PLACE_ARG]
    value = m[wait + col.AWAIT_CONST]
    for term in range(m[wait + col.AWAIT_TERMS], m[wait + col.AWAIT_TERMS_END], col.TERM):
        around = m[term + col.TERM_LOOP]
        low, high = m[around + col.LOOP_TRIP], m[around + col.LOOP_TRIP]
        end = m[around + col.LOOP_TRIPS] - 1
        if around == loop:
            high = last
        elif m[around + col.LOOP_BODY] > m[loop + col.LOOP_BODY]:  # stands within `loop`
            low, high = 0, end
        for cond in range(m[place + col.PLACE_CONDS], m[place + col.PLACE_CONDS_END], col.COND):
            if m[cond + col.COND_LOOP] == around:
                kind = m[cond + col.COND_KIND]
                if kind == col.FIRST:
                    high = min(high, 0)
                elif kind == col.LAST:
                    low = max(low, end)
                elif kind == col.NOT_FIRST:
                    low = max(low, 1)
                else:
                    high = min(high, end - 1)
        if low > high:
            return 0
        factor = m[term + col.TERM_FACTOR]
        value += factor * (high if factor > 0 else low)
    value = min(value, m[wait + col.AWAIT_LIMIT])
    if value <= 0:
        return 0
    return int(m[stream + col.STREAM_SAMPLE] * m[m[wait + col.AWAIT_LIST] + col.LIST_TOTAL] + value)


@inner
def _waits_pass(m: Integers, stream: int, loop: int, last: int) -> bool:
    """Whether no wait up to iteration `last` can delay anything."""
    for member in range(m[loop + col.LOOP_WAITS], m[loop + col.LOOP_LISTS]):
        wait = m[m[member] + col.PLACE_ARG]
        events = m[wait + col.AWAIT_LIST]
        if events == 0:
            continue
        wanted = _most_wanted(m, stream, m[member], loop, last)
        if wanted <= m[m[wait + col.AWAIT_TAKER] + col.TAKER_TOTAL]:
            continue
        if made(m, events) < wanted:
            return False
        event = event_at(m, events, m[events + col.LIST_COUNT] - 1)
        if m[event + col.EVENT_TIME] >= m[loop + col.LOOP_LOWEST]:
            return False
        if m[event + col.EVENT_ORDER] >= m[loop + col.LOOP_SNAP_ORDER]:
            return False
    return True


@inner
def _pass_waits(m: Integers, stream: int, loop: int, last: int) -> None:
    """Take what the waits up to iteration `last` ask for."""
    for member in range(m[loop + col.LOOP_WAITS], m[loop + col.LOOP_LISTS]):
        wait = m[m[member] + col.PLACE_ARG]
        if m[wait + col.AWAIT_LIST] != 0:
            take(m, stream, wait, _most_wanted(m, stream, m[member], loop, last))


@inner
def _repeat_events(
    m: Integers, stream: int, loop: int, events: int, before: int, shift: int, times: int
) -> None:
    """Publish again, `times` times, what a list got since it had `before` events."""
    count = m[events + col.LIST_COUNT] - before
    if count == 0:
        return
    parts = made(m, events)
    if before > 0:
        parts -= m[event_at(m, events, before - 1) + col.EVENT_TOTAL]
    later = m[m[events + col.LIST_MOMENT] + m[col.MOVED]]
    behind = shift if m[stream + col.STREAM_ORDER] != m[loop + col.LOOP_SNAP_ORDER] else 0
    for n in range(1, times + 1):
        for number in range(before, before + count):
            event = event_at(m, events, number)
            total = m[event + col.EVENT_TOTAL] + n * parts
            moment = m[event + col.EVENT_TIME] + n * later
            order = m[event + col.EVENT_ORDER] + n * behind
            append(m, events, total, moment, order, stream)
    wake(m, col.WAITS_PROGRESS, events)


@inner
def _skip(m: Integers, stream: int, loop: int, shift: int, times: int) -> None:
    """Add `times` repetitions of what happened since the snapshot."""
    kept = m[loop + col.LOOP_SNAP] + m[loop + col.LOOP_UNITS] - m[loop + col.LOOP_MOMENTS]
    for member in range(m[loop + col.LOOP_LISTS], m[loop + col.LOOP_LISTS_END]):
        _repeat_events(m, stream, loop, m[member], m[kept], shift, times)
        kept += 1
    for member in range(m[loop + col.LOOP_MOMENTS], m[loop + col.LOOP_WAITED]):
        if m[member] != 0:
            m[m[member]] += m[m[member] + m[col.MOVED]] * times
    for step in range(m[loop + col.LOOP_STEPS], m[loop + col.LOOP_STEPS_END], col.STEP):
        count = m[step + col.STEP_EXECUTED] - m[kept]
        kept += 1
        if count > 0:
            m[step + col.STEP_EXECUTED] += count * times
            m[step + col.STEP_LAST_END] += _moved(m, step) * times
            end = m[step + col.STEP_LAST_END]
            m[stream + col.STREAM_LATEST] = max(m[stream + col.STREAM_LATEST], end)
    first, end = _needs(m, loop)
    for need in range(first, end, col.NEED):
        m[need + col.NEED_STALL] += (m[need + col.NEED_STALL] - m[kept]) * times
        kept += 1
    if m[stream + col.STREAM_FRONT] != m[loop + col.LOOP_SNAP_FRONT]:
        m[stream + col.STREAM_FRONT] += shift * times
    if m[stream + col.STREAM_ORDER] != m[loop + col.LOOP_SNAP_ORDER]:
        m[stream + col.STREAM_ORDER] += shift * times
    m[loop + col.LOOP_HIGHEST] += shift * times


@inner
def _room(m: Integers, stream: int, loop: int) -> int:
    """How far starts may move: not past what has not moved since the snapshot, nor a limit."""
    room = m[col.MAX_CYCLES] - m[loop + col.LOOP_HIGHEST]
    if m[stream + col.STREAM_FRONT] == m[loop + col.LOOP_SNAP_FRONT]:
        room = min(room, m[stream + col.STREAM_FRONT] - m[loop + col.LOOP_HIGHEST])
    if m[stream + col.STREAM_ORDER] == m[loop + col.LOOP_SNAP_ORDER]:
        room = min(room, m[stream + col.STREAM_ORDER] - m[loop + col.LOOP_HIGHEST])
    return int(room)


@inner
def comes_round(m: Integers, stream: int, loop: int) -> None:
    """Before another iteration: look for an earlier one with the same state, and jump."""
    trip = m[loop + col.LOOP_TRIP]
    left = m[loop + col.LOOP_TRIPS] - m[loop + col.LOOP_HAS_LAST] - trip
    if left <= 0 or m[col.TRACE] != m[col.TRACE_END] or not _is_alone(m, loop):
        return
    period = trip - m[loop + col.LOOP_SNAP_TRIP]
    if m[loop + col.LOOP_MODE] == col.READY:
        m[loop + col.LOOP_MODE] = col.LOOKING
        m[loop + col.LOOP_LIMIT] = 0
    elif left < period:
        m[loop + col.LOOP_MODE] = col.OFF
        return
    else:
        times = left // period
        shift = _shift(m, stream, loop)
        if shift > 0:
            times = min(times, _room(m, stream, loop) // shift)
        last = trip + times * period - 1
        if shift >= 0 and times > 0 and _waits_pass(m, stream, loop, last):
            _pass_waits(m, stream, loop, last)
            _skip(m, stream, loop, shift, times)
            m[loop + col.LOOP_TRIP] = last + 1
            m[loop + col.LOOP_LIMIT] = 0
    if m[loop + col.LOOP_LIMIT] == 0 or period >= m[loop + col.LOOP_LIMIT]:
        m[loop + col.LOOP_LIMIT] = max(1, 2 * m[loop + col.LOOP_LIMIT])
        _snapshot(m, stream, loop)
