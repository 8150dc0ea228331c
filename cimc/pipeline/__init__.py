"""Passes and how they are run: phases, pipelines as text, dumps, timing, reproducers."""
