"""Functions of single elements: activations, arithmetic, comparisons, casts."""

from __future__ import annotations

import math

from onnx import AttributeProto

from cimc.frontend import codes
from cimc.frontend.lowering.registry import MICROSOFT, lowers
from cimc.frontend.lowering.site import Site
from cimc.frontend.tensors import ELEMENT_TYPES, element_name
from cimc.ir import ops
from cimc.ir.evaluate.functions import PREDICATES
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
    emit_unary(site, _PLAIN[site.op_type])


def emit_unary(site: Site, fn: str, alpha: float = 0.0, beta: float = 0.0) -> None:
    """One function of the node's first operand."""
    kind = Type("bool" if fn in PREDICATES else site.kind().dtype, site.kind().shape)
    site.emit(ops.Unary(site.out(kind), site.value(), fn, alpha, beta))


@lowers(*_WITH_PARAMETERS)
def unary_with_parameters(site: Site) -> None:
    """One op with ONNX's parameters as alpha and beta."""
    fn, parameters = _WITH_PARAMETERS[site.op_type]
    emit_unary(site, fn, *(site.attr_float(*entry) for entry in parameters))


@lowers("IsInf")
def is_inf(site: Site) -> None:
    """Both signs, or the one asked for."""
    negative, positive = site.attr_int("detect_negative", 1), site.attr_int("detect_positive", 1)
    emit_unary(site, "is_inf", float(negative), float(positive))


@lowers("Gelu")
@lowers("Gelu", domain=MICROSOFT)
def gelu(site: Site) -> None:
    """Exact, or by tanh."""
    approximate = site.attr_string("approximate", "none")
    if approximate not in ("none", "tanh"):
        site.refuse("approximate of Gelu is unknown", "none or tanh", approximate)
    emit_unary(site, "gelu" if approximate == "none" else "gelu_tanh")


@lowers("Clip")
def clip(site: Site) -> None:
    """Clip with constant bounds; min and max of two values where a bound is computed or integer."""
    constant = all(site.bound(i).array is not None for i in (1, 2) if site.has(i))
    if site.version < 11 or (constant and not site.kind().is_integer):
        low, high = -math.inf, math.inf
        if site.version < 11:
            low = site.attr_float("min", low)
            high = site.attr_float("max", high)
        low = site.scalar(1) if site.has(1) else low
        high = site.scalar(2) if site.has(2) else high
        emit_unary(site, "clip", low, high)
        return
    bounds = [(fn, site.value(i)) for i, fn in ((1, "max"), (2, "min")) if site.has(i)]
    if not bounds:
        site.forward(site.bound(0))
        return
    x = site.value()
    kind = Type(x.type.dtype, x.shape)
    for fn, bound in bounds[:-1]:
        x = site.emit(ops.Binary(site.fresh("low", kind), x, bound, fn))
    site.emit(ops.Binary(site.out(kind), x, bounds[-1][1], bounds[-1][0]))


@lowers(*_BINARY)
def binary(site: Site) -> None:
    """One op of the same meaning."""
    emit_binary(site, _BINARY[site.op_type])


def emit_binary(site: Site, fn: str) -> None:
    """One function of the node's two operands, which have one element type."""
    a, b = site.kind(0), site.kind(1)
    if a.dtype != b.dtype:
        site.refuse(
            f"the operands of {site.op_type} have different element types",
            have=f"{a} and {b}",
            code=codes.SHAPES,
        )
    shape = site.broadcast(a.shape, b.shape)
    if fn == "prelu" and shape != a.shape:
        site.refuse("the slope of PRelu does not broadcast", have=f"{b} to {a}", code=codes.SHAPES)
    kind = Type("bool" if fn in PREDICATES else a.dtype, shape)
    site.emit(ops.Binary(site.out(kind), site.value(0), site.value(1), fn))


