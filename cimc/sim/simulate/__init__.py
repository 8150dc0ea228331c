"""When a program's instructions run, and what holds them up.

`simulator` has the rules; `plan` resolves a program's names and costs for both engines. `plain`
is the rules in Python. The fast engine packs the plan (`rows`, `pack`) into the memory image of
`image`, on which the kernels work.
"""

from cimc.sim.simulate.simulator import CAUSES, Engine, LayerTime, Simulation, Stall, simulate

__all__ = ["CAUSES", "Engine", "LayerTime", "Simulation", "Stall", "simulate"]
