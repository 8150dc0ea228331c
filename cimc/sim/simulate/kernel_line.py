"""Kernels of streams in line, of progress, and of samples; see `cimc.sim.simulate.kernel`."""

from __future__ import annotations

from cimc.sim.simulate import image as col
from cimc.sim.simulate.image import Integers
from cimc.sim.simulate.jit import inner

# --- streams in line: a heap by order, then by stream ---


@inner
def precedes(m: Integers, line: int, order: int, stream: int) -> bool:
    """Whether a row of the heap comes before (order, stream)."""
    if m[line + col.LINE_ORDER] != order:
        return bool(m[line + col.LINE_ORDER] < order)
    return bool(m[line + col.LINE_STREAM] < stream)


@inner
def push(m: Integers, order: int, stream: int) -> None:
    base = m[col.LINE]
    hole = m[col.HEAP]
    m[col.HEAP] = hole + 1
    while hole > 0:
        above = base + ((hole - 1) >> 1) * col.LINE_ROW
        if precedes(m, above, order, stream):
            break
        m[base + hole * col.LINE_ROW + col.LINE_ORDER] = m[above + col.LINE_ORDER]
        m[base + hole * col.LINE_ROW + col.LINE_STREAM] = m[above + col.LINE_STREAM]
        hole = (hole - 1) >> 1
    m[base + hole * col.LINE_ROW + col.LINE_ORDER] = order
    m[base + hole * col.LINE_ROW + col.LINE_STREAM] = stream


@inner
def pop(m: Integers) -> int:
    base = m[col.LINE]
    top = m[base + col.LINE_STREAM]
    size = m[col.HEAP] - 1
    m[col.HEAP] = size
    order = m[base + size * col.LINE_ROW + col.LINE_ORDER]
    stream = m[base + size * col.LINE_ROW + col.LINE_STREAM]
    hole = 0
    while 2 * hole + 1 < size:
        below = 2 * hole + 1
        line = base + below * col.LINE_ROW
        if below + 1 < size and precedes(
            m, line + col.LINE_ROW, m[line + col.LINE_ORDER], m[line + col.LINE_STREAM]
        ):
            below += 1
            line += col.LINE_ROW
        if not precedes(m, line, order, stream):
            break
        m[base + hole * col.LINE_ROW + col.LINE_ORDER] = m[line + col.LINE_ORDER]
        m[base + hole * col.LINE_ROW + col.LINE_STREAM] = m[line + col.LINE_STREAM]
        hole = below
    m[base + hole * col.LINE_ROW + col.LINE_ORDER] = order
    m[base + hole * col.LINE_ROW + col.LINE_STREAM] = stream
    return int(top)


# --- progress ---


@inner
def event_at(m: Integers, events: int, number: int) -> int:
    """Where an event of a list is kept."""
    return int(m[events + col.LIST_EVENTS] + number % m[events + col.LIST_RING] * col.EVENT)


@inner
def made(m: Integers, events: int) -> int:
    """Progress made so far."""
    if m[events + col.LIST_COUNT] == 0:
        return 0
    return int(m[event_at(m, events, m[events + col.LIST_COUNT] - 1) + col.EVENT_TOTAL])


@inner
def append(m: Integers, events: int, total: int, time: int, order: int, stream: int) -> None:
    event = event_at(m, events, m[events + col.LIST_COUNT])
    m[event + col.EVENT_TOTAL] = total
    m[event + col.EVENT_TIME] = time
    m[event + col.EVENT_ORDER] = order
    m[event + col.EVENT_STREAM] = stream
    m[events + col.LIST_COUNT] += 1


@inner
def wake(m: Integers, status: int, events: int) -> None:
    """Let the streams look again that wait for these events, or for readers (0)."""
    for other in range(m[col.STREAMS], m[col.STREAMS_END], col.STREAM):
        waits = m[other + col.STREAM_STATUS] == status
        if waits and (events == 0 or m[other + col.STREAM_LIST] == events):
            m[other + col.STREAM_STATUS] = col.IN_LINE
            push(m, m[other + col.STREAM_ORDER], other)


@inner
def publish(m: Integers, stream: int, signal: int) -> None:
    events = m[signal + col.PUBLISH_LIST]
    if events == 0:
        return
    moment, ready = m[events + col.LIST_MOMENT], m[signal + col.PUBLISH_READY]
    if ready != 0:
        m[moment] = max(m[moment], m[ready])
    loop = m[signal + col.PUBLISH_LOOP]
    if loop != 0:
        m[loop + col.LOOP_LOWEST] = min(m[loop + col.LOOP_LOWEST], m[moment])
    m[col.LOWEST] = min(m[col.LOWEST], m[moment])
    total = made(m, events) + m[signal + col.PUBLISH_COUNT]
    append(m, events, total, m[moment], m[stream + col.STREAM_ORDER], stream)
    wake(m, col.WAITS_PROGRESS, events)


