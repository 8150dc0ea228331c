"""What a program computes: its instructions on a machine's memories.

`executor` runs programs on one of two engines, equal to the bit. `plain` walks the program in
Python. The fast engine interprets it compiled: `encode`, `forms` and `axes` make it one row of
integers as `codes` says, `kernels` walks that row, with the instructions in `moves`, `sums`,
`tables` and `convert`.
"""

from cimc.sim.execute.executor import Engine, Executor, execute

__all__ = ["Engine", "Executor", "execute"]
