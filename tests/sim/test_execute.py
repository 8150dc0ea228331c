"""Both engines compute the same, to the bit, and find the same faults."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from cimc.errors import StallError, VerifyError
from cimc.ir.program import Program, parse_program
from cimc.sim.execute import Executor
from tests.sim.random_programs import programs


def outcome(program: Program, engine: str) -> tuple[str, bytes, bytes]:
    """Faults, cells and marks after one run."""
    executor = Executor(program, None, engine)
    try:
        executor.run({})
        faults = ""
    except (VerifyError, StallError) as problem:
        return str(problem), b"", b""
    return faults, executor.memories.cells.tobytes(), executor.memories.marks.tobytes()


@given(programs)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_engines_are_equal(program: Program) -> None:
    assert parse_program(str(program), program.tensors) == program
    assert outcome(program, "fast") == outcome(program, "plain")
