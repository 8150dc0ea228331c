"""Arithmetic of mapped loop nests, shared by machine kinds, simulators and searches."""
