"""The scalar functions of the IR as data: name -> NumPy function on arrays of real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from cimc.ir.evaluate.numbers import Numbers
from cimc.ir.types import Array, dtype_of, int_range

UnaryFn = Callable[[Numbers, float, float], Array]
BinaryFn = Callable[[Numbers, Numbers], Array]
ReduceFn = Callable[[Numbers, tuple[int, ...], bool], Array]

_erf_object = np.frompyfunc(math.erf, 1, 1)


def _erf(x: Numbers) -> Numbers:
    return np.asarray(_erf_object(x.astype(np.float64))).astype(x.dtype)


def _sigmoid(x: Numbers) -> Numbers:
    # exp of a negative number only: never overflows
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype))


def _softplus(x: Numbers) -> Numbers:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _hard_sigmoid(x: Numbers, alpha: float, beta: float) -> Numbers:
    return np.asarray(np.clip(_f(alpha, x) * x + _f(beta, x), 0, 1))


def _clip(x: Numbers, low: float, high: float) -> Numbers:
    if x.dtype.kind in "iu":  # a bound may be infinite
        least, most = int_range(dtype_of(x))
        low, high = max(low, least), min(high, most)
    return np.asarray(np.minimum(_f(high, x), np.maximum(_f(low, x), x)))


def _shrink(x: Numbers, lambd: float, bias: float) -> Numbers:
    below, above = x + _f(bias, x), x - _f(bias, x)
    return np.asarray(np.where(x < -lambd, below, np.where(x > lambd, above, _f(0, x))))


def _gelu_tanh(x: Numbers) -> Numbers:
    inner = _f(math.sqrt(2 / math.pi), x) * (x + _f(0.044715, x) * x * x * x)
    return np.asarray(_f(0.5, x) * x * (1 + np.tanh(inner)))


def _f(number: float, like: Numbers) -> Numbers:
    """`number` in the element type of `like`, so that float32 stays float32."""
    return np.asarray(number, like.dtype)


UNARY: Mapping[str, UnaryFn] = MappingProxyType(
    {
        "abs": lambda x, _a, _b: np.abs(x),
        "acos": lambda x, _a, _b: np.arccos(x),
        "acosh": lambda x, _a, _b: np.arccosh(x),
        "asin": lambda x, _a, _b: np.arcsin(x),
        "asinh": lambda x, _a, _b: np.arcsinh(x),
        "atan": lambda x, _a, _b: np.arctan(x),
        "atanh": lambda x, _a, _b: np.arctanh(x),
        "bitwise_not": lambda x, _a, _b: np.bitwise_not(x),
        "ceil": lambda x, _a, _b: np.ceil(x),
        # max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
        "celu": lambda x, a, _b: (
            np.maximum(x, 0) + np.minimum(0, _f(a, x) * np.expm1(x / _f(a, x)))
        ),
        "clip": _clip,
        "cos": lambda x, _a, _b: np.cos(x),
        "cosh": lambda x, _a, _b: np.cosh(x),
        "elu": lambda x, a, _b: np.where(x > 0, x, _f(a, x) * np.expm1(np.minimum(x, 0))),
        "erf": lambda x, _a, _b: _erf(x),
        "exp": lambda x, _a, _b: np.exp(x),
        "floor": lambda x, _a, _b: np.floor(x),
        "gelu": lambda x, _a, _b: _f(0.5, x) * x * (1 + _erf(x * _f(math.sqrt(0.5), x))),
        "gelu_tanh": lambda x, _a, _b: _gelu_tanh(x),
        "hard_sigmoid": _hard_sigmoid,
        "hard_swish": lambda x, _a, _b: x * _hard_sigmoid(x, 1 / 6, 0.5),
        "is_inf": lambda x, a, b: ((x == -np.inf) & bool(a)) | ((x == np.inf) & bool(b)),
        "is_nan": lambda x, _a, _b: np.isnan(x),
        "leaky_relu": lambda x, a, _b: np.where(x >= 0, x, _f(a, x) * x),
        "log": lambda x, _a, _b: np.log(x),
        "mish": lambda x, _a, _b: x * np.tanh(_softplus(x)),
        "neg": lambda x, _a, _b: np.negative(x),
        "not": lambda x, _a, _b: np.logical_not(x),
        "reciprocal": lambda x, _a, _b: 1 / x,
        "relu": lambda x, _a, _b: np.maximum(x, 0),
        "round": lambda x, _a, _b: np.rint(x),
        # beta * (alpha * (exp(x) - 1)) below zero, beta * x above
        "selu": lambda x, a, b: (
            _f(b, x) * np.where(x > 0, x, _f(a, x) * np.expm1(np.minimum(x, 0)))
        ),
        "sigmoid": lambda x, _a, _b: _sigmoid(x),
        "sign": lambda x, _a, _b: np.sign(x),
        "shrink": _shrink,
        "sin": lambda x, _a, _b: np.sin(x),
        "sinh": lambda x, _a, _b: np.sinh(x),
        "softplus": lambda x, _a, _b: _softplus(x),
        "softsign": lambda x, _a, _b: x / (1 + np.abs(x)),
        "sqrt": lambda x, _a, _b: np.sqrt(x),
        "swish": lambda x, a, _b: x * _sigmoid(_f(a, x) * x),  # alpha 1: SiLU
        "tan": lambda x, _a, _b: np.tan(x),
        "tanh": lambda x, _a, _b: np.tanh(x),
        "thresholded_relu": lambda x, a, _b: np.where(x > a, x, _f(0, x)),
    }
)


def _div(a: Numbers, b: Numbers) -> Numbers:
    if a.dtype.kind in "iu":  # towards zero, as C and ONNX do; NumPy rounds down
        quotient = np.abs(a) // np.where(b == 0, 1, np.abs(b))
        return np.asarray(np.sign(a) * np.sign(b) * quotient, a.dtype)
    return np.asarray(a / b)


BINARY: Mapping[str, BinaryFn] = MappingProxyType(
    {
        "add": np.add,
        "and": np.logical_and,
        "bitwise_and": np.bitwise_and,
        "bitwise_or": np.bitwise_or,
        "bitwise_xor": np.bitwise_xor,
        "div": _div,
        "equal": np.equal,
        "fmod": np.fmod,
        "greater": np.greater,
        "greater_equal": np.greater_equal,
        "less": np.less,
        "less_equal": np.less_equal,
        "max": np.maximum,
        "min": np.minimum,
        "mod": np.mod,
        "mul": np.multiply,
        "or": np.logical_or,
        "pow": np.power,
        "prelu": lambda a, b: np.where(a >= 0, a, a * b),
        "shift_left": np.left_shift,
        "shift_right": np.right_shift,
        "sub": np.subtract,
        "xor": np.logical_xor,
    }
)
# functions whose result is bool
PREDICATES = frozenset(
    {"and", "equal", "greater", "greater_equal", "is_inf", "is_nan", "less", "less_equal", "not",
     "or", "xor"}
)  # fmt: skip


def _log_sum_exp(x: Numbers, axes: tuple[int, ...], keep: bool) -> Numbers:
    top = np.max(x, axis=axes, keepdims=True)
    top = np.where(np.isfinite(top), top, _f(0, x))
    total = np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top
    return np.asarray(total if keep else np.squeeze(total, axis=axes))


REDUCE: Mapping[str, ReduceFn] = MappingProxyType(
    {
        "l1": lambda x, axes, keep: np.sum(np.abs(x), axis=axes, keepdims=keep),
        "l2": lambda x, axes, keep: np.sqrt(np.sum(x * x, axis=axes, keepdims=keep)),
        "log_sum": lambda x, axes, keep: np.log(np.sum(x, axis=axes, keepdims=keep)),
        "log_sum_exp": _log_sum_exp,
        "max": lambda x, axes, keep: np.max(x, axis=axes, keepdims=keep),
        "mean": lambda x, axes, keep: np.mean(x, axis=axes, keepdims=keep, dtype=x.dtype),
        "min": lambda x, axes, keep: np.min(x, axis=axes, keepdims=keep),
        "prod": lambda x, axes, keep: np.prod(x, axis=axes, keepdims=keep, dtype=x.dtype),
        "sum": lambda x, axes, keep: np.sum(x, axis=axes, keepdims=keep, dtype=x.dtype),
        "sum_square": lambda x, axes, keep: np.sum(x * x, axis=axes, keepdims=keep, dtype=x.dtype),
    }
)
