"""The intermediate representations: graph, tiles, program."""

from cimc.ir import ops as ops  # registers the ops that the text forms name
