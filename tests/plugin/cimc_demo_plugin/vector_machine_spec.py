"""The schema of target files of kind `demo-vector`."""

from __future__ import annotations

from cimc.target import NonNegative, Table, TargetSpec


class Product(Table):
    """Products of whole tensors in the vector unit."""

    mac_pj: NonNegative  # per multiply-accumulate


class VectorMachineSpec(TargetSpec):
    """A machine without arrays."""

    product: Product


SPEC = VectorMachineSpec
