"""Exact search for mappings: branch and bound whose optimum is proven against the simulator.

It stands above the simulators, which judge the mappings it finds; the kind loads it by name.
"""
