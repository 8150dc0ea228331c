"""The ops of the graph IR, in the field's own names. `cimc.ir.evaluate` says what each computes.

Types carry the meaning. An op whose operands are float computes in float32. The same op on
quantized integers (types with a `Quant`) computes on the real numbers they stand for, in float32,
and rounds its result half to even into the type of `out`: so `add`, `pool`, `softmax` ... need no
second, integer spelling. Only `conv` and `matmul` differ: on integers they return the exact i32
sum, and a `requant` brings it back to 8 bits.

Layouts are ONNX's: N C spatial..., weights O I/g spatial... . Pads are (begin..., end...) like
ONNX's, always explicit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from cimc.errors import Fault
from cimc.ir.graph import Op, Value, register
from cimc.ir.types import is_integer


@register
@dataclass(frozen=True, slots=True)
class Input(Op):
    """A value that the caller provides."""

    mnemonic: ClassVar[str] = "input"


@register
@dataclass(frozen=True, slots=True)
class Constant(Op):
    """A tensor known at compile time, by the digest of its content."""

    digest: str
    mnemonic: ClassVar[str] = "constant"


# Between real numbers and integers.


@register
@dataclass(frozen=True, slots=True)
class Quantize(Op):
    """out = saturate(round_half_even(x / scale) + zero), per tensor or along `axis`."""

    x: Value  # float
    scale: Value  # f32[] or f32[extent of axis]
    zero: Value | None  # of out's element type, shaped as scale; absent: 0
    axis: int | None = None
    mnemonic: ClassVar[str] = "quantize"


@register
@dataclass(frozen=True, slots=True)
class Dequantize(Op):
    """out = (x - zero) * scale in float32, per tensor or along `axis`."""

    x: Value  # integer
    scale: Value
    zero: Value | None
    axis: int | None = None
    mnemonic: ClassVar[str] = "dequantize"


@register
@dataclass(frozen=True, slots=True)
class Requant(Op):
    """Bring an exact sum back to few bits, channel by channel along `axis`.

                        total = x * gain + bias, in the 32 bits of a sum
        round "float":  out = clip(rint(f32(total) * multiplier) + zero, low, high)
        round "fixed":  out = clip(((total * multiplier + 2**(shift-1)) >> shift) + zero, low, high)

    "float" is what onnxruntime's CPU kernels do. `zero` is out.type.quant.zero. `low`/`high` lie in
    out's range; a fused relu or clip narrows them. Sums of ternary weights count units of their
    magnitude: `gain` and `bias` bring them back, exactly.
    """

    x: Value  # i32
    multiplier: Value  # f32[channels or 1]; i32[channels or 1] for "fixed"
    shift: Value | None  # i32[channels or 1], only for "fixed"
    axis: int = 1
    low: int = -128
    high: int = 127
    round: str = "float"
    gain: Value | None = None  # i32[channels or 1]; absent: 1
    bias: Value | None = None  # i32[channels or 1]; absent: 0
    mnemonic: ClassVar[str] = "requant"

    def faults(self) -> Iterator[Fault]:
        if self.round not in ("float", "fixed") or (self.round == "fixed") == (self.shift is None):
            yield Fault(
                f"{self.out}: requant",
                need="round float without, or fixed with a shift",
                have=self.round,
            )
        if self.out.type.quant is None:
            yield Fault(
                f"{self.out}: requant", need="a quantized result type", have=str(self.out.type)
            )


@register
@dataclass(frozen=True, slots=True)
class Cast(Op):
    """Convert the element type as NumPy's astype does (floats towards zero)."""

    x: Value
    mnemonic: ClassVar[str] = "cast"


# Heavy ops: these run in compute-in-memory arrays.


@register
@dataclass(frozen=True, slots=True)
class Conv(Op):
    """Convolution over any number of spatial axes.

        out[n, k, p...] = bias[k] + sum over c, r... of
                          (x[n, c, p*stride + r*dilation - pad] - zx) * w[k, c, r...]

    float: zx = 0, out f32. Integer: x i8/u8 with quant (zx its zero), w i8 constant (zero point
    already taken off; i16 where that needs nine bits), bias i32, out i32 exact.
    """

    x: Value
    w: Value
    bias: Value | None
    strides: tuple[int, ...]
    pads: tuple[int, ...]  # begin per axis, then end per axis
    dilations: tuple[int, ...]
    group: int = 1
    mnemonic: ClassVar[str] = "conv"

    def faults(self) -> Iterator[Fault]:
        axes = len(self.x.shape) - 2
        if not (len(self.strides) == len(self.dilations) == axes and len(self.pads) == 2 * axes):
            yield Fault(
                f"{self.out}: conv", need=f"strides, pads and dilations for {axes} spatial axes"
            )
        if is_integer(self.x.type.dtype) and self.out.type.dtype != "i32":
            yield Fault(
                f"{self.out}: conv of integers", need="an i32 result", have=str(self.out.type)
            )


