"""Takes a node that computes, gives a simpler one of equal value: constants, units, inverses.

Normal form: small constants are folded, uniform constants are broadcast scalars and stand to the
right of commutative ops, signs stand outside of products, no op meets its unit or its inverse.
"""

from __future__ import annotations

import numpy as np

from ir.graph import Node, make
from ir.op import COMMUTATIVE, Lowering
from ir.ops.core import full_like, uniform_value
from ir.types import DType, boolean
from nncompiler.rules.match import (
    SMALL,
    constant_of,
    is_normal,
    is_uniform,
    known,
    power_of_two,
    size_of,
    spread,
)


def fold_constants(node: Node) -> Node | None:
    """op(constants) -> constant, up to 64 elements; the value is the reference's.

    2 * [1, 2]  ->  [2, 4]
    """
    if not node.inputs or node.op.name == "broadcast" or (size_of(node) or SMALL + 1) > SMALL:
        return None
    arrays = [known(i) for i in node.inputs]
    if any(a is None for a in arrays):
        return None
    with np.errstate(all="ignore"):
        return constant_of(np.asarray(node.op.evaluate(*arrays, **node.attrs)), node.dtype)


def constants_are_scalars(node: Node) -> Node | None:
    """A constant with the same bits everywhere -> broadcast of a scalar constant.

    constant [1, 1, 1]  ->  broadcast(constant 1)
    """
    if node.op.name != "constant" or node.ndim == 0 or size_of(node) == 0:
        return None
    value = node.attrs["value"]
    width = node.dtype.numpy.itemsize
    if value.data != value.data[:width] * (len(value.data) // width):
        return None
    scalar = constant_of(value.array.reshape(-1)[0], node.dtype)
    return make("broadcast", scalar, shape=node.shape, axes=())


def constants_stand_right(node: Node) -> Node | None:
    """2 * x  ->  x * 2"""
    if COMMUTATIVE not in node.op.flags or len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if uniform_value(a) is None or uniform_value(b) is not None:
        return None
    return make(node.op, b, a, **node.attrs)


def add_and_sub(node: Node) -> Node | None:
    """x + 0 -> x,  x + -y -> x - y,  -x + y -> y - x,  x - 0 -> x,  x - -y -> x + y,  0 - x -> -x

    i + c + d  ->  i + (c + d),  i - i -> 0   for integers, where they are exact
    """
    if node.op.name not in ("add", "sub"):
        return None
    a, b = node.inputs
    match node.op.name, a.op.name, b.op.name:
        case _ if is_uniform(b, 0):
            return a
        case "sub", _, _ if is_uniform(a, 0):
            return make("neg", b)
        case "add", _, "neg":
            return make("sub", a, b.inputs[0])
        case "add", "neg", _:
            return make("sub", b, a.inputs[0])
        case "sub", _, "neg":
            return make("add", a, b.inputs[0])
        case "sub", _, _ if a is b and not node.dtype.is_float:
            return full_like(a, 0)
        case "add", "add", _ if not node.dtype.is_float and uniform_value(b) is not None:
            if uniform_value(a.inputs[1]) is not None:
                return make("add", a.inputs[0], make("add", a.inputs[1], b))
    return None


def twice(node: Node) -> Node | None:
    """(c * x) + (c * x)  ->  (c + c) * x   where c depends on lengths alone, as 1 / batch does

    The gradient of a square has it. Doubling rounds nothing, and such a c does not overflow.
    """
    if node.op.name != "add" or not node.dtype.is_float:
        return None
    a, b = node.inputs
    if a is not b or a.op.name != "mul":
        return None
    for factor, other in (a.inputs, a.inputs[::-1]):
        if uniform_value(factor) is None and _is_of_lengths(factor):
            return make("mul", make("add", factor, factor), other)
    return None


def _is_of_lengths(node: Node) -> bool:
    if node.op.lowering is Lowering.LEAF:
        return node.op.name == "extent" or uniform_value(node) is not None
    known = (Lowering.MAP, Lowering.VIEW)
    return node.op.lowering in known and all(_is_of_lengths(i) for i in node.inputs)


def mul(node: Node) -> Node | None:
    """x * 1 -> x,  x * -1 -> -x,  -x * -y -> x * y,  -x * y -> -(x * y)

    i * 0 -> 0 for integers only: NaN * 0 is NaN
    (x * c) * d  ->  x * (c * d)   for integers, or where no rounding or overflow can differ
    """
    if node.op.name != "mul":
        return None
    a, b = node.inputs
    match a.op.name, b.op.name:
        case _ if is_uniform(b, 1):
            return a
        case _ if is_uniform(b, -1):
            return make("neg", a)
        case _ if is_uniform(b, 0) and not node.dtype.is_float:
            return b
        case "neg", "neg":
            return make("mul", a.inputs[0], b.inputs[0])
        case "neg", _ if uniform_value(b) is not None:
            return make("mul", a.inputs[0], make("neg", b))
        case "neg", _:
            return make("neg", make("mul", a.inputs[0], b))
        case _, "neg":
            return make("neg", make("mul", a, b.inputs[0]))
        case "mul", _ if _mergeable(a.inputs[1], b):
            return make("mul", a.inputs[0], make("mul", a.inputs[1], b))
    return None


def _mergeable(c: Node, d: Node) -> bool:
    """Whether (x * c) * d = x * (c * d) exactly.

    A power of two only moves the exponent; if both factors grow (or both shrink), an overflow
    on the way is one at the end too. Subnormal results may differ in their last bit.
    """
    first, second = uniform_value(c), uniform_value(d)
    if first is None or second is None:
        return False
    if not c.dtype.is_float:
        return True
    if not (power_of_two(first) or power_of_two(second)):
        return False
    grow = abs(first) >= 1 and abs(second) >= 1
    shrink = abs(first) <= 1 and abs(second) <= 1
    return (grow or shrink) and is_normal(first * second, c.dtype)


def div(node: Node) -> Node | None:
    """x / 1 -> x,  x / 2^k -> x * 2^-k (exact),  -x / y -> -(x / y),  x / -y -> -(x / y)"""
    if node.op.name != "div":
        return None
    a, b = node.inputs
    value = uniform_value(b)
    if value == 1:
        return a
    if not node.dtype.is_float:
        return None
    if value is not None and power_of_two(value) and is_normal(1 / value, node.dtype):
        return make("mul", a, full_like(b, 1 / value))
    match a.op.name, b.op.name:
        case "neg", "neg":
            return make("div", a.inputs[0], b.inputs[0])
        case "neg", _:
            return make("neg", make("div", a.inputs[0], b))
        case _, "neg":
            return make("neg", make("div", a, b.inputs[0]))
    return None


def neg(node: Node) -> Node | None:
    """-(-x) -> x,  -(a - b) -> b - a,  -(x * c) -> x * -c"""
    if node.op.name != "neg":
        return None
    (x,) = node.inputs
    match x.op.name:
        case "neg":
            return x.inputs[0]
        case "sub":
            return make("sub", x.inputs[1], x.inputs[0])
        case "mul" if uniform_value(x.inputs[1]) is not None:
            return make("mul", x.inputs[0], make("neg", x.inputs[1]))
    return None


def power(node: Node) -> Node | None:
    """x^0 -> 1 (of NaN too),  x^1 -> x,  x^2 -> x * x,  x^3 -> x * x * x,  x^-1 -> 1 / x"""
    if node.op.name != "pow":
        return None
    x, p = node.inputs
    match uniform_value(p):
        case 0:
            return full_like(x, 1)
        case 1:
            return x
        case 2:
            return make("mul", x, x)
        case 3:
            return make("mul", make("mul", x, x), x)
        case -1:
            return make("div", full_like(x, 1), x)
    return None


def repeated(node: Node) -> Node | None:
    """f(f(x)) -> f(x) for abs, relu, floor, ceil, round, sign;  not not x -> x;  |-x| -> |x|

    f(x, x) -> x for maximum, minimum, and, or;  x ^ x -> 0
    """
    match node.op.name, node.inputs:
        case "abs" | "relu" | "floor" | "ceil" | "round" | "sign", (x,) if x.op is node.op:
            return x
        case "not", (x,) if x.op is node.op:
            return x.inputs[0]
        case "abs", (x,) if x.op.name == "neg":
            return make("abs", x.inputs[0])
        case "maximum" | "minimum" | "and" | "or", (x, y) if x is y:
            return x
        case "xor", (x, y) if x is y:
            return full_like(x, False)
    return None


def bits(node: Node) -> Node | None:
    """x & 0 -> 0,  x & ones -> x,  x | 0 -> x,  x | ones -> ones,  and x for ^ 0, << 0, >> 0"""
    if node.op.name not in ("and", "or", "xor", "shl", "shr"):
        return None
    a, b = node.inputs
    value = uniform_value(b)
    if value is None:
        return None
    ones = np.invert(np.zeros((), b.dtype.numpy)).item()
    match node.op.name:
        case "and" | "or" if value not in (0, ones):
            return None
        case "and":
            return b if value == 0 else a
        case "or":
            return a if value == 0 else b
    return a if value == 0 else None


def select(node: Node) -> Node | None:
    """where(true, a, b) -> a,  where(c, a, a) -> a,  where(not c, a, b) -> where(c, b, a)"""
    if node.op.name != "where":
        return None
    condition, a, b = node.inputs
    if a is b:
        return a
    value = uniform_value(condition)
    if value is not None:
        return a if value else b
    if condition.op.name == "not":
        return make("where", condition.inputs[0], b, a)
    return None


# Casts that lose nothing.
_EXACT = {
    "bool": {"i32", "i64", "u32", "u64", "f32", "f64"},
    "i32": {"i64", "f64"},
    "u32": {"u64", "i64", "f64"},
    "f32": {"f64"},
}


def conversions(node: Node) -> Node | None:
    """cast(x) to its own dtype -> x;  cast(cast(x)) -> cast(x) where the first cast is exact

    An integer that goes through a float saturates instead of wrapping, so it only comes back.
    """
    if node.op.name not in ("cast", "bitcast"):
        return None
    (x,) = node.inputs
    target: DType = node.attrs["dtype"]
    if x.dtype == target:
        return x
    if x.op is not node.op:
        return None
    (origin,) = x.inputs
    if node.op.name == "cast" and not _skips(origin.dtype, x.dtype, target):
        return None
    return origin if origin.dtype == target else make(node.op, origin, dtype=target)


def _skips(origin: DType, middle: DType, target: DType) -> bool:
    if middle.name not in _EXACT.get(origin.name, ()):
        return False
    wraps = middle.is_float and not origin.is_float and target.kind in ("int", "uint")
    return origin in (boolean, target) or not wraps


def map_before_broadcast(node: Node) -> Node | None:
    """map(broadcast(x), broadcast(y)) -> broadcast(map(x, y)), over the axes that x or y has.

    exp(broadcast(s)) + broadcast(t)  ->  broadcast(exp(s) + t)
    """
    if node.op.lowering is not Lowering.MAP or not node.inputs or node.ndim == 0:
        return None
    if any(i.op.name != "broadcast" for i in node.inputs):
        return None
    used = sorted({a for i in node.inputs for a in i.attrs["axes"]})
    if len(used) == node.ndim:
        return None
    place = {a: k for k, a in enumerate(used)}
    shape = tuple(node.shape[a] for a in used)
    small = [
        spread(i.inputs[0], shape, tuple(place[a] for a in i.attrs["axes"])) for i in node.inputs
    ]
    return spread(make(node.op, *small, **node.attrs), node.shape, tuple(used))


RULES = (
    constants_are_scalars,
    map_before_broadcast,
    fold_constants,
    constants_stand_right,
    add_and_sub,
    twice,
    mul,
    div,
    neg,
    power,
    repeated,
    bits,
    select,
    conversions,
)
