"""Takes symbolic values, gives symbolic values: NumPy's functions, under its names and arguments.

    nnc.sum(nnc.exp(x), axis=-1)     more graph where x is symbolic; NumPy's result on plain arrays

Beside NumPy's there are the usual functions of neural networks: sigmoid, softmax, ...
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Graph, Node
from ir.interpret import run_graph
from ir.types import dtype_of, f64
from nncompiler.tree import flatten

Value = Any
Axis = int | Sequence[int] | None
Function = Callable[..., Any]

pi, e, inf, nan, newaxis = math.pi, math.e, math.inf, math.nan, None


def _numpy(function: Function) -> Function:
    """Plain arrays go to the NumPy function of the same name."""
    plain = getattr(np, function.__name__)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        chosen = function if _symbolic(args, kwargs) else plain
        return chosen(*args, **kwargs)

    return call


def _evaluated(function: Function) -> Function:
    """What NumPy does not have is interpreted where it meets plain arrays only."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _symbolic(args, kwargs):
            return function(*args, **kwargs)
        first, *rest = args
        result = function(ops.constant(np.asarray(first)), *rest, **kwargs)
        return run_graph(Graph("eager", (), {"result": result}), {})["result"]

    return call


def _symbolic(*values: Any) -> bool:
    return builtins.any(isinstance(leaf, Node) for leaf in flatten(values)[0])


def _named(name: str, function: Function, form: str) -> Function:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{form} at every point."
    return function


def _unary(name: str, function: Function) -> Function:
    call = _named(name, lambda x: function(x), f"{name}(x)")
    return _numpy(call) if hasattr(np, name) else _evaluated(call)


def _binary(name: str, function: Function) -> Function:
    return _numpy(_named(name, lambda x1, x2: function(x1, x2), f"{name}(x1, x2), broadcast,"))


exp = _unary("exp", ops.exp)
log = _unary("log", ops.log)
log1p = _unary("log1p", ops.log1p)
expm1 = _unary("expm1", ops.expm1)
sqrt = _unary("sqrt", ops.sqrt)
rsqrt = _unary("rsqrt", ops.rsqrt)
tanh = _unary("tanh", ops.tanh)
sigmoid = _unary("sigmoid", ops.sigmoid)
erf = _unary("erf", ops.erf)
sin = _unary("sin", ops.sin)
cos = _unary("cos", ops.cos)
relu = _unary("relu", ops.relu)
floor = _unary("floor", ops.floor)
ceil = _unary("ceil", ops.ceil)
sign = _unary("sign", ops.sign)
abs = _unary("abs", ops.abs)
absolute = abs
negative = _unary("negative", ops.neg)
square = _unary("square", lambda x: ops.mul(x, x))
reciprocal = _unary("reciprocal", lambda x: ops.div(1.0, x))
logical_not = _unary("logical_not", ops.not_)

add = _binary("add", ops.add)
subtract = _binary("subtract", ops.sub)
multiply = _binary("multiply", ops.mul)
divide = true_divide = _binary("divide", ops.div)
power = _binary("power", ops.pow)
maximum = _binary("maximum", ops.maximum)
minimum = _binary("minimum", ops.minimum)
equal = _binary("equal", ops.eq)
not_equal = _binary("not_equal", ops.ne)
less = _binary("less", ops.lt)
less_equal = _binary("less_equal", ops.le)
greater = _binary("greater", ops.gt)
greater_equal = _binary("greater_equal", ops.ge)
logical_and = _binary("logical_and", ops.and_)
logical_or = _binary("logical_or", ops.or_)
logical_xor = _binary("logical_xor", ops.xor)
bitwise_and = _binary("bitwise_and", ops.and_)
bitwise_or = _binary("bitwise_or", ops.or_)
bitwise_xor = _binary("bitwise_xor", ops.xor)
left_shift = _binary("left_shift", ops.shl)
right_shift = _binary("right_shift", ops.shr)


@_numpy
def round(a: Value, decimals: int = 0) -> Any:
    if decimals:
        raise ValueError("round of a symbolic value: decimals must be 0")
    return ops.round(a)


@_numpy
def where(condition: Value, x: Value, y: Value) -> Any:
    if isinstance(condition, bool):  # most likely from x == 0
        raise TypeError(
            "where: the condition is a plain bool; == on symbolic values asks whether they are one "
            "and the same, nnc.equal(a, b) and nnc.not_equal(a, b) compare their elements"
        )
    return ops.where(condition, x, y)


@_numpy
def clip(a: Value, a_min: Value = None, a_max: Value = None) -> Any:
    if a_min is not None:
        a = ops.maximum(a, a_min)
    return a if a_max is None else ops.minimum(a, a_max)


@_numpy
def sum(a: Value, axis: Axis = None, keepdims: bool = False) -> Any:
    return ops.sum(a, axis, keepdims)


@_numpy
def prod(a: Value, axis: Axis = None, keepdims: bool = False) -> Any:
    return ops.prod(a, axis, keepdims)


@_numpy
def max(a: Value, axis: Axis = None, keepdims: bool = False) -> Any:
    return ops.max(a, axis, keepdims)


@_numpy
def min(a: Value, axis: Axis = None, keepdims: bool = False) -> Any:
    return ops.min(a, axis, keepdims)


amax, amin = max, min


@_numpy
def mean(a: Value, axis: Axis = None, keepdims: bool = False) -> Any:
    return ops.mean(a, axis, keepdims)


