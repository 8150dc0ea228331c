"""Machine kinds (one module each) and machines (one TOML file each)."""

if __name__ != "cimc.targets":
    raise ImportError("import this package as cimc.targets")
