"""Functions of single elements: activations, arithmetic, comparisons, casts."""

from __future__ import annotations

import math
from dataclasses import replace

from onnx import AttributeProto, TensorProto

from cimc.frontend.lowering.registry import MICROSOFT, lowers
from cimc.frontend.lowering.site import Site
from cimc.frontend.tensors import ELEMENT_TYPES
from cimc.ir import ops
from cimc.ir.graph import Value
from cimc.ir.types import Type, bits_of, is_integer

_PLAIN: dict[str, str] = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "BitwiseNot": "bitwise_not",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hard_swish",
    "IsNaN": "is_nan",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Not": "not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}

# operator -> function, then ONNX's names and defaults of alpha and beta
_WITH_PARAMETERS: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "Celu": ("celu", (("alpha", 1.0),)),
    "Elu": ("elu", (("alpha", 1.0),)),
    "HardSigmoid": ("hard_sigmoid", (("alpha", 0.2), ("beta", 0.5))),
    "LeakyRelu": ("leaky_relu", (("alpha", 0.01),)),
    "Selu": ("selu", (("alpha", 1.6732631921768188), ("gamma", 1.0507010221481323))),
    "Shrink": ("shrink", (("lambd", 0.5), ("bias", 0.0))),
    "Swish": ("swish", (("alpha", 1.0),)),
    "ThresholdedRelu": ("thresholded_relu", (("alpha", 1.0),)),
}

_BINARY: dict[str, str] = {
    "Add": "add",
    "And": "and",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
    "Div": "div",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Mul": "mul",
    "Or": "or",
    "PRelu": "prelu",
    "Sub": "sub",
    "Xor": "xor",
}


@lowers(*_PLAIN)
def unary(site: Site) -> None:
    """One op of the same meaning."""
    site.emit(ops.Unary(site.out(), site.value(), _PLAIN[site.op_type]))


@lowers(*_WITH_PARAMETERS)
def unary_with_parameters(site: Site) -> None:
    """One op with ONNX's parameters as alpha and beta."""
    fn, parameters = _WITH_PARAMETERS[site.op_type]
    alpha, beta = [*(site.attr_float(*entry) for entry in parameters), 0.0][:2]
    site.emit(ops.Unary(site.out(), site.value(), fn, alpha, beta))


@lowers("IsInf")
def is_inf(site: Site) -> None:
    """Both signs, or the one asked for."""
    negative, positive = site.attr_int("detect_negative", 1), site.attr_int("detect_positive", 1)
    site.emit(ops.Unary(site.out(), site.value(), "is_inf", float(negative), float(positive)))


@lowers("Gelu")
def gelu(site: Site) -> None:
    """Exact, or by tanh."""
    approximate = site.attr_string("approximate", "none")
    if approximate not in ("none", "tanh"):
        site.refuse("approximate of Gelu is unknown", "none or tanh", approximate)
    fn = "gelu" if approximate == "none" else "gelu_tanh"
    site.emit(ops.Unary(site.out(), site.value(), fn))


@lowers("Gelu", domain=MICROSOFT)
def microsoft_gelu(site: Site) -> None:
    """Exact Gelu."""
    site.emit(ops.Unary(site.out(kind=site.kind()), site.value(), "gelu"))


@lowers("Clip")
def clip(site: Site) -> None:
    """Clip with constant bounds; min and max of two values where a bound is computed or integer."""
    x = site.value()
    constant = all(site.bound(i).array is not None for i in (1, 2) if site.has(i))
    if site.version < 11 or (constant and not is_integer(x.type.dtype)):
        low, high = -math.inf, math.inf
        if site.version < 11:
            low = site.attr_float("min", low)
            high = site.attr_float("max", high)
        low = site.scalar(1) if site.has(1) else low
        high = site.scalar(2) if site.has(2) else high
        site.emit(ops.Unary(site.out(), x, "clip", low, high))
        return
    bounds = [(fn, site.value(i)) for i, fn in ((1, "max"), (2, "min")) if site.has(i)]
    if not bounds:
        site.forward(site.bound(0))
        return
    for fn, bound in bounds[:-1]:
        x = site.emit(ops.Binary(site.fresh("low", x.type), x, bound, fn))
    site.emit(ops.Binary(site.out(), x, bounds[-1][1], bounds[-1][0]))


@lowers(*_BINARY)
def binary(site: Site) -> None:
    """One op of the same meaning."""
    site.emit(ops.Binary(site.out(), site.value(0), site.value(1), _BINARY[site.op_type]))


@lowers("BitShift")
def bit_shift(site: Site) -> None:
    """Shift to the side that `direction` names."""
    direction = site.attr_string("direction", "")
    if direction not in ("LEFT", "RIGHT"):
        site.refuse("direction of BitShift is unknown", "LEFT or RIGHT", direction)
    fn = f"shift_{direction.lower()}"
    site.emit(ops.Binary(site.out(), site.value(0), site.value(1), fn))


