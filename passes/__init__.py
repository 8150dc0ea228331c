"""The passes, one file each, named as the command line names them."""

if __name__ != "cimc.passes":
    raise ImportError("import this package as cimc.passes")
