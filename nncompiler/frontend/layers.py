"""Takes the values that a node's edges bring and its attributes, gives the node's value.

One function per kind: what comes first are the operands (`*values` for any number), the keywords
are the node's attributes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import DType, bind_dim, boolean, dtype_of, multiply
from nncompiler.frontend.activations import make_activation
from nncompiler.frontend.common import DRAWN, WEIGHTED, Drawn, Weighted
from nncompiler.frontend.kinds import checked_shape, count, kind
from nncompiler.frontend.schedules import check_number
from nncompiler.frontend.site import Site
from nncompiler.frontend.weights import make_weight

# --------------------------------------------------------------------------- leaves


@kind
def input(site: Site, *, shape: Sequence[Any], dtype: object = None) -> Node:
    return site.input(checked_shape(shape), _dtype(site, dtype))


@kind
def constant(site: Site, *, value: Any, dtype: object = None) -> Node:
    array = np.asarray(value)
    known = boolean if dtype is None and array.dtype.kind == "b" else _dtype(site, dtype)
    return ops.constant(array.astype(known.numpy), known)


@kind
def parameter(
    site: Site,
    *,
    shape: Sequence[int],
    given: Drawn = DRAWN,
) -> Node:
    sizes = [bind_dim(d, {}) for d in checked_shape(shape, symbols=False)]
    fans = (math.prod(sizes[:-1]), sizes[-1]) if sizes else (1, 1)
    is_weight = len(sizes) > 1 or given.regularizer is not None
    return given.weight(site, "", sizes, fans=fans, is_weight=is_weight)


# --------------------------------------------------------------------------- layers


@kind
def dense(
    site: Site,
    x: Node,
    *,
    units: int,
    given: Weighted = WEIGHTED,
) -> Node:
    """activation(x @ weight + bias), weight (inputs, units); see `make_weight` for its norms."""
    units = count("units", units)
    inputs = x.shape[-1] if x.shape else None
    if not isinstance(inputs, int):
        raise ValueError("dense needs a value whose last axis is a number of features")
    fans = (inputs, units)
    z = ops.matmul(x, make_weight(site, (inputs, units), units=1, fans=fans, given=given))
    if given.use_bias:
        z = z + given.bias(site, "bias", (units,), fans=fans)
    return activate(site, z, given.activation)


def activate(site: Site, z: Node, activation: object) -> Node:
    """The activation of z, with z named `node.z` where the two differ."""
    name, function = make_activation(activation)
    y = function(z)
    if y.shape != z.shape:
        raise ValueError(f"the activation '{name}' gave {y.type} for {z.type}")
    if y is not z:
        site.call_it(z, "z")
    last_axis = getattr(function, "keywords", {}).get("axis", -1) in (-1, z.ndim - 1)
    return site.ends_in(name, y, z) if last_axis else y


@kind
def activation(site: Site, x: Node, *, function: object) -> Node:
    return activate_only(site, x, function)


def activate_only(site: Site, x: Node, function: object) -> Node:
    """As `activate`, where x is another node's value and keeps that name."""
    name, call = make_activation(function)
    y = call(x)
    last_axis = getattr(call, "keywords", {}).get("axis", -1) in (-1, x.ndim - 1)
    return site.ends_in(name, y, x) if last_axis else y


@kind
def dropout(site: Site, x: Node, *, rate: float, spatial: bool = False) -> Node:
    """Zeros with probability `rate`, the rest scaled by 1 / (1 - rate); x itself at inference.

    With `spatial` whole channels (axis 1) are dropped, all their places together.
    The mask is a function of seed, counter and this node's name, so it is never stored.
    """
    if spatial and x.ndim < 3:
        raise ValueError("spatial dropout needs a value of shape (batch, channels, space...)")
    check_number("rate", rate, high=1.0, open_high=True)
    if not site.program.training or rate == 0.0:
        return x
    seed, counter = site.random_source()
    key = (ops.constant(site.number, "u32"), seed)
    shape = x.shape[:2] if spatial else x.shape
    mask = site.call_it(ops.uniform(key, counter, shape, x.dtype) >= float(rate), "mask")
    if spatial:
        mask = ops.reshape(mask, (*shape, *(1 for _ in x.shape[2:])))
    return ops.where(mask, x * (1.0 / (1.0 - rate)), 0.0)


