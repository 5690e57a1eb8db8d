"""Takes values, gives the same values at other places: the VIEW records and their functions.

Every record states its index algebra as `sources`: from which operand, at which indices and under
which guards an output element comes. A symbolic extent is reshaped and carried along, never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ir.graph import Node, make
from ir.index import Index, flatten, unflatten
from ir.op import Sample, Source
from ir.ops.core import Array, Value, as_node, samples_of, view
from ir.types import Dim, Extent, Shape, TensorType, as_dim, divide, multiply

Indices = tuple[Index, ...]
Types = Sequence[TensorType]
Ints = tuple[int, ...]


# --------------------------------------------------------------------------- reshape


def _size(shape: Shape) -> Dim:
    return 0 if 0 in shape else multiply(shape)


def _reshape_type(x: TensorType, *, shape: Shape) -> TensorType:
    result = x.with_shape(shape)
    if _size(x.shape) != _size(shape):
        raise ValueError(f"cannot reshape {x} to ({', '.join(map(str, shape))})")
    return result


def _reshape_sources(indices: Indices, types: Types, *, shape: Shape) -> tuple[Source, ...]:
    offset = flatten(indices, types[0].with_shape(shape).strides)
    return (Source(0, unflatten(offset, types[0].shape)),)


view(
    "reshape",
    _reshape_type,
    lambda x, *, shape: x.reshape(shape),
    _reshape_sources,
    vjp=lambda g, y, x, *, shape: make("reshape", g, shape=x.shape),
    samples=lambda: samples_of(
        "reshape",
        ((6, 7), {"shape": (42,)}),
        ((6, 7), {"shape": (2, 3, 7)}),
        ((6, 7), {"shape": (7, 6)}),
        ((3, 4, 5), {"shape": (4, 15)}),
        ((0, 3), {"shape": (3, 0)}),
        ((1,), {"shape": ()}),
        ((1000,), {"shape": (8, 125)}),
    ),
    doc="the values in row-major order under another shape",
)


def reshape(x: Value, shape: Any) -> Node:
    """x under another shape; one entry may be -1; a symbolic extent may be merged and split."""
    x = as_node(x)
    given = (shape,) if isinstance(shape, (int, np.integer, str, Extent)) else tuple(shape)
    dims = tuple(as_dim(d) for d in given)
    if -1 in dims:
        dims = _infer(x, dims)
    return x if dims == x.shape else make("reshape", x, shape=dims)


def _infer(x: Node, dims: Shape) -> Shape:
    rest = multiply(d for d in dims if d != -1)
    missing = divide(_size(x.shape), rest)
    if dims.count(-1) > 1 or missing is None:
        raise ValueError(f"cannot reshape {x.type} to ({', '.join(map(str, dims))})")
    return tuple(missing if d == -1 else d for d in dims)


def ravel(x: Value) -> Node:
    """x as a vector."""
    return reshape(x, (-1,)) if 0 not in as_node(x).shape else reshape(x, (0,))


def expand_dims(x: Value, axis: int) -> Node:
    """x with a new axis of length one before `axis`."""
    x = as_node(x)
    at = axis % (x.ndim + 1)
    return reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


def squeeze(x: Value, axis: int) -> Node:
    """x without an axis of length one."""
    x = as_node(x)
    at = axis % x.ndim
    if x.shape[at] != 1:
        raise ValueError(f"cannot squeeze axis {axis} of {x.type}")
    return reshape(x, x.shape[:at] + x.shape[at + 1 :])


# --------------------------------------------------------------------------- transpose, broadcast


def _transpose_type(x: TensorType, *, perm: Ints) -> TensorType:
    if sorted(perm) != list(range(x.rank)):
        raise ValueError(f"{perm} is not a permutation of the axes of {x}")
    return x.with_shape(x.shape[p] for p in perm)


def _transpose_sources(indices: Indices, types: Types, *, perm: Ints) -> tuple[Source, ...]:
    return (Source(0, tuple(indices[perm.index(a)] for a in range(len(perm)))),)


view(
    "transpose",
    _transpose_type,
    lambda x, *, perm: np.transpose(x, perm),
    _transpose_sources,
    vjp=lambda g, y, x, *, perm: transpose(g, [perm.index(a) for a in range(len(perm))]),
    samples=lambda: samples_of(
        "transpose",
        ((3, 5), {"perm": (1, 0)}),
        ((2, 3, 7), {"perm": (2, 0, 1)}),
        ((0, 3), {"perm": (1, 0)}),
        ((33, 17), {"perm": (1, 0)}),
        ((1000, 1), {"perm": (1, 0)}),
    ),
    doc="axis a of the result is axis perm[a] of the operand",
)


def transpose(x: Value, perm: Iterable[int] | None = None) -> Node:
    """x with its axes permuted, reversed where no permutation is given."""
    x = as_node(x)
    order = tuple(range(x.ndim))[::-1] if perm is None else tuple(p % max(x.ndim, 1) for p in perm)
    return x if order == tuple(range(x.ndim)) else make("transpose", x, perm=order)


def swapaxes(x: Value, axis1: int, axis2: int) -> Node:
    """x with two axes exchanged."""
    x = as_node(x)
    perm = list(range(x.ndim))
    perm[axis1], perm[axis2] = perm[axis2], perm[axis1]
    return transpose(x, perm)


def moveaxis(x: Value, source: int, destination: int) -> Node:
    """x with one axis moved to another place."""
    x = as_node(x)
    perm = [a for a in range(x.ndim) if a != source % x.ndim]
    perm.insert(destination % x.ndim, source % x.ndim)
    return transpose(x, perm)


def _broadcast_type(x: TensorType, *, shape: Shape, axes: Ints) -> TensorType:
    result = x.with_shape(shape)
    ascending = list(axes) == sorted(set(axes)) and all(0 <= a < len(shape) for a in axes)
    if len(axes) != x.rank or not ascending or tuple(shape[a] for a in axes) != x.shape:
        raise ValueError(f"cannot broadcast {x} to {result} with its axes at {axes}")
    return result


def _broadcast_evaluate(x: Array, *, shape: Ints, axes: Ints) -> Array:
    middle = [shape[a] if a in axes else 1 for a in range(len(shape))]
    return np.broadcast_to(x.reshape(middle), shape)


def _broadcast_vjp(g: Node, y: Node, x: Node, *, shape: Shape, axes: Ints) -> Node:
    return make("sum", g, axes=tuple(a for a in range(len(shape)) if a not in axes))


def _broadcast_sources(
    indices: Indices, types: Types, *, shape: Shape, axes: Ints
) -> tuple[Source, ...]:
    return (Source(0, tuple(indices[a] for a in axes)),)


view(
    "broadcast",
    _broadcast_type,
    _broadcast_evaluate,
    _broadcast_sources,
    vjp=_broadcast_vjp,
    samples=lambda: samples_of(
        "broadcast",
        ((), {"shape": (7,), "axes": ()}),
        ((5,), {"shape": (3, 5), "axes": (1,)}),
        ((3,), {"shape": (3, 5), "axes": (0,)}),
        ((2, 7), {"shape": (2, 3, 7), "axes": (0, 2)}),
        ((0,), {"shape": (3, 0), "axes": (1,)}),
        ((17,), {"shape": (1, 17), "axes": (1,)}),
        ((33,), {"shape": (33, 31), "axes": (0,)}),
    ),
    doc="axis a of the operand is axis axes[a] (ascending) of the result; the others repeat",
)

# --------------------------------------------------------------------------- stop_gradient

view(
    "stop_gradient",
    lambda x: x,
    lambda x: x,
    lambda indices, types: (Source(0, indices),),
    samples=lambda: [Sample((np.arange(7.0),), smooth=False)],
    doc="the operand, as a constant for differentiation",
)


def stop_gradient(x: Value) -> Node:
    """x itself, but a constant for differentiation."""
    return make("stop_gradient", as_node(x))
