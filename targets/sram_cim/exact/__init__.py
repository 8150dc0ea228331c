"""Exact search for mappings: branch and bound whose optimum is proven against the simulator.

    solution = solve(Problem(workload, 1, Objective.parse("edp")), target, time_limit=60)
    solution.nest, solution.cost, solution.bound

It stands above the simulators, which judge the mappings it finds; the kind loads it by name. What
is proven holds for every spatial choice (factors that do not divide, too), every order of every
factorization of the iterations that remain, all levels and all second buffers that the machine
allows. Under private ports a level is in use where a loop of bound 2 or more runs, as MIREDO has
it.
"""

from cimc.targets.sram_cim.exact.problem import Figures, Problem, Progress, Solution
from cimc.targets.sram_cim.exact.solve import solve

__all__ = ["Figures", "Problem", "Progress", "Solution", "solve"]
