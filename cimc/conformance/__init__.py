"""Suites that every machine, kind and pass keeps, built-in or plug-in."""
