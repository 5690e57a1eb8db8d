"""Takes values, gives the same values at other places: the VIEW records and their functions.

Every record states its index algebra as `sources`: from which operand, at which indices and under
which guards an output element comes. A symbolic extent is reshaped and carried along, never cut.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ir.graph import Node, make
from ir.index import Guard, Index, flatten, unflatten
from ir.op import Sample, Source
from ir.ops.core import Array, Value, as_node, dim_less, index_of, promote, random_for, view
from ir.types import Dim, Extent, Shape, TensorType, as_dim, divide, multiply

Indices = tuple[Index, ...]
Types = Sequence[TensorType]
Ints = tuple[int, ...]


def _samples(name: str, *cases: tuple[tuple[int, ...], dict[str, Any]]) -> list[Sample]:
    random = random_for(name)
    return [Sample((random.normal(size=shape),), attrs) for shape, attrs in cases]


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
    samples=lambda: _samples(
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
    samples=lambda: _samples(
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
    samples=lambda: _samples(
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

# --------------------------------------------------------------------------- slice, pad, flip


def _slice_type(x: TensorType, *, starts: Ints, stops: Shape, steps: Ints) -> TensorType:
    shape: list[Dim] = []
    for axis, dim in enumerate(x.shape):
        start, stop, step = starts[axis], stops[axis], steps[axis]
        if isinstance(dim, Extent):
            if (start, stop, step) != (0, dim, 1):
                raise ValueError(f"slice of the symbolic extent '{dim}' on axis {axis} of {x}")
            shape.append(dim)
            continue
        if step < 1 or not isinstance(stop, int) or not 0 <= start <= stop <= dim:
            raise ValueError(f"slice {start}:{stop}:{step} does not fit axis {axis} of {x}")
        shape.append(-(-(stop - start) // step))
    return x.with_shape(shape)


def _slice_vjp(g: Node, y: Node, x: Node, *, starts: Ints, stops: Shape, steps: Ints) -> Node:
    """Zeros between the rows of g (a pad of a new axis, merged), then zeros around them."""
    for axis, step in enumerate(steps):
        if step > 1:
            high = (0,) * (axis + 1) + (step - 1,) + (0,) * (g.ndim - axis - 1)
            spread = pad(expand_dims(g, axis + 1), (0,) * len(high), high)
            merged = multiply((g.shape[axis], step))
            g = reshape(spread, (*g.shape[:axis], merged, *g.shape[axis + 1 :]))
    high_pad = []
    for axis, dim in enumerate(x.shape):
        rest = 0 if isinstance(dim, Extent) else dim - starts[axis] - _static(g.shape[axis])
        if rest < 0:
            g = slice_axis(g, axis, 0, _static(g.shape[axis]) + rest)
        high_pad.append(max(rest, 0))
    return pad(g, starts, high_pad)


def _static(dim: Dim) -> int:
    assert isinstance(dim, int)
    return dim


def _slice_evaluate(x: Array, *, starts: Ints, stops: Ints, steps: Ints) -> Array:
    return x[tuple(builtins.slice(*key) for key in zip(starts, stops, steps, strict=True))]


def _slice_sources(
    indices: Indices, types: Types, *, starts: Ints, stops: Shape, steps: Ints
) -> tuple[Source, ...]:
    return (Source(0, tuple(i * k + s for i, s, k in zip(indices, starts, steps, strict=True))),)


view(
    "slice",
    _slice_type,
    _slice_evaluate,
    _slice_sources,
    vjp=_slice_vjp,
    samples=lambda: _samples(
        "slice",
        ((7,), {"starts": (2,), "stops": (6,), "steps": (1,)}),
        ((7,), {"starts": (1,), "stops": (7,), "steps": (2,)}),
        ((7,), {"starts": (0,), "stops": (7,), "steps": (3,)}),
        ((5, 8), {"starts": (1, 0), "stops": (4, 7), "steps": (2, 3)}),
        ((3,), {"starts": (2,), "stops": (2,), "steps": (1,)}),
        ((1000,), {"starts": (17,), "stops": (993,), "steps": (1,)}),
    ),
    doc="elements starts, starts + steps, ... below stops of every axis",
)


def slice_(x: Value, starts: Sequence[int], stops: Shape, steps: Sequence[int]) -> Node:
    """x[start:stop:step, ...] with exact bounds on every axis and steps > 0."""
    node = as_node(x)
    if stops == node.shape and not any(starts) and all(s == 1 for s in steps):
        return node
    return make("slice", node, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def slice_axis(x: Value, axis: int, start: int, stop: int, step: int = 1) -> Node:
    """x[start:stop:step] along one axis, all of the others."""
    x = as_node(x)
    at = axis % x.ndim
    starts, steps, stops = [0] * x.ndim, [1] * x.ndim, list(x.shape)
    starts[at], stops[at], steps[at] = start, stop, step
    return slice_(x, starts, tuple(stops), steps)


def _pad_type(x: TensorType, *, low: Ints, high: Ints, value: float) -> TensorType:
    if len(low) != x.rank or len(high) != x.rank or any(p < 0 for p in (*low, *high)):
        raise ValueError(f"pad of {x} by {low} and {high}")
    return x.with_shape(dim_less(d, -a - b) for d, a, b in zip(x.shape, low, high, strict=True))


def _pad_evaluate(x: Array, *, low: Ints, high: Ints, value: float) -> Array:
    widths = list(zip(low, high, strict=True))
    return np.pad(x, widths, constant_values=value) if widths else x


def _pad_sources(
    indices: Indices, types: Types, *, low: Ints, high: Ints, value: float
) -> tuple[Source, ...]:
    inner = tuple(i - a for i, a in zip(indices, low, strict=True))
    guards = tuple(
        Guard(i, 0, d)
        for i, d, a, b in zip(inner, types[0].shape, low, high, strict=True)
        if a or b
    )
    return (Source(0, inner, guards),)


def _pad_vjp(g: Node, y: Node, x: Node, *, low: Ints, high: Ints, value: float) -> Node:
    stops = tuple(d if a == 0 else d + a for d, a in zip(x.shape, low, strict=True))  # type: ignore[operator]
    return slice_(g, low, stops, (1,) * x.ndim)


view(
    "pad",
    _pad_type,
    _pad_evaluate,
    _pad_sources,
    vjp=_pad_vjp,
    samples=lambda: _samples(
        "pad",
        ((7,), {"low": (2,), "high": (1,), "value": 0.0}),
        ((3, 5), {"low": (0, 1), "high": (2, 0), "value": 1.5}),
        ((0,), {"low": (1,), "high": (2,), "value": 3.0}),
        ((33,), {"low": (17,), "high": (0,), "value": 0.0}),
        ((1000,), {"low": (1,), "high": (7,), "value": -1.0}),
    ),
    doc="`low` elements of `value` before and `high` after every axis",
)


def pad(x: Value, low: Sequence[int], high: Sequence[int], value: float = 0) -> Node:
    """x with `low` elements of `value` before and `high` after every axis."""
    node = as_node(x)
    if not any(low) and not any(high):
        return node
    if isinstance(value, float) and not node.dtype.is_float:
        raise TypeError(f"{value!r} does not fit a value of dtype {node.dtype}")
    convert = {"float": float, "bool": bool}.get(node.dtype.kind, int)
    return make("pad", node, low=tuple(low), high=tuple(high), value=convert(value))


def _flip_type(x: TensorType, *, axes: Ints) -> TensorType:
    for axis in axes:
        if not 0 <= axis < x.rank or isinstance(x.shape[axis], Extent):
            raise ValueError(f"flip of axis {axis} of {x}")
    return x


def _flip_sources(indices: Indices, types: Types, *, axes: Ints) -> tuple[Source, ...]:
    shape = types[0].shape
    flipped = (
        index_of(_static(shape[a]) - 1) - i if a in axes else i for a, i in enumerate(indices)
    )
    return (Source(0, tuple(flipped)),)


view(
    "flip",
    _flip_type,
    lambda x, *, axes: np.flip(x, axes),
    _flip_sources,
    vjp=lambda g, y, x, *, axes: make("flip", g, axes=axes),
    samples=lambda: _samples(
        "flip",
        ((7,), {"axes": (0,)}),
        ((3, 5), {"axes": (0, 1)}),
        ((2, 3, 7), {"axes": (1,)}),
        ((0,), {"axes": (0,)}),
        ((33,), {"axes": (0,)}),
        ((1000,), {"axes": (0,)}),
    ),
    doc="the order along `axes` reversed",
)


def flip(x: Value, axis: Any = None) -> Node:
    """x reversed along one axis, several, or all."""
    from_axes = range(as_node(x).ndim) if axis is None else np.atleast_1d(axis).tolist()
    axes = tuple(sorted(a % as_node(x).ndim for a in from_axes))
    return make("flip", as_node(x), axes=axes) if axes else as_node(x)


# --------------------------------------------------------------------------- concatenate


def _concatenate_type(*types: TensorType, axis: int) -> TensorType:
    first = types[0] if types else None
    if first is None or not 0 <= axis < first.rank:
        raise ValueError(f"concatenate of {', '.join(map(str, types)) or 'nothing'}, axis {axis}")
    total = 0
    for t in types:
        dim = t.shape[axis] if t.rank == first.rank else None
        same = t.rank == first.rank and all(
            a == b for k, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if k != axis
        )
        if not same or t.dtype != first.dtype or not isinstance(dim, int):
            raise ValueError(f"cannot concatenate {first} and {t} along axis {axis}")
        total += dim
    return first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _concatenate_sources(indices: Indices, types: Types, *, axis: int) -> tuple[Source, ...]:
    found, offset = [], 0
    for number, t in enumerate(types):
        dim = _static(t.shape[axis])
        inner = indices[axis] - offset
        at = (*indices[:axis], inner, *indices[axis + 1 :])
        found.append(Source(number, at, (Guard(inner, 0, dim),)))
        offset += dim
    return tuple(found)


def _concatenate_vjp(g: Node, y: Node, *parts: Node, axis: int) -> tuple[Node, ...]:
    found, offset = [], 0
    for part in parts:
        dim = _static(part.shape[axis])
        found.append(slice_axis(g, axis, offset, offset + dim))
        offset += dim
    return tuple(found)


def _concatenate_samples() -> list[Sample]:
    random = random_for("concatenate")
    cases: list[tuple[list[tuple[int, ...]], int]]
    cases = [([(3,), (4,)], 0), ([(2, 3), (2, 1), (2, 0)], 1), ([(17, 2), (33, 2)], 0), ([(0,)], 0)]
    return [Sample(tuple(random.normal(size=s) for s in ss), {"axis": a}) for ss, a in cases]


view(
    "concatenate",
    _concatenate_type,
    lambda *parts, axis: np.concatenate(parts, axis),
    _concatenate_sources,
    vjp=_concatenate_vjp,
    samples=_concatenate_samples,
    doc="operands one after the other along `axis`",
)


def concatenate(values: Sequence[Value], axis: int = 0) -> Node:
    """The values one after the other along an axis that is not symbolic."""
    nodes = promote(*values)
    if not nodes:
        raise ValueError("concatenate of nothing")
    at = axis % max(nodes[0].ndim, 1)
    return nodes[0] if len(nodes) == 1 else make("concatenate", *nodes, axis=at)


def stack(values: Sequence[Value], axis: int = 0) -> Node:
    """The values side by side along a new axis."""
    nodes = promote(*values)
    at = axis % (nodes[0].ndim + 1)
    return concatenate([expand_dims(n, at) for n in nodes], at)


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