@lowers("Mod")
def mod(site: Site) -> None:
    """The sign of the divisor, or with `fmod` that of the dividend."""
    fn = "fmod" if site.attr_int("fmod") else "mod"
    site.emit(ops.Binary(site.out(), site.value(0), site.value(1), fn))


def cast_to(site: Site, x: Value, dtype: str, suffix: str) -> Value:
    """`x` as `dtype`; itself where it is that already."""
    if x.type.dtype == dtype:
        return x
    return site.emit(ops.Cast(site.fresh(suffix, Type(dtype, x.shape)), x))


@lowers("Pow")
def power(site: Site) -> None:
    """Base and exponent are brought to one type; integers to a float power go through floats."""
    base, exponent = site.value(0), site.value(1)
    out = site.out()
    common = base.type.dtype
    if is_integer(common) and not is_integer(exponent.type.dtype):
        common = exponent.type.dtype
    base = cast_to(site, base, common, "base")
    exponent = cast_to(site, exponent, common, "exponent")
    if common == out.type.dtype:
        site.emit(ops.Binary(out, base, exponent, "pow"))
        return
    powered = site.fresh("power", Type(common, out.shape))
    site.emit(ops.Cast(out, site.emit(ops.Binary(powered, base, exponent, "pow"))))


@lowers("Max", "Min", "Sum", "Mean")
def variadic(site: Site) -> None:
    """A chain of two-operand ops; Mean divides by the number of operands."""
    fn = {"Max": "max", "Min": "min", "Sum": "add", "Mean": "add"}[site.op_type]
    out, total = site.out(), site.value(0)
    count = len(site.inputs)
    if count == 1:
        site.forward(site.bound(0))
        return
    for index in range(1, count):
        last = index == count - 1 and site.op_type != "Mean"
        other = site.value(index)
        shape = _broadcast(site, total.shape, other.shape)
        partial = out if last else site.fresh(f"part{index}", replace(out.type, shape=shape))
        total = site.emit(ops.Binary(partial, total, other, fn))
    if site.op_type == "Mean":
        divisor = site.number(count, out.type.dtype, "count")
        site.emit(ops.Binary(out, total, divisor, "div"))


def _broadcast(site: Site, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(x != y and 1 not in (x, y) for x, y in zip(a, b, strict=True)):
        site.refuse(f"the operands of {site.op_type} do not broadcast", have=f"{a} and {b}")
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


@lowers("Where")
def where(site: Site) -> None:
    """Choose element by element."""
    site.emit(ops.Where(site.out(), site.value(0), site.value(1), site.value(2)))


@lowers("Cast", "CastLike", note="between float16, float32, float64, bool and integers")
def cast(site: Site) -> None:
    """Vanishes where the type stays the same."""
    if site.op_type == "Cast":
        to = site.attribute("to", AttributeProto.INT)
        if to is None or to.i not in ELEMENT_TYPES:
            known = ", ".join(sorted(ELEMENT_TYPES.values()))
            have = TensorProto.DataType.Name(to.i) if to is not None else "nothing"
            site.refuse("Cast to an unsupported type", known, have)
    out = site.out()
    if out.type.dtype == site.kind().dtype:
        site.forward(site.bound(0))
    elif bits_of(out.type.dtype) < 8:
        site.refuse("Cast to integers of less than 8 bits is not supported", have=out.type.dtype)
    else:
        site.emit(ops.Cast(out, site.value()))


@lowers("Identity", "Dropout", note="Dropout: inference; a mask output is all true")
def identity(site: Site) -> None:
    """The same value."""
    if site.op_type == "Dropout":
        if site.version >= 12 and site.has(2) and bool(site.array(2).reshape(-1)[:1].any()):
            site.refuse("Dropout in training mode", help_="export the model for inference")
        if site.wants(1):
            mask = Type("bool" if site.version >= 10 else site.kind().dtype, site.kind().shape)
            true = site.number(1, mask.dtype, "kept")
            site.emit(ops.Broadcast(site.out(1, mask), true))
    site.forward(site.bound(0))


@lowers("Softmax", "LogSoftmax", note="before opset 13 over all axes from `axis` on, as defined")
def softmax(site: Site) -> None:
    """Along one axis; the old form flattens all axes from `axis` on first."""
    x, out, log = site.value(), site.out(), site.op_type == "LogSoftmax"
    rank = len(x.shape)
    if site.version >= 13:
        axis = site.axis(site.attr_int("axis", -1), rank)
        site.emit(ops.Softmax(out, x, axis, log))
        return
    axis = site.axis(site.attr_int("axis", 1), rank)
    if all(extent == 1 for extent in x.shape[axis + 1 :]):
        site.emit(ops.Softmax(out, x, axis, log))
        return
    flat = Type(x.type.dtype, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    x = site.emit(ops.Reshape(site.fresh("rows", flat), x))
    x = site.emit(ops.Softmax(site.fresh("softmax", flat), x, 1, log))
    site.emit(ops.Reshape(out, x))
