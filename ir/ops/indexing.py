"""Takes values and index tensors, gives picked or added rows: gather, scatter_add, take, [...].

An index out of range is clamped by gather and ignored by scatter_add; both read and write within
bounds whatever the indices are.
"""

from __future__ import annotations

import builtins
from functools import partial
from typing import Any

import numpy as np

from ir.graph import Node, make
from ir.op import Lowering, Op, Sample, register
from ir.ops.core import INTEGERS, Array, Value, as_node, broadcast_to, full_like, random_for
from ir.ops.elementwise import and_, cast, eq, lt, maximum, minimum, where
from ir.ops.leaves import extent, iota
from ir.ops.pieces import flip, slice_
from ir.ops.reductions import sum
from ir.ops.views import moveaxis, reshape
from ir.types import Dim, DType, Extent, TensorType, boolean, dtype_of, f32

# --------------------------------------------------------------------------- gather


def _gather_type(x: TensorType, indices: TensorType) -> TensorType:
    if indices.dtype.kind not in INTEGERS:
        raise ValueError(f"gather with indices of {indices.dtype}: they must be integers")
    if x.rank == 0 or x.shape[0] == 0:
        raise ValueError(f"gather of rows from {x}: there are none")
    return x.with_shape((*indices.shape, *x.shape[1:]))


def _gather_evaluate(x: Array, indices: Array) -> Array:
    if x.shape[0] == 0:
        return np.zeros(indices.shape + x.shape[1:], x.dtype)
    return x[_clip(indices, x.shape[0])]


def _clip(indices: Array, size: int) -> Array:
    return np.minimum(np.maximum(indices, 0), size - 1).astype(np.int64)


def _gather_vjp(g: Node, y: Node, x: Node, indices: Node) -> tuple[Node, None]:
    return scatter_add(g, clamp_index(indices, x.shape[0]), x.shape[0]), None


def clamp_index(indices: Node, size: Dim) -> Node:
    """The indices moved into 0 .. size - 1; constants that lie there are left alone."""
    if indices.op.name == "constant" and isinstance(size, int):
        known = indices.attrs["value"].array
        if np.all((known >= 0) & (known < size)):
            return indices
    last = extent(size, indices.dtype) - 1
    return minimum(maximum(indices, 0), last)


def _index_samples(name: str) -> tuple[np.random.Generator, list[tuple[Any, Any]]]:
    cases = [((7, 3), (5,)), ((5,), (17,)), ((4, 2), (0,)), ((33, 7), (3, 2)), ((1, 1000), (1,))]
    return random_for(name), cases


def _gather_samples() -> list[Sample]:
    random, cases = _index_samples("gather")
    return [
        Sample((random.normal(size=x), random.integers(-2, x[0] + 2, i, np.int32)))
        for x, i in cases
    ]


register(
    Op(
        "gather",
        Lowering.GATHER,
        _gather_type,
        _gather_evaluate,
        _gather_vjp,
        _gather_samples,
        doc="x[indices] along axis 0; an index out of range is clamped",
    )
)


def gather(x: Value, indices: Value) -> Node:
    """Rows of axis 0: indices.shape + x.shape[1:]; an index out of range is clamped."""
    return make("gather", as_node(x), as_node(indices))


# --------------------------------------------------------------------------- scatter_add


def _scatter_type(updates: TensorType, indices: TensorType, *, size: Dim) -> TensorType:
    if indices.dtype.kind not in INTEGERS:
        raise ValueError(f"scatter_add with indices of {indices.dtype}: they must be integers")
    if updates.shape[: indices.rank] != indices.shape or updates.dtype == boolean:
        raise ValueError(f"scatter_add of {updates} at indices {indices}")
    return updates.with_shape((size, *updates.shape[indices.rank :]))


def _scatter_evaluate(updates: Array, indices: Array, *, size: int) -> Array:
    base = np.zeros((size, *updates.shape[indices.ndim :]), updates.dtype)
    return _onto_evaluate(base, updates, indices)


def _onto_evaluate(base: Array, updates: Array, indices: Array) -> Array:
    result, size, rows = base.copy(), base.shape[0], base.shape[1:]
    flat = indices.reshape(-1)
    inside = (flat >= 0) & (flat < size)
    np.add.at(result, flat[inside].astype(np.int64), updates.reshape(flat.size, *rows)[inside])
    return result


def _scatter_vjp(
    g: Node, y: Node, updates: Node, indices: Node, *, size: Dim
) -> tuple[Node | None, None]:
    return _updates_cotangent(g, updates, indices), None


