"""Takes values, gives axes combined away: the REDUCE records sum, prod, max, min and composites."""

from __future__ import annotations

from typing import Any

import numpy as np

from ir.graph import Node, make
from ir.ops.core import Array, Value, as_node, full_like, normalize_axes, reduction
from ir.ops.elementwise import abs, cast, eq, exp, log, lt, ne, or_, where
from ir.ops.leaves import extent, iota
from ir.ops.views import ravel, reshape, stop_gradient
from ir.types import DType, Shape, boolean, dtype_of, i32, integer_range, multiply

Axes = tuple[int, ...]


def _kept(shape: Shape, axes: Axes) -> Shape:
    return tuple(1 if a in axes else d for a, d in enumerate(shape))


def _spread(value: Node, x: Node, axes: Axes) -> Node:
    """The reduced value again at every point of x."""
    if not axes:
        return value
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    return make("broadcast", value, shape=x.shape, axes=kept)


def _vjp_extreme(g: Node, y: Node, x: Node, *, axes: Axes) -> Node:
    """The cotangent, shared evenly by all elements that attain the extreme value."""
    hit = eq(x, _spread(y, x, axes))
    count = make("sum", cast(hit, x.dtype), axes=axes)
    return where(hit, _spread(g / count, x, axes), 0.0)


def _vjp_prod(g: Node, y: Node, x: Node, *, axes: Axes) -> Node:
    """The product of the other elements, without dividing by an element that is 0.

        others_i = (product of the elements not 0, without x_i) * (that of the zeros, without x_i)

    A product of zeros is written in their sum s, so that its value is 0 and its derivatives are
    right: of one zero it is s, of two without one of them s - x_i. Three or more count as the
    constant 0, so derivatives are right up to the second, whatever the elements are.
    """
    zero = eq(x, full_like(x, 0))
    product = _spread(make("prod", where(zero, 1.0, x), axes=axes), x, axes)
    number = _spread(make("sum", cast(zero, x.dtype), axes=axes), x, axes)
    total = _spread(make("sum", where(zero, x, 0.0), axes=axes), x, axes)
    none, one, two = (eq(number, full_like(number, n)) for n in (0, 1, 2))
    of_zero = where(one, product, where(two, (total - x) * product, 0.0))
    without = product / where(zero, 1.0, x)
    of_other = where(none, without, where(one, total * without, 0.0))
    return _spread(g, x, axes) * where(zero, of_zero, of_other)


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _highest(dtype: np.dtype[Any]) -> Any:
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def _evaluate_sum(x: Array, *, axes: Axes) -> Array:
    return np.asarray(np.sum(x, axis=axes, dtype=x.dtype))


def _evaluate_prod(x: Array, *, axes: Axes) -> Array:
    return np.asarray(np.prod(x, axis=axes, dtype=x.dtype))


def _evaluate_max(x: Array, *, axes: Axes) -> Array:
    return np.asarray(np.max(x, axis=axes, initial=_lowest(x.dtype)))


def _evaluate_min(x: Array, *, axes: Axes) -> Array:
    return np.asarray(np.min(x, axis=axes, initial=_highest(x.dtype)))


reduction(
    "sum",
    _evaluate_sum,
    vjp=lambda g, y, x, *, axes: _spread(g, x, axes),
    doc="the sum; of nothing: 0",
)
reduction(
    "prod", _evaluate_prod, vjp=_vjp_prod, domain=(0.97, 1.03), doc="the product; of nothing: 1"
)
reduction(
    "max",
    _evaluate_max,
    vjp=_vjp_extreme,
    doc="the largest, NaN if there is one; of nothing: the lowest value (-inf)",
)
reduction(
    "min",
    _evaluate_min,
    vjp=_vjp_extreme,
    doc="the smallest, NaN if there is one; of nothing: the highest value (inf)",
)


def _reduce(name: str, x: Value, axis: Any, keepdims: bool) -> Node:
    x = as_node(x)
    axes = normalize_axes(axis, x.ndim)
    y = make(name, x, axes=axes) if axes else x
    return reshape(y, _kept(x.shape, axes)) if keepdims else y


def sum(x: Value, axis: Any = None, keepdims: bool = False) -> Node:
    """The sum along an axis, several, or all; bools are counted as i32."""
    x = as_node(x)
    return _reduce("sum", cast(x, i32) if x.dtype == boolean else x, axis, keepdims)


def prod(x: Value, axis: Any = None, keepdims: bool = False) -> Node:
    """The product along an axis, several, or all."""
    return _reduce("prod", x, axis, keepdims)


