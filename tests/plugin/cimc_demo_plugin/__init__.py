"""A machine and a pass that cimc finds by entry points."""
