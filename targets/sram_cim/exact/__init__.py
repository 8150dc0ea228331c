"""Exact search for mappings: branch and bound whose optimum is proven against the simulator.

    solution = solve(Problem(workload, 1, Objective.parse("edp")), target, time_limit=60)
    solution.nest, solution.cost, solution.bound

It stands above the simulators, which judge the mappings it finds; the kind loads it by name. What
is proven holds for all nests that `choices.all_choices` and loops in time can make: every spatial
choice, every order of every factorization of the iterations that remain, all levels and all second
buffers that the machine allows.
"""

from cimc.targets.sram_cim.exact.problem import Figures, Problem, Progress, Solution
from cimc.targets.sram_cim.exact.solve import solve

__all__ = ["Figures", "Problem", "Progress", "Solution", "solve"]
