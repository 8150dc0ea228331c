"""MIREDO's timing, to compare with it: one mapped layer, operands never contend for a port.

`schedule` is what a mapping fixes before time runs; `simulator` plays it step by step, `fast` and
`kernel` exactly by max-plus algebra. `closed_form` comes close without playing, `batch` does the
same for many mappings at once.
"""

from cimc.targets.sram_cim.private_ports.simulator import simulate_private

__all__ = ["simulate_private"]