def _onto_vjp(
    g: Node, y: Node, base: Node, updates: Node, indices: Node
) -> tuple[Node, Node | None, None]:
    return g, _updates_cotangent(g, updates, indices), None


def _updates_cotangent(g: Node, updates: Node, indices: Node) -> Node | None:
    size = g.shape[0]
    if size == 0:
        return None
    rows = gather(g, indices)
    kept = reshape(inside(indices, size), indices.shape + (1,) * (rows.ndim - indices.ndim))
    return where(kept, rows, 0.0)


def inside(indices: Node, size: Dim) -> Node:
    """Which of the indices are in 0 .. size - 1."""
    return and_(
        lt(full_like(indices, -1), indices) if indices.dtype.kind == "int" else True,
        lt(indices, extent(size, indices.dtype)),
    )


def _onto_type(base: TensorType, updates: TensorType, indices: TensorType) -> TensorType:
    if base.rank == 0 or _scatter_type(updates, indices, size=base.shape[0]) != base:
        raise ValueError(f"scatter_onto {base} of {updates} at indices {indices}")
    return base


def samples_of_base(name: str) -> list[Sample]:
    """Of an op (base, updates, indices); some indices are out of range."""
    random, cases = _index_samples(name)
    return [
        Sample(
            (
                random.normal(size=x),
                random.normal(size=(*i, *x[1:])),
                random.integers(-2, x[0] + 2, i, np.int32),
            )
        )
        for x, i in cases
    ]


def samples_of_size(name: str) -> list[Sample]:
    """Of an op (updates, indices) with a size; some indices are out of range."""
    random, cases = _index_samples(name)
    return [
        Sample(
            (random.normal(size=(*i, *x[1:])), random.integers(-2, x[0] + 2, i, np.int32)),
            {"size": x[0]},
        )
        for x, i in cases
    ]


register(
    Op(
        "scatter_add",
        Lowering.SCATTER,
        _scatter_type,
        _scatter_evaluate,
        _scatter_vjp,
        partial(samples_of_size, "scatter_add"),
        combine="sum",
        doc="zeros, with every row of updates added at its index; others are ignored",
    )
)


register(
    Op(
        "scatter_onto",
        Lowering.SCATTER,
        _onto_type,
        _onto_evaluate,
        _onto_vjp,
        partial(samples_of_base, "scatter_onto"),
        combine="sum",
        doc="base, with every row of updates added at its index; others are ignored",
    )
)


def scatter_onto(base: Value, updates: Value, indices: Value) -> Node:
    """base with updates[i] added to row indices[i]; out of range: ignored."""
    return make("scatter_onto", as_node(base), as_node(updates), as_node(indices))


def scatter_add(updates: Value, indices: Value, size: Dim) -> Node:
    """(size, ...) zeros with updates[i] added to row indices[i]; out of range: ignored."""
    return make("scatter_add", as_node(updates), as_node(indices), size=size)


# --------------------------------------------------------------------------- composites


def one_hot(indices: Value, size: int, dtype: DType | str = f32) -> Node:
    """1 at the index along a new last axis, else 0; all 0 where the index is out of range."""
    indices = as_node(indices)
    shape = (*indices.shape, size)
    spread = make("broadcast", indices, shape=shape, axes=tuple(range(indices.ndim)))
    return cast(eq(spread, iota(shape, len(shape) - 1, indices.dtype)), dtype_of(dtype))


def take(x: Value, indices: Value, axis: int | None = None) -> Node:
    """numpy.take with clamped indices: x at the indices along an axis (flattened if None)."""
    x, indices = as_node(x), as_node(indices)
    if axis is None:
        return gather(reshape(x, (-1,)), indices)
    at = axis % x.ndim
    if at == 0:
        return gather(x, indices)
    if not isinstance(x.shape[0], Extent):
        rows = gather(moveaxis(x, at, 0), indices)
        order = [*range(indices.ndim, indices.ndim + at), *range(indices.ndim)]
        order += range(indices.ndim + at, rows.ndim)
        return make("transpose", rows, perm=tuple(order)) if indices.ndim else rows
    return _select(x, clamp_index(indices, x.shape[at]), at)