@_numpy
def var(a: Value, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    return ops.var(a, axis, keepdims, ddof)


@_numpy
def std(a: Value, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    return ops.sqrt(ops.var(a, axis, keepdims, ddof))


@_numpy
def argmax(a: Value, axis: int | None = None, keepdims: bool = False) -> Any:
    return ops.argmax(a, axis, keepdims)


@_numpy
def argmin(a: Value, axis: int | None = None, keepdims: bool = False) -> Any:
    return ops.argmin(a, axis, keepdims)


@_numpy
def any(a: Value, axis: Axis = None, keepdims: bool = False) -> Any:
    return ops.any(a, axis, keepdims)


@_numpy
def all(a: Value, axis: Axis = None, keepdims: bool = False) -> Any:
    return ops.all(a, axis, keepdims)


@_numpy
def matmul(x1: Value, x2: Value) -> Any:
    return ops.matmul(x1, x2)


@_numpy
def dot(a: Value, b: Value) -> Any:
    return ops.dot(a, b)


@_numpy
def outer(a: Value, b: Value) -> Any:
    return ops.outer(a, b)


@_numpy
def einsum(subscripts: str, *operands: Value) -> Any:
    return ops.einsum(subscripts, *operands)


@_numpy
def reshape(a: Value, shape: Any) -> Any:
    return ops.reshape(a, (shape,) if isinstance(shape, (int, str)) else shape)


@_numpy
def ravel(a: Value) -> Any:
    return ops.ravel(a)


@_numpy
def transpose(a: Value, axes: Sequence[int] | None = None) -> Any:
    return ops.transpose(a) if axes is None else ops.transpose(a, axes)


@_numpy
def swapaxes(a: Value, axis1: int, axis2: int) -> Any:
    return ops.swapaxes(a, axis1, axis2)


@_numpy
def expand_dims(a: Value, axis: int) -> Any:
    return ops.expand_dims(a, axis)


@_numpy
def squeeze(a: Value, axis: Axis = None) -> Any:
    if axis is None:
        axes = [i for i, d in enumerate(a.shape) if d == 1]
    else:
        given = [axis] if isinstance(axis, int) else list(axis)
        axes = [i % a.ndim for i in given]
    for i in axes:
        if a.shape[i] != 1:
            raise ValueError(f"cannot squeeze axis {i} of length {a.shape[i]}")
    return ops.reshape(a, tuple(d for i, d in enumerate(a.shape) if i not in axes))


@_numpy
def broadcast_to(array: Value, shape: Any) -> Any:
    return ops.broadcast_to(array, shape)


@_numpy
def concatenate(arrays: Sequence[Value], axis: int = 0) -> Any:
    return ops.concatenate(arrays, axis)


@_numpy
def stack(arrays: Sequence[Value], axis: int = 0) -> Any:
    return ops.stack(arrays, axis)


@_numpy
def flip(m: Value, axis: Axis = None) -> Any:
    if axis is None:
        axis = tuple(range(m.ndim))
    return ops.flip(m, axis)


@_numpy
def pad(array: Value, pad_width: Any, mode: str = "constant", constant_values: float = 0) -> Any:
    if mode != "constant":
        raise ValueError("pad of a symbolic value: mode must be 'constant'")
    pairs = np.broadcast_to(np.asarray(pad_width), (array.ndim, 2)).tolist()
    return ops.pad(array, [p[0] for p in pairs], [p[1] for p in pairs], constant_values)


@_numpy
def take(a: Value, indices: Value, axis: int | None = None) -> Any:
    return ops.take(a, indices, axis)


@_numpy
def zeros_like(a: Value) -> Any:
    return ops.full_like(a, 0)


@_numpy
def ones_like(a: Value) -> Any:
    return ops.full_like(a, 1)


@_numpy
def full_like(a: Value, fill_value: float) -> Any:
    return ops.full_like(a, fill_value)


@_evaluated
def astype(x: Value, dtype: Any) -> Any:
    """x in another dtype; floats are cut to integers."""
    return ops.cast(x, dtype_of(dtype))


@_evaluated
def softmax(x: Value, axis: int = -1) -> Any:
    """exp(x) / sum exp(x) along the axis, stably."""
    return ops.softmax(x, axis)


@_evaluated
def log_softmax(x: Value, axis: int = -1) -> Any:
    """log of softmax, stably."""
    return ops.log_softmax(x, axis)


@_evaluated
def logsumexp(x: Value, axis: Axis = None, keepdims: bool = False) -> Any:
    """log of the sum of exp(x) along the axis, stably."""
    return ops.logsumexp(x, axis, keepdims)


@_evaluated
def one_hot(x: Value, num_classes: int, dtype: Any = f64) -> Any:
    """Rows of zeros with a one at the integer x."""
    return ops.one_hot(x, num_classes, dtype_of(dtype))


@_evaluated
def stop_gradient(x: Value) -> Any:
    """x, with derivative 0."""
    return ops.stop_gradient(x)


def scan(
    step: Function,
    init: Sequence[Value],
    sequences: Sequence[Value] = (),
    *,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """(last carried values, sequences of results): carried, results = step(carried, xs) over time.

    h, ys = nnc.scan(lambda h, x: ((nnc.tanh(x[0] + h[0] @ w),), (h[0],)), [h0], [xs])

    `step` is called once, with symbolic values; the loop is compiled, whatever its length. Time is
    the second axis of a sequence (batch, time, ...), or the only one. `length` is needed where
    there are no sequences; `reverse` begins at the last time.
    """
    return ops.scan(step, init, sequences, length=length, reverse=reverse)


_CONSTANTS = ("pi", "e", "inf", "nan", "newaxis")

__all__ = [
    name
    for name, value in list(globals().items())
    if name in _CONSTANTS
    or (not name.startswith("_") and getattr(value, "__module__", None) == __name__)
]
