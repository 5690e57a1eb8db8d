"""Takes values and index tensors, gives overwritten rows: scatter_set, latest.

    scatter_set(base, rows, i)   base with row i[b] replaced by rows[b]; of several the last counts
    latest(values, i)            values[b'], where b' is the last position with i[b'] == i[b]

Both are what an update needs that changes some rows of a table: sums of rows with the same index
(scatter_add at `latest` positions), and new values for them, whatever the size of the table.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ir.graph import Node, make
from ir.op import READS_BACK, Lowering, Op, register
from ir.ops.core import INTEGERS, Array, Value, as_node
from ir.ops.elementwise import eq, where
from ir.ops.indexing import (
    gather,
    inside,
    samples_of_base,
    samples_of_size,
    scatter_add,
)
from ir.ops.leaves import iota
from ir.ops.views import reshape
from ir.types import Dim, TensorType, i32, multiply

# --------------------------------------------------------------------------- scatter_set


def _set_type(base: TensorType, updates: TensorType, indices: TensorType) -> TensorType:
    _check("scatter_set", updates, indices)
    if base.rank == 0 or base.with_shape(updates.shape) != updates:
        raise ValueError(f"scatter_set of {updates} into {base}")
    if updates.shape[indices.rank :] != base.shape[1:]:
        raise ValueError(f"scatter_set of {updates} into {base} at indices {indices}")
    return base


def _check(name: str, updates: TensorType, indices: TensorType) -> None:
    if indices.dtype.kind not in INTEGERS:
        raise ValueError(f"{name} with indices of {indices.dtype}: they must be integers")
    if updates.shape[: indices.rank] != indices.shape:
        raise ValueError(f"{name} of {updates} at indices {indices}")


def _set_evaluate(base: Array, updates: Array, indices: Array) -> Array:
    result = base.copy()
    last = _last(indices, base.shape[0])
    chosen = last == np.arange(last.size)
    rows = updates.reshape(last.size, *base.shape[1:])
    result[indices.reshape(-1)[chosen].astype(np.int64)] = rows[chosen]
    return result


def _last(indices: Array, size: int) -> Array:
    """For every entry the last position with the same index, -1 where it is out of range."""
    flat = indices.reshape(-1)
    within = (flat >= 0) & (flat < size)
    place = np.full(size, -1, np.int64)
    np.maximum.at(place, flat[within].astype(np.int64), np.flatnonzero(within))
    last = np.full(flat.size, -1, np.int64)
    last[within] = place[flat[within].astype(np.int64)]
    return last


def _set_vjp(g: Node, y: Node, base: Node, updates: Node, indices: Node) -> tuple[Node, Node, None]:
    zeros = where(False, updates, 0.0)
    return scatter_set(g, zeros, indices), _of_last(g, updates, indices), None


def _of_last(g: Node, updates: Node, indices: Node) -> Node:
    """Rows of the table g at the indices for the entry that counts, zeros for the others."""
    size = g.shape[0]
    chosen = inside(indices, size)
    position = reshape(iota((multiply(indices.shape),), 0, i32), indices.shape)
    chosen = chosen & eq(latest(position, indices, size), position)
    chosen = reshape(chosen, indices.shape + (1,) * (updates.ndim - indices.ndim))
    return where(chosen, gather(g, indices), 0.0)


register(
    Op(
        "scatter_set",
        Lowering.SCATTER,
        _set_type,
        _set_evaluate,
        _set_vjp,
        partial(samples_of_base, "scatter_set"),
        combine="set",
        doc="base, with rows replaced at their indices, the last of several; others are ignored",
    )
)


def scatter_set(base: Value, updates: Value, indices: Value) -> Node:
    """base with row indices[i] replaced by updates[i], the last of several; out of range:
    ignored."""
    return make("scatter_set", as_node(base), as_node(updates), as_node(indices))


# --------------------------------------------------------------------------- latest


def _latest_type(values: TensorType, indices: TensorType, *, size: Dim) -> TensorType:
    _check("latest", values, indices)
    return values


def _latest_evaluate(values: Array, indices: Array, *, size: int) -> Array:
    last = _last(indices, size)
    rows = values.reshape(last.size, *values.shape[indices.ndim :])
    return rows[np.where(last < 0, np.arange(last.size), last)].reshape(values.shape)


def _latest_vjp(
    g: Node, y: Node, values: Node, indices: Node, *, size: Dim
) -> tuple[Node | None, None]:
    if size == 0:
        return g, None
    kept = inside(indices, size)
    kept = reshape(kept, indices.shape + (1,) * (values.ndim - indices.ndim))
    total = _of_last(scatter_add(g, indices, size), values, indices)
    return where(kept, total, g), None


register(
    Op(
        "latest",
        Lowering.SCATTER,
        _latest_type,
        _latest_evaluate,
        _latest_vjp,
        partial(samples_of_size, "latest"),
        flags=frozenset({READS_BACK}),
        combine="set",
        doc="every row as that of the last entry with its index; out of range: itself",
    )
)


def latest(values: Value, indices: Value, size: Dim) -> Node:
    """values[b'], b' the last position with indices[b'] == indices[b]; an index outside of
    0 .. size - 1 has its own value. The cost does not depend on `size`."""
    return make("latest", as_node(values), as_node(indices), size=size)


__all__ = ["latest", "scatter_set"]
