"""Takes values, gives one scalar function at every point: the MAP records and their functions.

Laws that native code must share: integer `div` is floor division and gives 0 for a zero divisor;
integer arithmetic wraps; a shift by the number of bits or more (or by a negative amount) gives 0;
`cast` from float to integer truncates, saturates and takes NaN to 0; maximum and minimum give NaN
where either operand is NaN; `round` takes halves to even.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ir.graph import Node, make
from ir.op import CHEAP, COMMUTATIVE, Lowering, Op, Sample, register
from ir.ops.core import (
    ANY,
    BITS,
    INTEGERS,
    NUMBERS,
    Array,
    Value,
    as_node,
    broadcast_together,
    elementwise,
    full_like,
    promote,
    random_for,
    uniform_value,
)
from ir.types import (
    DType,
    TensorType,
    boolean,
    dtype_of,
    f32,
    f64,
    i32,
    i64,
    integer_range,
    u32,
    u64,
)

Function = Callable[..., Node]
BOTH = (COMMUTATIVE, CHEAP)
SYMMETRIC = frozenset({"int", "float"})

# --------------------------------------------------------------------------- arithmetic


def _evaluate_div(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    return np.floor_divide(a, b)


def _vjp_maximum(g: Node, y: Node, a: Node, b: Node) -> tuple[Node, Node]:
    half = where(eq(a, b), g * 0.5, 0.0)
    return where(lt(b, a), g, half), where(lt(a, b), g, half)


def _vjp_minimum(g: Node, y: Node, a: Node, b: Node) -> tuple[Node, Node]:
    half = where(eq(a, b), g * 0.5, 0.0)
    return where(lt(a, b), g, half), where(lt(b, a), g, half)


def _vjp_pow(g: Node, y: Node, x: Node, p: Node) -> tuple[Node, Node]:
    """p x^(p-1), without 0 * inf at p = 0; and y log x, taken as 0 where x <= 0."""
    positive = lt(full_like(x, 0), x)
    log_x = log(where(positive, x, 1.0))
    return g * _power_slope(x, p), where(positive, g * y * log_x, 0.0)


def _power_slope(x: Node, p: Node) -> Node:
    match uniform_value(p):
        case None:
            zero = eq(p, full_like(p, 0))
            return where(zero, 0.0, p * _pow(x, where(zero, 1.0, p - 1.0)))
        case 0:
            return full_like(x, 0)
        case 1:
            return full_like(x, 1)
        case 2:
            return 2.0 * x
        case c:
            return c * _pow(x, c - 1)


add = elementwise("add", np.add, lambda g, y, a, b: (g, g), arity=2, kinds=NUMBERS, flags=BOTH)
sub = elementwise(
    "sub", np.subtract, lambda g, y, a, b: (g, -g), arity=2, kinds=NUMBERS, flags=[CHEAP]
)
mul = elementwise(
    "mul", np.multiply, lambda g, y, a, b: (g * b, g * a), arity=2, kinds=NUMBERS, flags=BOTH
)
div = elementwise(
    "div",
    _evaluate_div,
    lambda g, y, a, b: (g / b, -(g * y) / b),
    arity=2,
    kinds=NUMBERS,
    domain=(0.5, 2.0),
)
_pow = elementwise("pow", np.power, _vjp_pow, arity=2, domain=(0.2, 2.0))
maximum = elementwise("maximum", np.maximum, _vjp_maximum, arity=2, kinds=NUMBERS, flags=BOTH)
minimum = elementwise("minimum", np.minimum, _vjp_minimum, arity=2, kinds=NUMBERS, flags=BOTH)
neg = elementwise("neg", np.negative, lambda g, y, x: -g, kinds=NUMBERS, flags=[CHEAP])
abs = elementwise("abs", np.abs, lambda g, y, x: g * sign(x), kinds=SYMMETRIC, flags=[CHEAP])
sign: Function = elementwise("sign", np.sign, kinds=SYMMETRIC, flags=[CHEAP], smooth=False)
floor = elementwise("floor", np.floor, flags=[CHEAP], smooth=False)
ceil = elementwise("ceil", np.ceil, flags=[CHEAP], smooth=False)
round = elementwise("round", np.rint, flags=[CHEAP], smooth=False, doc="round, halves to even")


def pow(x: Value, exponent: Value) -> Node:
    """x ** exponent; an integer value takes a Python int >= 0 as exponent."""
    if not isinstance(x, Node) or x.dtype.is_float or not isinstance(exponent, int):
        return _pow(x, exponent)
    if exponent < 0:
        raise ValueError(f"{x.dtype} to the negative power {exponent}")
    result = full_like(x, 1)
    for bit in bin(exponent)[2:]:
        result = result * result * x if bit == "1" else result * result
    return result


# --------------------------------------------------------------------------- functions


def _evaluate_sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


_erf64 = np.vectorize(math.erf, otypes=[np.float64])


def _evaluate_erf(x: Array) -> Array:
    return np.asarray(_erf64(x.astype(np.float64)).astype(x.dtype))


_SLOPE_OF_ERF = 2 / math.sqrt(math.pi)

exp = elementwise("exp", np.exp, lambda g, y, x: g * y)
log = elementwise("log", np.log, lambda g, y, x: g / x, domain=(0.3, 3.0))
log1p = elementwise("log1p", np.log1p, lambda g, y, x: g / (1.0 + x), domain=(-0.6, 3.0))
expm1 = elementwise("expm1", np.expm1, lambda g, y, x: g * (y + 1.0))
sqrt = elementwise("sqrt", np.sqrt, lambda g, y, x: g * 0.5 / y, domain=(0.3, 3.0))
rsqrt = elementwise(
    "rsqrt", lambda x: 1 / np.sqrt(x), lambda g, y, x: g * -0.5 * (y * y * y), domain=(0.3, 3.0)
)
tanh = elementwise("tanh", np.tanh, lambda g, y, x: g * (1.0 - y * y))
sigmoid = elementwise("sigmoid", _evaluate_sigmoid, lambda g, y, x: g * (y * (1.0 - y)))
erf = elementwise("erf", _evaluate_erf, lambda g, y, x: g * (_SLOPE_OF_ERF * exp(-(x * x))))
sin = elementwise("sin", np.sin, lambda g, y, x: g * cos(x))
cos: Function = elementwise("cos", np.cos, lambda g, y, x: -g * sin(x))
relu = elementwise(
    "relu",
    lambda x: np.maximum(x, x.dtype.type(0)),
    lambda g, y, x: where(lt(full_like(y, 0), y), g, 0.0),
    flags=[CHEAP],
)

# --------------------------------------------------------------------------- comparison, bits


def _compare(name: str, evaluate: Any, kinds: frozenset[str], flags: tuple[str, ...]) -> Function:
    return elementwise(
        name, evaluate, arity=2, kinds=kinds, result=boolean, flags=flags, smooth=False
    )


def _bits(name: str, evaluate: Any, flags: tuple[str, ...] = BOTH) -> Function:
    return elementwise(name, evaluate, arity=2, kinds=BITS, flags=flags, smooth=False)


def _shift(evaluate: Any) -> Any:
    def shifted(a: Array, b: Array) -> Any:
        amount = b.astype(np.dtype(f"u{b.dtype.itemsize}"))
        inside = amount < 8 * a.dtype.itemsize
        safe = np.where(inside, b, b.dtype.type(0))
        return np.where(inside, evaluate(a, safe), a.dtype.type(0))

    return shifted


eq = _compare("eq", np.equal, ANY, BOTH)
ne = _compare("ne", np.not_equal, ANY, BOTH)
lt: Function = _compare("lt", np.less, NUMBERS, (CHEAP,))
le = _compare("le", np.less_equal, NUMBERS, (CHEAP,))
and_ = _bits("and", np.bitwise_and)
or_ = _bits("or", np.bitwise_or)
xor = _bits("xor", np.bitwise_xor)
not_ = elementwise("not", np.invert, kinds=BITS, flags=[CHEAP], smooth=False)
shl = elementwise(
    "shl", _shift(np.left_shift), arity=2, kinds=INTEGERS, flags=[CHEAP], smooth=False
)
shr = elementwise(
    "shr", _shift(np.right_shift), arity=2, kinds=INTEGERS, flags=[CHEAP], smooth=False
)


def gt(a: Value, b: Value) -> Node:
    """a > b, as b < a."""
    a, b = promote(a, b)
    return lt(b, a)


def ge(a: Value, b: Value) -> Node:
    """a >= b, as b <= a."""
    a, b = promote(a, b)
    return le(b, a)


# --------------------------------------------------------------------------- select


def _where_type(c: TensorType, a: TensorType, b: TensorType) -> TensorType:
    if c.dtype != boolean:
        raise ValueError(f"the condition of where is {c.dtype}, not bool")
    if a != b or c.shape != a.shape:
        raise ValueError(f"where of different types: {c}, {a}, {b}")
    return a


def _where_samples() -> list[Sample]:
    random = random_for("where")
    return [
        Sample((random.random(s) < 0.5, random.normal(size=s), random.normal(size=s)))
        for s in [(7,), (0,), (17,), (33,), (3, 5), (1000,)]
    ]


register(
    Op(
        "where",
        Lowering.MAP,
        _where_type,
        lambda c, a, b: np.asarray(np.where(c, a, b)),
        lambda g, y, c, a, b: (None, where(c, g, 0.0), where(c, 0.0, g)),
        _where_samples,
        frozenset({CHEAP}),
        doc="a where the condition holds, else b",
    )
)


def where(condition: Value, a: Value, b: Value) -> Node:
    """a where the condition holds, else b; all three broadcast together."""
    return make("where", *broadcast_together(as_node(condition, boolean), *promote(a, b)))


# --------------------------------------------------------------------------- conversions


def _evaluate_cast(x: Array, *, dtype: DType) -> Array:
    target = dtype.numpy
    if x.dtype.kind != "f" or dtype.kind not in INTEGERS:
        return x.astype(target)
    least, most = integer_range(dtype)
    whole = np.trunc(np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf)).astype(np.float64)
    high, low = whole >= float(most), whole <= float(least)
    inside = np.where(high | low, 0.0, whole).astype(target)
    return np.where(high, target.type(most), np.where(low, target.type(least), inside))


def _vjp_cast(g: Node, y: Node, x: Node, *, dtype: DType) -> Node | None:
    return cast(g, x.dtype) if x.dtype.is_float else None


def _cast_samples() -> list[Sample]:
    random = random_for("cast")
    wild = np.asarray([0.0, -1.7, 1.7, 1e10, -1e10, 1e20, -1e20, np.inf, -np.inf, np.nan])
    same = [Sample((random.normal(size=s),), {"dtype": f64}, False) for s in [(7,), (0,), (1000,)]]
    floats = [Sample((wild,), {"dtype": d}, smooth=False) for d in (f32, i32, i64, u32, u64)]
    whole = random.integers(-(2**31), 2**31, 33, np.int64).astype(np.int32)
    ints = [
        Sample((whole,), {"dtype": d}, smooth=False) for d in (f32, f64, i64, u32, u64, boolean)
    ]
    bools = [Sample((whole > 0,), {"dtype": d}, smooth=False) for d in (f32, f64, i32, u64)]
    return [*same, *floats, *ints, *bools, Sample((wild,), {"dtype": boolean}, smooth=False)]


register(
    Op(
        "cast",
        Lowering.MAP,
        lambda x, *, dtype: x.with_dtype(dtype),
        _evaluate_cast,
        _vjp_cast,
        _cast_samples,
        frozenset({CHEAP}),
        doc="the nearest value of another dtype",
    )
)


def cast(x: Value, dtype: DType | str | object) -> Node:
    """x as another dtype; float to integer truncates and saturates, NaN becomes 0."""
    x, target = as_node(x), dtype_of(dtype)
    return x if x.dtype == target else make("cast", x, dtype=target)


def _bitcast_type(x: TensorType, *, dtype: DType) -> TensorType:
    if x.dtype.bits != dtype.bits or "bool" in (x.dtype.kind, dtype.kind):
        raise ValueError(f"bitcast of {x.dtype} to {dtype}: the widths differ")
    return x.with_dtype(dtype)


register(
    Op(
        "bitcast",
        Lowering.MAP,
        _bitcast_type,
        lambda x, *, dtype: np.ascontiguousarray(x).view(dtype.numpy).reshape(x.shape),
        samples=lambda: [
            Sample((np.arange(-3, 4, dtype=np.int32),), {"dtype": u32}, smooth=False),
            Sample((np.arange(-3, 4, dtype=np.int32),), {"dtype": f32}, smooth=False),
            Sample((np.arange(5, dtype=np.uint64) << 52,), {"dtype": f64}, smooth=False),
        ],
        flags=frozenset({CHEAP}),
        doc="the same bits as another dtype",
    )
)


def bitcast(x: Value, dtype: DType | str | object) -> Node:
    """The same bits read as another dtype of the same width."""
    x, target = as_node(x), dtype_of(dtype)
    return x if x.dtype == target else make("bitcast", x, dtype=target)
