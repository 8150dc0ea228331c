"""Machines that run programs: what they compute, when, and at what price.

execute    results, to the bit      Executor(program, target).run(inputs)
simulate   cycles and stalls        simulate(program, target)
energy     what that costs          energy(program, target, simulation)
estimate   all of it in closed form, without a program
"""