@register
@dataclass(frozen=True, slots=True)
class ConvTranspose(Op):
    """Transposed convolution; `legalize` rewrites it into upsample-with-zeros, then conv.

    out extent = stride*(extent - 1) + dilation*(kernel - 1) + 1 - begin - end on each spatial axis;
    ONNX's output_padding makes `end` smaller, also negative.
    """

    x: Value
    w: Value  # C, K/g, spatial...
    bias: Value | None
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int = 1
    mnemonic: ClassVar[str] = "conv_transpose"


@register
@dataclass(frozen=True, slots=True)
class Matmul(Op):
    """out = a @ b + bias with NumPy's broadcasting of leading axes.

    Integer: out i32 exact, zero points of a and b (from their types) taken off; a constant b has
    none left. Where b is computed, both operands change at run time and the array is written with b
    during inference.
    """

    a: Value  # [..., m, k]
    b: Value  # [..., k, n]
    bias: Value | None  # [n], or broadcastable to out
    mnemonic: ClassVar[str] = "matmul"


# Elementwise.


@register
@dataclass(frozen=True, slots=True)
class Unary(Op):
    """out = fn(x), element by element; `fn` is a name in `cimc.ir.evaluate.UNARY`.

    Names are ONNX's in snake case (relu, sigmoid, is_nan, not ...). With parameters, a = alpha and
    b = beta:
        leaky_relu, elu, celu, thresholded_relu, swish: a is ONNX's alpha
        hard_sigmoid max(0, min(1, a*x + b));  clip min(b, max(a, x));  selu a is alpha, b is gamma
        shrink a is lambd, b is bias;  is_inf a: count -inf, b: count +inf (0 or 1)
        gelu with erf, gelu_tanh with the tanh formula
    """

    x: Value
    fn: str
    alpha: float = 0.0
    beta: float = 0.0
    mnemonic: ClassVar[str] = "unary"


@register
@dataclass(frozen=True, slots=True)
class Lut(Op):
    """out[i] = table[x[i] - lowest(x's type)]: any function of one 8-bit (or narrower) integer."""

    x: Value  # i8 / u8
    table: Value  # constant, out's element type, one entry for each value of x's type
    mnemonic: ClassVar[str] = "lut"


@register
@dataclass(frozen=True, slots=True)
class Binary(Op):
    """out = fn(a, b) with broadcasting; `fn` is a name in `cimc.ir.evaluate.BINARY`.

    add, sub, mul, div (integers towards zero), pow, max, min, mod (sign of b), fmod (sign of a),
    prelu (a >= 0 ? a : a*b), equal, less, less_equal, greater, greater_equal, and, or, xor,
    bitwise_and, bitwise_or, bitwise_xor, shift_left, shift_right
    """

    a: Value
    b: Value
    fn: str
    low: int | None = (
        None  # quantized results only: clamp of a fused activation, in integers of out's type
    )
    high: int | None = None
    mnemonic: ClassVar[str] = "binary"


@register
@dataclass(frozen=True, slots=True)
class Where(Op):
    """out = a where condition else b, with broadcasting."""

    condition: Value
    a: Value
    b: Value
    mnemonic: ClassVar[str] = "where"


# Windows, reductions, normalization.


@register
@dataclass(frozen=True, slots=True)
class Pool(Op):
    """Window over the spatial axes: fn "max", "average" or "lp" (power `p`).

    `pads` are explicit; windows that reach past the padded end (ONNX ceil_mode) are allowed and see
    only real elements. "average" divides by the window's real elements, or with `include_pad` by
    those inside input and pads.
    """

    x: Value
    fn: str
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    include_pad: bool = False
    p: int = 2
    mnemonic: ClassVar[str] = "pool"


