"""Target files."""
