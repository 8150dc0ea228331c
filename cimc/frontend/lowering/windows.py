"""Attributes that convolutions and pools share: kernel, strides, dilations, pads and auto_pad."""

from __future__ import annotations

from dataclasses import dataclass

from cimc.frontend import codes
from cimc.frontend.lowering.site import Site

_LARGEST = 2**24  # of a stride, dilation, kernel extent or pad


@dataclass(frozen=True, slots=True)
class Window:
    """How a window moves over the spatial axes."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]  # begin per axis, then end per axis
    dilations: tuple[int, ...]

    def reach(self, axis: int) -> int:
        """Extent of the dilated kernel."""
        return self.dilations[axis] * (self.kernel[axis] - 1) + 1


def window(site: Site, extents: tuple[int, ...], kernel: tuple[int, ...] | None) -> Window:
    """The node's window over spatial `extents`; `kernel` where the weights say it.

    auto_pad becomes explicit pads: SAME_UPPER and SAME_LOWER so that out = ceil(in / stride).
    """
    axes = len(extents)
    shown = site.attr_ints("kernel_shape")
    if kernel is None:
        if shown is None:
            site.refuse(f"{site.op_type} lacks kernel_shape", code=codes.INVALID)
        kernel = shown
    elif shown is not None and shown != kernel:
        site.refuse(
            f"kernel_shape of {site.op_type} is not that of its weights",
            need=str(kernel),
            have=str(shown),
            code=codes.SHAPES,
        )
    strides = _positive(site, "strides", axes)
    dilations = _positive(site, "dilations", axes)
    if len(kernel) != axes or any(not 0 < k <= _LARGEST for k in kernel):
        site.refuse(
            f"kernel_shape of {site.op_type} is impossible",
            need=f"{axes} sizes from 1 on",
            have=str(kernel),
            code=codes.SHAPES,
        )
    free = Window(kernel, strides, (0,) * (2 * axes), dilations)
    auto = site.attr_string("auto_pad", "NOTSET")
    if auto in ("", "NOTSET"):
        pads = site.attr_ints("pads") or (0,) * (2 * axes)
        if len(pads) != 2 * axes or any(not 0 <= pad <= _LARGEST for pad in pads):
            site.refuse(
                f"pads of {site.op_type} are impossible",
                need=f"{2 * axes} sizes from 0 on",
                have=str(pads),
                code=codes.SHAPES,
            )
    elif auto == "VALID":
        pads = free.pads
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max(0, (-(-extent // stride) - 1) * stride + free.reach(axis) - extent)
            for axis, (extent, stride) in enumerate(zip(extents, strides, strict=True))
        ]
        pads = split_pads(totals, upper=auto == "SAME_UPPER")
    else:
        site.refuse(f"auto_pad of {site.op_type} is unknown", have=auto, code=codes.INVALID)
    return Window(kernel, strides, pads, dilations)


def split_pads(totals: list[int], upper: bool) -> tuple[int, ...]:
    """Padding on both sides; an odd one more at the end (`upper`) or at the begin."""
    begins = [total // 2 if upper else total - total // 2 for total in totals]
    return (*begins, *(total - begin for total, begin in zip(totals, begins, strict=True)))


def _positive(site: Site, name: str, axes: int) -> tuple[int, ...]:
    found = site.attr_ints(name) or (1,) * axes
    if len(found) != axes or any(not 0 < item <= _LARGEST for item in found):
        site.refuse(
            f"{name} of {site.op_type} are impossible",
            need=f"{axes} sizes from 1 on",
            have=str(found),
            code=codes.SHAPES,
        )
    return found