def _select(x: Node, indices: Node, at: int) -> Node:
    """x at the indices along an axis behind a symbolic one: a masked sum."""
    before, size, after = x.shape[:at], x.shape[at], x.shape[at + 1 :]
    shape = (*before, *indices.shape, size, *after)
    place = reshape(indices, (*indices.shape, 1, *(1 for _ in after)))
    values = reshape(x, (*before, *(1 for _ in indices.shape), size, *after))
    hit = eq(broadcast_to(place, shape), iota(shape, at + indices.ndim, indices.dtype))
    return sum(where(hit, broadcast_to(values, shape), 0), at + indices.ndim)


def take_along_axis(x: Value, indices: Value, axis: int) -> Node:
    """x at one index per line along `axis` (indices of length one there), as NumPy."""
    x, indices = as_node(x), as_node(indices)
    at = axis % x.ndim
    if indices.ndim != x.ndim or indices.shape[at] != 1:
        raise ValueError(f"take_along_axis of {x.type} with {indices.type} on axis {axis}")
    place = broadcast_to(clamp_index(indices, x.shape[at]), x.shape)
    return sum(where(eq(place, iota(x.shape, at, indices.dtype)), x, 0), at, keepdims=True)


# --------------------------------------------------------------------------- x[...]


def getitem(x: Node, key: Any) -> Node:
    """NumPy's basic indexing, and one integer array; a symbolic extent only as a whole."""
    keys = list(key) if isinstance(key, tuple) else [key]
    used = builtins.sum(k is not None and k is not Ellipsis for k in keys)
    if used > x.ndim:
        raise IndexError(f"{used} indices for {x.type}")
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can have only one '...'")
    at = dots[0] if dots else len(keys)
    keys[at : at + 1] = [builtins.slice(None)] * (x.ndim - used)
    return _index(x, keys)


def _index(x: Node, keys: list[Any]) -> Node:
    starts, stops, steps, flips = [], [], [], []
    arrays: list[tuple[int, Any]] = []
    shape: list[Dim | None] = []  # None: the extent that slicing leaves
    axis = 0
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        dim = x.shape[axis]
        if isinstance(k, (int, np.integer)) and not isinstance(k, bool):
            start = _position(int(k), dim, x)
            bounds: tuple[int, Dim, int] = (start, start + 1, 1)
        elif isinstance(k, builtins.slice):
            bounds, reverse = _bounds(k, dim, x)
            flips += [axis] if reverse else []
            shape.append(None)
        elif isinstance(k, (Node, np.ndarray, list)):
            bounds = (0, dim, 1)
            arrays.append((len(shape), k))
            shape.append(None)
        else:
            raise TypeError(f"{k!r} is not an index of a symbolic value")
        starts.append(bounds[0])
        stops.append(bounds[1])
        steps.append(bounds[2])
        axis += 1
    y = slice_(x, starts, tuple(stops), steps)
    y = flip(y, flips) if flips else y
    kept = [
        d
        for d, k in zip(y.shape, (k for k in keys if k is not None), strict=True)
        if not isinstance(k, (int, np.integer))
    ]
    rest = iter(kept)
    y = reshape(y, tuple(next(rest) if d is None else d for d in shape))
    if len(arrays) > 1:
        raise IndexError("an index can have only one integer array")
    return take(y, arrays[0][1], arrays[0][0]) if arrays else y


def _position(k: int, dim: Dim, x: Node) -> int:
    if isinstance(dim, Extent):
        raise ValueError(f"the symbolic extent '{dim}' of {x.type} cannot be indexed")
    if not -dim <= k < dim:
        raise IndexError(f"index {k} is out of bounds for an axis of length {dim} of {x.type}")
    return k % dim


def _bounds(k: builtins.slice, dim: Dim, x: Node) -> tuple[tuple[int, Dim, int], bool]:
    """Exact (start, stop, step > 0), and whether the result is to be reversed."""
    if isinstance(dim, Extent):
        if (k.start, k.stop, k.step) not in ((None, None, None), (0, None, None), (None, None, 1)):
            raise ValueError(f"the symbolic extent '{dim}' of {x.type} can only be taken whole")
        return (0, dim, 1), False
    places = range(dim)[k]
    if len(places) == 0:
        return (0, 0, 1), False
    if places.step < 0:
        places = places[::-1]
    return (places.start, places[-1] + 1, places.step), range(dim)[k].step < 0


__all__ = [
    "clamp_index",
    "gather",
    "getitem",
    "inside",
    "one_hot",
    "samples_of_base",
    "samples_of_size",
    "scatter_add",
    "scatter_onto",
    "take",
    "take_along_axis",
]