# --------------------------------------------------------------------------- arithmetic


def _fold(function: Callable[[Node, Node], Node], *values: Node) -> Node:
    return functools.reduce(function, values)


@kind
def add(site: Site, *values: Node) -> Node:
    return _fold(ops.add, *values)


@kind
def mul(site: Site, *values: Node) -> Node:
    return _fold(ops.mul, *values)


@kind
def maximum(site: Site, *values: Node) -> Node:
    return _fold(ops.maximum, *values)


@kind
def minimum(site: Site, *values: Node) -> Node:
    return _fold(ops.minimum, *values)


@kind
def sub(site: Site, a: Node, b: Node) -> Node:
    return a - b


@kind
def div(site: Site, a: Node, b: Node) -> Node:
    return a / b


@kind
def matmul(site: Site, a: Node, b: Node) -> Node:
    return a @ b


# --------------------------------------------------------------------------- shapes


@kind
def concat(site: Site, *values: Node, axis: int = 1) -> Node:
    return ops.concatenate(values, axis)


kind(concat, "concatenate")


@kind
def reshape(site: Site, x: Node, *, shape: Sequence[int]) -> Node:
    """The axes after the batch as `shape`, which may hold one -1."""
    return ops.reshape(x, (*x.shape[:1], *shape))


@kind
def flatten(site: Site, x: Node) -> Node:
    return ops.reshape(x, (*x.shape[:1], multiply(x.shape[1:])))


@kind
def transpose(site: Site, x: Node, *, perm: Sequence[int]) -> Node:
    return ops.transpose(x, tuple(perm))


@kind
def slice_(
    site: Site,
    x: Node,
    *,
    axis: int = 1,
    start: int | None = None,
    stop: int | None = None,
    step: int | None = None,
    index: Any = None,
) -> Node:
    """start:stop:step along one axis, or x[index] with NumPy's index."""
    if index is not None:
        return x[tuple(index) if isinstance(index, list) else index]
    ends = {"start": start, "stop": stop, "step": step}
    for name, value in {"axis": axis, **{n: v for n, v in ends.items() if v is not None}}.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(
                f"{name} has to be a whole number, not {value!r}; index= takes several axes"
            )
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis {axis} is out of bounds for {x.type}")
    before = (slice(None),) * (axis % x.ndim)
    return x[(*before, slice(start, stop, step))]


@kind
def pad(site: Site, x: Node, *, pad_width: Any, constant_values: float = 0.0) -> Node:
    """As numpy.pad with mode "constant"; a pair per axis, the batch's among them."""
    widths = np.asarray(pad_width)
    if widths.shape != (x.ndim, 2) or widths.dtype.kind not in "iu" or (widths < 0).any():
        raise ValueError(
            f"pad_width has a pair of numbers from 0 for each of {x.ndim} axes, the batch's first: "
            f"{tuple((0, 0) for _ in x.shape)} pads nothing; not {pad_width!r}"
        )
    low, high = widths.T.tolist()
    return ops.pad(x, low, high, constant_values)


# --------------------------------------------------------------------------- reductions


def _reduction(name: str) -> None:
    function = getattr(ops, name)

    def build(site: Site, x: Node, *, axis: Any = -1, keepdims: bool = False) -> Node:
        result = function(x, tuple(axis) if isinstance(axis, list) else axis, keepdims)
        assert isinstance(result, Node)
        return result

    kind(build, name)


for _name in ("sum", "mean", "max", "min", "prod", "var", "any", "all", "logsumexp"):
    _reduction(_name)


@kind
def argmax(site: Site, x: Node, *, axis: int = -1) -> Node:
    return ops.argmax(x, axis)


@kind
def argmin(site: Site, x: Node, *, axis: int = -1) -> Node:
    return ops.argmin(x, axis)


def _dtype(site: Site, dtype: object) -> DType:
    return site.program.dtype if dtype is None else dtype_of(dtype)