def max(x: Value, axis: Any = None, keepdims: bool = False) -> Node:
    """The largest value along an axis, several, or all; NaN where there is one."""
    return _reduce("max", x, axis, keepdims)


def min(x: Value, axis: Any = None, keepdims: bool = False) -> Node:
    """The smallest value along an axis, several, or all; NaN where there is one."""
    return _reduce("min", x, axis, keepdims)


def mean(x: Value, axis: Any = None, keepdims: bool = False) -> Node:
    """The mean of real values."""
    x = as_node(x)
    if not x.dtype.is_float:
        raise TypeError(f"mean of {x.type}: cast it to a real dtype first")
    count = multiply(x.shape[a] for a in normalize_axes(axis, x.ndim))
    return sum(x, axis, keepdims) / extent(count, x.dtype)


def var(x: Value, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Node:
    """The variance: the mean square of x - mean, with divisor n - ddof."""
    x = as_node(x)
    count = extent(multiply(x.shape[a] for a in normalize_axes(axis, x.ndim)), x.dtype)
    centred = x - mean(x, axis, keepdims=True)
    return sum(centred * centred, axis, keepdims) / (count - ddof if ddof else count)


def any(x: Value, axis: Any = None, keepdims: bool = False) -> Node:
    """Whether some element is not zero."""
    hit = _reduce("max", cast(cast(x, boolean), i32), axis, keepdims)
    return lt(full_like(hit, 0), hit)


def all(x: Value, axis: Any = None, keepdims: bool = False) -> Node:
    """Whether no element is zero."""
    hit = _reduce("min", cast(cast(x, boolean), i32), axis, keepdims)
    return ne(hit, full_like(hit, 0))


def _arg_extreme(name: str, x: Value, axis: int | None, keepdims: bool, dtype: DType) -> Node:
    """The first position that holds the extreme value or a NaN."""
    x = as_node(x)
    if axis is None:
        x, axis = ravel(x), 0
    (at,) = normalize_axes(axis, x.ndim)
    hit = eq(x, _spread(make(name, x, axes=(at,)), x, (at,)))
    if x.dtype.is_float:
        hit = or_(hit, ne(x, x))
    _, beyond = integer_range(dtype)
    return _reduce("min", where(hit, iota(x.shape, at, dtype), beyond), at, keepdims)


def argmax(
    x: Value, axis: int | None = None, keepdims: bool = False, dtype: DType | str = i32
) -> Node:
    """The first position of the largest value (of a NaN where there is one), as NumPy."""
    return _arg_extreme("max", x, axis, keepdims, dtype_of(dtype))


def argmin(
    x: Value, axis: int | None = None, keepdims: bool = False, dtype: DType | str = i32
) -> Node:
    """The first position of the smallest value (of a NaN where there is one), as NumPy."""
    return _arg_extreme("min", x, axis, keepdims, dtype_of(dtype))


# --------------------------------------------------------------------------- stable composites


def _shifted(x: Node, axes: Axes) -> tuple[Node, Node]:
    """x - max and max; the maximum cancels in every derivative, so none is taken through it."""
    top = stop_gradient(make("max", x, axes=axes))
    return x - _spread(top, x, axes), top


def logsumexp(x: Value, axis: Any = None, keepdims: bool = False) -> Node:
    """log(sum(exp(x))), without overflow; -inf where all elements are."""
    x = as_node(x)
    axes = normalize_axes(axis, x.ndim)
    top = make("max", x, axes=axes)
    top = stop_gradient(where(lt(abs(top), full_like(top, np.inf)), top, 0.0))
    y = log(make("sum", exp(x - _spread(top, x, axes)), axes=axes)) + top
    return reshape(y, _kept(x.shape, axes)) if keepdims else y


def softmax(x: Value, axis: Any = -1) -> Node:
    """exp(x) / sum(exp(x)), without overflow."""
    x = as_node(x)
    axes = normalize_axes(axis, x.ndim)
    e = exp(_shifted(x, axes)[0])
    return e / _spread(make("sum", e, axes=axes), x, axes)


def log_softmax(x: Value, axis: Any = -1) -> Node:
    """log(softmax(x)), without overflow or cancellation."""
    x = as_node(x)
    axes = normalize_axes(axis, x.ndim)
    shifted, _ = _shifted(x, axes)
    return shifted - _spread(log(make("sum", exp(shifted), axes=axes)), x, axes)


__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "log_softmax",
    "logsumexp",
    "max",
    "mean",
    "min",
    "prod",
    "softmax",
    "sum",
    "var",
]