@lowers("BitShift")
def bit_shift(site: Site) -> None:
    """Shift to the side that `direction` names."""
    direction = site.attr_string("direction", "")
    if direction not in ("LEFT", "RIGHT"):
        site.refuse("direction of BitShift is unknown", "LEFT or RIGHT", direction)
    emit_binary(site, f"shift_{direction.lower()}")


@lowers("Mod")
def mod(site: Site) -> None:
    """The sign of the divisor, or with `fmod` that of the dividend."""
    emit_binary(site, "fmod" if site.attr_int("fmod") else "mod")


def cast_to(site: Site, x: Value, dtype: str, suffix: str) -> Value:
    """`x` as `dtype`; itself where it is that already."""
    if x.type.dtype == dtype:
        return x
    return site.emit(ops.Cast(site.fresh(suffix, Type(dtype, x.shape)), x))


@lowers("Pow")
def power(site: Site) -> None:
    """Base and exponent are brought to one type; integers to a float power go through floats."""
    base, exponent = site.value(0), site.value(1)
    out = site.out(Type(base.type.dtype, site.broadcast(base.shape, exponent.shape)))
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
    count = len(site.inputs)
    if count == 1:
        site.forward(site.bound(0))
        return
    total = site.value(0)
    dtype = total.type.dtype
    out = site.out(Type(dtype, site.broadcast(*(site.kind(i).shape for i in range(count)))))
    for index in range(1, count):
        last = index == count - 1 and site.op_type != "Mean"
        shape = site.broadcast(total.shape, site.kind(index).shape)
        partial = out if last else site.fresh(f"part{index}", Type(dtype, shape))
        total = site.emit(ops.Binary(partial, total, site.value(index), fn))
    if site.op_type == "Mean":
        divisor = site.number(count, dtype, "count")
        site.emit(ops.Binary(out, total, divisor, "div"))


@lowers("Where")
def where(site: Site) -> None:
    """Choose element by element."""
    shape = site.broadcast(*(site.kind(i).shape for i in range(3)))
    out = site.out(Type(site.kind(1).dtype, shape))
    site.emit(ops.Where(out, site.value(0), site.value(1), site.value(2)))


@lowers("Cast", "CastLike", note="between float16, float32, float64, bool and integers")
def cast(site: Site) -> None:
    """Vanishes where the type stays the same."""
    if site.op_type == "Cast":
        to = site.attribute("to", AttributeProto.INT)
        dtype = ELEMENT_TYPES.get(to.i) if to is not None else None
        if dtype is None:
            have = element_name(to.i) if to is not None else "nothing"
            site.refuse(
                "Cast to an unsupported type",
                "float16, float32, float64, bool, or an integer",
                have,
                code=codes.ELEMENT_TYPE,
            )
    else:
        dtype = site.kind(1).dtype
    if dtype == site.kind().dtype:
        site.forward(site.bound(0))
    elif bits_of(dtype) < 8:
        site.refuse("Cast to integers of less than 8 bits is not supported", have=dtype)
    else:
        site.emit(ops.Cast(site.out(Type(dtype, site.kind().shape)), site.value()))


@lowers("Identity", "Dropout", note="Dropout: inference; a mask output is all true")
def identity(site: Site) -> None:
    """The same value."""
    if site.op_type == "Dropout":
        if site.version >= 12 and site.has(2) and bool(site.array(2).reshape(-1)[:1].any()):
            site.refuse("Dropout in training mode", help_="export the model for inference")
        if site.wants(1):
            mask = Type("bool" if site.version >= 10 else site.kind().dtype, site.kind().shape)
            true = site.number(1, mask.dtype, "kept")
            site.emit(ops.Broadcast(site.out(mask, 1), true))
    site.forward(site.bound(0))


@lowers("Softmax", "LogSoftmax", note="before opset 13 over all axes from `axis` on, as defined")
def softmax(site: Site) -> None:
    """Along one axis; the old form flattens all axes from `axis` on first."""
    x, log = site.value(), site.op_type == "LogSoftmax"
    out = site.out(Type(x.type.dtype, x.shape))
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