@inner
def wanted_progress(m: Integers, stream: int, wait: int) -> int:
    """Progress since the first sample that a wait asks for, 0 if none."""
    value = m[wait + col.AWAIT_CONST]
    for term in range(m[wait + col.AWAIT_TERMS], m[wait + col.AWAIT_TERMS_END], col.TERM):
        value += m[term + col.TERM_FACTOR] * m[m[term + col.TERM_LOOP] + col.LOOP_TRIP]
    value = min(value, m[wait + col.AWAIT_LIMIT])
    if value <= 0:
        return 0
    return int(m[stream + col.STREAM_SAMPLE] * m[m[wait + col.AWAIT_LIST] + col.LIST_TOTAL] + value)


@inner
def take(m: Integers, stream: int, wait: int, wanted: int) -> tuple[bool, bool]:
    """Take progress up to `wanted`: whether it is there, and whether to get in line again."""
    events, taker = m[wait + col.AWAIT_LIST], m[wait + col.AWAIT_TAKER]
    if wanted <= m[taker + col.TAKER_TOTAL]:
        return True, False
    if made(m, events) < wanted:
        return False, False
    event = 0
    while m[taker + col.TAKER_TOTAL] < wanted:
        event = event_at(m, events, m[taker + col.TAKER_COUNT])
        m[taker + col.TAKER_TOTAL] = m[event + col.EVENT_TOTAL]
        m[taker + col.TAKER_COUNT] += 1
    moment = m[wait + col.AWAIT_MOMENT]
    if moment != 0:
        m[moment] = max(m[moment], m[event + col.EVENT_TIME])
    behind = m[event + col.EVENT_ORDER] + 1
    if m[event + col.EVENT_STREAM] == stream or behind <= m[stream + col.STREAM_ORDER]:
        return True, False
    m[stream + col.STREAM_ORDER] = behind
    return True, True


# --- samples ---


@inner
def begin(m: Integers, stream: int) -> tuple[bool, bool]:
    """Take over buffers: whether their readers let go, and whether to get in line again."""
    sample = m[stream + col.STREAM_SAMPLE]
    for gate in range(m[stream + col.STREAM_GATES], m[stream + col.STREAM_GATES_END], col.GATE):
        earlier = sample - m[gate + col.GATE_SLOTS]
        for reader in range(m[gate + col.GATE_READERS], m[gate + col.GATE_READERS_END], col.READER):
            if m[m[reader + col.READER_STREAM] + col.STREAM_SAMPLE] <= earlier:
                return False, False
    before = m[stream + col.STREAM_ORDER]
    for gate in range(m[stream + col.STREAM_GATES], m[stream + col.STREAM_GATES_END], col.GATE):
        earlier = sample - m[gate + col.GATE_SLOTS]
        moment = m[gate + col.GATE_MOMENT]
        if earlier < 0:
            continue
        for reader in range(m[gate + col.GATE_READERS], m[gate + col.GATE_READERS_END], col.READER):
            let_go = m[m[reader + col.READER_RECORD] + col.RECORD_SAMPLES] + earlier * col.LET_GO
            if moment != 0:
                m[moment] = max(m[moment], m[let_go + col.LET_GO_TIME])
            behind = m[let_go + col.LET_GO_ORDER] + 1
            m[stream + col.STREAM_ORDER] = max(m[stream + col.STREAM_ORDER], behind)
    return True, bool(m[stream + col.STREAM_ORDER] > before)


@inner
def finish_sample(m: Integers, stream: int) -> None:
    sample = m[stream + col.STREAM_SAMPLE]
    for record in range(
        m[stream + col.STREAM_RECORDS], m[stream + col.STREAM_RECORDS_END], col.RECORD
    ):
        let_go = m[record + col.RECORD_SAMPLES] + sample * col.LET_GO
        if m[record + col.RECORD_MOMENT] != 0:
            m[let_go + col.LET_GO_TIME] = m[m[record + col.RECORD_MOMENT]]
        m[let_go + col.LET_GO_ORDER] = m[stream + col.STREAM_ORDER]
    end = m[col.SAMPLE_ENDS] + sample
    m[end] = max(m[end], m[stream + col.STREAM_LATEST])
    m[stream + col.STREAM_SAMPLE] = sample + 1
    wake(m, col.WAITS_READERS, 0)
    if sample + 1 == m[col.SAMPLES]:
        m[stream + col.STREAM_STATUS] = col.FINISHED
        for use in range(m[stream + col.STREAM_USES], m[stream + col.STREAM_USES_END]):
            m[m[use] + col.UNIT_USERS] -= 1