@register
@dataclass(frozen=True, slots=True)
class Reduce(Op):
    """Reduce over `axes`; `fn` is a name in `cimc.ir.evaluate.REDUCE`.

    mean, sum, max, min, prod, l1, l2, sum_square, log_sum, log_sum_exp
    """

    x: Value
    fn: str
    axes: tuple[int, ...]
    keep: bool = True
    mnemonic: ClassVar[str] = "reduce"


@register
@dataclass(frozen=True, slots=True)
class ArgReduce(Op):
    """Index of the "max" or "min" along `axis`: the first one, or the `last`."""

    x: Value
    fn: str
    axis: int
    keep: bool = True
    last: bool = False
    mnemonic: ClassVar[str] = "arg_reduce"


@register
@dataclass(frozen=True, slots=True)
class Softmax(Op):
    """Softmax along `axis`, safe: the maximum is subtracted; `log` for LogSoftmax.

    Where every element is -inf (a row that a mask closes) the result is zero, not NaN.
    """

    x: Value
    axis: int
    log: bool = False
    mnemonic: ClassVar[str] = "softmax"


@register
@dataclass(frozen=True, slots=True)
class BatchNorm(Op):
    """out = scale * (x - mean) / sqrt(variance + epsilon) + bias, along axis 1 (inference)."""

    x: Value
    scale: Value
    bias: Value
    mean: Value
    variance: Value
    epsilon: float = 1e-5
    mnemonic: ClassVar[str] = "batch_norm"


@register
@dataclass(frozen=True, slots=True)
class LayerNorm(Op):
    """Normalize over the axes from `axis` on, then scale and add bias.

    `groups` > 0: over groups of channels (group norm; groups = channels: instance norm), scale and
    bias along axis 1.
    """

    x: Value
    scale: Value | None
    bias: Value | None
    axis: int = -1
    epsilon: float = 1e-5
    groups: int = 0
    mnemonic: ClassVar[str] = "layer_norm"


@register
@dataclass(frozen=True, slots=True)
class Lrn(Op):
    """Local response normalization across `size` channels."""

    x: Value
    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0
    mnemonic: ClassVar[str] = "lrn"


# Moving data.


@register
@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """Same elements in the same order, another shape (also flatten, squeeze, identity)."""

    x: Value
    mnemonic: ClassVar[str] = "reshape"


@register
@dataclass(frozen=True, slots=True)
class Transpose(Op):
    """Permute axes."""

    x: Value
    perm: tuple[int, ...]
    mnemonic: ClassVar[str] = "transpose"


@register
@dataclass(frozen=True, slots=True)
class Concat(Op):
    """Join along `axis`; quantized operands are brought to out's scale."""

    xs: tuple[Value, ...]
    axis: int
    mnemonic: ClassVar[str] = "concat"


@register
@dataclass(frozen=True, slots=True)
class Slice(Op):
    """out[i...] = x[start + i*step ...] with one start and step for every axis."""

    x: Value
    starts: tuple[int, ...]
    steps: tuple[int, ...]
    mnemonic: ClassVar[str] = "slice"


@register
@dataclass(frozen=True, slots=True)
class Pad(Op):
    """Pad every axis; `mode` "constant" (a real `value`), "reflect", "edge" or "wrap"."""

    x: Value
    pads: tuple[int, ...]
    mode: str = "constant"
    value: float = 0.0
    mnemonic: ClassVar[str] = "pad"


@register
@dataclass(frozen=True, slots=True)
class Gather(Op):
    """Take `indices` along `axis` (negative ones count from the end)."""

    x: Value
    indices: Value
    axis: int = 0
    mnemonic: ClassVar[str] = "gather"


@register
@dataclass(frozen=True, slots=True)
class Broadcast(Op):
    """Repeat to out's shape by NumPy's broadcasting (Expand)."""

    x: Value
    mnemonic: ClassVar[str] = "broadcast"


@register
@dataclass(frozen=True, slots=True)
class Tile(Op):
    """Repeat whole copies along every axis (out's shape says how often)."""

    x: Value
    mnemonic: ClassVar[str] = "tile"


@register
@dataclass(frozen=True, slots=True)
class Resize(Op):
    """Nearest or linear resampling with ONNX's coordinate and rounding modes."""

    x: Value
    scales: tuple[float, ...]  # out extent / x extent as ONNX defines it, one for every axis
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    mnemonic: ClassVar[str] = "resize"
