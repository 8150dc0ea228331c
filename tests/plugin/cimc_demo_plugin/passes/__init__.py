"""Passes, one module each."""
